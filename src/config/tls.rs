//! The files of TLS: read when the settings are, whole, so that workers get their bytes and need not be able to read them.
//! Not here: what is in them (worker/tls).

use super::error::Problem;
use super::{Bind, Settings, values};
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The largest certificate or key file; a bundle of all public authorities has a quarter of it.
const MAX_FILE: u64 = 1 << 20;

/// What is asked of a client's certificate; the numbers are Gunicorn's, and Python's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertReqs {
    /// 0: it is not asked for.
    None,
    /// 1: one that is shown must be good.
    Optional,
    /// 2: without a good one there is no connection.
    Required,
}

/// What the settings say of TLS, and the bytes of the files that they name.
#[derive(Clone, Debug)]
pub struct TlsSettings {
    pub certfile: Vec<String>,
    pub keyfile: Vec<String>,
    pub ca_certs: Option<PathBuf>,
    pub cert_reqs: CertReqs,
    /// `None`: TLS is off.
    pub(crate) files: Option<Arc<TlsFiles>>,
}

/// Shared, because every generation and every worker has a copy of the settings.
#[derive(PartialEq, Eq)]
pub(crate) struct TlsFiles {
    /// A certificate chain and its key each, in PEM.
    pub(crate) pairs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) ca_certs: Option<Vec<u8>>,
}

/// The keys are in it: it shows nothing.
impl fmt::Debug for TlsFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TlsFiles({} pairs)", self.pairs.len())
    }
}

impl TlsSettings {
    pub(super) const fn blank() -> TlsSettings {
        TlsSettings {
            certfile: Vec::new(),
            keyfile: Vec::new(),
            ca_certs: None,
            cert_reqs: CertReqs::None,
            files: None,
        }
    }
}

impl Settings {
    /// Whether clients speak TLS at `bind`, and in the clear at `plain_bind` alone.
    pub(crate) fn has_tls(&self) -> bool {
        self.tls.files.is_some()
    }

    /// Every address to listen at.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = &Bind> {
        self.bind.iter().chain(&self.plain_bind)
    }

    /// Reads the files, and sees that they belong together and to nobody else.
    pub(super) fn resolve_tls(&mut self, problems: &mut Vec<Problem>) {
        if let Some(both) = self.plain_bind.iter().find(|bind| self.bind.contains(bind)) {
            let given = values::quoted(&both.to_string());
            problems.push(self.problem("plain_bind", &given, "addresses that are not in bind"));
        }
        let TlsSettings { certfile, keyfile, ca_certs, cert_reqs, .. } = &self.tls;
        if certfile.len() != keyfile.len() {
            let (key, given) =
                if certfile.len() < keyfile.len() { ("keyfile", keyfile) } else { ("certfile", certfile) };
            let allowed = format!(
                "as many files in certfile as in keyfile, in the same order; there are {} and {}",
                certfile.len(),
                keyfile.len()
            );
            problems.push(self.problem(key, &values::show_list(given), &allowed));
            return;
        }
        let without = match (certfile.is_empty(), cert_reqs, ca_certs) {
            (true, _, Some(_)) => Some(("ca_certs", "a file only where certfile is set")),
            (true, CertReqs::Optional | CertReqs::Required, None) => {
                Some(("cert_reqs", "none where certfile is not set"))
            }
            (false, CertReqs::Optional | CertReqs::Required, None) => {
                Some(("cert_reqs", "none where ca_certs is not set"))
            }
            (false, CertReqs::None, Some(_)) => {
                Some(("ca_certs", "a file only with cert_reqs optional or required"))
            }
            (_, _, _) => None,
        };
        if let Some((key, allowed)) = without {
            let given = match ca_certs {
                Some(path) if key == "ca_certs" => values::quoted(&path.display().to_string()),
                Some(_) | None => values::show_cert_reqs(cert_reqs),
            };
            problems.push(self.problem(key, &given, allowed));
            return;
        }
        if certfile.is_empty() {
            return;
        }
        match self.read_tls() {
            Ok(files) => self.tls.files = Some(Arc::new(files)),
            Err(problem) => problems.push(problem),
        }
    }

    fn read_tls(&self) -> Result<TlsFiles, Problem> {
        let refused = |key, path: &Path, what: &str| {
            let given = values::quoted(&path.display().to_string());
            self.problem(key, &given, &format!("a file in PEM that {what}"))
        };
        let unread =
            |key, path: &Path, error: &io::Error| refused(key, path, &format!("can be read ({error})"));
        let mut pairs = Vec::new();
        for (certificate, key) in self.tls.certfile.iter().zip(&self.tls.keyfile) {
            let (certificate, key) = (Path::new(certificate), Path::new(key));
            let (chain, _) = read(certificate).map_err(|error| unread("certfile", certificate, &error))?;
            let (secret, owner) = read(key).map_err(|error| unread("keyfile", key, &error))?;
            owner.keeps_secret().map_err(|what| refused("keyfile", key, &what))?;
            pairs.push((chain, secret));
        }
        let ca_certs = self.tls.ca_certs.as_deref().map(|path| {
            let (bytes, owner) = read(path).map_err(|error| unread("ca_certs", path, &error))?;
            owner.keeps_others_out().map_err(|what| refused("ca_certs", path, &what))?;
            Ok(bytes)
        });
        Ok(TlsFiles { pairs, ca_certs: ca_certs.transpose()? })
    }
}

/// Whose a file is, and who else may do what with it.
struct Owner {
    uid: u32,
    mode: u32,
    /// Who asks: whoever runs the master.
    me: u32,
}

impl Owner {
    /// PostgreSQL's rule for its own key: the reader's file is for the reader alone, and root's may be read by a group.
    fn keeps_secret(&self) -> Result<(), String> {
        let mode = self.mode & 0o777;
        if self.uid != self.me && self.uid != 0 {
            return Err(format!("belongs to whoever starts the server or to root, not to user {}", self.uid));
        }
        let forbidden = if self.uid == 0 { 0o027 } else { 0o077 };
        if mode & forbidden != 0 {
            let most = if self.uid == 0 { "640" } else { "600" };
            return Err(format!("has at most the permissions {most}; it has {mode:03o}: chmod {most} it"));
        }
        Ok(())
    }

    /// Who can change the authorities can let anybody in.
    fn keeps_others_out(&self) -> Result<(), String> {
        let mode = self.mode & 0o777;
        if mode & 0o002 != 0 { Err(format!("not everybody may write; it has {mode:03o}")) } else { Ok(()) }
    }
}

/// The file's bytes, and whose they are: of what was opened, which another may since have taken the place of.
fn read(path: &Path) -> io::Result<(Vec<u8>, Owner)> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(io::Error::other("it is larger than 1 MiB"));
    }
    Ok((bytes, Owner { uid: metadata.uid(), mode: metadata.mode(), me: effective_user()? }))
}

/// `Uid: real effective saved …` (proc_pid_status(5)).
fn effective_user() -> io::Result<u32> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    let effective = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    effective.ok_or_else(|| io::Error::other("/proc/self/status does not say who asks"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_for_its_reader_alone() {
        for (uid, mode, me, is_kept) in [
            (1000, 0o600, 1000, true),
            (1000, 0o400, 1000, true),
            (1000, 0o640, 1000, false),
            (1000, 0o604, 1000, false),
            (1000, 0o620, 1000, false),
            (0, 0o640, 1000, true),
            (0, 0o640, 0, true),
            (0, 0o644, 0, false),
            (0, 0o660, 0, false),
            (1000, 0o600, 0, false),
            (1001, 0o600, 1000, false),
        ] {
            let owner = Owner { uid, mode: mode | 0o100_000, me };
            assert_eq!(owner.keeps_secret().is_ok(), is_kept, "{uid} {mode:o} {me}");
        }
    }
}

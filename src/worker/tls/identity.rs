//! Who the server is, and whom it asks who he is: certificates, keys and authorities, from the bytes that the settings hold.
//! Not here: reading the files (config/tls).

use super::certificate;
use super::tickets::{TicketSecret, Tickets};
use crate::config::{CertReqs, Settings, TlsFiles};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use webpki::EndEntityCert;

/// What the master asks before it lets anything depend on the settings: whether the files are what they should be. Nothing
/// of it is kept. What is returned is odd, but no error.
///
/// # Errors
/// The first file that is not, with its place in the settings.
pub(crate) fn check(settings: &Settings) -> Result<Vec<String>, String> {
    let Some(files) = &settings.tls.files else { return Ok(Vec::new()) };
    let provider = ring::default_provider();
    let mut warnings = Vec::new();
    for (at, identity) in identities(settings, files, &provider)?.iter().enumerate() {
        let name = &settings.tls.certfile[at];
        warnings.extend(
            certificate::is_out_of_date(&identity.key.cert[0]).map(|how| format!("certfile {name} {how}")),
        );
        if at > 0 && identity.names.is_empty() {
            warnings.push(format!(
                "certfile {name} names no host, so no client will see it: only the first one may"
            ));
        }
    }
    verifier(settings, files, &Arc::new(provider))?;
    Ok(warnings)
}

/// `None` where TLS is off.
///
/// # Errors
/// As `check`.
pub(super) fn server_config(
    settings: &Settings,
    secret: &TicketSecret,
) -> Result<Option<Arc<ServerConfig>>, String> {
    let Some(files) = &settings.tls.files else { return Ok(None) };
    let provider = Arc::new(ring::default_provider());
    let certificates = Certificates::new(identities(settings, files, &provider)?);
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = match verifier(settings, files, &provider)? {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(certificates));
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = Arc::new(Tickets::new(secret, settings.tls.cert_reqs, files.ca_certs.as_deref()));
    config.alpn_protocols = settings.http2.alpn();
    Ok(Some(Arc::new(config)))
}

/// A certificate with its chain and key, and the hosts that it is for.
struct Identity {
    key: Arc<CertifiedKey>,
    /// In lower case; a wildcard as it stands there.
    names: Vec<String>,
}

fn identities(
    settings: &Settings,
    files: &TlsFiles,
    provider: &CryptoProvider,
) -> Result<Vec<Identity>, String> {
    let tls = &settings.tls;
    let of = |at: usize| {
        let (certificate, secret) = &files.pairs[at];
        let refused = |key, file: &str, allowed: String| Err(settings.refusal(key, file, &allowed));
        let (certfile, keyfile) = (&tls.certfile[at], &tls.keyfile[at]);
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate).collect();
        let chain = match chain {
            Ok(chain) if !chain.is_empty() => chain,
            Ok(_) => return refused("certfile", certfile, "a file with a certificate in PEM".into()),
            Err(error) => return refused("certfile", certfile, format!("certificates in PEM ({error})")),
        };
        let names = match EndEntityCert::try_from(&chain[0]) {
            Ok(parsed) => parsed.valid_dns_names().map(str::to_ascii_lowercase).collect(),
            Err(error) => {
                return refused("certfile", certfile, format!("a certificate of X.509 version 3 ({error})"));
            }
        };
        let key = match PrivateKeyDer::from_pem_slice(secret) {
            Ok(key) => key,
            // The error may quote what stands in the file.
            Err(_) => {
                return refused("keyfile", keyfile, "a file with a private key in PEM, not encrypted".into());
            }
        };
        match CertifiedKey::from_der(chain, key, provider) {
            Ok(key) => Ok(Identity { key: Arc::new(key), names }),
            Err(error) => {
                refused("keyfile", keyfile, format!("the key of the certificate in {certfile} ({error})"))
            }
        }
    };
    (0..files.pairs.len()).map(of).collect()
}

/// `None` where clients are not asked for certificates.
fn verifier(
    settings: &Settings,
    files: &TlsFiles,
    provider: &Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, String> {
    let (Some(pem), Some(path)) = (&files.ca_certs, &settings.tls.ca_certs) else { return Ok(None) };
    let refused = |what: &dyn fmt::Display| {
        let given = path.display().to_string();
        settings.refusal("ca_certs", &given, &format!("certificates of authorities in PEM ({what})"))
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| refused(&error))?;
        roots.add(certificate).map_err(|error| refused(&error))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let builder = match settings.tls.cert_reqs {
        CertReqs::None => return Ok(None),
        CertReqs::Optional => builder.allow_unauthenticated(),
        CertReqs::Required => builder,
    };
    builder.build().map(Some).map_err(|error| refused(&error))
}

/// All certificates, found by the name that a client asks for.
struct Certificates {
    keys: Vec<Arc<CertifiedKey>>,
    /// Which are for a name, in the order of `certfile`.
    named: HashMap<String, Vec<usize>>,
    /// The first one, and those that share a name with it.
    default: Vec<usize>,
}

impl Certificates {
    fn new(identities: Vec<Identity>) -> Certificates {
        let mut named: HashMap<String, Vec<usize>> = HashMap::new();
        for (at, identity) in identities.iter().enumerate() {
            for name in &identity.names {
                named.entry(name.clone()).or_default().push(at);
            }
        }
        let shares = |at: &usize| identities[*at].names.iter().any(|name| identities[0].names.contains(name));
        let default = (0..identities.len()).filter(|at| *at == 0 || shares(at)).collect();
        let keys = identities.into_iter().map(|identity| identity.key).collect();
        Certificates { keys, named, default }
    }

    /// A wildcard stands for one label (RFC 9525, 6.3).
    fn named(&self, name: &str) -> &[usize] {
        let name = name.to_ascii_lowercase();
        let wildcard = || self.named.get(&format!("*.{}", name.split_once('.')?.1));
        self.named.get(&name).or_else(wildcard).unwrap_or(&self.default)
    }
}

impl ResolvesServerCert for Certificates {
    /// Of several for one name, the first whose kind of key the client can check.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let fitting = hello.server_name().map_or(&self.default[..], |name| self.named(name));
        let can_check = |at: &&usize| self.keys[**at].key.choose_scheme(hello.signature_schemes()).is_some();
        let at = fitting.iter().find(can_check).or(fitting.first())?;
        Some(self.keys[*at].clone())
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificates({})", self.keys.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_finds_its_certificates() {
        let provider = ring::default_provider();
        let identity = |names: &[&str]| {
            let made = rcgen::generate_simple_self_signed(
                names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>(),
            );
            let made = made.unwrap();
            let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
            let key = CertifiedKey::from_der(vec![made.cert.der().clone()], key, &provider).unwrap();
            let names = EndEntityCert::try_from(made.cert.der())
                .unwrap()
                .valid_dns_names()
                .map(str::to_owned)
                .collect();
            Identity { key: Arc::new(key), names }
        };
        let all = [
            identity(&["a.example", "www.a.example"]),
            identity(&["*.b.example", "b.example"]),
            identity(&["a.example", "c.b.example"]),
        ];
        let certificates = Certificates::new(all.into());
        for (name, wanted) in [
            ("a.example", &[0, 2][..]),
            ("A.Example", &[0, 2]),
            ("www.a.example", &[0]),
            ("x.a.example", &[0, 2]),
            ("b.example", &[1]),
            ("x.b.example", &[1]),
            ("c.b.example", &[2]),
            ("x.c.b.example", &[0, 2]),
            ("example", &[0, 2]),
        ] {
            assert_eq!(certificates.named(name), wanted, "{name}");
        }
    }
}

//! A throw-away PostgreSQL cluster for tests: on a free port of 127.0.0.1, in a temporary folder, gone with its
//! value. Not here: anything about the server under test.

use super::ports::free_port;
use ::postgres::{Client, NoTls};
use std::io::Read;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use tempfile::TempDir;

/// How long, in seconds, `pg_ctl` may take to start or stop the cluster.
const WAIT_SECONDS: &str = "30";

/// PostgreSQL refuses to run as root; then it runs as this user.
const USER: &str = "nobody";
const GROUP: &str = "nogroup";

pub struct Cluster {
    folder: TempDir,
    binaries: PathBuf,
    port: u16,
    as_nobody: bool,
    /// It takes connections with TLS only.
    tls: bool,
    /// Waits for the end of its standard input, which comes with this value or with a test process that was
    /// killed, and then stops the cluster and removes the folder.
    lifeline: Option<Child>,
}

impl Cluster {
    /// Makes a cluster and starts it. Panics with the reason when it cannot.
    pub fn start() -> Cluster {
        Cluster::start_as(false)
    }

    /// One that takes connections with TLS only, and shows a certificate for 127.0.0.1 by an authority of its own.
    #[allow(dead_code, reason = "the tests of pools ask")]
    pub fn start_with_tls() -> Cluster {
        Cluster::start_as(true)
    }

    fn start_as(tls: bool) -> Cluster {
        let folder = TempDir::with_prefix("ferricorn-postgres-").unwrap();
        let port = free_port();
        let as_nobody = give_away(folder.path());
        let mut cluster = Cluster { as_nobody, folder, binaries: binaries(), port, tls, lifeline: None };
        cluster.lifeline = Some(cluster.hold_lifeline());
        cluster.must("initdb", &["-U", "postgres", "-A", "trust", "-N", "-E", "UTF8", "--locale=C"]);
        if tls {
            cluster.certify();
        }
        cluster.restart();
        cluster
    }

    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// Where it listens.
    #[allow(dead_code, reason = "the tests of the whole program ask")]
    pub fn addr(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    /// The certificate of the authority.
    #[allow(dead_code, reason = "the tests of pools ask")]
    pub fn authority(&self) -> PathBuf {
        self.folder.path().join("authority.pem")
    }

    fn certify(&self) {
        use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
        let key = KeyPair::generate().unwrap();
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority_pem = authority.self_signed(&key).unwrap().pem();
        let server_key = KeyPair::generate().unwrap();
        let server = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let server_pem = server.signed_by(&server_key, &Issuer::new(authority, key)).unwrap().pem();
        std::fs::write(self.authority(), authority_pem).unwrap();
        let data = self.folder.path().join("data");
        for (name, text) in [("server.crt", server_pem), ("server.key", server_key.serialize_pem())] {
            std::fs::write(data.join(name), text).unwrap();
            std::fs::set_permissions(data.join(name), std::fs::Permissions::from_mode(0o600)).unwrap();
            if self.as_nobody {
                chown(data.join(name), Some(id("-u")), Some(id("-g"))).unwrap();
            }
        }
        std::fs::write(data.join("pg_hba.conf"), "hostssl all all 127.0.0.1/32 trust\n").unwrap();
    }

    /// Stops it as an administrator would who is in a hurry: connections are closed.
    pub fn stop(&self) {
        self.must("pg_ctl", &["stop", "-m", "fast", "-w", "-t", WAIT_SECONDS]);
    }

    /// Starts it again, on the same port.
    pub fn restart(&self) {
        let options = format!(
            "-h 127.0.0.1 -p {} -k '' -c fsync=off -c synchronous_commit=off -c full_page_writes=off -c ssl={}",
            self.port,
            if self.tls { "on" } else { "off" }
        );
        let log = self.folder.path().join("log");
        let log = log.to_str().unwrap();
        self.must("pg_ctl", &["start", "-w", "-t", WAIT_SECONDS, "-l", log, "-o", &options]);
    }

    /// The process that all others of the cluster are forked from.
    #[allow(dead_code, reason = "the benchmarks ask")]
    pub fn postmaster(&self) -> i32 {
        let file = std::fs::read_to_string(self.folder.path().join("data/postmaster.pid")).unwrap();
        file.lines().next().and_then(|pid| pid.parse().ok()).expect("its first line is the pid")
    }

    /// How many connections of clients there are for which this condition over pg_stat_activity holds.
    #[allow(dead_code, reason = "the tests of the whole program ask")]
    pub fn count(&self, condition: &str) -> usize {
        count(&mut self.client(), condition)
    }

    /// Counts from now on, without a pause, the connections whose application is called like this.
    #[allow(dead_code, reason = "the tests of the whole program ask")]
    pub fn watch(&self, application: &str) -> Watch {
        let condition = format!("application_name LIKE '{application}'");
        let mut client = self.client();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (mut looks, mut most) = (0, 0);
            while !stopped.load(Relaxed) {
                most = most.max(count(&mut client, &condition));
                looks += 1;
            }
            (looks, most)
        });
        Watch { stop, thread }
    }

    #[allow(dead_code, reason = "the tests of the whole program ask")]
    pub fn client(&self) -> Client {
        Client::connect(&format!("{}?application_name=watcher", self.url()), NoTls).unwrap()
    }

    fn must(&self, program: &str, args: &[&str]) {
        let output = self.run(program, args);
        if !output.status.success() {
            let mut log = String::new();
            if let Ok(mut file) = std::fs::File::open(self.folder.path().join("log")) {
                let _ = file.read_to_string(&mut log);
            }
            let said = String::from_utf8_lossy(&output.stderr);
            panic!("{program} {args:?} failed with {}\n{said}\n{log}", output.status);
        }
    }

    fn hold_lifeline(&self) -> Child {
        let mut command = self.command(Path::new("sh"));
        let stop = r#"read -r _; "$0" stop -m immediate -w -t "$1"; rm -rf "$2""#;
        command
            .args(["-c", stop])
            .arg(self.binaries.join("pg_ctl"))
            .arg(WAIT_SECONDS)
            .arg(self.folder.path());
        // A group of its own: what ends the tests by a signal to their group must not end it too.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }

    /// `program` as the user that PostgreSQL runs as.
    fn command(&self, program: &Path) -> Command {
        let mut command = if self.as_nobody {
            let mut command = Command::new("setpriv");
            command.arg(format!("--reuid={USER}")).arg(format!("--regid={GROUP}")).arg("--clear-groups");
            command.arg(program);
            command
        } else {
            Command::new(program)
        };
        command.env("PGDATA", self.folder.path().join("data")).current_dir(self.folder.path());
        command
    }

    fn run(&self, program: &str, args: &[&str]) -> Output {
        let mut command = self.command(&self.binaries.join(program));
        // Not a pipe: the server inherits it, and reading to its end would wait for the server's.
        let said = std::fs::File::create(self.folder.path().join("said")).unwrap();
        command.args(args).stdin(Stdio::null()).stdout(said.try_clone().unwrap()).stderr(said);
        let status = command.status().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stderr = std::fs::read(self.folder.path().join("said")).unwrap();
        Output { status, stdout: Vec::new(), stderr }
    }
}

/// Somebody who counts.
pub struct Watch {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<(usize, usize)>,
}

impl Watch {
    /// How often it looked, and how many there were at most.
    #[allow(dead_code, reason = "the tests of the whole program ask")]
    pub fn finish(self) -> (usize, usize) {
        self.stop.store(true, Relaxed);
        self.thread.join().unwrap()
    }
}

fn count(client: &mut Client, condition: &str) -> usize {
    let count = format!(
        "SELECT count(*) FROM pg_stat_activity \
         WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND ({condition})"
    );
    let count: i64 = client.query_one(&count, &[]).unwrap().get(0);
    usize::try_from(count).unwrap()
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Also in a test that failed. `wait` ends the standard input first.
        if let Some(lifeline) = &mut self.lifeline {
            let _ = lifeline.wait();
        }
    }
}

/// As root: gives the folder to the user that PostgreSQL will run as, and says so.
fn give_away(folder: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    if std::fs::metadata(folder).unwrap().uid() != 0 {
        return false;
    }
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700)).unwrap();
    chown(folder, Some(id("-u")), Some(id("-g"))).unwrap();
    true
}

/// The number of `USER` or of its group.
fn id(option: &str) -> u32 {
    let output = Command::new("id").args([option, USER]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

/// Where PostgreSQL's programs are: where `pg_config` says, or the newest where Debian puts them.
fn binaries() -> PathBuf {
    let configured = Command::new("pg_config").arg("--bindir").output().ok();
    let configured = configured.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).collect();
    found.sort();
    found.extend(configured.map(PathBuf::from)); // the last is the first choice
    let usable = found.into_iter().rev().find(|folder| folder.join("pg_ctl").exists());
    usable.expect("PostgreSQL is installed: pg_ctl is found by pg_config or in /usr/lib/postgresql")
}

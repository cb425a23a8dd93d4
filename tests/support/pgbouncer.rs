//! PgBouncer before a throw-away cluster, started from the file that users get. Not here: who asks it.

use super::ports::free_port;
use super::postgres::Cluster;
use super::{DEADLINE, eventually, repository};
use std::fs::{self, Permissions};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// In no path but root's. Another one: the variable PGBOUNCER.
const PROGRAM: &str = "/usr/sbin/pgbouncer";

/// Dropping it ends it.
pub struct Bouncer {
    port: u16,
    dir: TempDir,
    child: Child,
}

impl Bouncer {
    /// With so many processes of the database in transaction mode.
    pub fn before(cluster: &Cluster, processes: usize) -> Bouncer {
        let dir = tempfile::Builder::new().prefix("ferricorn-pgbouncer-").tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).unwrap();
        let port = free_port();
        let within = |name: &str| dir.path().join(name).display().to_string();
        fs::write(dir.path().join("users"), "\"postgres\" \"\"\n").unwrap();
        let mut text = repository::read("deploy/pgbouncer.ini");
        for (from, to) in [
            (
                "port=5432 dbname=shop",
                format!("port={} dbname=postgres user=postgres", cluster.addr().port()),
            ),
            ("listen_port = 6432", format!("listen_port = {port}")),
            ("/var/log/postgresql/pgbouncer.log", within("log")),
            ("/run/postgresql/pgbouncer.pid", within("pid")),
            ("auth_type = scram-sha-256", "auth_type = trust".to_owned()),
            ("/etc/pgbouncer/userlist.txt", within("users")),
            ("default_pool_size = 20", format!("default_pool_size = {processes}")),
        ] {
            assert!(text.contains(from), "there is no {from:?}");
            text = text.replace(from, &to);
        }
        fs::write(dir.path().join("pgbouncer.ini"), text).unwrap();
        let child = start(&dir, port);
        Bouncer { port, dir, child }
    }

    /// Of the database by this name in its file.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// As if its host had been: all connections are gone at once, and it serves again.
    pub fn restart(&mut self) {
        self.end();
        self.child = start(&self.dir, self.port);
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(self.dir.path().join("pid"));
    }
}

impl Drop for Bouncer {
    fn drop(&mut self) {
        self.end();
        if std::thread::panicking() {
            eprintln!("{}", fs::read_to_string(self.dir.path().join("log")).unwrap_or_default());
        }
    }
}

fn start(dir: &TempDir, port: u16) -> Child {
    let program = std::env::var("PGBOUNCER").unwrap_or(PROGRAM.to_owned());
    let mut command = if nix::unistd::geteuid().is_root() {
        // It refuses to run as root.
        let mut command = Command::new("setpriv");
        command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups", &program]);
        command
    } else {
        Command::new(program)
    };
    command.arg("-q").arg(dir.path().join("pgbouncer.ini")).stdin(Stdio::null());
    let child = command.spawn().expect("the Debian package pgbouncer is installed");
    eventually(DEADLINE, "PgBouncer listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    child
}

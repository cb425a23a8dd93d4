//! nginx and HAProxy, started from the files that users get, with their own ports and folders put in. Not here: what is behind
//! them.

use super::load::Running;
use super::ports::free_port;
use super::tls::Authority;
use super::{Connection, DEADLINE, Load, Response, Said, Server, Target, eventually, repository};
use nix::sys::signal::Signal::{SIGHUP, SIGKILL, SIGUSR2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use serde_json::Value;
use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// In no path but root's.
const NGINX: &str = "/usr/sbin/nginx";
const HAPROXY: &str = "/usr/sbin/haproxy";

/// A folder that the proxy's own user can enter, for sockets and files.
pub struct Place {
    dir: TempDir,
    pub http: u16,
    pub https: u16,
    pub authority: Authority,
}

impl Place {
    pub fn new() -> Place {
        let dir = tempfile::Builder::new().prefix("ferricorn-front-").tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let authority = Authority::new();
        fs::write(dir.path().join("ca.pem"), &authority.pem).unwrap();
        Place { dir, http: free_port(), https: free_port(), authority }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The same as text.
    pub fn name(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// A file of `deploy/` with each `from` in it replaced.
    #[track_caller]
    fn adapt(&self, deployed: &str, changes: &[(&str, String)]) -> PathBuf {
        let mut text = repository::read(&format!("deploy/{deployed}"));
        for (from, to) in changes {
            assert!(text.contains(from), "{deployed} has no {from:?}");
            text = text.replace(from, to);
        }
        let path = self.path(deployed);
        fs::write(&path, text).unwrap();
        path
    }
}

/// A proxy that runs. Dropping it ends it.
pub struct Front {
    pub place: Place,
    child: Child,
}

impl Front {
    /// deploy/nginx.conf; `changes` are those of the addresses behind it.
    #[track_caller]
    pub fn nginx(place: Place, changes: &[(&str, String)]) -> Front {
        place.authority.certify(&["localhost", "shop.example"]).write(place.dir.path(), "shop");
        let mut all = vec![
            ("/run/nginx.pid", place.name("nginx.pid")),
            ("/var/log/nginx/access.log", place.name("access.log")),
            ("/var/log/nginx/error.log", place.name("error.log")),
            ("/var/cache/nginx", place.name("cache")),
            ("/srv/shop/static/", place.name("static/")),
            ("listen 80 default_server", format!("listen 127.0.0.1:{} default_server", place.http)),
            ("#listen 443 ssl", format!("listen 127.0.0.1:{} ssl", place.https)),
            ("#ssl_", "ssl_".to_owned()),
            ("/etc/ssl/shop", place.name("shop")),
            // The folders of the package are root's.
            ("server_tokens off;", own_folders(&place)),
        ];
        all.extend_from_slice(changes);
        let file = place.adapt("nginx.conf", &all);
        check(Command::new(NGINX).arg("-t").arg("-e").arg(place.path("error.log")).arg("-c").arg(&file));
        let mut command = Command::new(NGINX);
        command.arg("-e").arg(place.path("error.log")).arg("-c").arg(&file).args(["-g", "daemon off;"]);
        Front::start(command, place)
    }

    /// deploy/haproxy.cfg; `changes` are those of the addresses behind it.
    #[track_caller]
    pub fn haproxy(place: Place, changes: &[(&str, String)]) -> Front {
        let certified = place.authority.certify(&["localhost", "shop.example"]);
        fs::write(place.path("shop.pem"), certified.certificate + &certified.key).unwrap();
        let mut all = vec![
            // Of several threads that log to a descriptor at a time, one loses its line.
            ("maxconn 8192", "maxconn 8192\n    nbthread 1".to_owned()),
            ("/dev/log local0", "stderr format raw local0".to_owned()),
            ("/run/haproxy/admin.sock", place.name("admin.sock")),
            ("bind :80", format!("bind 127.0.0.1:{}", place.http)),
            ("#bind :443 ssl", format!("bind 127.0.0.1:{} ssl", place.https)),
            ("/etc/ssl/shop.pem", place.name("shop.pem")),
        ];
        if !geteuid().is_root() {
            all.extend([("user haproxy", String::new()), ("group haproxy", String::new())]);
        }
        all.extend_from_slice(changes);
        let file = place.adapt("haproxy.cfg", &all);
        check(Command::new(HAPROXY).arg("-c").arg("-f").arg(&file));
        let mut command = Command::new(HAPROXY);
        command.args(["-W", "-db", "-f"]).arg(&file);
        let front = Front::start(command, place);
        // It comes a moment after the ports.
        eventually(DEADLINE, "HAProxy can be asked", || {
            UnixStream::connect(front.place.path("admin.sock")).is_ok()
        });
        front
    }

    #[track_caller]
    fn start(mut command: Command, place: Place) -> Front {
        let log = fs::File::create(place.path("said.log")).unwrap();
        let said = log.try_clone().unwrap();
        command.stdin(Stdio::null()).stdout(said).stderr(log);
        let child = command.spawn().expect("the proxy is installed: tests/run says how");
        let front = Front { place, child };
        for port in [front.place.http, front.place.https] {
            let what = format!("the proxy listens at {port}");
            eventually(DEADLINE, &what, || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok());
        }
        front
    }

    pub fn target(&self) -> Target {
        Target::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, self.place.http)))
    }

    /// One request on a connection of its own.
    #[track_caller]
    pub fn ask(&self, method: &str, path: &str) -> Response {
        self.ask_with(method, path, &[])
    }

    #[track_caller]
    pub fn ask_with(&self, method: &str, path: &str, fields: &[(&str, &str)]) -> Response {
        let answer = Connection::open(&self.target())
            .and_then(|mut connection| connection.request(method, path, fields, b""));
        answer.unwrap_or_else(|failure| panic!("{method} {path}: {failure}"))
    }

    /// What the probe's `/headers` answers to curl, which comes from 127.0.0.7.
    #[track_caller]
    pub fn seen_by_app(&self, scheme: &str, path: &str, fields: &[&str]) -> Value {
        let port = if scheme == "https" { self.place.https } else { self.place.http };
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--interface", "127.0.0.7", "--cacert"]).arg(self.place.path("ca.pem"));
        curl.args(["--resolve", &format!("shop.example:{port}:127.0.0.1")]);
        for field in fields {
            curl.args(["-H", field]);
        }
        let output = curl.arg(format!("{scheme}://shop.example:{port}{path}")).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_else(|why| panic!("{why}: {output:?}"))
    }

    /// What the proxy has logged.
    pub fn log(&self, name: &str) -> String {
        fs::read_to_string(self.place.path(name)).unwrap_or_default()
    }

    /// HAProxy's word on a server behind it, such as `UP` or `DOWN`.
    #[track_caller]
    pub fn state_of(&self, backend: &str, server: &str) -> String {
        let mut socket = UnixStream::connect(self.place.path("admin.sock")).unwrap();
        socket.write_all(b"show stat\n").unwrap();
        let mut table = String::new();
        socket.read_to_string(&mut table).unwrap();
        let mut lines =
            table.lines().map(|line| line.trim_start_matches("# ").split(',').collect::<Vec<_>>());
        let names = lines.next().expect("a line of names");
        let status = names.iter().position(|name| *name == "status").expect("a column");
        let row = lines.find(|row| row.starts_with(&[backend, server])).expect("a row");
        row[status].to_owned()
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        // HAProxy's master and nginx's end their workers at TERM.
        let _ = kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM);
        let _ = self.child.wait();
        if std::thread::panicking() {
            for name in ["error.log", "said.log"] {
                let log = self.log(name);
                let from = log.char_indices().nth_back(20_000).map_or(0, |(at, _)| at);
                eprintln!("---- {name} of the proxy\n{}", &log[from..]);
            }
        }
    }
}

/// Clients of the front that keep their connections, and clients that do not.
pub struct Clients([Running; 2]);

impl Clients {
    pub fn of(front: &Front) -> Clients {
        let load = |keep_alive| Load::on(front.target()).connections(4).keeping(keep_alive).start();
        Clients([load(true), load(false)])
    }

    /// Waits until some of their requests more were answered.
    pub fn go_on(&self) {
        self.0.iter().for_each(|load| load.wait_more(300));
    }

    /// How many requests they sent. None of these has failed, and workers of several masters have answered.
    #[track_caller]
    pub fn finish(self) -> u64 {
        let mut sent = 0;
        for report in self.0.map(Running::finish) {
            report.assert_none_failed();
            assert!(report.workers.len() > 8, "the workers of all masters answered: {report}");
            sent += report.sent;
        }
        sent
    }
}

/// What one server of the two bears without leaving: a reload, an upgrade, the death of a worker.
pub fn shake(server: &mut Server, clients: &Clients) {
    server.signal(SIGHUP);
    server.wait(Said::ReloadDone);
    clients.go_on();
    server.signal(SIGUSR2);
    server.follow_upgrade(1);
    clients.go_on();
    let dying = server.workers()[0];
    server.signal_to(dying, SIGKILL);
    server.wait_about(Said::Exited, dying);
    clients.go_on();
}

/// Everybody of this server dies at once.
pub fn kill_all(server: &mut Server) {
    let (everybody, _) = server.everybody();
    everybody.iter().for_each(|&pid| server.signal_to(pid, SIGKILL));
    server.wait_exit();
    server.wait_nobody_left(&everybody, DEADLINE);
}

/// How many workers of these servers have died.
pub fn deaths(servers: &[Server]) -> usize {
    servers.iter().map(|server| server.count(Said::Exited)).sum()
}

/// For what nginx keeps in files while it passes it on.
fn own_folders(place: &Place) -> String {
    let kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let lines = kinds.map(|kind| format!("{kind}_temp_path {};", place.name(&format!("temp_{kind}"))));
    format!("server_tokens off;\n{}", lines.join("\n"))
}

/// The proxy's own check of its file.
#[track_caller]
fn check(command: &mut Command) {
    let output = command.output().expect("the proxy is installed: tests/run says how");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !said.contains("warn"), "{said}");
}

//! What systemd is told. Here it is a socket that the test listens on.

use crate::support::{DEADLINE, Program, Said, eventually, millis, seconds};
use nix::sys::signal::Signal::{SIGHUP, SIGKILL, SIGTTIN, SIGUSR2};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Listens as systemd does, and remembers.
struct Systemd {
    socket: UnixDatagram,
    name: String,
    heard: Mutex<Vec<String>>,
    _dir: TempDir,
}

impl Systemd {
    fn listen() -> Systemd {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        Systemd::over(UnixDatagram::bind(&path).unwrap(), path.display().to_string(), dir)
    }

    fn listen_abstract() -> Systemd {
        let name = format!("ferricorn-test-{}", std::process::id());
        let addr = SocketAddr::from_abstract_name(&name).unwrap();
        Systemd::over(
            UnixDatagram::bind_addr(&addr).unwrap(),
            format!("@{name}"),
            tempfile::tempdir().unwrap(),
        )
    }

    fn over(socket: UnixDatagram, name: String, dir: TempDir) -> Systemd {
        socket.set_nonblocking(true).unwrap();
        Systemd { socket, name, heard: Mutex::default(), _dir: dir }
    }

    /// Everything that was said so far.
    fn heard(&self) -> Vec<String> {
        let mut heard = self.heard.lock().unwrap();
        let mut buffer = [0; 4096];
        while let Ok(length) = self.socket.recv(&mut buffer) {
            heard.push(String::from_utf8(buffer[..length].to_vec()).unwrap());
        }
        heard.clone()
    }

    fn count(&self, begin: &str) -> usize {
        self.heard().iter().filter(|message| message.starts_with(begin)).count()
    }

    #[track_caller]
    fn wait(&self, begin: &str, count: usize) {
        let what = format!("{count} × {begin} from the server");
        eventually(DEADLINE, &what, || self.count(begin) >= count);
    }

    /// Without beats and statuses, and only the first line of each.
    fn steps(&self) -> Vec<String> {
        let heard = self
            .heard()
            .into_iter()
            .filter(|message| !message.starts_with("STATUS=") && !message.starts_with("WATCHDOG="));
        heard.map(|message| message.split('\n').next().unwrap_or_default().to_owned()).collect()
    }
}

#[test]
fn the_life_of_a_server_is_told_step_by_step() {
    for systemd in [Systemd::listen(), Systemd::listen_abstract()] {
        let mut server = Program::probe().variable("NOTIFY_SOCKET", &systemd.name).workers(2).start();
        systemd.wait("READY=1", 1);
        let me = format!("READY=1\nMAINPID={}", server.pid());
        assert!(systemd.heard().contains(&me), "{:?}", systemd.heard());
        systemd.wait("STATUS=2 of 2 workers serve, generation 1", 1);
        assert_eq!(
            server.get("/env?name=NOTIFY_SOCKET").status,
            404,
            "a worker does not speak for the server"
        );

        server.signal(SIGTTIN);
        systemd.wait("STATUS=3 of 3 workers serve, generation 1", 1);

        let before = now_in_microseconds();
        server.signal(SIGHUP);
        server.wait(Said::ReloadDone);
        systemd.wait("READY=1", 2);
        systemd.wait("STATUS=3 of 3 workers serve, generation 2", 1);
        let heard = systemd.heard();
        let reloading = heard.iter().find_map(|message| message.strip_prefix("RELOADING=1\nMONOTONIC_USEC="));
        let time: u128 = reloading.expect("a reload with its time").parse().unwrap();
        assert!((before..=now_in_microseconds()).contains(&time), "{time}");

        server.stop();
        assert_eq!(systemd.steps(), ["READY=1", "RELOADING=1", "READY=1", "STOPPING=1"]);
    }
}

fn now_in_microseconds() -> u128 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).unwrap();
    Duration::from(now).as_micros()
}

#[test]
fn a_server_that_is_not_ready_does_not_say_so() {
    let systemd = Systemd::listen();
    let mut server = Program::example("misuse")
        .file("hang", "")
        .variable("NOTIFY_SOCKET", &systemd.name)
        .args("-w 1")
        .spawn();
    server.wait(Said::Spawned);
    systemd.wait("STATUS=0 of 1 workers serve", 1);
    assert_eq!(systemd.steps(), Vec::<String>::new());
    server.stop();
    assert_eq!(systemd.steps(), ["STOPPING=1"]);
}

#[test]
fn a_refused_reload_ends_in_ready_too() {
    let systemd = Systemd::listen();
    let program = Program::example("misuse").config("workers = 1\n").variable("NOTIFY_SOCKET", &systemd.name);
    let mut server = program.start();
    // Settings that are wrong, and settings whose first worker dies.
    for (file, round) in [("workers = 0\n", 1), ("workers = 1\n", 2)] {
        std::fs::write(server.dir().join("server.toml"), file).unwrap();
        std::fs::write(server.dir().join(if round == 2 { "die" } else { "unused" }), "").unwrap();
        server.signal(SIGHUP);
        server.wait_count(Said::ReloadRefused, round);
        systemd.wait("READY=1", round + 1);
    }
    server.stop();
    assert_eq!(
        systemd.steps(),
        ["READY=1", "RELOADING=1", "READY=1", "RELOADING=1", "READY=1", "STOPPING=1"]
    );
}

#[test]
fn the_watchdog_hears_the_master_as_long_as_its_loop_turns() {
    let systemd = Systemd::listen();
    // Nothing else wakes this master: no timeout, no request.
    let mut server = Program::probe()
        .variable("NOTIFY_SOCKET", &systemd.name)
        .variable("WATCHDOG_USEC", "400000")
        .args("--timeout 0")
        .workers(1)
        .start();
    // In this order: beats that come while this test stands still are no faster ones.
    let begin = Instant::now();
    let before = systemd.count("WATCHDOG=1");
    systemd.wait("WATCHDOG=1", before + 6);
    let took = begin.elapsed();
    assert!(took > millis(700) && took < seconds(10), "six beats, one each 200 ms: {took:?}");
    server.halt(server.pid());
    let count = systemd.count("WATCHDOG=1");
    crate::support::holds_for(millis(600), "a stopped master is silent", || {
        systemd.count("WATCHDOG=1") == count
    });
    server.signal(SIGKILL);
    server.wait_exit();
}

#[test]
fn a_watchdog_of_another_process_is_none_of_ours_and_a_dead_listener_does_no_harm() {
    let systemd = Systemd::listen();
    let mut server = Program::probe()
        .variable("NOTIFY_SOCKET", &systemd.name)
        .variable("WATCHDOG_USEC", "1000")
        .variable("WATCHDOG_PID", "1")
        .workers(1)
        .start();
    systemd.wait("READY=1", 1);
    assert_eq!(systemd.count("WATCHDOG=1"), 0);
    drop(systemd);
    server.signal(SIGHUP);
    server.wait(Said::ReloadDone);
    assert_eq!(server.get("/").status, 200);
    server.stop();
}

#[test]
fn the_units_that_come_with_it_are_valid() {
    let units = ["ferricorn.service", "ferricorn.socket"];
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
    let dir = tempfile::tempdir().unwrap();
    for unit in units {
        // The check asks for the program, which is not installed here.
        let text = std::fs::read_to_string(root.join(unit)).unwrap();
        let here = text.replace("/usr/local/bin/ferricorn", env!("CARGO_BIN_EXE_ferricorn"));
        std::fs::write(dir.path().join(unit), here).unwrap();
    }
    let verify = Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .args(units.map(|unit| dir.path().join(unit)))
        .output();
    let Ok(output) = verify else {
        eprintln!("skipped: there is no systemd-analyze here");
        return;
    };
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && !said.contains("ferricorn."), "{said}");
}

#[test]
fn an_upgrade_names_the_new_main_process_and_the_old_one_says_no_more() {
    let systemd = Systemd::listen();
    let mut server = Program::probe().variable("NOTIFY_SOCKET", &systemd.name).workers(1).start();
    systemd.wait("READY=1", 1);
    for number in 1..=2 {
        server.signal(SIGUSR2);
        server.follow_upgrade(number);
        systemd.wait("READY=1", number + 1);
        // The old one names its successor, for systemd listens to nobody else; the successor says the rest.
        let new = server.pid();
        let heard = systemd.heard();
        let named = heard.iter().position(|message| *message == format!("MAINPID={new}"));
        let ready = heard.iter().position(|message| *message == format!("READY=1\nMAINPID={new}"));
        assert!(named.is_some() && named < ready, "{heard:?}");
    }
    assert_eq!(
        systemd.steps().iter().filter(|step| *step == "STOPPING=1").count(),
        0,
        "{:?}",
        systemd.heard()
    );
    server.stop();
    systemd.wait("STOPPING=1", 1);
}

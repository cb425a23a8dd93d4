//! The daemon: what the command that starts it says, and what goes on behind it.

use crate::support::{Connection, DEADLINE, Load, Outcome, Program, Target, eventually, proc};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getsid};
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A folder for a server that outlives the command that starts it; dropping it ends the server.
struct Home(TempDir);

impl Home {
    fn new() -> Home {
        Home(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn start(&self, program: Program, args: &str) -> Outcome {
        program.within(self.path()).bind("unix:server.sock").args("-D -w 2 -p server.pid").args(args).run()
    }

    fn master(&self) -> Option<i32> {
        fs::read_to_string(self.path().join("server.pid")).ok()?.trim().parse().ok()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path().join("error.log")).unwrap_or_default()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // A killed server's file may name anybody by now.
        if let Some(master) = self.master().filter(|pid| proc::comm(*pid).ends_with("-master")) {
            let _ = kill(Pid::from_raw(master), Signal::SIGKILL);
        }
    }
}

#[test]
fn the_command_returns_when_the_server_serves_and_leaves_it_nothing() {
    let home = Home::new();
    let hand_down = r#"exec 7</etc/passwd && exec "$0" "$@""#;
    let outcome = home.start(Program::probe().through(&["sh", "-c", hand_down]), "--error-logfile error.log");
    assert_eq!(outcome.code, Some(0), "{outcome:?}\n{}", home.log());
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("", ""));
    // It serves from the first moment on.
    let target = Target::Unix(home.path().join("server.sock"));
    assert_eq!(Connection::open(&target).unwrap().get("/").unwrap().status, 200);

    let master = home.master().expect("the pidfile is written");
    let session = getsid(Some(Pid::from_raw(master))).unwrap();
    assert_ne!(session, getsid(None).unwrap(), "it is away from our terminal");
    assert_ne!(session.as_raw(), master, "and cannot get another");
    let workers = proc::children(master);
    assert!(!workers.is_empty());
    for pid in [vec![master], workers.clone()].concat() {
        for stream in 0..3 {
            let stream = fs::read_link(format!("/proc/{pid}/fd/{stream}")).unwrap();
            assert_eq!(stream, Path::new("/dev/null"));
        }
        assert!(!proc::file_targets(pid).contains(&PathBuf::from("/etc/passwd")), "{pid}");
    }
    kill(Pid::from_raw(master), Signal::SIGTERM).unwrap();
    eventually(DEADLINE, "the daemon ends", || {
        ![vec![master], workers.clone()].concat().into_iter().any(proc::is_alive)
    });
    assert_eq!(home.master(), None, "the pidfile is removed");
    assert!(home.log().contains("stopped"), "{}", home.log());
}

#[test]
fn a_start_that_fails_is_told_to_the_one_who_started_it() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let home = Home::new();
    let program = Program::probe().within(home.path()).bind(&addr).args("-D -w 1 --error-logfile error.log");
    let outcome = program.run();
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.stderr.contains(&addr), "{outcome:?}");

    // The app dies at its start; the settings are wrong; a running server holds the pidfile.
    fs::write(home.path().join("die"), "").unwrap();
    let outcome = home.start(Program::example("misuse"), "--error-logfile error.log");
    assert_eq!(outcome.code, Some(3), "{outcome:?}");
    assert!(outcome.stderr.contains("no worker ever became ready"), "{outcome:?}");
    fs::remove_file(home.path().join("die")).unwrap();

    let outcome = home.start(Program::probe(), "--timeout never");
    assert_eq!(outcome.code, Some(2), "{outcome:?}");
    assert!(outcome.stderr.contains("--timeout"), "{outcome:?}");

    assert_eq!(home.start(Program::probe(), "--error-logfile error.log").code, Some(0), "{}", home.log());
    let second = home.path().join("second.sock");
    let program = Program::probe().within(home.path()).bind(&format!("unix:{}", second.display()));
    let outcome = program.args("-D -w 1 -p server.pid --error-logfile error.log").run();
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.stderr.contains("server.pid"), "{outcome:?}");
    assert!(home.master().is_some_and(proc::is_alive), "the first one serves on");
}

#[test]
fn a_log_that_would_be_lost_is_warned_about() {
    let home = Home::new();
    let outcome = home.start(Program::probe(), "");
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(outcome.stderr.contains("errorlog"), "{outcome:?}");
}

#[test]
fn a_daemon_that_is_killed_before_it_serves_is_a_failure() {
    let home = Home::new();
    fs::write(home.path().join("hang"), "").unwrap();
    let outcome = std::thread::scope(|scope| {
        let start = scope.spawn(|| home.start(Program::example("misuse"), "--error-logfile error.log"));
        eventually(DEADLINE, "a worker was started", || home.log().contains("worker spawned"));
        kill(Pid::from_raw(home.master().unwrap()), Signal::SIGKILL).unwrap();
        start.join().unwrap()
    });
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.stderr.contains("killed before it was ready"), "{outcome:?}");
}

#[test]
fn an_upgrade_of_a_daemon_is_a_daemon() {
    let home = Home::new();
    let outcome = home.start(Program::probe(), "--error-logfile error.log");
    assert_eq!(outcome.code, Some(0), "{outcome:?}\n{}", home.log());
    let before = home.master().expect("the pidfile is written");
    let session = getsid(Some(Pid::from_raw(before))).unwrap();
    let target = Target::Unix(home.path().join("server.sock"));
    let load = Load::on(target).without_keep_alive().start();
    load.wait_answered(100);

    kill(Pid::from_raw(before), Signal::SIGUSR2).unwrap();
    eventually(DEADLINE, "the old master leaves", || !proc::is_alive(before));
    let after = home.master().expect("the pidfile is the new master's");
    assert_ne!(after, before);
    assert_eq!(getsid(Some(Pid::from_raw(after))).unwrap(), session, "away from our terminal");
    load.finish().assert_none_failed();
    kill(Pid::from_raw(after), Signal::SIGTERM).unwrap();
    eventually(DEADLINE, "the daemon ends", || !proc::is_alive(after));
    assert_eq!(home.master(), None, "the pidfile is removed");
}

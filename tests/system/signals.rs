//! Each signal to the master and to a worker. Not here: reload, resize and stop under load.

use crate::support::said::Line;
use crate::support::server::End;
use crate::support::{
    Connection, DEADLINE, Program, Said, Server, Target, busy, eventually, holds_for, millis, proc, seconds,
};
use nix::sys::signal::Signal::{self, *};
use std::fs;

/// Long enough for a signal that is ignored to have done its harm.
const WATCH: std::time::Duration = std::time::Duration::from_millis(300);

fn probe(workers: usize) -> Server {
    Program::probe().workers(workers).start()
}

#[test]
fn int_and_quit_stop_at_once_and_term_waits_for_what_is_open() {
    // (signal, how long the open request takes, whether it is answered)
    for (signal, ms, answered) in [(SIGTERM, 1500, true), (SIGINT, 60_000, false), (SIGQUIT, 60_000, false)] {
        let mut server = probe(2);
        let mut client = server.connect();
        client.send(format!("GET /sleep?ms={ms} HTTP/1.1\r\nhost: test\r\n\r\n")).unwrap();
        let mut witness = server.connect();
        assert_eq!(witness.get("/").unwrap().status, 200);
        let workers = server.workers();
        server.signal(signal);
        assert_eq!(client.read().is_ok(), answered, "{signal}");
        assert_eq!(server.wait_exit(), End::Code(0), "{signal}");
        server.wait_nobody_left(&workers, DEADLINE);
        server.wait(Said::Stopping);
        server.wait(Said::Stopped);
    }
}

#[test]
fn int_makes_a_slow_stop_quick_and_a_second_term_does_not() {
    let mut server = probe(1);
    let mut client = server.connect();
    client.send("GET /sleep?ms=60000 HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
    // The worker has read the request once it answers the one behind it on another connection.
    assert_eq!(server.get("/").status, 200);
    server.signal(SIGTERM);
    server.wait(Said::Draining);
    server.signal(SIGTERM);
    holds_for(WATCH, "a second TERM changes nothing", || !server.has_ended());
    server.signal(SIGINT);
    assert_eq!(server.wait_exit_within(seconds(15)), End::Code(0), "before graceful_timeout");
    assert!(client.read().is_err());
}

#[test]
fn ttin_and_ttou_add_and_remove_a_worker() {
    let mut server = probe(2);
    server.signal(SIGTTIN);
    server.wait_count(Said::Ready, 3);
    assert_eq!(server.workers().len(), 3);
    server.signal(SIGTTOU);
    server.wait_count(Said::Exited, 1);
    eventually(DEADLINE, "two workers are left", || server.workers().len() == 2);
    server.stop();
}

#[test]
fn the_oldest_worker_leaves_on_ttou() {
    let mut server = probe(2);
    let first = server.workers();
    server.signal(SIGTTIN);
    let newcomer = server.wait_count(Said::Ready, 3).number("pid");
    server.signal(SIGTTOU);
    let gone = server.wait(Said::Exited).number("pid");
    assert!(first.contains(&gone) && gone != newcomer);
    server.stop();
}

#[test]
fn hup_replaces_every_worker() {
    let mut server = probe(2);
    let old = server.workers();
    server.signal(SIGHUP);
    server.wait(Said::ReloadDone);
    server.wait_nobody_left(&old, DEADLINE);
    assert_eq!(server.workers().len(), 2);
    assert_eq!(server.get("/").status, 200);
    server.stop();
}

#[test]
fn usr1_reopens_the_logs_of_master_and_workers() {
    let mut server =
        Program::probe().args("-w 1 --access-logfile access.log --error-logfile error.log").spawn();
    let dir = server.dir().to_owned();
    let read = |name: &str| fs::read_to_string(dir.join(name)).unwrap_or_default();
    eventually(DEADLINE, "the worker is ready", || read("error.log").contains("worker ready"));
    let log = read("error.log");
    let listening = log.lines().map(|raw| Line { raw: raw.to_owned() }).find(|line| line.is(Said::Listening));
    let target = Target::named(listening.unwrap().value("on").unwrap(), &dir);
    let get = |path: &str| Connection::open(&target).unwrap().get(path).unwrap().status;
    assert_eq!(get("/?before"), 200);
    eventually(DEADLINE, "the access log is written", || read("access.log").contains("/?before"));

    for name in ["access", "error"] {
        fs::rename(dir.join(format!("{name}.log")), dir.join(format!("{name}.old"))).unwrap();
    }
    server.signal(SIGUSR1);
    eventually(DEADLINE, "both files are made anew", || {
        dir.join("access.log").exists() && dir.join("error.log").exists()
    });
    let worker = server.worker();
    let holds_old =
        |pid: i32| proc::file_targets(pid).iter().any(|path| path.to_string_lossy().ends_with(".old"));
    eventually(DEADLINE, "nobody holds the old files", || !holds_old(server.pid()) && !holds_old(worker));
    assert_eq!(get("/?after"), 200);
    eventually(DEADLINE, "the new access log is written", || read("access.log").contains("/?after"));
    assert!(!read("access.old").contains("/?after"));
    assert_eq!(server.worker(), worker, "the worker lives on");
    server.signal(SIGTERM);
    assert_eq!(server.wait_exit(), End::Code(0));
    assert!(read("error.log").contains("stopped"));
}

#[test]
fn the_master_ignores_what_has_no_meaning() {
    let mut server = probe(1);
    let worker = server.worker();
    for signal in [SIGWINCH, SIGPIPE] {
        server.signal(signal);
    }
    holds_for(WATCH, "the same processes serve", || !server.has_ended() && proc::is_alive(worker));
    assert_eq!(server.get("/pid").worker(), worker);
    server.stop();
}

#[test]
fn a_worker_ignores_what_is_meant_for_the_master() {
    let mut server = probe(1);
    let worker = server.worker();
    for signal in [SIGHUP, SIGUSR2, SIGTTIN, SIGTTOU, SIGWINCH, SIGPIPE] {
        server.signal_to(worker, signal);
        assert_eq!(server.get("/pid").worker(), worker, "{signal}");
    }
    holds_for(WATCH, "the worker stays, and stays alone", || server.workers() == [worker]);
    assert_eq!(server.count(Said::ReloadRequested), 0);
    server.stop();
}

#[test]
fn a_worker_that_gets_term_drains_and_is_replaced_at_once() {
    let mut server = probe(1);
    let old = server.worker();
    let mut client = server.connect();
    client.send("GET /sleep?ms=2000 HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
    assert_eq!(server.get("/").status, 200);
    server.signal_to(old, SIGTERM);
    // The successor answers while the old one still works.
    let new = server.wait_count(Said::Ready, 2).number("pid");
    assert_eq!(server.get("/pid").worker(), new);
    assert_eq!(client.read().unwrap().worker(), old);
    server.wait_about(Said::Exited, old);
    assert_eq!(server.count(Said::BackOff), 0, "leaving on TERM is no failure");
    server.stop();
}

#[test]
fn a_worker_that_gets_int_or_quit_leaves_at_once_and_is_replaced() {
    for signal in [SIGINT, SIGQUIT] {
        let mut server = probe(1);
        let old = server.worker();
        let mut client = server.connect();
        client.send("GET /sleep?ms=60000 HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
        assert_eq!(server.get("/").status, 200);
        server.signal_to(old, signal);
        assert!(client.read().is_err(), "{signal}");
        server.wait_about(Said::Exited, old);
        server.wait_count(Said::Ready, 2);
        assert_ne!(server.get("/pid").worker(), old);
        server.stop();
    }
}

#[test]
fn the_master_answers_a_signal_within_50_ms_while_a_worker_is_stuck() {
    let _alone = crate::support::alone();
    let mut server = Program::probe().workers(2).args("--graceful-timeout 60s").start();
    // A drain that lasts, a boot that goes on: neither may hold the master up.
    let (stuck, mut client) = server.connections_to_all(2).swap_remove(0);
    client.send("GET /sleep?ms=20000 HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
    server.signal_to(stuck, SIGTERM);
    server.wait_about(Said::Draining, stuck);
    let mut delays = Vec::new();
    for count in 1..=8 {
        let begin = std::time::Instant::now();
        server.signal(Signal::SIGTTIN);
        server.wait_count(Said::Spawned, 3 + count);
        delays.push(begin.elapsed());
    }
    // One that waits for a worker is late each time; a busy machine is not.
    assert!(delays.iter().min() < Some(&busy(millis(50))), "{delays:?}");
    server.signal(SIGQUIT);
    assert_eq!(server.wait_exit(), End::Code(0));
}

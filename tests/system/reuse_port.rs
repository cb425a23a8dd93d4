//! `reuse_port`: queues of their own for the workers, and nothing lost in them, whatever becomes of their worker.

use crate::support::{Connection, DEADLINE, Load, Program, Said, Server, Target, eventually};
use nix::sys::signal::Signal::{self, SIGCONT, SIGHUP, SIGKILL, SIGTTIN, SIGTTOU};
use std::net::SocketAddr;

/// How many connections wait in the queue of a worker that does not run.
const WAITING: usize = 200;

/// A server with one worker, which is stopped, and connections with a request each in its queue.
fn stopped_with_a_queue(graceful: &str) -> (Server, i32, Vec<Connection>) {
    let args = format!("--reuse-port --graceful-timeout {graceful}");
    let server = Program::probe().workers(1).args(&args).start();
    let worker = server.worker();
    server.halt(worker);
    let mut clients: Vec<Connection> = (0..WAITING).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send("GET /pid HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
    }
    (server, worker, clients)
}

/// One worker more, which is ready.
fn grow(server: &Server) -> i32 {
    let ready = server.count(Said::Ready);
    server.signal(SIGTTIN);
    server.wait_count(Said::Ready, ready + 1).number("pid")
}

/// Every client is answered, and not by `not_by`.
#[track_caller]
fn assert_none_lost(clients: Vec<Connection>, not_by: &[i32]) {
    for (number, mut client) in clients.into_iter().enumerate() {
        let answer = client.read().unwrap_or_else(|failure| panic!("client {number} is lost: {failure}"));
        assert_eq!(answer.status, 200);
        assert!(!not_by.contains(&answer.worker()), "client {number}");
    }
}

#[test]
fn what_waits_on_a_stopped_worker_is_served_by_another_when_there_is_one_less() {
    let (mut server, stopped, clients) = stopped_with_a_queue("2s");
    let other = grow(&server);
    server.signal(SIGTTOU);
    assert_none_lost(clients, &[stopped]);
    let exited = server.wait_about(Said::Exited, stopped);
    assert!(exited.raw.contains("SIGKILL"), "it overran graceful_timeout: {}", exited.raw);
    assert_eq!(server.worker(), other);
    assert_eq!(server.get("/pid").worker(), other);
    server.stop();
}

#[test]
fn what_waits_on_a_killed_worker_is_served_by_its_successor() {
    let (mut server, stopped, clients) = stopped_with_a_queue("2s");
    server.signal_to(stopped, SIGKILL);
    assert_none_lost(clients, &[stopped]);
    server.stop();
}

#[test]
fn what_waits_on_a_killed_worker_is_served_by_another_when_there_is_one_less() {
    let (mut server, stopped, clients) = stopped_with_a_queue("2s");
    let other = grow(&server);
    server.signal(SIGTTOU);
    server.signal_to(stopped, SIGKILL);
    assert_none_lost(clients, &[stopped]);
    eventually(DEADLINE, "one is left", || server.workers() == [other]);
    server.stop();
}

#[test]
fn what_waits_outlives_all_who_could_have_taken_it() {
    let (mut server, stopped, clients) = stopped_with_a_queue("2s");
    let other = grow(&server);
    server.halt(other);
    // Nobody runs who could take it: not the one that is to go, nor the one that stays, which dies in the end.
    server.signal(SIGTTOU);
    server.wait_about(Said::Exited, stopped);
    server.signal_to(other, SIGKILL);
    assert_none_lost(clients, &[stopped, other]);
    server.stop();
}

#[test]
fn what_waits_on_a_worker_that_hangs_is_served_when_it_is_given_up() {
    let server = Program::probe().workers(1).args("--reuse-port --timeout 2s");
    let mut server = server.start();
    let hanging = server.worker();
    server.halt(hanging);
    let clients: Vec<Connection> = (0..WAITING)
        .map(|_| {
            let mut client = server.connect();
            client.send("GET /pid HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
            client
        })
        .collect();
    assert_none_lost(clients, &[hanging]);
    server.stop();
}

#[test]
fn a_worker_that_wakes_after_it_was_given_up_leaves_as_it_should() {
    let (mut server, stopped, clients) = stopped_with_a_queue("60s");
    grow(&server);
    server.signal(SIGTTOU);
    server.signal_to(stopped, SIGCONT);
    assert_none_lost(clients, &[]);
    assert_eq!(server.wait_about(Said::Exited, stopped).value("cause"), Some("exit code 0"));
    server.stop();
}

#[test]
fn each_worker_has_a_queue_at_each_tcp_address() {
    let mut server = Program::probe()
        .bind("127.0.0.1:0,unix:server.sock,127.0.0.1:0")
        .workers(3)
        .args("--reuse-port")
        .start();
    server.wait_count(Said::Listening, 3);
    let targets: Vec<Target> = server
        .log()
        .iter()
        .filter(|line| line.is(Said::Listening))
        .map(|line| Target::named(line.value("on").unwrap(), server.dir()))
        .collect();
    for target in &targets {
        if let Target::Tcp(addr) = target {
            // The table may be read while it changes.
            eventually(DEADLINE, "three queues are there", || queues(*addr) == 3);
        }
        Load::on(target.clone()).without_keep_alive().at_least(300).start().finish().assert_none_failed();
    }
    server.stop();
    for target in &targets {
        assert!(Connection::open(target).is_err(), "{target:?}");
    }
}

#[test]
fn another_server_is_kept_off_the_address() {
    let mut server = Program::probe().workers(2).args("--reuse-port").start();
    let second = Program::probe().bind(&server.addr().to_string()).args("-w 1 --reuse-port").run();
    assert_eq!(second.code, Some(1), "{second:?}");
    assert_eq!(server.get("/").status, 200);
    server.stop();
}

#[test]
fn resizes_and_reloads_take_no_more_queues_than_there_were_workers() {
    let mut server = Program::probe().workers(1).args("--reuse-port").start();
    for _ in 0..3 {
        for signal in [SIGTTIN, SIGTTIN, SIGHUP, SIGTTOU, SIGTTOU] {
            carry_out(&server, signal);
        }
    }
    let queues = queues(server.addr());
    assert!((1..=3).contains(&queues), "{queues} queues");
    assert_eq!(server.get("/pid").worker(), server.worker());
    server.stop();
}

fn carry_out(server: &Server, signal: Signal) {
    let (said, times) = match signal {
        SIGTTIN => (Said::Ready, 1),
        SIGTTOU => (Said::Exited, 1),
        _ => (Said::Exited, server.workers().len()),
    };
    let count = server.count(said);
    server.signal(signal);
    server.wait_count(said, count + times);
}

/// How many sockets listen on the address, as /proc/net/tcp has them (proc(5)): its state 0A.
fn queues(addr: SocketAddr) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let SocketAddr::V4(v4) = addr else { panic!("{addr} is not IPv4") };
    let place = format!("{:08X}:{:04X}", u32::from_ne_bytes(v4.ip().octets()), v4.port());
    let listens = |line: &&str| {
        let mut fields = line.split_whitespace().skip(1);
        fields.next().is_some_and(|local| local == place) && fields.nth(1) == Some("0A")
    };
    table.lines().filter(listens).count()
}

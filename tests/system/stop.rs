//! The end: what is open is answered, what waits is answered, nobody is left, and the port is free.

use crate::support::http::UPLOAD;
use crate::support::server::End;
use crate::support::{
    Connection, DEADLINE, Failure, Program, Said, Server, eventually, millis, proc, seconds,
};
use nix::sys::signal::Signal::{SIGCONT, SIGKILL, SIGSTOP, SIGTERM};
use std::net::TcpListener;
use std::time::{Duration, Instant};

/// Long enough for a slow machine to have been told to stop by then.
const SLOW: &str = "GET /sleep?ms=4000 HTTP/1.1\r\nhost: test\r\n\r\n";

#[test]
fn twenty_slow_requests_are_answered_at_term() {
    let mut server = Program::probe().workers(2).start();
    let mut clients = open_slow(&server, 20);
    server.signal(SIGTERM);
    for client in &mut clients {
        let response = client.read().unwrap();
        assert_eq!(response.status, 200);
        assert!(client.is_closing(), "the last answer says so");
        client.read_end().unwrap();
    }
    assert_eq!(server.wait_exit(), End::Code(0));
    assert_port_is_free(&server);
}

/// Connections whose requests are in the workers' hands.
fn open_slow(server: &Server, count: usize) -> Vec<Connection> {
    let mut clients: Vec<Connection> = (0..count).map(|_| server.connect()).collect();
    for client in &mut clients {
        // The first answer shows that the connection was accepted.
        assert_eq!(client.get("/").unwrap().status, 200);
        client.send(SLOW).unwrap();
    }
    clients
}

#[test]
fn connections_that_wait_in_the_queue_are_answered_at_term() {
    let mut server = Program::probe().workers(2).start();
    let workers = server.workers();
    for &worker in &workers {
        server.signal_to(worker, SIGSTOP);
    }
    let mut clients: Vec<Connection> = (0..50).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
    }
    // TERM waits with the stopped workers and is the first thing they learn.
    server.signal(SIGTERM);
    server.wait(Said::Stopping);
    for &worker in &workers {
        server.signal_to(worker, SIGCONT);
    }
    let answered = clients.iter_mut().filter_map(|client| client.read().ok()).count();
    assert_eq!(answered, 50);
    assert_eq!(server.wait_exit(), End::Code(0));
}

#[test]
fn a_kept_connection_can_still_ask_during_the_drain() {
    let mut server = Program::probe().workers(1).start();
    let mut slow = open_slow(&server, 1).remove(0);
    let mut idle = server.connect();
    assert_eq!(idle.get("/").unwrap().status, 200);
    server.signal(SIGTERM);
    server.wait(Said::Draining);
    let last = idle.get("/echo?msg=last").unwrap();
    assert_eq!((last.status, last.text().as_str()), (200, "last"));
    assert!(idle.is_closing());
    assert_eq!(slow.read().unwrap().status, 200);
    assert_eq!(server.wait_exit(), End::Code(0));
}

#[test]
fn many_kept_connections_leave_a_worker_that_drains_in_turn() {
    const KEPT: usize = 400;
    let mut server = Program::probe().workers(1).start();
    let mut kept: Vec<Connection> = (0..KEPT).map(|_| server.connect()).collect();
    for client in &mut kept {
        assert_eq!(client.get("/").unwrap().status, 200);
    }
    server.signal(SIGTERM);
    server.wait(Said::Draining);
    // The turn of the last one comes after most of a second.
    let mut last = kept.pop().unwrap();
    assert_eq!(last.get("/").unwrap().status, 200);
    assert!(!last.is_closing(), "it may ask again");
    eventually(DEADLINE, "its turn came", || {
        assert_eq!(last.get("/").unwrap().status, 200);
        last.is_closing()
    });
    assert_eq!(server.wait_exit(), End::Code(0));
}

#[test]
fn idle_connections_do_not_hold_the_stop_up() {
    let mut server = Program::probe().workers(1).start();
    let mut idle = server.connect();
    assert_eq!(idle.get("/").unwrap().status, 200);
    let mut silent = server.connect();
    let begin = Instant::now();
    server.signal(SIGTERM);
    assert_eq!(server.wait_exit(), End::Code(0));
    // At most a second of linger, and not all of graceful_timeout.
    assert!(begin.elapsed() < seconds(15), "{:?}", begin.elapsed());
    idle.read_end().unwrap();
    // Nobody has accepted one that was young and silent; it hears of the stop when it speaks.
    assert!(silent.get("/").is_err());
}

#[test]
fn the_drain_ends_at_graceful_timeout() {
    let mut server = Program::probe().workers(1).args("--graceful-timeout 1s").start();
    let mut client = server.connect();
    assert_eq!(client.get("/").unwrap().status, 200);
    client.send("GET /sleep?ms=60000 HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
    assert_eq!(server.get("/").status, 200);
    let begin = Instant::now();
    server.signal(SIGTERM);
    assert_eq!(server.wait_exit(), End::Code(0));
    assert!(begin.elapsed() >= seconds(1) && begin.elapsed() < seconds(15), "{:?}", begin.elapsed());
    assert!(client.read().is_err());
}

#[test]
fn nobody_is_accepted_once_it_stops() {
    let mut server = Program::probe().workers(1).start();
    let target = server.target();
    let mut slow = server.connect();
    slow.begin_upload();
    server.signal(SIGTERM);
    eventually(seconds(15), "new connections are refused", || {
        matches!(Connection::open(&target), Err(Failure::Refused | Failure::Reset))
    });
    // Before the drain has ended.
    slow.send(UPLOAD).unwrap();
    assert_eq!(slow.read().unwrap().text(), "6");
    assert_eq!(server.wait_exit(), End::Code(0));
}

#[test]
fn no_worker_outlives_a_killed_master_and_the_port_is_free() {
    for args in ["", "--timeout 0"] {
        let mut server = Program::probe().workers(3).args(args).start();
        let workers = server.workers();
        // One busy event loop, one busy handler thread: they too must go.
        let [mut spinning, mut blocking] = [server.connect(), server.connect()];
        spinning.send("GET /spin?ms=120000 HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
        blocking.send("GET /block?ms=120000 HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
        let before: Vec<Duration> = workers.iter().map(|&worker| proc::cpu_time(worker)).collect();
        let spins = |(&worker, &before): (&i32, &Duration)| proc::cpu_time(worker) > before + millis(50);
        eventually(DEADLINE, "a worker spins", || workers.iter().zip(&before).any(spins));
        server.signal(SIGKILL);
        assert_eq!(server.wait_exit(), End::Signal(9));
        server.wait_nobody_left(&workers, DEADLINE);
        assert_port_is_free(&server);
    }
}

#[test]
fn a_master_killed_while_it_starts_leaves_nobody() {
    for _ in 0..10 {
        let mut server = Program::probe().args("-w 8").spawn();
        server.wait(Said::Spawned);
        let workers = server.workers();
        server.signal(SIGKILL);
        server.wait_exit();
        server.wait_nobody_left(&workers, DEADLINE);
    }
}

#[track_caller]
fn assert_port_is_free(server: &Server) {
    let addr = server.addr();
    eventually(DEADLINE, "the port is free", || TcpListener::bind(addr).is_ok());
}

#[test]
fn a_lame_duck_serves_on_and_says_so_before_it_drains() {
    let server = Program::probe().workers(1).args("--lame-duck 1h").start();
    assert_eq!(server.get("/ready").status, 200);
    server.signal(SIGTERM);
    server.wait(Said::LameDuck);
    eventually(DEADLINE, "it is not to be counted on", || server.get("/ready").status == 503);
    let worker = server.worker();
    server.signal_to(worker, SIGKILL);
    server.wait_count(Said::Ready, 2);
    assert_eq!(server.get("/ready").status, 503, "newcomers know it, too");
    assert_eq!(server.get("/").status, 200, "it serves");
    assert_eq!(server.count(Said::Stopping), 0);
}

#[test]
fn a_lame_duck_stops_when_its_time_is_over() {
    let mut server = Program::probe().workers(1).args("--lame-duck 1s").start();
    let begin = Instant::now();
    server.signal(SIGTERM);
    server.wait(Said::Stopping);
    assert!(begin.elapsed() >= seconds(1), "{:?}", begin.elapsed());
    assert_eq!(server.wait_exit(), End::Code(0));
}

#[test]
fn a_second_term_ends_the_lame_duck() {
    let mut server = Program::probe().workers(1).args("--lame-duck 1h").start();
    server.signal(SIGTERM);
    server.wait(Said::LameDuck);
    server.signal(SIGTERM);
    assert_eq!(server.wait_exit(), End::Code(0));
}

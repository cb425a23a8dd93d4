//! `request_timeout`: a single request is answered 504 in time, and what becomes of its work.

use crate::support::{DEADLINE, Program, Said, eventually, holds_for, millis, proc, seconds};
use nix::sys::signal::Signal::SIGTERM;
use std::time::Instant;

#[test]
fn a_late_request_is_a_504_and_its_connection_is_kept() {
    let mut server = Program::probe().workers(1).args("--request-timeout 500ms").start();
    let mut client = server.connect();
    let begin = Instant::now();
    let late = client.get("/sleep?ms=60000&hush").unwrap();
    assert_eq!((late.status, client.is_closing()), (504, false));
    assert!(begin.elapsed() >= millis(500), "{:?}", begin.elapsed());
    assert!(begin.elapsed() < seconds(20), "{:?}", begin.elapsed());
    assert_eq!(client.get("/echo?msg=next").unwrap().text(), "next");
    let line = server.wait(Said::Late);
    assert_eq!((line.value("method"), line.value("path")), (Some("GET"), Some("/sleep")));
    assert!(server.log_with("hush").is_empty());
    // Each request has its own time.
    for _ in 0..4 {
        assert_eq!(client.get("/sleep?ms=200").unwrap().status, 200);
    }
    server.stop();
}

#[test]
fn a_request_may_extend_its_time() {
    let mut server = Program::probe().workers(1).args("--request-timeout 500ms").start();
    let begin = Instant::now();
    assert_eq!(server.get("/patient?ms=1500&extend=30000").status, 200);
    assert!(begin.elapsed() >= millis(1500));
    let begin = Instant::now();
    assert_eq!(server.get("/patient?ms=60000&extend=1000").status, 504);
    assert!(begin.elapsed() >= millis(1000) && begin.elapsed() < seconds(20), "{:?}", begin.elapsed());
    assert_eq!(server.get("/patient?ms=60000&extend=0").status, 504, "it is never shortened");
    server.stop();
    // And where there is no limit it asks in vain, and harmlessly.
    let mut server = Program::probe().workers(1).start();
    assert_eq!(server.get("/patient?ms=1&extend=1").text(), "slept 1 ms, None left\n");
    server.stop();
}

#[test]
fn a_call_that_does_not_come_back_has_its_worker_replaced() {
    let args = "--request-timeout 500ms --graceful-timeout 500ms";
    let mut server = Program::probe().workers(1).args(args).start();
    let old = server.worker();
    assert_eq!(server.get("/block?ms=60000").status, 504);
    let retiring = server.wait(Said::Retiring);
    assert!(retiring.raw.contains("outlived its request"), "{}", retiring.raw);
    let new = server.wait_count(Said::Ready, 2).number("pid");
    server.wait_about(Said::Draining, old);
    eventually(DEADLINE, "the thread cannot be ended, so the process is", || !proc::is_alive(old));
    assert_eq!(server.get("/pid").worker(), new);
    server.stop();
}

#[test]
fn a_call_that_comes_back_late_costs_no_worker_and_one_that_waits_never_starts() {
    // A call may outlive its request for as long as that again: there is time for a machine that sleeps.
    let mut server = Program::probe().workers(1).args("--request-timeout 3s --threads 1").start();
    let worker = server.worker();
    let mut running = server.connect();
    running.send("GET /block?ms=3500 HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
    assert_eq!(server.get("/").status, 200);
    // Had it stayed in the queue, its call would run for a minute.
    assert_eq!(server.get("/block?ms=60000").status, 504);
    assert_eq!(running.read().unwrap().status, 504);
    eventually(DEADLINE, "the thread is free", || server.get("/block?ms=1").status == 200);
    holds_for(seconds(2), "the worker stays", || server.workers() == [worker]);
    assert_eq!(server.count(Said::Retiring), 0);
    server.stop();
}

#[test]
fn an_extended_call_is_not_given_up_early() {
    let mut server = Program::probe().workers(1).args("--request-timeout 300ms").start();
    let worker = server.worker();
    assert_eq!(server.get("/patient?ms=100&extend=30000&block=2500").status, 200);
    assert_eq!(server.get("/pid").worker(), worker);
    assert_eq!(server.count(Said::Retiring), 0);
    server.stop();
}

#[test]
fn the_body_is_within_the_time() {
    let mut server = Program::probe().workers(1).args("--request-timeout 500ms").start();
    let mut client = server.connect();
    client.send("POST /echo HTTP/1.1\r\nhost: test\r\ncontent-length: 100\r\n\r\nhalf").unwrap();
    assert_eq!(client.read().unwrap().status, 504);
    // What is missing of the body cannot be told from another request.
    client.read_end().unwrap();
    server.stop();
}

#[test]
fn a_late_request_of_a_draining_worker_closes_its_connection() {
    let mut server = Program::probe().workers(1).args("--request-timeout 5s").start();
    let mut client = server.connect();
    client.send("GET /sleep?ms=60000 HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
    assert_eq!(server.get("/").status, 200);
    server.signal(SIGTERM);
    server.wait(Said::Draining);
    assert_eq!(client.read().unwrap().status, 504);
    assert!(client.is_closing());
    server.wait_exit();
}

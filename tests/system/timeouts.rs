//! Time limits: a silent event loop, a blocking call that does not end, and clients that take their time.

use crate::support::{DEADLINE, Program, Said, eventually, holds_for, millis, proc, seconds};
use std::time::{Duration, Instant};

#[test]
fn a_silent_event_loop_is_aborted_and_replaced() {
    let mut server = Program::probe().workers(2).args("--timeout 2s").start();
    let mut connections = server.connections_to_all(2);
    let (stuck, mut client) = connections.remove(0);
    let (witness, mut other) = connections.remove(0);
    let begin = Instant::now();
    client.send("GET /spin?ms=60000 HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
    let exited = server.wait_about(Said::Exited, stuck);
    assert!(exited.raw.contains("SIGABRT"), "{}", exited.raw);
    assert!(begin.elapsed() >= seconds(2) - millis(300), "not before its time: {:?}", begin.elapsed());
    assert!(begin.elapsed() < seconds(20), "{:?}", begin.elapsed());
    server.wait(Said::Silent);
    assert!(client.read().is_err());
    server.wait_count(Said::Ready, 3);
    assert_eq!(other.get("/pid").unwrap().worker(), witness, "the other one served on");
    server.stop();
}

#[test]
fn a_stopped_worker_that_cannot_abort_is_killed() {
    use nix::sys::signal::Signal::SIGSTOP;
    let mut server = Program::probe().workers(1).args("--timeout 1s").start();
    let stuck = server.worker();
    // ABRT stays pending in a stopped process; KILL does not.
    server.signal_to(stuck, SIGSTOP);
    let exited = server.wait_about(Said::Exited, stuck);
    assert!(exited.raw.contains("SIGKILL"), "{}", exited.raw);
    server.wait_count(Said::Ready, 2);
    assert_eq!(server.get("/").status, 200);
    server.stop();
}

#[test]
fn an_idle_worker_and_a_slow_async_request_are_not_silent() {
    let mut server = Program::probe().workers(1).args("--timeout 1s").start();
    let worker = server.worker();
    assert_eq!(server.get("/sleep?ms=3500").worker(), worker);
    assert_eq!(server.count(Said::Exited), 0);
    server.stop();
}

#[test]
fn a_master_that_was_stopped_itself_blames_nobody() {
    use nix::sys::signal::Signal::{SIGCONT, SIGSTOP};
    let mut server = Program::probe().workers(2).args("--timeout 1s").start();
    let workers = server.workers();
    server.signal(SIGSTOP);
    holds_for(millis(2500), "workers serve without a master", || server.get("/").status == 200);
    server.signal(SIGCONT);
    holds_for(millis(500), "no worker is late", || server.workers() == workers);
    server.stop();
}

#[test]
fn timeout_zero_lets_a_worker_spin() {
    let mut server = Program::probe().workers(1).args("--timeout 0").start();
    let worker = server.worker();
    assert_eq!(server.get("/spin?ms=3000").worker(), worker);
    server.stop();
}

#[test]
fn a_call_that_blocks_too_long_is_a_504_and_its_worker_is_replaced() {
    let mut server = Program::probe().workers(1).args("--timeout 1s --graceful-timeout 2s").start();
    let old = server.worker();
    let mut bystander = server.connect();
    assert_eq!(bystander.get("/pid").unwrap().worker(), old);
    let begin = Instant::now();
    let mut client = server.connect();
    client.send("GET /block?ms=60000 HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
    assert_eq!(bystander.get("/echo?msg=meanwhile").unwrap().text(), "meanwhile");
    assert_eq!(client.read().unwrap().status, 504);
    assert!(begin.elapsed() >= seconds(1) && begin.elapsed() < seconds(20), "{:?}", begin.elapsed());
    // The successor is ready before the old one drains.
    let new = server.wait_count(Said::Ready, 2).number("pid");
    let drained = server.wait_about(Said::Draining, old);
    let log = server.log();
    let place = |raw: &str| log.iter().position(|line| line.raw == raw).unwrap();
    let ready = log.iter().position(|line| line.is(Said::Ready) && line.number("pid") == new).unwrap();
    assert!(ready < place(&drained.raw), "successor first");
    eventually(DEADLINE, "the thread cannot be ended, so the process is", || !proc::is_alive(old));
    assert_eq!(server.get("/pid").worker(), new);
    server.stop();
}

/// One misbehaving client: what it sends at once, and what it gets after about `after`.
struct Slow {
    what: &'static str,
    sends: &'static str,
    /// `None`: closed without an answer.
    status: Option<u16>,
    after: Duration,
}

const SLOW: [Slow; 5] = [
    Slow { what: "nothing at all", sends: "", status: None, after: Duration::from_secs(1) },
    Slow {
        what: "half a head",
        sends: "GET / HTTP/1.1\r\nhost: te",
        status: Some(408),
        after: Duration::from_secs(1),
    },
    Slow {
        what: "half a body, streamed",
        sends: "POST /upload HTTP/1.1\r\nhost: test\r\ncontent-length: 100\r\n\r\nhalf",
        status: Some(408),
        after: Duration::from_secs(2),
    },
    Slow {
        what: "half a body, collected",
        sends: "POST /echo HTTP/1.1\r\nhost: test\r\ncontent-length: 100\r\n\r\nhalf",
        status: Some(408),
        after: Duration::from_secs(2),
    },
    Slow {
        what: "half a chunk",
        sends: "POST /upload HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n64\r\nhalf",
        status: Some(408),
        after: Duration::from_secs(2),
    },
];

#[test]
fn slow_clients_are_told_and_closed() {
    let args = "--header-timeout 1s --body-timeout 2s --keep-alive 30s";
    let mut server = Program::probe().workers(1).args(args).start();
    for slow in SLOW {
        let begin = Instant::now();
        let mut client = server.connect();
        client.send(slow.sends).unwrap();
        let answer = client.read().ok().map(|response| response.status);
        assert_eq!(answer, slow.status, "{}", slow.what);
        client.read_end().unwrap();
        let elapsed = begin.elapsed();
        let in_time = slow.after - millis(100)..seconds(20);
        assert!(in_time.contains(&elapsed), "{}: {elapsed:?}", slow.what);
    }
    server.stop();
}

#[test]
fn a_head_that_drips_is_late_as_a_whole() {
    let mut server = Program::probe().workers(1).args("--header-timeout 1s").start();
    let begin = Instant::now();
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nhost: test\r\n").unwrap();
    // Each line comes well within the limit; the head never ends. The wait for an answer is the client's pace.
    client.set_patience(millis(50)).unwrap();
    eventually(DEADLINE, "the server gives up", || {
        let _ = client.send("x: y\r\n");
        client.read().is_ok_and(|response| response.status == 408)
    });
    assert!(begin.elapsed() >= millis(900), "{:?}", begin.elapsed());
    server.stop();
}

#[test]
fn an_idle_connection_is_closed_after_keepalive() {
    let mut server = Program::probe().workers(1).args("--keep-alive 1s --header-timeout 60s").start();
    let mut client = server.connect();
    let mut begin = Instant::now();
    for _ in 0..3 {
        begin = Instant::now();
        assert_eq!(client.get("/").unwrap().status, 200);
    }
    client.read_end().unwrap();
    assert!(begin.elapsed() >= millis(900) && begin.elapsed() < seconds(20), "{:?}", begin.elapsed());
    server.stop();
}

/// A head is as old as its first byte is here, and not as the sweep before it.
#[test]
fn a_worker_that_slept_does_not_take_that_for_the_time_of_its_clients() {
    use nix::sys::signal::Signal::SIGCONT;
    let mut server = Program::probe().workers(1).args("--header-timeout 3s").start();
    let worker = server.worker();
    let mut client = server.connect();
    assert_eq!(client.get("/").unwrap().status, 200);
    server.halt(worker);
    client.send("GET / HTTP/1.1\r\n").unwrap();
    holds_for(seconds(5), "it sleeps for longer than a head may take", || proc::is_stopped(worker));
    server.signal_to(worker, SIGCONT);
    // It has seen the half of a head, and looked for what is overdue.
    assert_eq!(server.get("/sleep?ms=600").status, 200);
    client.send("host: test\r\n\r\n").unwrap();
    assert_eq!(client.read().unwrap().status, 200);
    server.stop();
}

#[test]
fn keepalive_is_not_cut_short_by_the_header_timeout() {
    let mut server = Program::probe().workers(1).args("--keep-alive 30s --header-timeout 1s").start();
    let mut client = server.connect();
    assert_eq!(client.get("/").unwrap().status, 200);
    client.set_patience(millis(2500)).unwrap();
    assert!(client.read_end().is_err(), "still open after two and a half seconds");
    client.set_patience(seconds(30)).unwrap();
    assert_eq!(client.get("/").unwrap().status, 200);
    server.stop();
}

#[test]
fn keepalive_zero_closes_after_every_answer() {
    let mut server = Program::probe().workers(1).args("--keep-alive 0").start();
    let mut client = server.connect();
    assert_eq!(client.get("/").unwrap().status, 200);
    client.read_end().unwrap();
    server.stop();
}

#[test]
fn a_body_that_the_app_does_not_ask_for_is_not_late() {
    let mut server = Program::probe().workers(1).args("--body-timeout 500ms").start();
    let mut client = server.connect();
    client.send("GET /sleep?ms=2000 HTTP/1.1\r\nhost: test\r\ncontent-length: 5\r\n\r\nha").unwrap();
    assert_eq!(client.read().unwrap().status, 200);
    server.stop();
}

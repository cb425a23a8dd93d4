//! Limits: on what a client may send, on what may wait, on connections and files.

use crate::support::{
    Connection, DEADLINE, Failure, Load, Program, Said, eventually, holds_for, http, millis, proc, seconds,
};
use std::fs;
use std::time::Instant;

#[test]
fn what_is_too_long_gets_its_status() {
    let args = "--limit-request-line 100 --limit-request-fields 10 --limit-request-field-size 200";
    let mut server = Program::probe().workers(1).args(args).args("--limit-request-body 1000").start();
    let fields = |count: usize| (0..count).map(|n| format!("x-{n}: y\r\n")).collect::<String>();
    let chunked = |size: usize| {
        format!("transfer-encoding: chunked\r\n\r\n{size:x}\r\n{}\r\n0\r\n\r\n", "b".repeat(size))
    };
    // "GET " and " HTTP/1.1" are 13 bytes of the line; "name: " belongs to the field; host is a field.
    let cases = [
        (format!("GET /{} HTTP/1.1\r\nhost: t\r\n\r\n", "a".repeat(86)), 404),
        (format!("GET /{} HTTP/1.1\r\nhost: t\r\n\r\n", "a".repeat(87)), 414),
        (format!("GET /{} HTTP/1.1\r\nhost: t\r\n\r\n", "a".repeat(9000)), 414),
        (format!("GET / HTTP/1.1\r\nhost: t\r\n{}\r\n", fields(9)), 200),
        (format!("GET / HTTP/1.1\r\nhost: t\r\n{}\r\n", fields(10)), 431),
        (format!("GET / HTTP/1.1\r\nhost: t\r\n{}\r\n", fields(500)), 431),
        (format!("GET / HTTP/1.1\r\nhost: t\r\nx: {}\r\n\r\n", "y".repeat(190)), 200),
        (format!("GET / HTTP/1.1\r\nhost: t\r\nx: {}\r\n\r\n", "y".repeat(201)), 431),
        (format!("GET / HTTP/1.1\r\nhost: t\r\nx: {}\r\n\r\n", "y".repeat(100_000)), 431),
        (
            format!("POST /upload HTTP/1.1\r\nhost: t\r\ncontent-length: 1000\r\n\r\n{}", "b".repeat(1000)),
            200,
        ),
        (
            format!("POST /upload HTTP/1.1\r\nhost: t\r\ncontent-length: 1001\r\n\r\n{}", "b".repeat(1001)),
            413,
        ),
        (format!("POST /upload HTTP/1.1\r\nhost: t\r\n{}", chunked(1000)), 200),
        (format!("POST /upload HTTP/1.1\r\nhost: t\r\n{}", chunked(1001)), 413),
        (format!("POST /echo HTTP/1.1\r\nhost: t\r\n{}", chunked(1001)), 413),
    ];
    for (bytes, status) in cases {
        let what = bytes.get(..60).unwrap_or(&bytes);
        let response = server.connect().exchange(&bytes);
        assert_eq!(response.map(|response| response.status), Ok(status), "{} bytes: {what:?}", bytes.len());
    }
    server.stop();
}

#[test]
fn a_client_that_announces_too_much_is_told_before_it_sends() {
    let mut server = Program::probe().workers(1).args("--limit-request-body 1000").start();
    let mut client = server.connect();
    let head =
        "POST /upload HTTP/1.1\r\nhost: test\r\ncontent-length: 5000000\r\nexpect: 100-continue\r\n\r\n";
    let response = client.exchange(head).unwrap();
    assert_eq!(response.status, 413);
    server.stop();
}

#[test]
fn a_body_that_nobody_reads_does_not_cost_the_answer() {
    let mut server = Program::probe().workers(1).args("--limit-request-body 10MiB").start();
    let body = vec![b'b'; 256 * 1024];
    for _ in 0..5 {
        let response = server.connect().request("POST", "/", &[], &body).unwrap();
        assert_eq!((response.status, response.text().as_str()), (200, "This is Ferricorn's probe.\n"));
    }
    server.stop();
}

#[test]
fn doubtful_framing_is_refused_and_closed() {
    let mut server = Program::probe().workers(1).start();
    let cases = [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a b\r\n\r\n",
        "GET foo HTTP/1.1\r\nhost: t\r\n\r\n",
        "GET * HTTP/1.1\r\nhost: t\r\n\r\n",
        "POST /echo HTTP/1.1\r\nhost: t\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nabc",
        "POST /echo HTTP/1.1\r\nhost: t\r\ncontent-length: +2\r\n\r\nab",
        "POST /echo HTTP/1.1\r\nhost: t\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "POST /echo HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n",
    ];
    for bytes in cases {
        let mut client = server.connect();
        let status = client.exchange(bytes).map(|response| response.status);
        assert!(matches!(status, Ok(400 | 501 | 505)), "{bytes:?}: {status:?}");
        client.read_end().unwrap_or_else(|failure| panic!("{bytes:?}: {failure}"));
    }
    server.stop();
}

#[test]
fn a_full_queue_is_a_503_with_retry_after() {
    let mut server = Program::probe().workers(1).args("--threads 1 --blocking-queue 2").start();
    let mut clients: Vec<Connection> = (0..10).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send(http::request("GET", "/block?ms=60000&until=go", &[], b"")).unwrap();
    }
    // One runs and two wait; the others are told at once.
    eventually(DEADLINE, "seven are told", || clients.iter().filter(|client| client.has_head()).count() >= 7);
    let (told, waiting): (Vec<_>, Vec<_>) = clients.into_iter().partition(Connection::has_head);
    assert_eq!((told.len(), waiting.len()), (7, 3));
    for mut client in told {
        let response = client.read().unwrap();
        let seconds: u32 = response.field("retry-after").expect("503 says when").parse().unwrap();
        assert!(response.status == 503 && seconds >= 1, "{response:?}");
    }
    fs::write(server.dir().join("go"), "").unwrap();
    for mut client in waiting {
        assert_eq!(client.read().unwrap().status, 200);
    }
    server.stop();
}

#[test]
fn a_call_that_waits_longer_than_max_wait_is_a_503_and_is_not_begun() {
    let args = "--threads 1 --max-wait 500ms --admin-bind 127.0.0.1:0";
    let mut server = Program::probe().workers(1).args(args).start();
    let mut first = server.connect();
    first.send(http::request("GET", "/block?ms=60000&until=go", &[], b"")).unwrap();
    eventually(DEADLINE, "it runs", || server.ask_admin("/status").text().contains("/block"));
    let begin = Instant::now();
    let mut late: Vec<Connection> = (0..5).map(|_| server.connect()).collect();
    for client in &mut late {
        client.send(http::request("GET", "/block?ms=20000", &[], b"")).unwrap();
    }
    for client in &mut late {
        let answer = client.read().unwrap();
        assert_eq!((answer.status, answer.field("retry-after")), (503, Some("1")));
    }
    let took = begin.elapsed();
    assert!(took >= millis(490) && took < seconds(15), "{took:?}");
    fs::write(server.dir().join("go"), "").unwrap();
    assert_eq!(first.read().unwrap().status, 200, "a call that runs goes on");
    assert_eq!(server.get("/block?ms=10").status, 200, "none of them was begun");
    eventually(DEADLINE, "they are counted", || {
        let metrics = server.ask_admin("/metrics").text();
        metrics.contains("ferricorn_requests_shed_total{by=\"max_wait\"} 5\n")
    });
    server.stop();
}

#[test]
fn a_queued_call_whose_client_has_gone_never_starts() {
    let args = "--threads 1 --blocking-queue 10 --admin-bind 127.0.0.1:0";
    let mut server = Program::probe().workers(1).args(args).start();
    let in_flight = |count: u64| {
        eventually(DEADLINE, &format!("{count} are under way"), || {
            server.ask_admin("/status").json()["workers"][0]["in_flight"] == count
        });
    };
    let mut first = server.connect();
    first.send(http::request("GET", "/block?ms=60000&until=go", &[], b"")).unwrap();
    in_flight(1);
    let mut leaving: Vec<Connection> = (0..5).map(|_| server.connect()).collect();
    for client in &mut leaving {
        client.send(http::request("GET", "/block?ms=60000", &[], b"")).unwrap();
    }
    in_flight(6);
    drop(leaving);
    in_flight(1);
    fs::write(server.dir().join("go"), "").unwrap();
    assert_eq!(first.read().unwrap().status, 200);
    assert_eq!(server.get("/block?ms=10").status, 200, "nobody waits for those who left");
    server.stop();
}

#[test]
fn a_full_worker_leaves_connections_to_the_others() {
    let mut server = Program::probe().workers(2).args("--worker-connections 5").start();
    // Ten fit in all; each of them is answered, whoever accepted it.
    let mut clients: Vec<Connection> = (0..10).map(|_| server.connect()).collect();
    let mut pids: Vec<i32> = clients.iter_mut().map(|client| client.get("/pid").unwrap().worker()).collect();
    pids.sort_unstable();
    assert_eq!(pids.iter().filter(|&&pid| pid == pids[0]).count(), 5, "{pids:?}");

    let mut waiting = server.connect();
    waiting.send(http::request("GET", "/echo?msg=late", &[], b"")).unwrap();
    waiting.set_patience(millis(300)).unwrap();
    assert_eq!(waiting.read().map(|response| response.status), Err(Failure::TimedOut), "no room");
    clients.pop();
    waiting.set_patience(DEADLINE).unwrap();
    assert_eq!(waiting.read().unwrap().text(), "late", "a place became free");
    server.stop();
}

#[test]
fn accept_survives_a_lack_of_files_without_spinning() {
    let mut server = Program::probe().workers(1).start();
    let worker = server.worker();
    // The limit is lowered from outside, so that the settings know nothing of it.
    let room = proc::open_files(worker) + 5;
    limit_open_files(worker, room);
    let mut held: Vec<Connection> = (0..20).map(|_| server.connect()).collect();
    assert_eq!(held[0].get("/").unwrap().status, 200);
    eventually(DEADLINE, "no file is left", || proc::open_files(worker) >= room);

    let before = proc::cpu_time(worker);
    let begin = Instant::now();
    holds_for(seconds(1), "the worker lives", || proc::is_alive(worker));
    let used = proc::cpu_time(worker) - before;
    assert!(used < begin.elapsed() / 4, "{used:?} of CPU in {:?}", begin.elapsed());

    let mut last = held.pop().unwrap();
    held.clear();
    assert_eq!(last.get("/").unwrap().status, 200, "served once there are files again");
    assert_eq!(server.worker(), worker);
    server.stop();
}

fn limit_open_files(pid: i32, limit: usize) {
    let status = std::process::Command::new("prlimit")
        .args(["--pid", &pid.to_string(), &format!("--nofile={limit}:{limit}")])
        .status();
    assert!(status.expect("prlimit is part of util-linux").success());
}

#[test]
fn max_requests_replaces_a_worker_without_loss() {
    let mut server = Program::probe().workers(1).args("--max-requests 100 --max-requests-jitter 10").start();
    let load = Load::on(server.target()).start();
    server.wait_count(Said::Ready, 6);
    let report = load.finish();
    report.assert_none_failed();
    assert!(report.workers.len() >= 5, "{report}");
    assert_eq!(server.count(Said::BackOff), 0, "nobody died");
    server.stop();
}

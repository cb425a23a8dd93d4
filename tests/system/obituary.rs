//! What the log tells of a worker that died: the cause by name, and each request that it cost.

use crate::support::cgroup::Cgroup;
use crate::support::said::Line;
use crate::support::{Connection, DEADLINE, Program, Said, Server, eventually, http, seconds};
use nix::sys::signal::Signal::{SIGKILL, SIGTERM};
use std::collections::BTreeSet;

/// Sends a request, and is answered another one: the first has begun by then.
fn begin(server: &Server, method: &str, target: &str, body: &[u8]) -> Connection {
    let mut client = server.connect();
    client.send(http::request(method, target, &[("x-token", "hush-field")], body)).unwrap();
    assert_eq!(server.get("/").status, 200);
    client
}

fn lost(server: &Server, pid: i32) -> Vec<Line> {
    let about = pid.to_string();
    server.log().into_iter().filter(|line| line.is(Said::Lost) && line.value("pid") == Some(&about)).collect()
}

/// `method path phase` of each request that the worker's death cost, when so many are told.
#[track_caller]
fn told(server: &Server, pid: i32, count: usize) -> BTreeSet<String> {
    server.wait_count(Said::Lost, count);
    let told = lost(server, pid).into_iter().map(|line| {
        ["method", "path", "phase"].map(|key| line.value(key).unwrap_or_default().to_owned()).join(" ")
    });
    told.collect()
}

fn set<const N: usize>(lines: [&str; N]) -> BTreeSet<String> {
    lines.into_iter().map(str::to_owned).collect()
}

#[test]
fn each_request_that_a_crash_costs_is_told_with_its_phase() {
    let program = Program::probe()
        .workers(1)
        .args("--threads 2 --pool-size 1 --pool-timeout 60s --admin-bind 127.0.0.1:0");
    let mut server = program.variable("FERRICORN_DATABASE_URL", "sqlite:probe.db").start();
    let pid = server.worker();
    assert_eq!(server.get("/db?token=hush-warm").text(), "hush-warm");
    let mut half = http::request("POST", "/upload?hush-query", &[("content-length", "99")], b"");
    half.extend(b"hush-body");
    let mut reading = server.connect();
    reading.send(half).unwrap();
    // One that has had its answer is not under way, though its connection is kept.
    let mut idle = server.connect();
    assert_eq!(idle.get("/pid").unwrap().worker(), pid);
    let _open = [
        begin(&server, "GET", "/db/sleep?ms=60000", b""),
        begin(&server, "GET", "/db?token=hush-waits", b""),
        begin(&server, "GET", "/block?ms=60000", b""),
        begin(&server, "PUT", "/block/is/not/a/path/of/the/probe", b""),
        begin(&server, "GET", "/block?ms=60001", b""),
        begin(&server, "GET", "/sleep?ms=60000&hush-query", b""),
        begin(&server, "GET", "/bytes?n=67108864", b""),
        begin(&server, "POST", "/echo", b"hush-body"),
    ];
    let wanted = [
        "POST /upload reading",
        "GET /db/sleep database",
        "GET /db queued",
        "GET /block handler",
        "GET /block queued",
        "GET /sleep handler",
        "GET /bytes writing",
    ];
    // The handler threads have begun, and what was answered is off the list.
    let under_way = || {
        let told = server.ask_admin("/status").json()["workers"][0]["requests_in_flight"].clone();
        let told = told.as_array().unwrap().iter().map(|request| {
            ["method", "path", "phase"].map(|key| request[key].as_str().unwrap().to_owned()).join(" ")
        });
        told.collect::<Vec<_>>()
    };
    eventually(DEADLINE, "each is in its phase", || {
        let mut told = under_way();
        told.sort();
        told == BTreeSet::from(wanted).into_iter().collect::<Vec<_>>()
    });
    assert!(server.try_get("/crash?hush-query").is_err());
    let exited = server.wait_about(Said::Exited, pid);
    assert_eq!(
        exited.value("cause").map(|cause| cause.starts_with("killed by SIGABRT")),
        Some(true),
        "{exited:?}"
    );
    assert_eq!(exited.number("in_flight"), 8, "{}", exited.raw);
    let mut lost = set(wanted);
    lost.insert("GET /crash handler".to_owned());
    assert_eq!(told(&server, pid, 8), lost);
    for secret in ["hush", "60000", "x-token"] {
        assert!(server.log_with(secret).is_empty(), "{:?}", server.log_with(secret));
    }
    // The next worker on the seat begins with nothing.
    let next = server.wait_count(Said::Ready, 2).number("pid");
    server.signal_to(next, SIGKILL);
    assert_eq!(server.wait_about(Said::Exited, next).number("in_flight"), 0);
    server.wait_count(Said::Ready, 3);
    server.stop();
}

#[test]
fn a_cause_is_named() {
    let mut server = Program::probe().workers(1).start();
    // (what kills, what the cause begins with)
    let faults = [("/segv", "killed by SIGSEGV"), ("/exit?code=7", "exit code 7"), ("", "killed by SIGKILL")];
    for (round, (fault, cause)) in faults.into_iter().enumerate() {
        let pid = server.wait_count(Said::Ready, round + 1).number("pid");
        match fault {
            "" => server.signal_to(pid, SIGKILL),
            path => assert!(server.try_get(path).is_err()),
        }
        let exited = server.wait_about(Said::Exited, pid);
        let named = exited.value("cause").unwrap_or_default();
        assert!(named.starts_with(cause), "{fault}: {}", exited.raw);
        assert_eq!(exited.level(), "WARN");
        let path = fault.split('?').next().unwrap();
        assert_eq!(exited.number("in_flight"), i32::from(!fault.is_empty()));
        if !fault.is_empty() {
            server.wait_count(Said::Lost, round + 1);
            assert_eq!(lost(&server, pid)[0].value("path"), Some(path));
        }
    }
    server.wait_count(Said::Ready, faults.len() + 1);
    server.stop();
}

#[test]
fn a_timeout_names_the_request_that_was_at_work() {
    let mut server = Program::probe().workers(1).args("--timeout 1s").start();
    let pid = server.worker();
    let _ = server.try_get("/spin?ms=60000");
    let exited = server.wait_about(Said::Exited, pid);
    let cause = exited.value("cause").unwrap_or_default();
    assert!(cause.starts_with("SIGABRT by timeout"), "{}", exited.raw);
    let lost = server.wait(Said::Lost);
    assert_eq!((lost.value("path"), lost.value("phase")), (Some("/spin"), Some("handler")));
    server.wait_count(Said::Ready, 2);
    server.stop();
}

#[test]
fn the_age_of_a_lost_request_is_told() {
    let mut server = Program::probe().workers(1).start();
    let pid = server.worker();
    let _old = begin(&server, "GET", "/sleep?ms=60000", b"");
    assert_eq!(server.get("/sleep?ms=1500").status, 200);
    server.signal_to(pid, SIGKILL);
    let age = server.wait(Said::Lost).value("age").unwrap_or_default().to_owned();
    let age: f64 = age.trim_end_matches('s').parse().unwrap_or_else(|_| panic!("no seconds: {age}"));
    // The clock of the records moves every quarter of a second.
    assert!((1.2..10.0).contains(&age), "{age}");
    server.wait_count(Said::Ready, 2);
    server.stop();
}

#[test]
fn what_a_drain_could_not_finish_is_told() {
    let mut server = Program::probe().workers(1).args("--graceful-timeout 500ms").start();
    let pid = server.worker();
    let _slow = begin(&server, "GET", "/sleep?ms=60000", b"");
    server.signal_to(pid, SIGTERM);
    let exited = server.wait_about(Said::Exited, pid);
    assert_eq!(exited.value("cause"), Some("SIGKILL by graceful_timeout"), "{}", exited.raw);
    assert_eq!(told(&server, pid, 1), set(["GET /sleep handler"]));
    server.wait_count(Said::Ready, 2);
    server.stop();
    // One that has nothing to finish, and time for it.
    let mut server = Program::probe().workers(1).start();
    let next = server.worker();
    server.signal_to(next, SIGTERM);
    let exited = server.wait_about(Said::Exited, next);
    assert_eq!(
        (exited.value("cause"), exited.number("in_flight")),
        (Some("exit code 0"), 0),
        "{}",
        exited.raw
    );
    assert_eq!(exited.level(), "INFO");
    server.wait_count(Said::Ready, 2);
    server.stop();
}

#[test]
fn more_requests_than_there_are_records_are_counted() {
    let mut server = Program::probe().workers(1).start();
    let pid = server.worker();
    let _open: Vec<_> = (0..40).map(|_| begin(&server, "GET", "/sleep?ms=60000", b"")).collect();
    server.signal_to(pid, SIGKILL);
    // The last one that was answered may not have been taken off yet.
    assert!((40..=41).contains(&server.wait_about(Said::Exited, pid).number("in_flight")));
    server.wait_count(Said::Lost, 32);
    server.wait_count(Said::Ready, 2);
    assert_eq!(server.count(Said::Lost), 32);
    server.stop();
}

#[test]
fn a_worker_that_the_kernel_killed_for_its_memory_died_of_that() {
    let Some(cgroup) = Cgroup::of_memory(128 * 1024 * 1024) else {
        return eprintln!("skipped: no cgroup can be made here");
    };
    let mut server = Program::probe().workers(1).through(&["sh", "-c", &cgroup.wrapper()]).start();
    let pid = server.worker();
    let mut client = server.connect();
    client.set_patience(seconds(60)).unwrap();
    assert!(client.get("/leak?bytes=1073741824").is_err());
    let exited = server.wait_about(Said::Exited, pid);
    assert_eq!(exited.value("cause"), Some("out of memory (SIGKILL, oom_kill rose)"), "{}", exited.raw);
    assert_eq!(told(&server, pid, 1), set(["GET /leak handler"]));
    let next = server.wait_count(Said::Ready, 2).number("pid");
    server.signal_to(next, SIGKILL);
    assert_eq!(server.wait_about(Said::Exited, next).value("cause"), Some("killed by SIGKILL"));
    server.wait_count(Said::Ready, 3);
    server.stop();
}

//! The access log: each request once, whatever became of it, and no harm where it cannot be written.

use crate::support::{Connection, DEADLINE, Load, Program, Server, eventually};
use nix::sys::signal::Signal::{SIGHUP, SIGUSR1};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

fn lines(server: &Server) -> Vec<String> {
    let text = fs::read_to_string(server.dir().join("access.log")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// Sends this and takes whatever comes.
fn send(server: &Server, bytes: &str) -> Connection {
    let mut connection = server.connect();
    connection.send(bytes).unwrap();
    connection
}

#[test]
fn each_request_has_its_line_whatever_became_of_it() {
    let program = Program::probe().config(
        "workers = 1\naccesslog = 'access.log'\naccess_log_format = '%(s)s %(r)s'\nheader_timeout = '3s'\n\
         body_timeout = '300ms'\nrequest_timeout = '2s'\nlimit_request_body = 10",
    );
    let mut server = program.start();
    let long = "x".repeat(5000);
    let huge = "x".repeat(200_000);
    let cases = [
        ("GET /?ok HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(), "200 GET /?ok HTTP/1.1"),
        ("GET /panic HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(), "500 GET /panic HTTP/1.1"),
        ("GET /sleep?ms=9000 HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(), "504 GET /sleep?ms=9000 HTTP/1.1"),
        ("GET /?gate HTTP/1.1\r\n\r\n".to_owned(), "400 GET /?gate HTTP/1.1"),
        (format!("GET /?{long} HTTP/1.1\r\nhost: a\r\n\r\n"), "414 GET /?xxx"),
        (
            "POST /upload HTTP/1.1\r\nhost: a\r\ncontent-length: 11\r\n\r\n".to_owned(),
            "413 POST /upload HTTP/1.1",
        ),
        ("GET\r\n\r\n".to_owned(), "400 -"),
        (format!("GET / HTTP/1.1\r\nhost: a\r\na: {huge}\r\n\r\n"), "431 GET / HTTP/1.1"),
        ("GET / HT".to_owned(), "408 -"),
        (
            "POST /upload HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nx".to_owned(),
            "408 POST /upload HTTP/1.1",
        ),
    ];
    let mut count = 0;
    for (bytes, wanted) in &cases {
        let mut connection = server.connect();
        // One that is refused early may not be taken whole.
        let answer = connection.exchange(bytes).unwrap_or_else(|why| panic!("{wanted}: {why}"));
        assert_eq!(answer.status.to_string(), wanted[..3], "{wanted}");
        count += 1;
        eventually(DEADLINE, wanted, || lines(&server).len() >= count);
        let last = lines(&server).pop().unwrap();
        assert!(last.starts_with(wanted), "{last:?} for {wanted:?}");
        assert_eq!(lines(&server).len(), count, "one line for each");
    }
    server.stop();
}

#[test]
fn a_client_that_leaves_is_a_line_too() {
    let program = Program::probe().config(
        "workers = 1\naccesslog = 'access.log'\naccess_log_format = '%(s)s %(U)s %(B)s'\nrequest_timeout = 0",
    );
    let mut server = program.start();
    drop(send(&server, "GET /sleep?ms=20000 HTTP/1.1\r\nhost: a\r\n\r\n"));
    eventually(DEADLINE, "its line", || lines(&server) == ["499 /sleep 0"]);
    let connection = send(&server, "GET /bytes?n=67108864 HTTP/1.1\r\nhost: a\r\n\r\n");
    eventually(DEADLINE, "the answer has begun", || connection.has_head());
    connection.finish_sending().unwrap();
    drop(connection);
    eventually(DEADLINE, "its line", || lines(&server).len() == 2);
    assert!(lines(&server)[1].starts_with("200 /bytes "), "{:?}", lines(&server));
    server.stop();
}

#[test]
fn an_unknown_atom_is_refused_with_its_place() {
    let outcome = Program::probe().config("workers = 1\naccess_log_format = '%(h)s %(z)s'").run();
    assert_eq!(outcome.code, Some(2));
    assert!(
        outcome
            .stderr
            .contains("server.toml:2: access_log_format: got \"%(h)s %(z)s\"; allowed: combined, json")
    );
}

#[test]
fn a_request_has_one_id_in_the_answer_in_the_app_and_in_both_logs() {
    let program = Program::probe().config(
        "workers = 2\naccesslog = 'access.log'\naccess_log_format = 'json'\nrequest_id_header = 'X-Request-Id'\n\
         request_timeout = '200ms'",
    );
    let mut server = program.expect_workers(2).start();
    let ask =
        |path: &str, id: &str| server.connect().request("GET", path, &[("x-request-id", id)], b"").unwrap();
    let answer = ask("/headers", "given-1");
    assert_eq!(answer.field("x-request-id"), Some("given-1"));
    assert!(answer.text().contains("[\"x-request-id\",\"given-1\"]"), "{}", answer.text());
    let made = ask("/panic", "not valid").field("x-request-id").unwrap().to_owned();
    assert!(made.len() == 32 && made.bytes().all(|byte| byte.is_ascii_hexdigit()), "{made}");
    let panicked = server.wait_text("panicked at=");
    assert_eq!(panicked.value("request_id"), Some(made.as_str()), "{}", panicked.raw);
    ask("/sleep?ms=9000", "late-1");
    assert_eq!(server.wait_text("request timed out").value("request_id"), Some("late-1"));
    // The server's own refusals have one, too.
    let refused = send(&server, "GET / HTTP/1.1\r\nx-request-id: bad-1\r\n\r\n").read().unwrap();
    assert_eq!((refused.status, refused.field("x-request-id")), (400, Some("bad-1")));
    server.stop();
    let logged: Vec<String> = lines(&server)
        .iter()
        .map(|line| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["request_id"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    for id in ["given-1", &made, "late-1", "bad-1"] {
        assert_eq!(logged.iter().filter(|logged| *logged == id).count(), 1, "{id} in {logged:?}");
    }
}

#[test]
fn an_id_of_a_stranger_is_not_taken_over() {
    let program =
        Program::probe().workers(1).args("--request-id-header x-request-id --forwarded-allow-ips 10.0.0.1");
    let mut server = program.start();
    let answer = server.connect().request("GET", "/headers", &[("x-request-id", "given-1")], b"").unwrap();
    let id = answer.field("x-request-id").unwrap();
    assert!(
        id != "given-1" && answer.text().contains(id) && !answer.text().contains("given-1"),
        "{}",
        answer.text()
    );
    server.stop();
}

/// How often each token of a load stands in the log files.
fn logged_tokens(dir: &Path) -> BTreeMap<String, u32> {
    let mut tokens = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        if !entry.file_name().to_string_lossy().starts_with("access.log") {
            continue;
        }
        for line in fs::read_to_string(entry.path()).unwrap().lines() {
            let token = line.split_once("msg=").and_then(|(_, rest)| rest.split(' ').next());
            let token = token.unwrap_or_else(|| panic!("a broken line: {line:?}"));
            *tokens.entry(token.to_owned()).or_default() += 1;
        }
    }
    tokens
}

#[test]
fn rotation_under_load_loses_no_line_and_doubles_none() {
    for keep_alive in [true, false] {
        let mut server = Program::probe().workers(2).args("--access-logfile access.log").start();
        let load = Load::on(server.target()).keeping(keep_alive).start();
        let log = server.dir().join("access.log");
        for round in 0..8 {
            load.wait_more(500);
            fs::rename(&log, server.dir().join(format!("access.log.{round}"))).unwrap();
            server.signal(SIGUSR1);
            if round == 4 {
                server.signal(SIGHUP);
            }
            eventually(DEADLINE, "the file is made anew", || log.exists());
        }
        load.wait_more(500);
        let report = load.finish();
        report.assert_none_failed();
        server.stop();
        let tokens = logged_tokens(server.dir());
        assert!(tokens.values().all(|count| *count == 1), "some stand twice");
        assert_eq!(tokens.len() as u64, report.sent);
    }
}

/// Serves a load and checks that nothing but lines was lost.
fn serves_all_the_same(program: Program, during: impl FnOnce(&Server)) -> Server {
    let server = program.workers(2).start();
    let load = Load::on(server.target()).at_least(5000).start();
    during(&server);
    load.wait_answered(5000);
    let report = load.finish();
    report.assert_none_failed();
    server.wait_text("access log lines were dropped count=");
    assert!(server.log_with("worker exited").is_empty(), "no worker died of it");
    server
}

#[test]
fn a_full_disk_costs_lines_and_nothing_else() {
    let program = Program::probe().args("--access-logfile /dev/full");
    serves_all_the_same(program, |_| {}).stop();
}

#[test]
fn a_file_at_its_limit_costs_lines_and_nothing_else() {
    // In blocks of 512 bytes; the memory that the server's processes share counts as a file and must fit.
    const BLOCKS: usize = 1536;
    let script = format!(r#"ulimit -f {BLOCKS} && exec "$0" "$@""#);
    let earlier = "earlier\n".repeat(BLOCKS * 512 / 8 - 4096);
    let program = Program::probe().args("--access-logfile access.log").file("access.log", &earlier);
    let mut server = serves_all_the_same(program.through(&["sh", "-c", &script]), |_| {});
    server.stop();
    let text = fs::read_to_string(server.dir().join("access.log")).unwrap();
    assert!(text.len() <= BLOCKS * 512 && text.len() > earlier.len() + 20_000, "{}", text.len());
    // The last one may be cut.
    for line in text[earlier.len()..].lines().rev().skip(1) {
        assert!(line.ends_with(" \"-\" \"-\""), "{line:?}");
    }
}

#[test]
fn a_pipe_that_nobody_reads_costs_lines_and_nothing_else() {
    let program = Program::probe().args("--access-logfile pipe");
    let pipe = program.dir().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let mut server = serves_all_the_same(program, |server| server.signal(SIGUSR1));
    server.stop();
}

#[test]
fn a_pipe_whose_reader_has_gone_costs_lines_and_nothing_else() {
    let script = r#"exec "$0" "$@" > >(exec head -c 1 >/dev/null)"#;
    let program = Program::probe().args("--access-logfile -").through(&["bash", "-c", script]);
    serves_all_the_same(program, |_| {}).stop();
}

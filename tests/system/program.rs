//! Programs in another language beside a worker: their answers, their faults, and that none is ever left over.

use crate::support::server::End;
use crate::support::{
    Connection, DEADLINE, Program, Response, Said, Server, eventually, holds_for, millis, proc, seconds,
};
use nix::sys::signal::Signal::{SIGHUP, SIGINT, SIGKILL, SIGTERM};
use std::collections::BTreeSet;
use std::path::Path;
use std::thread;
use std::time::Instant;

/// The signals 32 and 33, which nobody else may change.
const OF_THE_C_LIBRARY: u64 = 0b11 << 31;

/// SIGALRM in a set of /proc.
const ALRM: u64 = 1 << 13;

const CLIENTS: usize = 8;
const QUESTIONS: usize = 150;

/// A server whose workers run this program.
fn program(words: &[&str], more: &str) -> Program {
    // Debian's Python rather than what a developer has put before it, which may take a second to start.
    let path = format!("/usr/bin:/bin:{}", std::env::var("PATH").unwrap_or_default());
    // Where time is not what a test is about, a slow machine has enough of it.
    let patience = if more.contains("timeout_ms") { "" } else { "timeout_ms = 30_000" };
    let config = format!("[app]\nprogram = {words:?}\n{more}\n{patience}\n");
    Program::example("offline_process").config(&config).variable("PATH", &path)
}

fn script(path: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path).to_str().unwrap().to_owned()
}

fn faulty(more: &str) -> Program {
    program(&["python3", &script("tests/support/faulty.py")], more)
}

fn ask(server: &Server, text: &str) -> Response {
    server.get(&format!("/measure?text={text}"))
}

/// The pid that the answer names.
#[track_caller]
fn pid(answer: &Response) -> i32 {
    assert_eq!(answer.status, 200, "{}", answer.text());
    i32::try_from(answer.json()["pid"].as_i64().unwrap()).unwrap()
}

/// Sends a question that is not answered soon, and waits until the program has it.
fn begin(server: &Server, text: &str) -> Connection {
    let asked = server.log_with(&format!("asked {text}")).len();
    let mut connection = server.connect();
    connection.send(format!("GET /measure?text={text} HTTP/1.1\r\nhost: test\r\n\r\n")).unwrap();
    eventually(DEADLINE, "it is asked", || server.log_with(&format!("asked {text}")).len() > asked);
    connection
}

#[test]
fn the_example_answers_get_and_post() {
    let mut server = program(&["python3", &script("examples/offline_process.py")], "").workers(1).start();
    let wanted = serde_json::json!({ "words": 3, "longest": "copper" });
    let mut client = server.connect();
    assert_eq!(client.get("/measure?text=a+copper+kettle").unwrap().json(), wanted);
    let json = [("content-type", "application/json")];
    let body = r#"{"text": "a copper\nkettle"}"#;
    assert_eq!(client.request("POST", "/measure", &json, body.as_bytes()).unwrap().json(), wanted);
    // Too long a question is not the program's fault, and does not disturb it.
    let body = format!(r#"{{"text": "{}"}}"#, "x".repeat(70_000));
    assert_eq!(client.request("POST", "/measure", &json, body.as_bytes()).unwrap().status, 500);
    assert_eq!(client.get("/measure?text=a+copper+kettle").unwrap().json(), wanted);
    server.wait_text(r#"program said name="measure" child=0 line="ready""#);
    assert!(server.log_with("program ended").is_empty());
    server.stop();
}

#[test]
fn each_answer_belongs_to_its_question() {
    let mut server = faulty("children = 3").workers(2).start();
    let target = server.target();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let target = target.clone();
            thread::spawn(move || {
                let mut connection = Connection::open(&target).unwrap();
                let questions = (0..QUESTIONS).map(|number| {
                    let text = format!("{client}-{number}-{}", "x".repeat(number * 20));
                    let answer = connection.get(&format!("/measure?text={text}")).unwrap();
                    assert_eq!(answer.json()["text"], text);
                    pid(&answer)
                });
                questions.collect::<Vec<_>>()
            })
        })
        .collect();
    let pids: Vec<i32> = clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
    assert_eq!(pids.len(), CLIENTS * QUESTIONS);
    let children: BTreeSet<i32> = server.workers().into_iter().flat_map(proc::children).collect();
    assert_eq!(children.len(), 2 * 3);
    assert!(pids.iter().all(|pid| children.contains(pid)), "nobody else has answered");
    assert!(server.log_with("program ended").is_empty());
    server.stop();
}

#[test]
fn a_killed_child_costs_its_own_call_and_is_back_soon() {
    let mut server = faulty("children = 1\ntimeout_ms = 30_000").workers(1).start();
    let first = pid(&ask(&server, "a"));
    let mut lost = begin(&server, "hang");
    server.signal_to(first, SIGKILL);
    assert_eq!(lost.read().unwrap().status, 502);
    let begin = Instant::now();
    let second = pid(&ask(&server, "b"));
    assert!(begin.elapsed() < seconds(15), "{:?}", begin.elapsed());
    server.wait_text(r#"why="it ended" cause="signal: 9 (SIGKILL)""#);
    // One that dies between two calls costs none.
    server.signal_to(second, SIGKILL);
    eventually(DEADLINE, "it is dead", || !proc::is_alive(second));
    let third = pid(&ask(&server, "c"));
    assert!(first != second && second != third);
    server.signal_to(third, SIGKILL);
    eventually(DEADLINE, "another is started unasked", || server.log_with("program started").len() == 4);
    assert!(proc::zombies(server.worker()).is_empty());
    server.stop();
}

/// The first answer of a child in time: one that starts on a busy machine may be late, and hold up who comes next.
#[track_caller]
fn started(server: &Server) -> Response {
    let mut answer = ask(server, "a");
    eventually(DEADLINE, "it answers in time", || {
        let was_late = [503, 504].contains(&answer.status);
        if was_late {
            answer = ask(server, "a");
        }
        !was_late
    });
    answer
}

#[test]
fn a_hanging_child_is_killed_in_time_and_the_next_answers() {
    let mut server = faulty("children = 1\ntimeout_ms = 2000").workers(1).start();
    let hung = pid(&started(&server));
    let begin = Instant::now();
    assert_eq!(ask(&server, "hang").status, 504);
    assert!(begin.elapsed() >= seconds(2) && begin.elapsed() < seconds(15), "{:?}", begin.elapsed());
    assert_ne!(pid(&started(&server)), hung);
    assert!(!proc::is_alive(hung));
    server.wait_text(r#"why="it did not answer in time""#);
    server.stop();
}

#[test]
fn one_that_takes_long_to_start_is_late_but_not_killed_for_it() {
    let words = ["python3", &script("tests/support/faulty.py"), "slow"];
    let mut server = program(&words, "children = 1\ntimeout_ms = 200").workers(1).start();
    let first = ask(&server, "a").status;
    assert!(first == 504, "{first}");
    let mut calls = 0;
    eventually(DEADLINE, "it answers", || {
        calls += 1;
        ask(&server, "b").status == 200
    });
    server.wait_lines("program started", 1);
    assert!(server.log_with("program ended").is_empty());
    let asked = server.log_with("asked b").len();
    assert!(asked * 2 <= calls.max(4), "those whose callers had gone were not asked: {asked} of {calls}");
    server.stop();
}

#[test]
fn whoever_does_not_keep_to_a_line_an_answer_is_replaced() {
    let mut server = faulty("children = 1\ntimeout_ms = 20_000").workers(1).start();
    let faults = [
        ("garbage", "its line is not JSON"),
        ("long", "its line is longer than max_line"),
        ("endless", "its line is longer than max_line"),
        ("twice", "it said more than it was asked for"),
        ("die", r#"it ended" cause="exit status: 3""#),
        ("die+halfway", r#"it ended" cause="exit status: 4""#),
    ];
    for (count, (fault, said)) in faults.into_iter().enumerate() {
        let before = pid(&ask(&server, "before"));
        let answer = ask(&server, fault);
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (502, "the program behind this failed\n"),
            "{fault}"
        );
        assert_ne!(pid(&ask(&server, "after")), before, "{fault}");
        assert!(!proc::is_alive(before), "{fault}");
        server.wait_text(said);
        server.wait_lines("program ended", count + 1);
    }
    // What it says on its standard error stays one line, whatever it is.
    assert_eq!(ask(&server, "colour").status, 200);
    server.wait_text(r#"program said name="measure" child=0 line="\u{1b}[31mred"#);
    server.stop();
}

#[test]
fn what_a_child_starts_ends_with_it() {
    let mut server = faulty("children = 1\ntimeout_ms = 2000").workers(1).start();
    started(&server);
    let child = pid(&ask(&server, "child"));
    let below = proc::children(child);
    assert_eq!(below.len(), 1);
    assert_eq!(ask(&server, "hang").status, 504);
    server.wait_nobody_left(&[child, below[0]], DEADLINE);
    assert_eq!(started(&server).status, 200);
    server.stop();
}

#[test]
fn no_child_is_left_however_its_worker_ends() {
    let mut server =
        faulty("children = 2\ntimeout_ms = 60_000").workers(1).args("--graceful-timeout 1s").start();
    // One of them is in a call each time, and does not look at its input.
    let busy_children = || {
        assert_eq!(ask(&server, "a").status, 200);
        let connection = begin(&server, "hang");
        assert_eq!(ask(&server, "a").status, 200, "the other answers");
        (proc::children(server.worker()), connection)
    };
    let worker = server.worker();
    let (children, _lost) = busy_children();
    assert_eq!(children.len(), 2);
    server.signal_to(worker, SIGKILL);
    server.wait_nobody_left(&children, DEADLINE);
    server.wait_count(Said::Ready, 2);

    let (children, _open) = busy_children();
    server.signal(SIGHUP);
    server.wait(Said::ReloadDone);
    server.wait_nobody_left(&children, DEADLINE);
    eventually(DEADLINE, "only the new worker is there", || server.workers().len() == 1);
    let (children, lost) = busy_children();
    drop(lost);
    server.stop();
    server.wait_nobody_left(&children, DEADLINE);
}

#[test]
fn children_are_told_when_their_worker_leaves() {
    for (signal, ended) in [(SIGTERM, true), (SIGINT, true), (SIGKILL, false)] {
        let mut server = program(&["sh", "-c", "cat; echo told >&2"], "").workers(1).start();
        assert_eq!(ask(&server, "a").json(), serde_json::json!({ "text": "a" }));
        let mut children = Vec::new();
        eventually(DEADLINE, "both are there", || {
            children = proc::children(server.worker());
            children.len() == 2
        });
        server.signal(signal);
        let end = server.wait_exit();
        assert_eq!(end, if ended { End::Code(0) } else { End::Signal(9) });
        server.wait_nobody_left(&children, DEADLINE);
        if ended {
            // Each is given a moment to say so, for which the machine may have no time.
            server.wait_text("line=\"told\"");
        }
    }
}

#[test]
fn a_child_begins_with_default_signals_and_no_files_of_the_servers() {
    // Started by somebody who ignores a signal, which an exec passes on.
    let ignoring = ["sh", "-c", r#"trap '' ALRM; exec "$0" "$@""#];
    let mut server = program(&["cat"], "").through(&ignoring).workers(1).start();
    let ignored = u64::from_str_radix(&proc::status(server.worker(), "SigIgn"), 16).unwrap();
    assert_ne!(ignored & ALRM, 0, "the worker has inherited it");
    assert_eq!(ask(&server, "a").json(), serde_json::json!({ "text": "a" }));
    for child in proc::children(server.worker()) {
        eventually(DEADLINE, "it runs the program", || proc::comm(child) == "cat");
        for field in ["SigBlk", "SigIgn", "SigCgt"] {
            let set = u64::from_str_radix(&proc::status(child, field), 16).unwrap();
            assert_eq!(set & !OF_THE_C_LIBRARY, 0, "{field}: {set:x}");
        }
        let files = proc::file_targets(child);
        assert_eq!(files.len(), 3, "{files:?}");
        assert!(files.iter().all(|file| file.to_string_lossy().starts_with("socket:")), "{files:?}");
    }
    server.stop();
}

#[test]
fn one_that_cannot_live_is_told_of_and_not_started_in_a_storm() {
    for (words, said) in [
        (
            &["./nothing-like-that", "a"][..],
            "program could not be started name=\"measure\" child=0 error=\"No such file",
        ),
        (&["false"], "program ended name=\"measure\" child=0"),
    ] {
        let mut server = program(words, "children = 1").workers(1).start();
        let told = || server.log_with(said);
        server.wait_text(said);
        eventually(DEADLINE, "its back-off grows", || {
            told().iter().any(|line| line.ends_with("restart_in=3.2s"))
        });
        let begin = Instant::now();
        let answer = ask(&server, "a");
        assert_eq!((answer.status, answer.field("retry-after")), (503, Some("1")));
        let took = begin.elapsed();
        // A machine that stands still for longer has it started again.
        holds_for(millis(200), "nothing is started", || told().len() == 6 || begin.elapsed() > seconds(3));
        assert!(took < seconds(2), "it is refused at once: {took:?}");
        let delays: Vec<String> =
            told().iter().map(|line| line.rsplit_once('=').unwrap().1.to_owned()).collect();
        let doubling = ["100ms", "200ms", "400ms", "800ms", "1.6s", "3.2s", "6.4s", "12.8s"];
        assert!(doubling.iter().zip(&delays).all(|(wanted, delay)| wanted == delay), "{delays:?}");
        server.stop();
    }
}

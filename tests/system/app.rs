//! What an app may count on: its pages, panics, the cache, the handler threads, `run` in the right place.

use crate::support::{DEADLINE, Load, Program, Said, alone, eventually, millis, proc};
use std::collections::BTreeSet;
use std::time::Instant;

#[test]
fn the_probe_answers_as_it_says() {
    let mut server = Program::probe().workers(1).start();
    let pid = server.worker();
    let mut client = server.connect();
    // (path, body)
    let pages = [
        ("/", "This is Ferricorn's probe.\n".to_owned()),
        ("/echo?msg=a%20b%26c", "a b&c".to_owned()),
        ("/sleep?ms=1", "slept 1 ms\n".to_owned()),
        ("/block?ms=1", "blocked 1 ms\n".to_owned()),
        ("/spin?ms=1", "spun 1 ms\n".to_owned()),
        ("/bytes?n=100000", "x".repeat(100_000)),
        ("/pid", pid.to_string()),
    ];
    for (path, body) in pages {
        let response = client.get(path).unwrap();
        assert_eq!((response.status, response.text()), (200, body), "{path}");
        assert_eq!(response.worker(), pid, "{path}");
    }
    assert_eq!(client.get("/nothing").unwrap().worker(), pid, "a 404 is signed too");

    let body: Vec<u8> = (0..=255).cycle().take(70_000).collect();
    assert_eq!(client.request("POST", "/echo", &[], &body).unwrap().body, body);
    assert_eq!(client.request("POST", "/upload", &[], &body).unwrap().text(), "70000");
    let head = "POST /upload HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n";
    let chunks = "5\r\nhello\r\n3\r\nyou\r\n0\r\n\r\n";
    assert_eq!(client.exchange([head, chunks].concat()).unwrap().text(), "8");

    let seen = client.request("GET", "/headers?q", &[("x-one", "1"), ("x-two", "2")], b"").unwrap().json();
    assert_eq!(
        (&seen["method"], &seen["target"], &seen["scheme"]),
        (&"GET".into(), &"/headers?q".into(), &"http".into())
    );
    assert!(seen["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{seen}");
    assert!(seen["fields"].as_array().unwrap().contains(&serde_json::json!(["x-two", "2"])), "{seen}");
    server.stop();
}

#[test]
fn handler_threads_let_who_runs_finish_and_the_event_loop_does_not() {
    const OTHER_AND_BATCH: [i32; 2] = [0, 3];
    let mut server = Program::probe().workers(1).start();
    assert_eq!(server.get("/block?ms=1").status, 200);
    let policies = proc::policies(server.worker());
    let [of_handlers, of_loop] = ["handler-0", "ferricorn-w0"]
        .map(|name| policies.iter().find(|(thread, _)| thread == name).map(|(_, policy)| *policy));
    let [other, batch] = OTHER_AND_BATCH.map(Some);
    assert_eq!((of_handlers, of_loop), (batch, other), "{policies:?}");
    server.stop();
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let mut server = Program::probe().workers(1).start();
    let mut client = server.connect();
    let burst: String =
        (0..20).map(|n| format!("GET /echo?msg={n} HTTP/1.1\r\nhost: test\r\n\r\n")).collect();
    client.send(burst).unwrap();
    for n in 0..20 {
        assert_eq!(client.read().unwrap().text(), n.to_string());
    }
    server.stop();
}

#[test]
fn a_client_that_closes_its_sending_side_is_taken_for_gone() {
    let mut server = Program::probe().workers(1).args("--threads 1").start();
    let mut client = server.connect();
    client.send("GET /sleep?ms=60000 HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
    client.finish_sending().unwrap();
    // Long before the answer would be due.
    client.read_end().unwrap();
    assert_eq!(server.get("/").status, 200);
    server.stop();
}

#[test]
fn a_panic_is_a_500_for_that_request_alone() {
    let mut server = Program::probe().workers(1).start();
    let pid = server.worker();
    let mut bystander = server.connect();
    bystander.send("GET /sleep?ms=500 HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
    for _ in 0..5 {
        assert_eq!(server.get("/panic").status, 500);
    }
    assert_eq!(bystander.read().unwrap().status, 200);
    assert!(server.wait(Said::Panicked).raw.contains("asked to panic"));
    assert_eq!(server.get("/pid").worker(), pid, "the worker lives");
    server.stop();
}

#[test]
fn handler_threads_do_not_hold_the_event_loop_up() {
    let mut server = Program::probe().workers(1).args("--threads 2").start();
    let mut blocked: Vec<_> = (0..2).map(|_| server.connect()).collect();
    for client in &mut blocked {
        client.send("GET /block?ms=60000&until=go HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
    }
    for _ in 0..20 {
        assert_eq!(server.get("/echo?msg=x").text(), "x");
    }
    assert!(!blocked.iter().any(|client| client.has_head()), "they block on");
    std::fs::write(server.dir().join("go"), "").unwrap();
    assert!(blocked.iter_mut().all(|client| client.read().unwrap().status == 200));
    server.stop();
}

#[test]
fn a_value_is_loaded_once_for_all_who_ask_at_the_same_time() {
    let mut server = Program::probe().workers(1).start();
    let mut clients: Vec<_> = (0..20).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send("GET /cached?key=a&ms=300 HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
    }
    let loads: BTreeSet<String> = clients.iter_mut().map(|client| client.read().unwrap().text()).collect();
    assert_eq!(loads, BTreeSet::from(["1".to_owned()]));
    assert_eq!(server.get("/cached?key=b").text(), "2");
    assert_eq!(server.get("/cached?key=a").text(), "1", "still there");
    server.stop();
}

#[test]
fn the_cache_forgets_the_least_used_and_the_old() {
    let start = |ttl: &str| {
        let text = format!("workers = 1\n[cache]\ncapacity = 2\nttl = \"{ttl}\"\n");
        Program::probe().config(&text).start()
    };
    let mut server = start("1h");
    let load = |key: &str| server.get(&format!("/cached?key={key}")).text();
    assert_eq!([load("a"), load("b"), load("a"), load("c")], ["1", "2", "1", "3"]);
    assert_eq!([load("a"), load("b")], ["1", "4"], "b was used least recently");
    server.stop();
    let mut server = start("1s");
    let begin = Instant::now();
    assert_eq!(server.get("/cached?key=a").text(), "1");
    eventually(DEADLINE, "it is too old", || server.get("/cached?key=a").text() != "1");
    // Some go a little early, so that not all go together.
    assert!(begin.elapsed() >= millis(800), "{:?}", begin.elapsed());
    server.stop();
}

#[test]
fn run_refuses_a_runtime_and_a_second_thread() {
    // (mistake, what the message must name)
    for (mistake, named) in [("tokio", "tokio"), ("thread", "thread")] {
        let outcome = Program::example("misuse").variable("MISUSE", mistake).run();
        assert_eq!(outcome.code, Some(1), "{outcome:?}");
        assert!(outcome.stderr.contains(named) && outcome.stderr.contains("fn main"), "{outcome:?}");
    }
}

#[test]
fn hello_is_a_service() {
    let _alone = alone();
    let mut server = Program::example("hello").workers(2).start();
    assert_eq!(server.get("/").text(), "Hello from Ferricorn\n");
    server.stop();
    // And the load client can tell a server that answers something else.
    let mut server = Program::example("hello").workers(1).start();
    let report = Load::on(server.target()).connections(2).at_least(10).path("/?").start().finish();
    assert_eq!((report.right, report.wrong_body), (0, report.sent), "{report}");
    server.stop();
    let report = Load::on(server.target()).connections(2).at_least(10).start().finish();
    assert_eq!((report.right, report.refused), (0, report.sent), "{report}");
}

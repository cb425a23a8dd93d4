//! The stock app's large answers: whole or visibly cut, in little memory, and over when the client is.

use crate::support::postgres::Cluster;
use crate::support::{Connection, DEADLINE, Failure, Program, Said, Server, eventually, http, proc, seconds};
use std::time::Instant;

/// About a kilobyte for each row.
const ROWS: u32 = 12_000;
/// How much a worker may grow over an answer of 12 MB.
const GROWTH_KIB: u64 = 6 * 1024;

/// A route of so many rows on each database; `broken`: it fails at row 4,000, some 3 MB after the head.
fn routes(database: &str) -> String {
    let route = |path: &str, extra: &str, sql: String| {
        format!("[[route]]\npath = '{path}'\nsql = \"{sql}\"\n{extra}\n")
    };
    let is_postgres = database == "postgres";
    let series = |count: &str| {
        if is_postgres {
            // In FROM itself it would be made whole first.
            return format!("(select generate_series(1, {count}) as i) n");
        }
        let numbers = format!("select 1 union all select i + 1 from n limit {count}");
        format!("(with recursive n(i) as ({numbers}) select i from n)")
    };
    let (pad, broken) = if is_postgres {
        ("repeat('0', 1000)", "100 / (4000 - i)")
    } else {
        ("hex(zeroblob(500))", "case when i = 4000 then x'00' else i end")
    };
    let rows =
        |count: &str, column: &str| format!("select {column} as i, {pad} as pad from {}", series(count));
    [
        route("/rows", "", rows(&ROWS.to_string(), "i")),
        route("/kept", "cache = '1h'", rows("10001", "i")),
        route("/endless", "", rows("2000000000", "i")),
        route("/broken", "", rows("8000", broken)),
        route("/one", "", "select 1 as one".into()),
    ]
    .concat()
}

fn on_both(arguments: &str, story: impl Fn(&Server, &str, Option<&str>)) {
    let cluster = Cluster::start();
    let pg = cluster.url();
    for (name, url) in [("sqlite", "sqlite:rows.db"), ("postgres", pg.as_str())] {
        let settings = format!("workers = 1\n[database]\nurl = '{url}'\n{}", routes(name));
        let mut server = Program::stock().config(&settings).args(arguments).start();
        story(&server, name, (name == "postgres").then_some(url));
        server.stop();
    }
}

fn ask(client: &mut Connection, path: &str) {
    client.send(http::request("GET", path, &[], b"")).unwrap();
}

#[test]
fn a_large_answer_is_whole_and_takes_little_memory() {
    on_both("", |server, name, _| {
        let mut client = server.connect();
        client.set_patience(seconds(30)).unwrap();
        client.get("/one").unwrap();
        let peak = || {
            let peak = proc::status(server.worker(), "VmHWM");
            peak.split(' ').next().unwrap().parse::<u64>().unwrap()
        };
        let before = peak();
        let answer = client.get("/rows").unwrap();
        let growth = peak() - before;
        assert_eq!(answer.status, 200);
        assert!(answer.has_token("transfer-encoding", "chunked"), "{name}");
        assert_eq!(answer.field("content-type"), Some("application/json"));
        let size = answer.body.len() as u64 / 1024;
        assert!(size > 11 * 1024, "{name}: {size} KiB");
        assert!(growth < GROWTH_KIB, "{name}: {growth} KiB for an answer of {size} KiB");
        let rows = answer.json();
        let rows = rows.as_array().unwrap();
        assert_eq!(rows.len(), ROWS as usize, "{name}");
        assert!(rows.iter().zip(1..).all(|(row, number)| row["i"] == number), "{name}: in order");
        assert_eq!(client.request("HEAD", "/rows", &[], b"").unwrap().status, 200, "{name}");
        assert_eq!(client.get("/one").unwrap().text(), "[{\"one\":1}]", "{name}: the connection goes on");
        // What is kept in memory has a bound.
        assert_eq!(client.get("/kept").unwrap().status, 500, "{name}");
        server.wait_text("more than 10000 rows; write a LIMIT into the sql");
    });
}

#[test]
fn an_answer_that_fails_in_the_middle_is_cut() {
    on_both("", |server, name, _| {
        let mut client = server.connect();
        assert_eq!(client.get("/broken").unwrap_err(), Failure::Cut, "{name}");
        server.wait_text("answer cut short");
        let reason = if name == "postgres" { "division by zero" } else { "it is a blob" };
        assert!(server.wait_text(reason).raw.contains("place=server.toml:"), "{name}");
        assert_eq!(server.get("/one").text(), "[{\"one\":1}]", "{name}");
    });
}

#[test]
fn a_client_that_leaves_ends_its_statement() {
    on_both("--threads 1 --timeout 60s --statement-timeout 0", |server, name, url| {
        let mut client = server.connect();
        ask(&mut client, "/endless");
        // The head is there, so the statement runs, and holds the only thread.
        eventually(seconds(20), "a head", || client.has_head());
        drop(client);
        let begin = Instant::now();
        assert_eq!(server.get("/one").text(), "[{\"one\":1}]", "{name}");
        assert!(begin.elapsed() < seconds(20), "{name}: {:?}", begin.elapsed());
        assert_eq!(server.count(Said::Retiring), 0, "{name}");
        if let Some(url) = url {
            let mut database = postgres::Client::connect(url, postgres::NoTls).unwrap();
            let running =
                "select count(*) from pg_stat_activity where state = 'active' and query like '%repeat%'
                and pid <> pg_backend_pid()";
            eventually(DEADLINE, "no statement runs any more", || {
                database.query_one(running, &[]).unwrap().get::<_, i64>(0) == 0
            });
        }
    });
}

#[test]
fn a_client_that_does_not_read_is_cut_off_and_leaves_threads_to_others() {
    on_both("--threads 2 --timeout 60s", |server, name, _| {
        let mut slow = server.connect();
        ask(&mut slow, "/endless");
        eventually(seconds(20), "a head", || slow.has_head());
        // Only half of the threads may be taken that way; the other one serves on.
        let refused = server.get("/endless");
        assert_eq!((refused.status, refused.field("retry-after")), (503, Some("1")), "{name}");
        assert_eq!(refused.field("content-type"), Some("application/problem+json"), "{name}");
        assert_eq!(server.get("/one").status, 200, "{name}");
        server.wait_text("it was not taken in time");
        assert_eq!(slow.read().unwrap_err(), Failure::Cut, "{name}");
        assert_eq!(server.get("/one").status, 200, "{name}");
    });
}

#[test]
fn an_answer_without_end_is_cut_off_before_its_worker_is_given_up() {
    on_both("--threads 1 --timeout 8s", |server, name, _| {
        let worker = server.worker();
        assert_eq!(server.try_get("/endless").unwrap_err(), Failure::Cut, "{name}");
        server.wait_text("it was not taken in time");
        assert_eq!(server.get("/one").status, 200, "{name}");
        assert_eq!((server.worker(), server.count(Said::Retiring)), (worker, 0), "{name}");
    });
}

//! Behind PgBouncer in transaction mode, from the file of deploy/: statements, transactions, limits, large answers, and caches that
//! hear of each other. Not here: the settings that do not go together (config).

use crate::support::pgbouncer::Bouncer;
use crate::support::postgres::Cluster;
use crate::support::{DEADLINE, Program, Said, Server, alone, eventually};
use serde_json::json;
use std::thread;

/// Many statements of different shapes, so that names of prepared ones would get in each other's way.
fn routes() -> String {
    let mut text = r#"
[[route]]
path = "/items"
sql = "select name from items order by id"
cache = "1h"
tags = ["items"]

[[route]]
path = "/items"
methods = ["POST"]
sql = [
    "insert into items (name) values (:name)",
    "insert into log (what) values ('added ' || :name::text)",
    "select count(*)::int as count from log",
]
params = { name = "text" }
one = true
invalidates = ["items"]

[[route]]
path = "/limits"
sql = "select current_setting('statement_timeout') as statement, current_setting('idle_in_transaction_session_timeout') as idle"
one = true

[[route]]
path = "/slow"
sql = "select pg_sleep(60)::text"

[[route]]
path = "/moods/{mood}"
sql = "select mood::text as mood, count(*)::int as count from moods where mood = :mood::text::mood group by mood"
params = { mood = "text" }
one = true

[[route]]
path = "/large"
sql = "select i, repeat('x', 1000) as text from generate_series(1, 3000) i"
"#
    .to_owned();
    for number in 0..20 {
        let route = format!(
            "\n[[route]]\npath = \"/sum{number}/{{a}}\"\nsql = \"select :a::int + {number} as sum, '{number}' as name\"\n\
             params = {{ a = \"integer\" }}\none = true\n"
        );
        text += &route;
    }
    text
}

fn shop(bouncer: &Bouncer, database: &str, cache: &str) -> Program {
    let database = format!("[database]\nurl = \"{}\"\n{database}\n", bouncer.url("shop"));
    Program::stock().config(&format!("{database}[cache]\n{cache}\n{}", routes()))
}

fn cluster() -> Cluster {
    let cluster = Cluster::start();
    let tables = "CREATE TABLE items (id serial, name text UNIQUE NOT NULL); CREATE TABLE log (what text); \
                  CREATE TYPE mood AS ENUM ('glad', 'sad'); CREATE TABLE moods (mood mood); \
                  INSERT INTO moods VALUES ('glad'), ('sad'), ('sad')";
    cluster.client().batch_execute(tables).unwrap();
    cluster
}

fn add(server: &Server, name: &str) -> u16 {
    server.connect().post_json("/items", &json!({ "name": name })).unwrap().status
}

fn has(server: &Server, name: &str) -> bool {
    let answer = server.get("/items");
    answer.status == 200 && answer.text().contains(&format!("\"{name}\""))
}

#[test]
fn statements_and_transactions_do_as_they_should() {
    let _alone = alone();
    let cluster = cluster();
    let bouncer = Bouncer::before(&cluster, 2);
    let program = shop(&bouncer, "transaction_pooler = true", "");
    let server = program.args("--threads 4").workers(2).start();
    // Eight connections of workers over two processes of the database, each of which prepares for all of them.
    thread::scope(|scope| {
        for client in 0..8 {
            let server = &server;
            scope.spawn(move || {
                for round in 0..100 {
                    let number = (round * 7 + client) % 20;
                    let answer = server.get(&format!("/sum{number}/{round}"));
                    let wanted = format!("{{\"sum\":{},\"name\":\"{number}\"}}", round + number);
                    assert_eq!((answer.status, answer.text()), (200, wanted));
                    // A type of one's own, cast as docs/scaling.md has it.
                    let answer = server.get("/moods/sad");
                    assert_eq!(
                        (answer.status, answer.text()),
                        (200, r#"{"mood":"sad","count":2}"#.to_owned())
                    );
                }
                for round in 0..5 {
                    assert_eq!(add(server, &format!("of {client} {round}")), 200);
                    assert!(has(server, &format!("of {client} {round}")), "what was written is seen at once");
                }
            });
        }
    });
    assert_eq!(add(&server, "of 1 1"), 409, "it is there already");
    let count = |table: &str| -> i64 {
        cluster.client().query_one(&format!("SELECT count(*) FROM {table}"), &[]).unwrap().get(0)
    };
    assert_eq!((count("items"), count("log")), (40, 40), "all of a transaction, or nothing");
    assert_eq!(server.get("/large").json().as_array().unwrap().len(), 3000);
    assert_eq!(server.get("/limits").text(), r#"{"statement":"30s","idle":"30s"}"#);
    // Whoever gets one of the processes next finds nothing.
    let mut stranger = ::postgres::Client::connect(&bouncer.url("shop"), ::postgres::NoTls).unwrap();
    for _ in 0..10 {
        let left = "SELECT (SELECT count(*) FROM pg_prepared_statements WHERE name LIKE 's%')::text \
                    || current_setting('statement_timeout')";
        let answer = stranger.simple_query(left).unwrap();
        let row = answer.iter().find_map(|message| match message {
            ::postgres::SimpleQueryMessage::Row(row) => row.get(0),
            _ => None, // not our enum
        });
        assert_eq!(row, Some("00"));
    }
    let through = cluster.count("application_name <> 'watcher'");
    assert!((1..=2).contains(&through), "{through}");
    assert!(server.log_with("ERROR").is_empty(), "{:?}", server.log_with("ERROR"));
}

#[test]
fn limits_hold_and_statements_are_proved() {
    let _alone = alone();
    let cluster = cluster();
    let bouncer = Bouncer::before(&cluster, 2);
    let limits = "transaction_pooler = true\nstatement_timeout = \"2s\"";
    let server = shop(&bouncer, limits, "").workers(1).start();
    assert_eq!(server.get("/slow").status, 500);
    server.wait_text("canceling statement due to statement timeout");
    assert_eq!(server.get("/sum1/1").status, 200, "the connection goes on");
    // Given up by the request, and cancelled through PgBouncer; the setup script is run through it as well.
    let program = shop(&bouncer, "transaction_pooler = true\nsetup = \"setup.sql\"", "").workers(1);
    let script = "create table if not exists made (by text); insert into made values ('setup');";
    let server = program.file("setup.sql", script).args("--request-timeout 300ms").start();
    assert_eq!(server.get("/slow").status, 504);
    let sleeps = || cluster.count("query LIKE '%pg_sleep(60)%' AND state = 'active'");
    eventually(DEADLINE, "the statement is over", || sleeps() == 0);
    let made = cluster.client().query_one("SELECT count(*) FROM made", &[]).unwrap().get::<_, i64>(0);
    assert_eq!(made, 1);
    let check = |bad: &str| {
        let database = format!("[database]\nurl = \"{}\"\ntransaction_pooler = true\n", bouncer.url("shop"));
        Program::stock().config(&format!("{database}{}{bad}", routes())).args("--check-config").run()
    };
    let outcome = check("");
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
    let outcome = check("\n[[route]]\npath = \"/bad\"\nsql = \"select absent from items\"\n");
    assert_eq!(outcome.code, Some(2));
    assert!(outcome.stderr.contains("column \"absent\" does not exist"), "{}", outcome.stderr);
}

#[test]
fn without_being_told_of_it_the_log_says_what_to_do() {
    let cluster = cluster();
    let bouncer = Bouncer::before(&cluster, 2);
    let server = shop(&bouncer, "", "").workers(1).start();
    assert_eq!(server.get("/items").status, 503);
    server.wait_text("database.transaction_pooler");
}

#[test]
fn caches_of_two_servers_hear_of_each_other_over_a_connection_in_session_mode() {
    let _alone = alone();
    let cluster = cluster();
    let mut bouncer = Bouncer::before(&cluster, 2);
    let opened = || {
        let cache = format!("notify = true\nnotify_url = \"{}\"", bouncer.url("shop_listen"));
        let server = shop(&bouncer, "transaction_pooler = true", &cache).workers(1).start();
        server.wait(Said::NotifyListening);
        server
    };
    let (here, there) = (opened(), opened());
    for name in ["one", "two", "three"] {
        assert!(!has(&there, name));
        assert_eq!(add(&here, name), 200);
        eventually(DEADLINE, "the other server tells of it", || has(&there, name));
    }
    bouncer.restart();
    eventually(DEADLINE, "both listen again", || {
        [&here, &there].iter().all(|server| server.count(Said::NotifyListening) >= 2)
    });
    assert!(!has(&there, "four"));
    eventually(DEADLINE, "it is written", || add(&here, "four") == 200);
    eventually(DEADLINE, "the other server tells of it", || has(&there, "four"));
}

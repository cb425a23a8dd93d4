//! `--check-config` and the trial of a reload have the database look at the stock app's statements, and say where they do not fit.

use crate::support::postgres::Cluster;
use crate::support::proxy::Proxy;
use crate::support::{DEADLINE, Program, Said, Server, eventually, seconds};
use nix::sys::signal::Signal::{SIGHUP, SIGKILL};
use std::time::Instant;

fn routes(url: &str, more: &str) -> String {
    format!(
        r#"[database]
url = '{url}'
{more}
[[route]]
path = "/fine"
sql = "select id from goods where id = :id"
params = {{ id = "integer" }}
[[route]]
path = "/column"
sql = """
select id,
       colour
from goods"""
[[route]]
path = "/table"
methods = "POST"
sql = [
    "insert into goods values (1)",
    "insert into bads values (1)",
]
[[route]]
path = "/syntax"
sql = "selec 1"
[[route]]
path = "/type/{{id}}"
sql = "select id from goods where id = :id"
params = {{ id = "text" }}
[[route]]
path = "/shape"
sql = "select point(1, 2) as p"
[[route]]
path = "/twice"
sql = "select id, id from goods"
"#
    )
}

/// The lines that the check complains of.
fn complaints(stderr: &str) -> Vec<&str> {
    stderr.lines().filter(|line| line.contains("server.toml:")).collect()
}

#[test]
fn statements_are_tried_on_postgres() {
    let cluster = Cluster::start();
    let mut client = postgres::Client::connect(&cluster.url(), postgres::NoTls).unwrap();
    client.batch_execute("create table goods (id integer)").unwrap();
    let outcome = Program::stock().config(&routes(&cluster.url(), "")).args("--check-config").run();
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(2), ""), "{}", outcome.stderr);
    let expected = [
        "server.toml:12: route.sql: column \"colour\" does not exist",
        "server.toml:19: route.sql: relation \"bads\" does not exist",
        "server.toml:23: route.sql: syntax error at or near \"selec\"",
        "server.toml:26: route.sql: the server takes :id for int4, which its declared type does not fit; write :id::text::int4",
        "server.toml:30: route.sql: column \"p\" is of type point, which has no JSON here; cast it in the sql: p::text",
        "server.toml:33: route.sql: two columns are called \"id\"; name one of them with AS",
    ];
    let given = complaints(&outcome.stderr);
    assert_eq!(given.len(), expected.len(), "{}", outcome.stderr);
    for (given, expected) in given.iter().zip(expected) {
        assert!(given.ends_with(expected), "{given}\nnot {expected}");
    }

    // What a setup script may still make is no refusal; and it ran nothing.
    let setup = Program::stock().file("s.sql", "").config(&routes(&cluster.url(), "setup = 's.sql'"));
    let outcome = setup.args("--check-config").run();
    let missing = complaints(&outcome.stderr);
    assert!(
        missing[0].ends_with("\"colour\" does not exist; the setup script may make it"),
        "{}",
        outcome.stderr
    );
    assert_eq!(outcome.code, Some(2), "the rest is wrong all the same");
    assert_eq!(client.query_one("select count(*) from goods", &[]).unwrap().get::<_, i64>(0), 0);

    cluster.stop();
    let outcome = Program::stock().config(&routes(&cluster.url(), "")).args("--check-config").run();
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(0), "the settings are valid\n"));
    assert!(outcome.stderr.contains("the statements were not tried on the database: "), "{}", outcome.stderr);
}

#[test]
fn statements_are_tried_on_sqlite() {
    let program = Program::stock().config(&routes("sqlite:goods.db", "")).args("--check-config");
    let path = program.dir().join("goods.db");
    rusqlite::Connection::open(&path).unwrap().execute_batch("create table goods (id integer)").unwrap();
    let outcome = program.run();
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(2), ""), "{}", outcome.stderr);
    let expected = [
        "server.toml:12: route.sql: no such column: colour",
        "server.toml:19: route.sql: no such table: bads",
        "server.toml:23: route.sql: near \"selec\": syntax error",
        "server.toml:30: route.sql: no such function: point",
        "server.toml:33: route.sql: two columns are called \"id\"; name one of them with AS",
    ];
    let given = complaints(&outcome.stderr);
    assert_eq!(given.len(), expected.len(), "{}", outcome.stderr);
    for (given, expected) in given.iter().zip(expected) {
        assert!(given.ends_with(expected), "{given}\nnot {expected}");
    }
}

#[test]
fn a_database_that_the_setup_script_is_still_to_make_is_tried_in_memory() {
    let routes = "[[route]]\npath = '/'\nsql = 'select id from goods'\n";
    for (column, wanted) in [("id", Some(0)), ("no", Some(2))] {
        let settings = format!("[database]\nurl = 'sqlite:goods.db'\nsetup = 's.sql'\n{routes}");
        let script = format!("create table goods ({column} integer)");
        let program = Program::stock().file("s.sql", &script).config(&settings).args("--check-config");
        let outcome = program.run();
        assert_eq!(outcome.code, wanted, "{script}: {}", outcome.stderr);
        assert_eq!(outcome.stderr.contains("no such column: id"), column == "no", "{}", outcome.stderr);
    }
    let without = Program::stock().config(&format!("[database]\nurl = 'sqlite:goods.db'\n{routes}"));
    let outcome = without.args("--check-config").run();
    assert_eq!(outcome.code, Some(0));
    assert!(outcome.stderr.contains("goods.db: there is no such file yet"), "{}", outcome.stderr);
}

/// One route with this statement, in line 6.
fn one_route(url: &str, sql: &str) -> String {
    format!("workers = 2\n[database]\nurl = '{url}'\n[[route]]\npath = '/goods'\nsql = '{sql}'\n")
}

fn reload_with(server: &Server, settings: &str) {
    std::fs::write(server.dir().join("server.toml"), settings).unwrap();
    server.signal(SIGHUP);
}

#[test]
fn a_reload_with_a_statement_that_postgres_does_not_take_is_refused() {
    let cluster = Cluster::start();
    cluster.client().batch_execute("create table goods (id integer)").unwrap();
    let proxy = Proxy::to(cluster.addr());
    let url = cluster.url().replace(&cluster.addr().to_string(), &proxy.addr().to_string());
    let (fine, wrong) =
        (one_route(&url, "select id from goods"), one_route(&url, "select colour from goods"));
    let mut server = Program::stock().config(&fine).expect_workers(2).start();
    let old = server.workers();
    assert_eq!(proxy.attempts(), 0, "a start does not ask");

    reload_with(&server, &wrong);
    let refused = server.wait_text("statement refused by the database");
    assert!(refused.value("place").unwrap().ends_with("server.toml:6"), "{}", refused.raw);
    assert_eq!(refused.value("key"), Some("route.sql"), "{}", refused.raw);
    assert!(refused.raw.contains("colour"), "{}", refused.raw);
    server.wait(Said::ReloadRefused);
    eventually(DEADLINE, "only the old ones are there", || server.workers() == old);
    assert_eq!(proxy.attempts(), 1);

    // One worker asks, once; those who come later do not.
    reload_with(&server, &fine);
    server.wait(Said::ReloadDone);
    assert_eq!(proxy.attempts(), 2);
    eventually(DEADLINE, "only the new ones are there", || server.workers().len() == 2);
    let ready = server.count(Said::Ready);
    server.signal_to(server.workers()[0], SIGKILL);
    server.wait_count(Said::Ready, ready + 1);
    assert_eq!(proxy.attempts(), 2);
    assert_eq!(server.get("/goods").status, 200);
    server.stop();
}

#[test]
fn a_database_that_cannot_say_does_not_block_a_reload() {
    let cluster = Cluster::start();
    let mut client = cluster.client();
    client.batch_execute("create table goods (id integer)").unwrap();
    let proxy = Proxy::to(cluster.addr());
    let url = cluster.url().replace(&cluster.addr().to_string(), &proxy.addr().to_string());
    let wrong = one_route(&url, "select colour from goods");
    let fine = one_route(&url, "select id from goods");
    let mut server = Program::stock().config(&wrong).expect_workers(2).start();
    let mut reloads = 0;
    let mut goes_through = |settings: &str| {
        let began = Instant::now();
        reload_with(&server, settings);
        reloads += 1;
        server.wait_count(Said::ReloadDone, reloads);
        let warned = server.log_with("statements not tried on the database").len();
        assert!(began.elapsed() < seconds(25), "{:?}", began.elapsed());
        warned
    };
    proxy.refuse();
    assert_eq!(goes_through(&wrong), 1, "it is away");
    proxy.swallow();
    assert_eq!(goes_through(&wrong), 2, "it says nothing");
    proxy.pass();
    // Whoever looks at the table has to wait.
    let mut lock = client.transaction().unwrap();
    lock.batch_execute("lock table goods in access exclusive mode").unwrap();
    assert_eq!(goes_through(&fine), 3, "the table is locked");
    lock.rollback().unwrap();
    assert_eq!(goes_through(&fine), 3, "it has looked");
    assert_eq!(server.count(Said::ReloadRefused), 0);
    server.stop();
}

#[test]
fn a_reload_with_a_statement_that_sqlite_does_not_take_is_refused() {
    let fine = "workers = 1\n[database]\nurl = 'sqlite:goods.db'\nsetup = 's.sql'\n\
                [[route]]\npath = '/goods'\nsql = 'select id from goods'\n";
    let program = Program::stock().file("s.sql", "create table if not exists goods (id integer)");
    let mut server = program.config(fine).start();
    // The setup script runs at starts alone, so it is no hope.
    reload_with(&server, &fine.replace("from goods", "from bads"));
    let refused = server.wait_text("statement refused by the database");
    assert!(refused.value("place").unwrap().ends_with("server.toml:7"), "{}", refused.raw);
    server.wait(Said::ReloadRefused);
    assert_eq!(server.get("/goods").status, 200);
    reload_with(&server, fine);
    server.wait(Said::ReloadDone);
    server.stop();
}

//! `--check-config` tries the stock app's statements on the database, and says where they do not fit.

use crate::support::Program;
use crate::support::postgres::Cluster;

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
        "server.toml:12: column \"colour\" does not exist",
        "server.toml:19: relation \"bads\" does not exist",
        "server.toml:23: syntax error at or near \"selec\"",
        "server.toml:26: the server takes :id for int4, which its declared type does not fit; write :id::text::int4",
        "server.toml:30: column \"p\" is of type point, which has no JSON here; cast it in the sql: p::text",
        "server.toml:33: two columns are called \"id\"; name one of them with AS",
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
        "server.toml:12: no such column: colour",
        "server.toml:19: no such table: bads",
        "server.toml:23: near \"selec\": syntax error",
        "server.toml:30: no such function: point",
        "server.toml:33: two columns are called \"id\"; name one of them with AS",
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

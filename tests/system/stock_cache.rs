//! What the stock app's routes with `cache` tell a client of what they keep, in each of two workers over SQLite.
//! Not here: that nobody gets what a write made old while many read and write (coherence.rs).

use crate::support::{Connection, DEADLINE, Program, Response, Server, eventually};

const SETUP: &str = "
create table if not exists counts (id integer primary key, count integer not null);
insert into counts select 1, 10 where not exists (select 1 from counts);
insert into counts select 2, 20 where (select count(*) from counts) = 1;
";

/// `made` is another at each run of the statement, and so tells an answer that is kept from a new one.
/// The token is open-sesame.
const SETTINGS: &str = r#"
workers = 2
[database]
url = "sqlite:counts.db"
setup = "setup.sql"
[templates]
folder = "templates"
[[route]]
path = "/who"
sql = "select hex(randomblob(16)) as made"
cache = "1h"
[[route]]
path = "/count"
sql = "select count, hex(randomblob(16)) as made from counts where id = :id"
params = { id = "integer" }
one = true
cache = "1h"
tags = "counts"
[[route]]
path = "/count"
methods = "POST"
sql = "update counts set count = count + 1"
invalidates = "counts"
[[route]]
path = "/page"
template = "count.html"
sql = "select count, hex(randomblob(16)) as made from counts where id = :id"
params = { id = "integer" }
one = true
cache = "1h"
tags = "counts"
[[route]]
path = "/same"
sql = "select count from counts"
cache = "1h"
tags = "counts"
[[route]]
path = "/secret"
sql = "select hex(randomblob(16)) as made"
cache = "1h"
tokens = ["sha256:d7ecdf25eaf3deba0f2628771dbdd22d4138ab6cf38f91ed02a2ca0dec7c8ab7"]
"#;

fn start() -> Server {
    Program::stock()
        .file("setup.sql", SETUP)
        .file("templates/count.html", "<p>{{ row.count }} {{ row.made }}</p>")
        .config(SETTINGS)
        .expect_workers(2)
        .start()
}

/// A connection to each worker: what they keep of one statement differs.
fn one_of_each(server: &Server) -> Vec<Connection> {
    let mut found: Vec<(String, Connection)> = Vec::new();
    eventually(DEADLINE, "a connection to each worker", || {
        let mut client = server.connect();
        let made = client.get("/who").unwrap().text();
        if found.iter().all(|(known, _)| *known != made) {
            found.push((made, client));
        }
        found.len() == 2
    });
    found.into_iter().map(|(_, client)| client).collect()
}

fn ask(client: &mut Connection, method: &str, path: &str, fields: &[(&str, &str)]) -> Response {
    client.request(method, path, fields, b"").unwrap()
}

fn etag(response: &Response) -> String {
    let etag = response.field("etag").expect("an answer that is kept has an ETag").to_owned();
    assert!(etag.starts_with('"') && etag.ends_with('"') && etag.len() > 2, "it is strong: {etag}");
    etag
}

#[test]
fn a_kept_answer_is_known_by_its_etag_until_it_is_invalidated() {
    let mut server = start();
    let mut clients = one_of_each(&server);
    for path in ["/count", "/page"] {
        let mut before = Vec::new();
        for client in &mut clients {
            let path_of_1 = format!("{path}?id=1");
            let first = client.get(&path_of_1).unwrap();
            assert_eq!((first.status, first.field("age")), (200, None), "{path}");
            let second = client.get(&path_of_1).unwrap();
            assert_eq!((second.text(), etag(&second)), (first.text(), etag(&first)), "{path}");
            assert_eq!(second.field("content-type"), first.field("content-type"));
            assert_eq!(second.field("date"), first.field("date"), "when it was made");
            let age: u64 = second.field("age").expect("it is kept").parse().unwrap();
            assert!(age <= DEADLINE.as_secs(), "{age}");

            let known = ask(client, "GET", &path_of_1, &[("if-none-match", &etag(&first))]);
            assert_eq!((known.status, known.text(), etag(&known)), (304, String::new(), etag(&first)));
            assert_eq!((known.field("content-type"), known.field("content-length")), (None, None));
            let other = ask(client, "GET", &path_of_1, &[("if-none-match", "\"0\"")]);
            assert_eq!((other.status, other.text()), (200, first.text()));

            let head = ask(client, "HEAD", &path_of_1, &[]);
            let length = first.body.len().to_string();
            assert_eq!((head.status, head.field("content-length")), (200, Some(length.as_str())));
            assert!(head.field("age").is_some() && etag(&head) == etag(&first), "{path}");
            before.push(etag(&first));
        }
        assert_ne!(before[0], before[1], "another statement, another answer");

        assert_eq!(ask(&mut clients[0], "POST", "/count", &[]).status, 200);
        for (client, before) in clients.iter_mut().zip(&before) {
            let after = ask(client, "GET", &format!("{path}?id=1"), &[("if-none-match", before)]);
            assert_eq!((after.status, after.field("age")), (200, None), "{path}");
            assert_ne!(etag(&after), *before, "{path}");
        }
    }
    server.stop();
}

#[test]
fn the_same_answer_has_the_same_etag_in_every_worker() {
    let mut server = start();
    let mut clients = one_of_each(&server);
    let first = etag(&clients[0].get("/same").unwrap());
    let elsewhere = ask(&mut clients[1], "GET", "/same", &[("if-none-match", &first)]);
    assert_eq!((elsewhere.status, etag(&elsewhere)), (304, first.clone()), "also where it is made for it");
    assert_eq!(ask(&mut clients[1], "POST", "/count", &[]).status, 200);
    let after = [0, 1].map(|worker: usize| etag(&clients[worker].get("/same").unwrap()));
    assert!(after[0] == after[1] && after[0] != first, "{after:?} after {first}");
    server.stop();
}

#[test]
fn only_what_is_declared_makes_another_answer() {
    let mut server = start();
    let mut client = server.connect();
    let kept = client.get("/count?id=1").unwrap();
    let range = [("range", "bytes=0-1")];
    let unwilling = [("cache-control", "no-store, no-cache"), ("pragma", "no-cache")];
    let who = [("cookie", "a=b"), ("authorization", "Bearer x")];
    let asked: [(&str, &[(&str, &str)]); 7] = [
        ("/count?id=1&x=1", &[]),
        ("/count?utm_source=a&id=1&id%5B%5D=2", &[]),
        ("/count?id=01", &[]),
        ("/count?%69d=1", &[]),
        ("/count?id=1", &range),
        ("/count?id=1", &unwilling),
        ("/count?id=1", &who),
    ];
    for (path, fields) in asked {
        let again = ask(&mut client, "GET", path, fields);
        assert_eq!((again.status, again.text()), (200, kept.text()), "{path} {fields:?}");
        assert!(again.field("age").is_some(), "{path} {fields:?}");
    }
    // HEAD leaves its answer to GET.
    let head = ask(&mut client, "HEAD", "/count?id=2", &[]);
    let get = client.get("/count?id=2").unwrap();
    assert_eq!((etag(&get), get.field("age").is_some()), (etag(&head), true));
    assert_ne!(get.text(), kept.text());
    // A refusal is neither kept nor known.
    for (path, status) in
        [("/count?id=3", 404), ("/count?id=x", 400), ("/count?id=1&id=1", 400), ("/count", 400)]
    {
        for _ in 0..2 {
            let refused = ask(&mut client, "GET", path, &[("if-none-match", "*")]);
            assert_eq!(
                (refused.status, refused.field("etag"), refused.field("age")),
                (status, None, None),
                "{path}"
            );
        }
    }
    server.stop();
}

#[test]
fn who_has_no_token_gets_nothing_that_is_kept() {
    let mut server = start();
    let mut clients = one_of_each(&server);
    let sesame = ("authorization", "Bearer open-sesame");
    for client in &mut clients {
        let first = ask(client, "GET", "/secret", &[sesame]);
        let second = ask(client, "GET", "/secret", &[sesame]);
        assert_eq!((second.status, second.text()), (200, first.text()));
        assert!(second.field("age").is_some(), "it is kept");
        let known = ask(client, "GET", "/secret", &[sesame, ("if-none-match", &etag(&first))]);
        assert_eq!(known.status, 304);
        for answer in [&first, &second, &known] {
            assert_eq!(answer.field("cache-control"), Some("private"), "no proxy may keep it");
        }
        let etag = etag(&first);
        let without: [&[(&str, &str)]; 4] = [
            &[],
            &[("if-none-match", &etag)],
            &[("if-none-match", "*")],
            &[("authorization", "Bearer open-sesam"), ("if-none-match", &etag)],
        ];
        for (method, fields) in
            ["GET", "HEAD"].iter().flat_map(|method| without.map(|fields| (*method, fields)))
        {
            let refused = ask(client, method, "/secret", fields);
            assert_eq!((refused.status, refused.field("etag")), (401, None), "{method} {fields:?}");
            assert!(!refused.text().contains("made"), "{}", refused.text());
        }
    }
    assert_eq!(clients[0].get("/who").unwrap().field("cache-control"), None);
    server.stop();
}

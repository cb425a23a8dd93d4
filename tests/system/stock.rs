//! The stock app's routes over the real program, on both databases where there is one. Not here: rules of single
//! values, addresses and templates, which tables beside the code test; large answers (stock_stream.rs).

use crate::support::postgres::Cluster;
use crate::support::{Connection, DEADLINE, Program, Response, Said, Server, eventually, seconds};
use nix::sys::signal::Signal::SIGHUP;
use serde_json::{Value, json};
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

const SETUP: &str = "
create table if not exists goods (id integer primary key, name text not null unique, price integer not null);
create table if not exists sales (
    good integer not null references goods deferrable initially deferred, count integer not null);
insert into goods select 1, 'apple', 30 where not exists (select 1 from goods);
";

/// Runs `story` with a server on each database; `{url}` in the settings is filled in.
fn on_both(settings: &str, files: &[(&str, &str)], story: impl Fn(&Server, &str)) {
    let cluster = Cluster::start();
    for (name, url) in [("sqlite", "sqlite:goods.db"), ("postgres", &cluster.url())] {
        let settings = format!("workers = 1\n[database]\nurl = '{url}'\nsetup = 'setup.sql'\n{settings}");
        let mut program = Program::stock().file("setup.sql", SETUP);
        for (name, text) in files {
            program = program.file(name, text);
        }
        let mut server = program.config(&settings).start();
        story(&server, name);
        server.stop();
    }
}

fn post(client: &mut Connection, path: &str, body: &Value) -> Response {
    client.post_json(path, body).unwrap()
}

/// `field: message` of each error of a problem document.
#[track_caller]
fn faults(response: &Response) -> Vec<String> {
    assert_eq!(response.status, 400, "{}", response.text());
    assert_eq!(response.field("content-type"), Some("application/problem+json"));
    let problem = response.json();
    let words = |fault: &Value| {
        format!("{}: {}", fault["field"].as_str().unwrap(), fault["message"].as_str().unwrap())
    };
    problem["errors"].as_array().unwrap().iter().map(words).collect()
}

#[test]
fn every_wrong_parameter_is_named_at_once() {
    let settings = r#"
[[route]]
path = "/goods/{id}"
methods = "POST"
sql = "insert into goods (id, name, price) values (:id, :name, :price) returning id, name, price"
one = true
[route.params]
id = { type = "integer", min = 2, max = 999 }
name = { type = "text", max_length = 8, pattern = "^[a-z]+$" }
price = { type = "integer", enum = [1, 5, 9], default = 5 }
"#;
    on_both(settings, &[], |server, _| {
        let mut client = server.connect();
        let all = post(&mut client, "/goods/1", &json!({"name": "A", "price": 4}));
        assert_eq!(
            faults(&all),
            ["id: must be at least 2", "name: must match ^[a-z]+$", "price: must be one of 1, 5, 9"]
        );
        assert_eq!(all.json()["instance"], "/goods/1");
        assert_eq!(all.json()["type"], "about:blank");
        let long = post(&mut client, "/goods/1000", &json!({"name": "abcdefghi", "price": null}));
        assert_eq!(
            faults(&long),
            ["id: must be at most 999", "name: must be at most 8 characters long"],
            "null is allowed where a default is"
        );
        assert_eq!(faults(&post(&mut client, "/goods/2", &json!({}))), ["name: is missing: a string"]);
        let made = post(&mut client, "/goods/2", &json!({"name": "pear"}));
        assert_eq!(made.json(), json!({"id": 2, "name": "pear", "price": 5}), "the default");
        let again = post(&mut client, "/goods/3", &json!({"name": "pear"}));
        assert_eq!((again.status, again.json()["title"].as_str()), (409, Some("Conflict")));
    });
}

#[test]
fn several_statements_are_all_or_nothing() {
    let settings = r#"
[[route]]
path = "/sales"
methods = "POST"
sql = [
    "insert into sales (good, count) values (:good, :count)",
    "update goods set price = price + :count where id = :good",
    "insert into goods (id, name, price) values (:good + 1, :name, 1)",
    "select id, name, price from goods order by id",
]
params = { good = "integer", count = "integer", name = "text" }

[[route]]
path = "/one"
methods = "POST"
sql = ["update goods set price = price + 100", "select price from goods where id = :id"]
params = { id = "integer" }
one = true

[[route]]
path = "/goods"
sql = "select id, price, (select count(*) from sales) as sales from goods order by id"

[[route]]
path = "/total"
sql = "select sum(price) as total from goods"
one = true
cache = "1h"
tags = "goods"

[[route]]
path = "/raise"
methods = "POST"
sql = [
    "update goods set price = price + 1",
    "with recursive n(i) as (select 1 union all select i + 1 from n where i < 20000) select max(i) as slow from n",
]
invalidates = "goods"
"#;
    on_both(settings, &[], |server, name| {
        let mut client = server.connect();
        let before = json!([{"id": 1, "price": 30, "sales": 0}]);
        // The third statement fails, then the commit: the sale is of something that is not there.
        let taken = post(&mut client, "/sales", &json!({"good": 1, "count": 2, "name": "apple"}));
        assert_eq!(taken.status, 409, "{name}: {}", taken.text());
        assert_eq!(client.get("/goods").unwrap().json(), before, "{name}");
        let nothing = post(&mut client, "/sales", &json!({"good": 7, "count": 2, "name": "fig"}));
        assert_eq!(nothing.status, 409, "{name}: {}", nothing.text());
        assert_eq!(client.get("/goods").unwrap().json(), before, "{name}");
        assert_eq!(post(&mut client, "/one", &json!({"id": 9})).status, 404);
        assert_eq!(client.get("/goods").unwrap().json(), before, "{name}: a 404 rolls back, too");

        let sold = post(&mut client, "/sales", &json!({"good": 1, "count": 2, "name": "fig"}));
        let goods = json!([{"id": 1, "name": "apple", "price": 32}, {"id": 2, "name": "fig", "price": 1}]);
        assert_eq!((sold.status, sold.json()), (200, goods), "{name}: the rows of the last");
        assert_eq!(post(&mut client, "/one", &json!({"id": 1})).json(), json!({"price": 132}));

        let total = |client: &mut Connection| client.get("/total").unwrap().json()["total"].as_i64().unwrap();
        assert_eq!(total(&mut client), 233, "{name}");
        // Somebody else reads all the time: what he caches while a transaction is open must not outlive its commit.
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut reader = server.connect();
                while !is_over.load(Relaxed) {
                    total(&mut reader);
                }
            });
            let stale = (1..=20).find(|round| {
                assert_eq!(post(&mut client, "/raise", &json!({})).status, 200);
                total(&mut client) != 233 + 2 * round
            });
            is_over.store(true, Relaxed);
            assert_eq!(stale, None, "{name}: of the rounds");
        });
    });
}

#[test]
fn pages_keep_within_the_declared_size() {
    let settings = r#"
[[route]]
path = "/page"
sql = "with recursive n(i) as (select 1 union all select i + 1 from n where i < 50) select i from n order by i limit :limit offset :offset"
page = { limit = 3, max = 10 }
"#;
    on_both(settings, &[], |server, name| {
        let mut client = server.connect();
        let mut page = |query: &str| -> Vec<i64> {
            let rows = client.get(&format!("/page{query}")).unwrap().json();
            rows.as_array().unwrap().iter().map(|row| row["i"].as_i64().unwrap()).collect()
        };
        assert_eq!(page(""), [1, 2, 3], "{name}");
        assert_eq!(page("?limit=2&offset=48"), [49, 50], "{name}");
        assert_eq!(page("?limit=10").len(), 10, "{name}");
        assert_eq!(page("?offset=50").len(), 0, "{name}");
        let beyond = server.get("/page?limit=11&offset=-1");
        assert_eq!(faults(&beyond), ["limit: must be at most 10", "offset: must be at least 0"]);
    });
}

const PAGES: &str = r#"
[templates]
folder = "pages"
[[route]]
path = "/goods/{id}"
template = "good.html"
sql = "select id, name, price from goods where id = :id"
params = { id = "integer" }
one = true
[[route]]
path = "/json/{id}"
sql = "select id, name, price from goods where id = :id"
params = { id = "integer" }
one = true
[[route]]
path = "/search"
template = "search.html"
params = { q = { type = "text", default = "" } }
"#;

#[test]
fn a_template_and_json_show_the_same_rows_and_a_reload_takes_new_templates() {
    let pages = [
        ("pages/good.html", "<h1>{{ row.name }}</h1>{% include 'parts/price.html' %}"),
        ("pages/parts/price.html", "<p>{{ row.price }} of {{ params.id }}"),
        ("pages/search.html", "You asked for {{ params.q }}"),
    ];
    on_both(PAGES, &pages, |server, name| {
        let page = server.get("/goods/1");
        assert_eq!((page.status, page.text().as_str()), (200, "<h1>apple</h1><p>30 of 1"), "{name}");
        assert_eq!(page.field("content-type"), Some("text/html; charset=utf-8"));
        assert_eq!(server.get("/json/1").json(), json!({"id": 1, "name": "apple", "price": 30}), "{name}");
        assert_eq!(server.get("/goods/9").status, 404, "{name}");
        let search = server.get("/search?q=%3Cscript%3E");
        assert_eq!(search.text(), "You asked for &lt;script&gt;", "{name}");
        assert_eq!(server.get("/search").text(), "You asked for ");

        let template = server.dir().join("pages/parts/price.html");
        fs::write(&template, "fine\n{% if %}").unwrap();
        server.signal(SIGHUP);
        let refused = server.wait(Said::ReloadRefused);
        assert!(refused.raw.contains("pages/parts/price.html:2: syntax error"), "{}", refused.raw);
        assert_eq!(server.get("/goods/1").text(), "<h1>apple</h1><p>30 of 1", "the old ones serve on");
        fs::write(&template, "for {{ row.price }}").unwrap();
        server.signal(SIGHUP);
        server.wait(Said::ReloadDone);
        // The old worker may take what came to it before it drains.
        eventually(DEADLINE, "the new page", || server.get("/goods/1").text() == "<h1>apple</h1>for 30");
    });
}

#[test]
fn a_template_that_does_not_parse_is_no_start() {
    for (pages, message) in [
        (vec![("pages/good.html", "{{ x"), ("pages/search.html", "")], "pages/good.html:1: syntax error: "),
        (vec![("pages/good.html", "")], "the template \"search.html\" is not in pages"),
    ] {
        let mut program = Program::stock();
        for (name, text) in pages {
            program = program.file(name, text);
        }
        let outcome =
            program.config(&format!("[database]\nurl = 'sqlite:goods.db'\n{PAGES}")).args("-w 1").run();
        assert_eq!(outcome.code, Some(2));
        assert!(outcome.stderr.contains(message), "{}", outcome.stderr);
    }
}

#[test]
fn redirects_and_the_methods_that_come_by_themselves() {
    let settings = r#"
[[route]]
path = "/old/{id}/{*rest}"
redirect = "/new/{id}?to={rest}"
[[route]]
path = "/any/{*rest}"
methods = ["GET", "POST"]
redirect = "/{*rest}"
status = 308
"#;
    let mut server = Program::stock().config(settings).workers(1).start();
    let mut client = server.connect();
    for method in ["GET", "HEAD"] {
        let sent = client.request(method, "/old/a%20b/c/d", &[], b"").unwrap();
        assert_eq!((sent.status, sent.field("location")), (302, Some("/new/a%20b?to=c%2Fd")), "{method}");
    }
    let home = client.request("POST", "/any//evil.example/", &[], b"").unwrap();
    assert_eq!((home.status, home.field("location")), (308, Some("/evil.example/")));
    let options = client.request("OPTIONS", "/any/x", &[], b"").unwrap();
    assert_eq!(options.status, 204);
    let wrong = client.request("DELETE", "/any/x", &[], b"").unwrap();
    assert_eq!(wrong.status, 405);
    assert_eq!(wrong.field("content-type"), Some("application/problem+json"));
    for response in [options, wrong] {
        for method in ["GET", "HEAD", "POST", "OPTIONS"] {
            assert!(response.has_token("allow", method), "{method} in {:?}", response.field("allow"));
        }
        assert!(!response.has_token("allow", "DELETE"));
    }
    server.stop();
}

#[test]
fn a_route_has_tokens_a_body_limit_and_a_time_limit_of_its_own() {
    // printf %s open-sesame | sha256sum, and of "from-a-file"
    let settings = r#"
[[route]]
path = "/secret"
text = "inside\n"
tokens = ["sha256:d7ecdf25eaf3deba0f2628771dbdd22d4138ab6cf38f91ed02a2ca0dec7c8ab7", "file:tokens"]
[[route]]
path = "/echo"
methods = "POST"
sql = "select :text as text"
params = { text = "text" }
one = true
limit_request_body = 64
[[route]]
path = "/slow"
sql = "SLOW"
timeout = "300ms"
"#;
    let slow = "with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) as c from n";
    let settings = settings.replace("SLOW", slow).replace("select :text", "select cast(:text as text)");
    let hash = "sha256:cbfc3c40dbb66eaa6dab7f3a999bc65b1a34ca24f47f5cf4a2dc31651b49310a";
    let tokens = format!("# of the file\n\n{hash}\n");
    on_both(&settings, &[("tokens", &tokens)], |server, name| {
        let mut client = server.connect();
        let mut ask = |token: Option<&str>| {
            let bearer = token.map(|token| format!("Bearer {token}")).unwrap_or_default();
            let fields = [("authorization", bearer.as_str())];
            client.request("GET", "/secret", if token.is_some() { &fields } else { &[] }, b"").unwrap()
        };
        assert_eq!(ask(Some("open-sesame")).text(), "inside\n");
        for (token, challenge) in [
            (None, "Bearer"),
            (Some("open-sesam"), "Bearer error=\"invalid_token\""),
            (Some(""), "Bearer"),
            (
                Some("d7ecdf25eaf3deba0f2628771dbdd22d4138ab6cf38f91ed02a2ca0dec7c8ab7"),
                "Bearer error=\"invalid_token\"",
            ),
        ] {
            let refused = ask(token);
            assert_eq!(
                (refused.status, refused.field("www-authenticate")),
                (401, Some(challenge)),
                "{token:?}"
            );
            assert_eq!(refused.field("content-type"), Some("application/problem+json"));
            assert!(!refused.text().contains("inside"));
        }
        assert!(server.log_with("sesam").is_empty(), "no token is logged");

        let small = post(&mut client, "/echo", &json!({"text": "a"}));
        assert_eq!((small.status, small.json()), (200, json!({"text": "a"})), "{name}");
        let large = post(&mut client, "/echo", &json!({"text": "a".repeat(64)}));
        assert_eq!(
            (large.status, large.field("content-type")),
            (413, Some("application/problem+json")),
            "{name}"
        );

        let begin = Instant::now();
        // More often than there are threads: none of them goes on.
        let [.., late] = [(); 5].map(|()| server.get("/slow"));
        assert_eq!(
            (late.status, late.field("content-type")),
            (504, Some("application/problem+json")),
            "{name}"
        );
        assert!(begin.elapsed() < seconds(20), "{name}: {:?}", begin.elapsed());
        assert_eq!(post(&mut client, "/echo", &json!({"text": "b"})).json(), json!({"text": "b"}), "{name}");
        server.wait_text("request timed out method=GET path=\"/slow\" timeout=300ms");
        assert!(server.log_with("a route's statement failed").is_empty(), "it was given up");
        assert_eq!(server.count(Said::Retiring), 0, "{name}");
    });
}

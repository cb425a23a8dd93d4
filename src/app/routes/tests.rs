//! Stories of whole requests through the router, over SQLite in memory.

use super::*;
use crate::app::{Database, Pool, SqliteSession};
use crate::config::{DatabaseUrl, Param, ParamKind, Query, Settings, Sql};
use ParamKind::{Boolean, Integer, Number, Text};
use axum::body::Body;
use axum::response::Response;
use http::{HeaderMap, Request};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::time::Duration;
use tower::ServiceExt;

const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";

pub(super) fn settings(routes: Vec<Route>) -> Settings {
    let mut settings = Settings { routes, ..Settings::default() };
    settings.database.url = Some(DatabaseUrl::Sqlite(":memory:".into()));
    settings
}

pub(super) fn sql_route(method: &str, path: &str, sql: &str, params: &[(&str, ParamKind)]) -> Route {
    let params = params.iter().map(|(name, kind)| Param::new(*name, *kind)).collect();
    let statements = vec![Sql { text: sql.into(), line: 0 }];
    let query = Query { statements, params, ..Query::default() };
    Route { kind: Kind::Sql(query), ..text_route(method, path, "") }
}

pub(super) fn text_route(method: &str, path: &str, text: &str) -> Route {
    Route {
        path: path.into(),
        methods: vec![method.into()],
        kind: Kind::Text(text.into()),
        status: 200,
        cache: Duration::ZERO,
        tags: Vec::new(),
        invalidates: Vec::new(),
        limit_request_body: None,
        timeout: None,
        compress: None,
        fields: Vec::new(),
        tokens: Vec::new(),
        place: "s.toml:7".into(),
    }
}

pub(super) fn route() -> Route {
    sql_route("GET", "/one", "SELECT 1", &[])
}

/// The route with its query changed.
pub(super) fn with_query(mut route: Route, change: impl FnOnce(&mut Query)) -> Route {
    if let Kind::Sql(query) | Kind::Template { query, .. } = &mut route.kind {
        change(query);
    }
    route
}

fn one(route: Route) -> Route {
    with_query(route, |query| query.one = true)
}

/// A worker over a database of its own, which `script` filled.
fn worker(settings: Settings, script: &str) -> Worker {
    let connection = rusqlite::Connection::open_in_memory().unwrap();
    connection.execute_batch("PRAGMA foreign_keys = ON").unwrap();
    connection.execute_batch(script).unwrap();
    Worker::stub(settings, Some(Database::Sqlite(Pool::stub(SqliteSession::new(connection)))))
}

/// The router of these routes, and requests to it.
struct App(Router);

struct Reply {
    status: u16,
    headers: HeaderMap,
    body: String,
}

impl App {
    fn new(routes: Vec<Route>, script: &str) -> App {
        let settings = settings(routes);
        check(&settings).unwrap();
        App(build(&worker(settings, script)))
    }

    fn send(&self, method: &str, uri: &str, body: Option<(&str, &[u8])>) -> Reply {
        let mut request = Request::builder().method(method).uri(uri);
        if let Some((kind, _)) = body {
            request = request.header("content-type", kind);
        }
        let body = body.map_or_else(Body::empty, |(_, body)| Body::from(body.to_vec()));
        self.answer(request.body(body).unwrap())
    }

    fn answer(&self, request: Request<Body>) -> Reply {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let response: Response = self.0.clone().oneshot(request).await.unwrap();
            let (parts, body) = response.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            Reply {
                status: parts.status.as_u16(),
                headers: parts.headers,
                body: String::from_utf8(body.into()).unwrap(),
            }
        })
    }

    fn get(&self, uri: &str) -> Reply {
        self.send("GET", uri, None)
    }

    fn post(&self, uri: &str, kind: &str, body: &str) -> Reply {
        self.send("POST", uri, Some((kind, body.as_bytes())))
    }
}

impl Reply {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {:?}", self.body))
    }

    /// `field message` of each fault.
    fn faults(&self) -> Vec<String> {
        let problem = self.json();
        let errors = problem["errors"].as_array().unwrap_or_else(|| panic!("no errors in {problem}"));
        let words = |error: &Value| {
            format!("{} {}", error["field"].as_str().unwrap(), error["message"].as_str().unwrap())
        };
        errors.iter().map(words).collect()
    }
}

const ITEMS: &str = "
    CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, price INTEGER NOT NULL CHECK (price >= 0));
    INSERT INTO items (name, price) VALUES ('bolt', 20), ('nut', 5);";

fn demo() -> App {
    let fields = [("name", Text), ("price", Integer)];
    let insert = "INSERT INTO items (name, price) VALUES (:name, :price) RETURNING id, name, price";
    let by_id = sql_route(
        "GET",
        "/items/{id}",
        "SELECT id, name, price FROM items WHERE id = :id",
        &[("id", Integer)],
    );
    App::new(
        vec![
            text_route("GET", "/", "hello\n"),
            sql_route("GET", "/items", "SELECT id, name, price FROM items ORDER BY id DESC LIMIT 100", &[]),
            Route { cache: Duration::from_secs(30), ..one(by_id) },
            Route { status: 201, ..one(sql_route("POST", "/items", insert, &fields)) },
        ],
        ITEMS,
    )
}

#[test]
fn the_demo_serves_its_four_routes() {
    let app = demo();
    let hello = app.get("/");
    assert_eq!((hello.status, hello.body.as_str()), (200, "hello\n"));
    assert_eq!(hello.header("content-type"), "text/plain; charset=utf-8");

    let (bolt, nut) = (r#"{"id":1,"name":"bolt","price":20}"#, r#"{"id":2,"name":"nut","price":5}"#);
    let list = app.get("/items");
    assert_eq!((list.status, list.body), (200, format!("[{nut},{bolt}]")));
    assert_eq!(list.headers["content-type"], JSON);

    let first = app.get("/items/1");
    assert_eq!((first.status, first.body.as_str()), (200, bolt));
    let none = app.get("/items/9");
    assert_eq!((none.status, none.header("content-type")), (404, "application/problem+json"));
    let problem = json!({
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "detail": "there is nothing here",
        "instance": "/items/9",
    });
    assert_eq!(none.json(), problem);

    let made = app.post("/items", JSON, r#"{"name": "it's; DROP TABLE items", "price": 7}"#);
    assert_eq!(
        (made.status, made.body.as_str()),
        (201, r#"{"id":3,"name":"it's; DROP TABLE items","price":7}"#)
    );
    let made = app.post("/items", FORM, "name=hex+key%20%C3%A4&price=3");
    assert_eq!((made.status, made.body.as_str()), (201, r#"{"id":4,"name":"hex key ä","price":3}"#));
    assert_eq!(app.get("/items").json().as_array().unwrap().len(), 4);
}

#[test]
fn methods_and_paths_outside_the_routes() {
    let app = demo();
    let head = app.send("HEAD", "/items/1", None);
    assert_eq!((head.status, head.body.as_str(), head.header("content-length")), (200, "", "33"));

    let wrong = app.send("DELETE", "/items", None);
    assert_eq!((wrong.status, wrong.header("content-type")), (405, "application/problem+json"));
    let mut allowed: Vec<&str> = wrong.header("allow").split(',').collect();
    allowed.sort_unstable();
    assert_eq!(allowed, ["GET", "HEAD", "OPTIONS", "POST"]);

    for uri in ["/nothing", "/items/", "/items/1/2"] {
        let missing = app.get(uri);
        assert_eq!(
            (missing.status, missing.header("content-type")),
            (404, "application/problem+json"),
            "{uri}"
        );
    }
}

#[test]
fn bad_input_is_a_400_that_names_every_field() {
    let app = demo();
    let integer = "must be an integer of at most 64 bits";
    let no_price = "price is missing: an integer";
    let price = |complaint: &str| vec![format!("price {complaint}")];
    let table: Vec<(&str, &str, &str, Vec<String>)> = vec![
        ("/items", JSON, r#"{"name": "a", "price": "7"}"#, price(integer)),
        ("/items", JSON, r#"{"name": "a", "price": 7.5}"#, price(integer)),
        ("/items", JSON, r#"{"name": "a", "price": 9223372036854775808}"#, price(integer)),
        ("/items", JSON, r#"{"name": "a", "prise": 7}"#, vec![no_price.into()]),
        ("/items", JSON, r#"{"name": "a", "price": 7, "price": 7}"#, price("must be given only once")),
        (
            "/items",
            JSON,
            r#"{"name": "a\u0000", "price": 7}"#,
            vec!["name must not contain a NUL character".into()],
        ),
        (
            "/items",
            JSON,
            r#"{"price": []}"#,
            vec!["name is missing: a string".into(), format!("price {integer}")],
        ),
        ("/items", JSON, "{}", vec!["name is missing: a string".into(), no_price.into()]),
        ("/items", JSON, "", vec!["name is missing: a string".into(), no_price.into()]),
        ("/items", "text/plain", "", vec!["name is missing: a string".into(), no_price.into()]),
        ("/items?price=7", JSON, r#"{"name": "a", "price": 7}"#, price("must be given only once")),
        ("/items?price=x&price=y", JSON, r#"{"name": "a"}"#, price("must be given only once")),
        ("/items", FORM, "name=a&price=", price(integer)),
        ("/items", FORM, "name=a&price", price(integer)),
        ("/items", FORM, "name=%ff&price=1", vec!["name must be UTF-8".into()]),
        ("/items", FORM, "name=a%00&price=1", vec!["name must not contain a NUL character".into()]),
    ];
    for (uri, kind, body, faults) in table {
        let reply = app.post(uri, kind, body);
        assert_eq!(
            (reply.status, reply.header("content-type")),
            (400, "application/problem+json"),
            "{uri} {body}"
        );
        assert_eq!(reply.faults(), faults, "{uri} {body}");
    }
    let reply = app.get("/items/x");
    assert_eq!((reply.status, reply.faults()), (400, vec![format!("id {integer}")]));
    assert_eq!(app.get("/items").json().as_array().unwrap().len(), 2, "nothing was inserted");
}

#[test]
fn bodies_that_cannot_be_taken_apart() {
    let app = demo();
    let table: [(u16, &str, &[u8], &str); 9] = [
        (400, JSON, b"{", "EOF while parsing"),
        (400, JSON, br#"{"name": "a", "price": 7} x"#, "trailing characters"),
        (400, JSON, b"[1]", "expected a JSON object"),
        (400, JSON, b"{\"name\": \"\xff\", \"price\": 7}", "unicode"),
        (400, JSON, br#"{"name": "a", "price": 1e999}"#, "number out of range"),
        (415, "text/plain", b"name=a&price=7", "must be application/json"),
        (415, "", b"{}", "must be application/json"),
        (415, "application/jsonp", b"{}", "must be application/json"),
        (201, "Application/JSON ; charset=utf-8", br#"{"name": "a", "price": 7, "more": [{}]}"#, ""),
    ];
    for (status, kind, body, detail) in table {
        let reply = app.send("POST", "/items", Some((kind, body)));
        assert_eq!(reply.status, status, "{kind} {}: {}", body.escape_ascii(), reply.body);
        let given = reply.json()["detail"].as_str().unwrap_or_default().to_string();
        assert!(given.contains(detail), "{kind} {}: {given}", body.escape_ascii());
    }
    assert_eq!(app.send("POST", "/items", Some((JSON, b"{\xff"))).status, 400);
}

#[test]
fn a_body_over_the_servers_limit_is_a_413() {
    let app = demo();
    let limited = http_body_util::Limited::new(Body::from(r#"{"name": "a", "price": 7}"#), 10);
    let request = Request::post("/items").header("content-type", JSON).body(Body::new(limited)).unwrap();
    assert_eq!(app.answer(request).status, 413);

    let large = format!(r#"{{"name": "{}", "price": 7}}"#, "a".repeat(3 * 1024 * 1024));
    assert_eq!(app.post("/items", JSON, &large).status, 201, "axum's own limit of 2 MiB must not apply");
}

#[test]
fn parameters_come_from_path_query_and_body_by_kind() {
    let params = [("t", Text), ("n", Number), ("b", Boolean), ("i", Integer)];
    let mut route =
        sql_route("GET", "/echo/{t}", "SELECT :i AS i, :t AS t, :n AS n, :b AS b, :t AS again", &params);
    route.methods.push("PUT".into());
    let route = with_query(one(route), |query| {
        for param in query.params.iter_mut().filter(|param| ["b", "i"].contains(&param.name.as_str())) {
            param.required = false;
        }
    });
    let app = App::new(vec![route], "");
    let table = [
        (
            "/echo/a%2Fb%20%C3%A4?i=-1&n=1e2&b=true",
            None,
            r#"{"i":-1,"t":"a/b ä","n":100.0,"b":1,"again":"a/b ä"}"#,
        ),
        ("/echo/a+b?i=1&n=.5&b=false&x=1&&=", None, r#"{"i":1,"t":"a+b","n":0.5,"b":0,"again":"a+b"}"#),
        (
            "/echo/x?n=1",
            Some((JSON, r#"{"b":null,"i":null}"#)),
            r#"{"i":null,"t":"x","n":1.0,"b":null,"again":"x"}"#,
        ),
        ("/echo/x?i=1", Some((FORM, "b=true&n=2")), r#"{"i":1,"t":"x","n":2.0,"b":1,"again":"x"}"#),
    ];
    for (uri, body, expected) in table {
        let method = if body.is_some() { "PUT" } else { "GET" };
        let reply = app.send(method, uri, body.map(|(kind, body)| (kind, body.as_bytes())));
        assert_eq!((reply.status, reply.body.as_str()), (200, expected), "{uri}");
    }
    let reply = app.send("PUT", "/echo/x?i=1&n=1&b=true", Some((JSON, br#"{"t": "x"}"#)));
    assert_eq!(reply.faults(), ["t must be given only once"]);
    let reply = app.send("GET", "/echo/x?i=1", Some((JSON, br#"{"n": 1}"#)));
    assert_eq!(reply.faults(), ["n is missing: a number"], "the body of a GET means nothing");
    assert_eq!(app.get("/echo/x?n=1").body, r#"{"i":null,"t":"x","n":1.0,"b":null,"again":"x"}"#);
    let reply = app.get("/echo/%ff?i=1&n=1&b=true");
    assert_eq!(reply.status, 400);
}

#[test]
fn a_body_is_left_alone_when_the_path_gives_all() {
    let delete =
        one(sql_route("DELETE", "/items/{id}", "DELETE FROM items WHERE id = :id", &[("id", Integer)]));
    let app = App::new(vec![delete], ITEMS);
    let body = http_body_util::Limited::new(Body::from("far too long"), 1);
    let reply = app.answer(Request::delete("/items/1").body(Body::new(body)).unwrap());
    assert_eq!((reply.status, reply.body.as_str()), (200, r#"{"rows_affected":1}"#));
    assert_eq!(
        app.send("DELETE", "/items/1", None).status,
        404,
        "one = true, and nothing was there any more"
    );
}

#[test]
fn constraints_are_told_apart() {
    let script = format!(
        "{ITEMS} CREATE TABLE parts (id INTEGER PRIMARY KEY, item INTEGER REFERENCES items DEFERRABLE INITIALLY DEFERRED);
         CREATE TABLE strict (number INTEGER) STRICT;
         CREATE TABLE log (text TEXT);
         CREATE TRIGGER no_log BEFORE INSERT ON log BEGIN SELECT RAISE(ABORT, 'not today'); END;"
    );
    let insert = |path: &str, sql: &str| {
        let route = one(sql_route("POST", path, sql, &[("a", Text), ("b", Integer)]));
        with_query(route, |query| query.params[0].required = false)
    };
    let app = App::new(
        vec![
            insert("/items", "INSERT INTO items (name, price) VALUES (:a, :b)"),
            insert("/key", "INSERT INTO items (id, name, price) VALUES (:b, :a, 1)"),
            // Only the commit sees it, after the row has been returned.
            insert("/parts", "INSERT INTO parts (item) SELECT :b WHERE :a <> '' RETURNING id"),
            insert("/strict", "INSERT INTO strict SELECT :a WHERE :b"),
            insert("/log", "INSERT INTO log SELECT :a WHERE :b"),
            insert("/id", "INSERT INTO items (id, name, price) VALUES (:a, 'new', :b)"),
        ],
        &script,
    );
    let table = [
        ("/items", r#"{"a": "saw", "b": 1}"#, 200),
        ("/items", r#"{"a": "saw", "b": 1}"#, 409),
        ("/key", r#"{"a": "axe", "b": 1}"#, 409),
        ("/parts", r#"{"a": "x", "b": 1}"#, 200),
        ("/parts", r#"{"a": "x", "b": 99}"#, 409),
        ("/items", r#"{"a": null, "b": 1}"#, 422),
        ("/items", r#"{"a": "low", "b": -1}"#, 422),
        ("/strict", r#"{"a": "x", "b": 1}"#, 422),
        ("/log", r#"{"a": "x", "b": 1}"#, 422),
        ("/id", r#"{"a": "x", "b": 1}"#, 422),
    ];
    for (uri, body, status) in table {
        let reply = app.post(uri, JSON, body);
        assert_eq!(reply.status, status, "{uri} {body}: {}", reply.body);
    }
}

#[test]
fn answers_take_the_form_of_their_rows() {
    let rows = |count: usize| {
        format!(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT {count}) SELECT i FROM n"
        )
    };
    let get = |path: &str, sql: &str| sql_route("GET", path, sql, &[]);
    let app = App::new(
        vec![
            get(
                "/values",
                "SELECT 9223372036854775807 AS big, 0.1 AS real, 9e999 AS far, NULL AS \"no \"\"thing\"",
            ),
            get("/none", "SELECT 1 AS a WHERE 0"),
            one(get("/first", &rows(3))),
            get("/update", "UPDATE items SET price = price + 1"),
            Route { status: 204, ..get("/quiet", "UPDATE items SET price = price + 1") },
            Route { cache: Duration::from_secs(30), ..get("/most", &rows(10_000)) },
            Route { cache: Duration::from_secs(30), ..get("/too-many", &rows(10_000 + 1)) },
            get("/many", &rows(10_000 + 1)),
            get("/blob", "SELECT x'00' AS b"),
            get("/not-text", "SELECT CAST(x'ff' AS TEXT) AS t"),
            get("/twice", "SELECT 1 AS a, 2 AS a"),
            get("/no-table", "SELECT 1 FROM nowhere"),
        ],
        ITEMS,
    );
    let table = [
        ("/values", 200, r#"[{"big":9223372036854775807,"real":0.1,"far":null,"no \"thing":null}]"#),
        ("/none", 200, "[]"),
        ("/first", 200, r#"{"i":1}"#),
        ("/update", 200, r#"{"rows_affected":2}"#),
        ("/quiet", 204, ""),
    ];
    for (uri, status, expected) in table {
        let reply = app.get(uri);
        assert_eq!((reply.status, reply.body.as_str()), (status, expected), "{uri}");
    }
    assert_eq!(app.get("/most").json().as_array().unwrap().len(), 10_000);
    assert_eq!(
        app.get("/many").json().as_array().unwrap().len(),
        10_001,
        "what is not kept has no such bound"
    );
    for uri in ["/too-many", "/blob", "/not-text", "/twice"] {
        let reply = app.get(uri);
        assert_eq!(
            (reply.status, &reply.json()["detail"]),
            (500, &json!("the answer could not be made")),
            "{uri}"
        );
    }
    assert_eq!(app.get("/no-table").status, 500);
    assert_eq!(app.get("/first").status, 200, "the connection still works");
}

#[test]
fn a_cached_answer_is_kept_by_its_values() {
    let by_id = sql_route("GET", "/items/{id}", "SELECT price FROM items WHERE id = :id", &[("id", Integer)]);
    let mut by_id = Route { cache: Duration::from_secs(30), ..one(by_id) };
    by_id.methods.push("POST".into());
    let raise = sql_route("POST", "/raise", "UPDATE items SET price = price + 1", &[]);
    let insert = sql_route("POST", "/insert", "INSERT INTO items VALUES (3, 'pin', 1)", &[]);
    let app = App::new(vec![by_id, raise, insert], ITEMS);

    assert_eq!(app.get("/items/1").body, r#"{"price":20}"#);
    assert_eq!(app.get("/items/3").status, 404);
    assert_eq!(app.send("POST", "/raise", None).status, 200);
    assert_eq!(app.send("POST", "/insert", None).status, 200);

    assert_eq!(app.get("/items/1").body, r#"{"price":20}"#, "from the cache");
    assert_eq!(app.get("/items/01?x=1").body, r#"{"price":20}"#, "the same value, spelt otherwise");
    assert_eq!(app.send("HEAD", "/items/1", None).header("content-length"), "12");
    assert_eq!(app.get("/items/2").body, r#"{"price":6}"#, "other values, not cached before");
    assert_eq!(app.get("/items/3").body, r#"{"price":1}"#, "a 404 is not kept");
    assert_eq!(app.send("POST", "/items/1", None).body, r#"{"price":21}"#, "only GET is cached");
}

#[test]
fn a_write_makes_the_answers_with_its_tags_be_asked_for_again() {
    let cached = |path: &str, tags: &[&str]| Route {
        cache: Duration::from_secs(30),
        tags: tags.iter().map(ToString::to_string).collect(),
        ..sql_route("GET", path, "SELECT sum(price) AS sum FROM items", &[])
    };
    let write = |path: &str, sql: &str| Route {
        invalidates: vec!["items".into()],
        ..sql_route("POST", path, sql, &[])
    };
    let app = App::new(
        vec![
            cached("/both", &["users", "items"]),
            cached("/items", &["items"]),
            cached("/users", &["users"]),
            write("/raise", "UPDATE items SET price = price + 1"),
            // It takes effect, and its answer cannot be made.
            write("/blob", "UPDATE items SET price = price + 1 RETURNING x'00' AS blob"),
        ],
        ITEMS,
    );
    let sums = || ["/both", "/items", "/users"].map(|path| app.get(path).body);
    let sum = |sum: u32| format!(r#"[{{"sum":{sum}}}]"#);
    assert_eq!(sums(), [25, 25, 25].map(sum));
    assert_eq!(app.send("POST", "/raise", None).status, 200);
    assert_eq!(sums(), [27, 27, 25].map(sum));
    assert_eq!(app.send("POST", "/blob", None).status, 500);
    assert_eq!(sums(), [29, 29, 25].map(sum));
}

#[test]
fn no_routes_is_the_welcome_page() {
    let app = App::new(Vec::new(), "");
    let page = app.get("/");
    assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"));
    assert!(page.header("content-security-policy").starts_with("default-src 'none';"));
    assert!(page.body.contains(concat!("<dd>", env!("CARGO_PKG_VERSION"), "</dd>")), "{}", page.body);
    assert!(page.body.contains("worker 3,"), "{}", page.body);
    assert_eq!(app.get("/welcome").status, 404);
}

#[test]
fn a_route_s_future_has_no_room_for_what_is_rare() {
    let settings = settings(Vec::new());
    let guard = Guard::new(&text_route("GET", "/", ""), &settings);
    let endpoint = Endpoint::Text(text::Text::new(StatusCode::OK, ""));
    let future = guard.answer(Request::default(), |request| endpoint.answer(request));
    // It is the same of all kinds of routes, and 3,208 bytes are mostly the request, as it is handed on.
    assert!(size_of_val(&future) <= 4096, "{} bytes", size_of_val(&future));
}

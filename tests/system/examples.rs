//! The examples do what they are there to show. Not here: the websocket (websocket.rs), and what the server does about them.

mod forms_upload;

use crate::support::{Connection, DEADLINE, Program, Response, Said, Server, eventually, repository};
use argon2::password_hash::PasswordHasher;
use axum::response::IntoResponse;
use axum_extra::extract::cookie::{Cookie, Key, SignedCookieJar};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::fs;

const JSON: (&str, &str) = ("content-type", "application/json");

/// An example with the settings file, and the folder's other files, that it comes with.
fn example(name: &str, files: &[&str]) -> Program {
    let folder = format!("examples/{name}");
    let mut program = Program::example(name).workers(2);
    for file in files {
        let path = format!("{folder}/{file}");
        program = program.file(&path, &repository::read(&path));
    }
    if files.contains(&"server.toml") { program.args(&format!("-c {folder}/server.toml")) } else { program }
}

fn send(client: &mut Connection, method: &str, path: &str, body: &Value) -> Response {
    client.request(method, path, &[JSON], body.to_string().as_bytes()).unwrap()
}

/// Whether any worker has blocked by now: the threads come at first need.
fn has_handler_thread(server: &Server) -> bool {
    server.workers().into_iter().any(|worker| {
        let mut threads = fs::read_dir(format!("/proc/{worker}/task")).unwrap();
        threads.any(|thread| {
            // One may end meanwhile.
            let name = fs::read_to_string(thread.unwrap().path().join("comm")).unwrap_or_default();
            name.starts_with("handler-")
        })
    })
}

#[test]
fn json_api_makes_lists_changes_and_removes() {
    let mut server = example("json_api", &["server.toml", "setup.sql"]).start();
    let mut client = server.connect();
    let made = send(&mut client, "POST", "/items", &json!({ "name": "oak", "price": 3, "stock": 5 }));
    assert_eq!(made.status, 201);
    assert_eq!(made.json(), json!({ "id": 1, "name": "oak", "price": 3, "stock": 5 }));
    assert_eq!(client.get("/items/1").unwrap().json(), made.json());
    let changed = send(&mut client, "PUT", "/items/1", &json!({ "name": "elm", "price": 4, "stock": 6 }));
    assert_eq!(changed.json(), json!({ "id": 1, "name": "elm", "price": 4, "stock": 6 }));
    assert_eq!(client.get("/items").unwrap().json(), json!([changed.json()]));
    assert_eq!(client.get("/items?after=1").unwrap().json(), json!([]));
    assert_eq!(client.request("DELETE", "/items/1", &[], b"").unwrap().status, 204);
    assert_eq!(client.get("/items/1").unwrap().status, 404);
    server.stop();
}

#[test]
fn json_api_refuses_what_is_wrong_and_says_why() {
    let mut server = example("json_api", &["server.toml", "setup.sql"]).start();
    let mut client = server.connect();
    let oak = json!({ "name": "oak", "price": 3, "stock": 5 });
    assert_eq!(send(&mut client, "POST", "/items", &oak).status, 201);
    assert_eq!(send(&mut client, "POST", "/orders", &json!([{ "item": 1, "count": 1 }])).status, 201);
    let cases = [
        ("POST", "/items", json!({ "name": " ", "price": 3, "stock": 5 }), 422, "name: 1 to 100"),
        ("POST", "/items", json!({ "name": "elm", "price": -3, "stock": 5 }), 422, "price: invalid value"),
        ("POST", "/items", json!({ "name": "elm", "price": 3 }), 422, "missing field `stock`"),
        (
            "POST",
            "/items",
            json!({ "name": "elm", "price": 3, "stock": 5, "more": 1 }),
            422,
            "unknown field `more`",
        ),
        ("POST", "/items", oak.clone(), 409, "the name is taken"),
        ("PUT", "/items/7", oak, 404, "no such item"),
        ("DELETE", "/items/1", json!({}), 409, "part of an order"),
        ("POST", "/orders", json!([]), 422, "1 to 50 lines"),
        ("POST", "/orders", json!([{ "item": 1, "count": 0 }]), 422, "count: at least 1"),
    ];
    for (method, path, body, status, why) in cases {
        let answer = send(&mut client, method, path, &body);
        assert_eq!(answer.status, status, "{method} {path} {body}: {}", answer.text());
        assert!(answer.json()["error"].as_str().unwrap().contains(why), "{}", answer.text());
    }
    assert_eq!(client.request("POST", "/items", &[JSON], b"{").unwrap().status, 400);
    assert_eq!(client.request("POST", "/items", &[], b"{}").unwrap().status, 415);
    assert_eq!(client.get("/items/one").unwrap().status, 400);
    let huge = json!({ "name": "x".repeat(70_000), "price": 3, "stock": 5 });
    assert_eq!(send(&mut client, "POST", "/items", &huge).status, 413);
    server.stop();
}

#[test]
fn json_api_takes_an_order_whole_or_not_at_all() {
    let mut server = example("json_api", &["server.toml", "setup.sql"]).start();
    let mut client = server.connect();
    for name in ["oak", "elm"] {
        send(&mut client, "POST", "/items", &json!({ "name": name, "price": 3, "stock": 5 }));
    }
    let stocks = |client: &mut Connection| {
        let items = client.get("/items").unwrap().json();
        items.as_array().unwrap().iter().map(|item| item["stock"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    let order = |client: &mut Connection, oaks: u32, elms: u32| {
        let lines = json!([{ "item": 1, "count": oaks }, { "item": 2, "count": elms }]);
        send(client, "POST", "/orders", &lines)
    };
    assert_eq!(order(&mut client, 1, 2).status, 201);
    assert_eq!(stocks(&mut client), [4, 3]);
    let refused = order(&mut client, 3, 4);
    assert_eq!((refused.status, refused.json()), (409, json!({ "error": "there are not 4 of item 2" })));
    assert_eq!(stocks(&mut client), [4, 3], "the oaks are back");
    assert_eq!(order(&mut client, 4, 3).status, 201, "and can be ordered");
    assert_eq!(stocks(&mut client), [0, 0]);
    server.stop();
}

const SECRET: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn login() -> Program {
    // As cheap as it may be: how long it takes is not what is tested.
    let cheap = argon2::Params::new(argon2::Params::MIN_M_COST, 1, 1, None).unwrap();
    let hasher = argon2::Argon2::from(cheap);
    let hash = hasher.hash_password_with_salt(b"a long one", b"salted salt").unwrap();
    example("login", &["server.toml"])
        .variable("LOGIN_SECRET", SECRET)
        .variable("LOGIN_ADA", &hash.to_string())
}

/// A browser at its simplest: one cookie, and the token of the page that it was given last.
struct Browser<'a> {
    server: &'a Server,
    cookie: String,
    csrf: String,
}

impl Browser<'_> {
    fn at(server: &Server) -> Browser<'_> {
        let mut browser = Browser { server, cookie: String::new(), csrf: String::new() };
        browser.open();
        browser
    }

    fn open(&mut self) -> String {
        let page = self.ask("GET", "/", "");
        assert_eq!(page.field("cache-control"), Some("no-store"));
        let text = page.text();
        self.csrf =
            text.split("name=\"csrf\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
        text
    }

    fn sign_in(&mut self, name: &str, password: &str) -> Response {
        let form = format!("csrf={}&name={name}&password={password}", self.csrf);
        self.ask("POST", "/sign-in", &form)
    }

    /// On a connection of its own, so that the workers take turns.
    fn ask(&mut self, method: &str, path: &str, form: &str) -> Response {
        let fields =
            [("cookie", self.cookie.as_str()), ("content-type", "application/x-www-form-urlencoded")];
        let answer = self.server.connect().request(method, path, &fields, form.as_bytes()).unwrap();
        if let Some(cookie) = answer.field("set-cookie") {
            self.cookie = cookie.split(';').next().unwrap().to_owned();
        }
        answer
    }
}

#[test]
fn login_signs_in_at_every_worker_and_out_again() {
    let mut server = login().start();
    let mut browser = Browser::at(&server);
    let before = browser.csrf.clone();
    assert!(!has_handler_thread(&server));
    let answer = browser.sign_in("ada", "a+long+one");
    assert!(has_handler_thread(&server), "the hash is not computed on the event loop");
    assert_eq!((answer.status, answer.field("location")), (303, Some("/")));
    let cookie = answer.field("set-cookie").unwrap();
    assert!(cookie.starts_with("__Host-session="), "{cookie}");
    for flag in ["HttpOnly", "SameSite=Lax", "Secure", "Path=/"] {
        assert!(cookie.split("; ").any(|part| part == flag), "{flag} in {cookie}");
    }
    for _ in 0..10 {
        assert!(browser.open().contains("You are ada"));
    }
    assert_ne!(browser.csrf, before, "it is another session");
    let form = format!("csrf={}", browser.csrf);
    let answer = browser.ask("POST", "/sign-out", &form);
    assert_eq!(answer.status, 303);
    assert!(answer.field("set-cookie").unwrap().contains("__Host-session=; "), "{answer:?}");
    assert!(browser.open().contains("Sign in"));
    server.stop();
}

#[test]
fn login_refuses_wrong_passwords_and_forms_of_others() {
    let mut server = login().start();
    let mut browser = Browser::at(&server);
    for (name, password) in [("ada", "another+one"), ("bob", "a+long+one"), ("", "")] {
        assert_eq!(browser.sign_in(name, password).status, 401, "{name} {password}");
        assert!(browser.open().contains("Sign in"));
    }
    let foreign = Browser::at(&server).csrf;
    let own = std::mem::replace(&mut browser.csrf, foreign);
    assert_eq!(browser.sign_in("ada", "a+long+one").status, 403);
    browser.csrf = String::new();
    assert_eq!(browser.sign_in("ada", "a+long+one").status, 403);
    browser.csrf = own;
    assert_eq!(browser.sign_in("ada", "a+long+one").status, 303);
    assert_eq!(browser.ask("POST", "/sign-out", "csrf=guessed").status, 403);
    assert!(browser.open().contains("You are ada"));
    server.stop();
}

#[test]
fn login_trusts_only_what_it_has_signed_and_not_for_ever() {
    let mut server = login().start();
    let page = |secret: &str, expires: u64| {
        let session = json!({ "user": "ada", "csrf": "x", "expires": expires }).to_string();
        let jar = SignedCookieJar::<Key>::new(Key::from(secret.as_bytes()));
        let jar = jar.add(Cookie::new("__Host-session", session)).into_response();
        let cookie = jar.headers()["set-cookie"].to_str().unwrap().to_owned();
        Browser { server: &server, cookie, csrf: String::new() }.open()
    };
    let in_a_hundred_years = 4_900_000_000;
    assert!(page(SECRET, in_a_hundred_years).contains("You are ada"));
    assert!(page(SECRET, 1_700_000_000).contains("Sign in"));
    assert!(page(&SECRET.replace('0', "1"), in_a_hundred_years).contains("Sign in"));
    server.stop();
}

#[test]
fn login_does_not_start_without_its_secrets() {
    let outcome = example("login", &["server.toml"]).args("--check-config").run();
    assert_eq!(outcome.code, Some(2), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("LOGIN_SECRET"), "{}", outcome.stderr);
    for (name, value, said) in [
        ("LOGIN_SECRET", "too short", "app.secret: at least 64 bytes are needed"),
        ("LOGIN_ADA", "hunter2", "app.users.ada: not the hash of a password"),
    ] {
        let outcome = login().variable(name, value).args("--check-config").run();
        assert_eq!(outcome.code, Some(2));
        assert!(outcome.stderr.contains(said), "{}", outcome.stderr);
        assert!(!outcome.stderr.contains(value), "{}", outcome.stderr);
    }
}

const PAGES: [&str; 3] = ["server.toml", "pages/base.html", "pages/hello.html"];

#[test]
fn templates_escape_what_is_put_into_them() {
    let mut server = example("templates", &PAGES).start();
    assert!(server.get("/").text().contains("<title>Hello</title>"), "the page extends another");
    let text = server.get("/?name=%3Cscript%3E%22%26").text();
    assert!(text.contains("<p>Hello, &lt;script&gt;&quot;&amp;.</p>"), "{text}");
    assert!(text.contains("value=\"&lt;script&gt;&quot;&amp;\""), "{text}");
    server.stop();
}

#[test]
fn templates_change_at_once_in_development_and_with_a_reload_elsewhere() {
    for development in [true, false] {
        let mut server = example("templates", &PAGES).workers(1).start();
        let settings = server.dir().join("examples/templates/server.toml");
        if !development {
            let text = fs::read_to_string(&settings).unwrap();
            fs::write(&settings, text.replace("development = true", "development = false")).unwrap();
            server.signal(Signal::SIGHUP);
            server.wait(Said::ReloadDone);
            server.wait(Said::Exited);
        }
        let pages = server.dir().join("examples/templates/pages");
        assert!(server.get("/").text().contains("<p>Hello, world.</p>"));
        fs::write(pages.join("hello.html"), "{% extends 'base.html' %}{% block body %}Goodbye{% endblock %}")
            .unwrap();
        assert_eq!(server.get("/").text().contains("Goodbye"), development);
        fs::write(pages.join("base.html"), "{{ now }").unwrap();
        assert_eq!(server.get("/").status, if development { 500 } else { 200 });
        // A reload with broken pages is refused.
        server.signal(Signal::SIGHUP);
        server.wait(Said::ReloadRefused);
        fs::write(pages.join("base.html"), "<b>{% block body %}{% endblock %}</b>").unwrap();
        server.signal(Signal::SIGHUP);
        server.wait_count(Said::ReloadDone, if development { 1 } else { 2 });
        eventually(DEADLINE, "the new one answers", || server.get("/").text() == "<b>Goodbye</b>");
        server.stop();
    }
}

#[test]
fn axum_existing_serves_what_it_served() {
    let mut server = example("axum_existing", &[]).start();
    let mut client = server.connect();
    for number in 1..=3 {
        let answer = client.get("/hello/ada").unwrap();
        assert_eq!(answer.text(), format!("hello ada, you are visitor {number}\n"));
        assert_eq!(answer.field("x-content-type-options"), Some("nosniff"));
    }
    let sum = send(&mut client, "POST", "/sum", &json!({ "terms": [1, 2, 39] }));
    assert_eq!(sum.json(), json!({ "terms": [1, 2, 39], "sum": 42 }));
    let sum = send(&mut client, "POST", "/sum", &json!({ "terms": [i64::MAX, 1] }));
    assert_eq!((sum.status, sum.text().as_str()), (422, "the sum is too large\n"));
    let nothing = client.get("/nothing").unwrap();
    assert_eq!((nothing.status, nothing.field("x-content-type-options")), (404, Some("nosniff")));
    server.stop();
}

#[test]
fn what_moves_an_axum_service_is_told_as_it_is() {
    let (source, documents) =
        (repository::read("examples/axum_existing.rs"), repository::read("docs/applications.md"));
    let told: Vec<_> = source.lines().filter_map(|line| line.strip_prefix("//! ")).collect();
    let told = told.join("\n").split("```diff\n").nth(1).unwrap().split("```").next().unwrap().to_owned();
    assert!(documents.contains(&told), "the same in docs/applications.md");
    let kept = told.lines().filter(|line| !line.starts_with('-')).map(|line| &line[1..]);
    let main: Vec<_> = kept.collect();
    assert_eq!(main.len(), 3);
    assert!(source.contains(&format!("\n\n{}\n\n", main.join("\n"))), "{main:?}");
}

#[test]
fn offline_model_computes_for_one_and_for_many() {
    let mut server = example("offline_model", &[]).workers(1).args("--boot-timeout 10m").spawn();
    // In a test's build it makes its model for seconds, and beside other tests for minutes.
    eventually(DEADLINE * 10, "the model is made", || server.count(Said::Ready) == 1);
    let mut client = server.connect();
    assert!(!has_handler_thread(&server));
    assert_eq!(client.get("/nearest/7").unwrap().json(), json!([6]));
    assert!(has_handler_thread(&server), "the event loop does not compute");
    assert_eq!(send(&mut client, "POST", "/nearest", &json!([6, 499_998, 0])).json(), json!([7, 499_999, 1]));
    for (words, status) in
        [(json!([500_000]), 422), (json!(vec![1; 101]), 422), (json!([-1]), 422), (json!([]), 200)]
    {
        assert_eq!(send(&mut client, "POST", "/nearest", &words).status, status, "{words}");
    }
    assert_eq!(client.get("/nearest/500000").unwrap().status, 422);
    server.stop();
}

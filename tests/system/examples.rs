//! The examples do what they are there to show. Not here: the websocket (websocket.rs), and what the server does about them.

use crate::support::{Connection, Program, Response};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

const JSON: (&str, &str) = ("content-type", "application/json");

/// An example with the settings file, and the folder's other files, that it comes with.
fn example(name: &str, files: &[&str]) -> Program {
    let folder = format!("examples/{name}");
    let mut program = Program::example(name).workers(2);
    for file in files {
        let path = format!("{folder}/{file}");
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(&path)).unwrap();
        program = program.file(&path, &text);
    }
    if files.contains(&"server.toml") { program.args(&format!("-c {folder}/server.toml")) } else { program }
}

fn send(client: &mut Connection, method: &str, path: &str, body: &Value) -> Response {
    client.request(method, path, &[JSON], body.to_string().as_bytes()).unwrap()
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

//! The main job: a settings file, a database, and the answers that clients get, the same from both databases.

use crate::shop;
use crate::support::postgres::Cluster;
use crate::support::{Connection, Program, Response, Server};
use serde_json::{Value, json};

#[test]
fn the_shop_works_on_sqlite() {
    let mut server = shop::on_sqlite().expect_workers(2).start();
    the_shop_works(&server);
    server.stop();
}

#[test]
fn the_same_file_works_on_postgres() {
    let cluster = Cluster::start();
    let mut server = shop::on_postgres(&cluster.url()).expect_workers(2).start();
    the_shop_works(&server);
    server.stop();
}

fn the_shop_works(server: &Server) {
    let mut client = server.connect();
    assert_eq!(client.get("/").unwrap().text(), "Hello from the shop\n");
    let apple = json!({"id": 1, "name": "apple", "price": 30});
    let pear = json!({"id": 2, "name": "pear", "price": 40});
    assert_json(&client.get("/items").unwrap(), 200, &json!([pear, apple]));
    assert_json(&client.get("/items/1").unwrap(), 200, &apple);

    let plum = json!({"id": 3, "name": "plum", "price": 5});
    let posted = post(&mut client, "application/json", br#"{"name": "plum", "price": 5}"#);
    assert_json(&posted, 201, &plum);
    // What could be SQL is data.
    let fig = json!({"id": 4, "name": "fig's; drop table items", "price": -1});
    let form = b"name=fig%27s%3B+drop+table+items&price=-1";
    assert_json(&post(&mut client, "application/x-www-form-urlencoded", form), 201, &fig);
    assert_json(&client.get("/items").unwrap(), 200, &json!([fig, plum, pear, apple]));
    assert_json(&client.get("/items/3").unwrap(), 200, &plum);

    wrong_requests_are_told(&mut client);
    head_is_get_without_a_body(&mut client);
}

fn wrong_requests_are_told(client: &mut Connection) {
    let json_type = [("content-type", "application/json")];
    // (method, path, body, status, what the answer names)
    let cases = [
        ("GET", "/items/999", "", 404, ""),
        ("GET", "/nothing", "", 404, ""),
        ("GET", "/items/abc", "", 400, "id"),
        ("GET", "/items/99999999999999999999", "", 400, "id"),
        ("POST", "/items", r#"{"price": 5}"#, 400, "name"),
        ("POST", "/items", r#"{"name": "plum", "price": "dear"}"#, 400, "price"),
        ("POST", "/items", r#"{"name": "plum", "price": 1.5}"#, 400, "price"),
        ("POST", "/items", r#"{"name": "#, 400, ""),
        ("DELETE", "/items", "", 405, ""),
        ("POST", "/items/1", "{}", 405, ""),
    ];
    for (method, path, body, status, named) in cases {
        let fields: &[(&str, &str)] = if body.is_empty() { &[] } else { &json_type };
        let response = client.request(method, path, fields, body.as_bytes()).unwrap();
        assert_eq!(response.status, status, "{method} {path} {body}: {}", response.text());
        assert!(response.text().contains(named), "{method} {path} {body}: {}", response.text());
    }
    let response = client.request("DELETE", "/items", &[], b"").unwrap();
    for method in ["GET", "HEAD", "POST"] {
        assert!(response.has_token("allow", method), "Allow names {method}: {:?}", response.field("allow"));
    }
    assert_eq!(post(client, "text/csv", b"plum,5").status, 415);
}

fn head_is_get_without_a_body(client: &mut Connection) {
    for path in ["/", "/items", "/items/1"] {
        let full = client.get(path).unwrap();
        let head = client.request("HEAD", path, &[], b"").unwrap();
        assert_eq!(head.status, 200, "{path}");
        assert_eq!(head.field("content-type"), full.field("content-type"), "{path}");
        assert_eq!(head.field("content-length"), full.field("content-length"), "{path}");
    }
    assert_eq!(client.request("HEAD", "/items/999", &[], b"").unwrap().status, 404);
}

fn post(client: &mut Connection, content_type: &str, body: &[u8]) -> Response {
    client.request("POST", "/items", &[("content-type", content_type)], body).unwrap()
}

#[track_caller]
fn assert_json(response: &Response, status: u16, expected: &Value) {
    assert_eq!(response.status, status, "{}", response.text());
    assert_eq!(response.field("content-type"), Some("application/json"));
    assert_eq!(response.json(), *expected);
}

#[test]
fn the_newest_hundred_items_are_listed_and_a_cached_one_comes_from_memory() {
    let mut server = shop::on_sqlite().args("-w 1").start();
    let mut client = server.connect();
    for number in 0..120 {
        let body = format!(r#"{{"name": "item {number}", "price": {number}}}"#);
        assert_eq!(post(&mut client, "application/json", body.as_bytes()).status, 201);
    }
    let listed = client.get("/items").unwrap().json();
    let ids: Vec<i64> = listed.as_array().unwrap().iter().map(|item| item["id"].as_i64().unwrap()).collect();
    assert_eq!(ids, (23..=122).rev().collect::<Vec<i64>>());

    let before = client.get("/items/7").unwrap().json();
    let database = rusqlite::Connection::open(server.dir().join("shop.db")).unwrap();
    database.execute("update items set name = 'changed'", []).unwrap();
    assert_eq!(client.get("/items/7").unwrap().json(), before, "kept for 30 s by its worker");
    assert_eq!(client.get("/items/8").unwrap().json()["name"], "changed", "not asked for before");
    assert_eq!(client.get("/items").unwrap().json()[0]["name"], "changed", "the list is not cached");
    server.stop();
}

#[test]
fn without_a_file_a_welcome_page_says_what_runs() {
    let mut server = Program::stock().workers(1).start();
    let page = server.get("/");
    assert_eq!(page.status, 200);
    assert!(page.text().contains("Ferricorn"), "{}", page.text());
    server.stop();
}

#[test]
fn the_demo_of_the_repository_is_a_valid_file() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = Program::stock().unbound().within(root).args("-c conf/server.toml --check-config");
    let outcome = program.run();
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
}

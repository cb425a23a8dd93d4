//! `/status` and `ctl status`: what waits at the listeners, how the last reload came out, and that every key is documented.

use crate::support::{DEADLINE, Program, Said, Server, eventually};
use nix::sys::signal::Signal::{SIGCONT, SIGHUP};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;

fn status(server: &Server) -> Value {
    server.ask_admin("/status").json()
}

#[test]
fn what_waits_to_be_accepted_is_told_for_each_address() {
    let program = Program::probe().workers(2).args("--admin-bind 127.0.0.1:0 --backlog 50 --timeout 0");
    let server = program.args("-b 127.0.0.2:0 -b unix:s.sock").start();
    server.wait_count(Said::Listening, 3);
    let addr = server.addr().to_string();
    let told = status(&server);
    let listener = |told: &Value, on: &str| {
        let listeners = told["listeners"].as_array().unwrap();
        listeners
            .iter()
            .find(|listener| listener["on"] == on)
            .cloned()
            .unwrap_or_else(|| panic!("no {on}: {told}"))
    };
    assert_eq!(told["listeners"].as_array().unwrap().len(), 3, "{told}");
    let idle = json!({ "on": addr, "sockets": 1, "waiting": 0, "backlog": 50 });
    assert_eq!(listener(&told, &addr), idle);
    let unix = json!({ "on": "unix:s.sock", "sockets": null, "waiting": null, "backlog": 50 });
    assert_eq!(listener(&told, "unix:s.sock"), unix);
    server.workers().into_iter().for_each(|worker| server.halt(worker));
    let mut clients: Vec<_> = (0..3).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
    }
    eventually(DEADLINE, "all wait", || listener(&status(&server), &addr)["waiting"] == 3);
    let metrics = server.ask_admin("/metrics").text();
    assert!(metrics.contains(&format!("\nferricorn_accept_queue{{on=\"{addr}\"}} 3\n")), "{metrics}");
    server.workers().iter().for_each(|worker| server.signal_to(*worker, SIGCONT));
    for client in &mut clients {
        assert_eq!(client.read().unwrap().status, 200);
    }
    assert_eq!(listener(&status(&server), &addr), idle);
}

#[test]
fn queues_of_their_own_are_added_up() {
    let server = Program::probe().workers(3).args("--admin-bind 127.0.0.1:0 --reuse-port").start();
    let listener = &status(&server)["listeners"][0];
    assert_eq!((&listener["on"], &listener["waiting"]), (&json!(server.addr().to_string()), &json!(0)));
    assert!(listener["sockets"].as_u64().unwrap() >= 3, "{listener}");
}

#[test]
fn the_last_reload_is_told_with_what_it_changed() {
    let file = |text: &str| format!("workers = 1\n{text}");
    let server = Program::probe().config(&file("timeout = '30s'")).args("--admin-bind 127.0.0.1:0").start();
    assert_eq!(status(&server)["last_reload"], Value::Null);
    let reload = |text: &str, number: usize, outcome: &str| {
        fs::write(server.dir().join("server.toml"), file(text)).unwrap();
        server.signal(SIGHUP);
        eventually(DEADLINE, "the reload is told", || status(&server)["server"]["reloads"] == number);
        let told = status(&server)["last_reload"].clone();
        assert_eq!((&told["outcome"], &told["has_more_changes"]), (&json!(outcome), &json!(false)), "{told}");
        assert!(
            told["ago_seconds"].as_f64().unwrap() < 30.0 && !told.to_string().contains("geheim"),
            "{told}"
        );
        told
    };
    let change = |setting: &str, old: &str, new: &str, is_fixed: bool| json!({ "setting": setting, "old": old, "new": new, "is_fixed": is_fixed });
    let told = reload(
        "timeout = '20s'\nmax_workers = 8\ndatabase.url = 'postgres://me:geheim@127.0.0.1:1/d'",
        1,
        "adopted",
    );
    let url = "\"postgres://me:***@127.0.0.1:1/d\"";
    let wanted = json!([
        change("timeout", "\"30s\"", "\"20s\"", false),
        change("database.url", "\"\"", url, false),
        change("max_workers", "256", "8", true),
    ]);
    assert_eq!((&told["changes"], &told["text"]), (&wanted, &json!("reload adopted generation=2")));
    // The secret alone is another.
    let told = reload(
        "timeout = '20s'\nmax_workers = 8\ndatabase.url = 'postgres://me:geheim2@127.0.0.1:1/d'",
        2,
        "adopted",
    );
    assert_eq!(
        told["changes"],
        json!([change("database.url", url, url, false), change("max_workers", "256", "8", true)])
    );
    // What could not be read has no differences.
    let told = reload("workers = none", 3, "refused");
    assert_eq!(
        (&told["changes"], told["text"].as_str().unwrap().contains("server.toml:2")),
        (&json!([]), true)
    );
    assert_eq!(status(&server)["server"]["generation"], 3);
}

#[test]
fn a_reload_that_no_worker_gets_ready_with_is_told_with_its_changes() {
    let program = Program::example("misuse").config("workers = 1").args("--admin-bind 127.0.0.1:0");
    let server = program.start();
    fs::write(server.dir().join("hang"), "").unwrap();
    fs::write(server.dir().join("server.toml"), "workers = 1\nboot_timeout = '900ms'").unwrap();
    server.signal(SIGHUP);
    server.wait(Said::ReloadRefused);
    eventually(DEADLINE, "the reload is told", || status(&server)["server"]["reloads"] == 1);
    let told = &status(&server)["last_reload"];
    assert_eq!(
        (&told["outcome"], &told["changes"][0]["setting"]),
        (&json!("refused"), &json!("boot_timeout"))
    );
}

/// What is told by names that are not the server's, or as another page has it.
const OTHERS: [&str; 5] = ["settings", "totals.requests", "caches", "programs", "app_metrics"];

/// The paths of all keys, `[]` standing for the members of a list; what is named by others is no key.
fn keys(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                found.insert(path.clone());
                if !OTHERS.contains(&path.as_str()) {
                    keys(value, &path, found);
                }
            }
        }
        Value::Array(members) => members.iter().for_each(|member| keys(member, &format!("{path}[]"), found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn every_key_of_the_status_is_documented() {
    let server = Program::probe().config("workers = 2").args("--admin-bind 127.0.0.1:0").start();
    let mut client = server.connect();
    client.send("GET /sleep?ms=60000 HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
    let in_flight = |told: &Value, slot: usize| told["workers"][slot]["in_flight"] == 1;
    eventually(DEADLINE, "it is under way", || {
        in_flight(&status(&server), 0) || in_flight(&status(&server), 1)
    });
    assert!(server.try_get("/segv").is_err());
    eventually(DEADLINE, "the death is told", || !status(&server)["deaths"].as_array().unwrap().is_empty());
    fs::write(server.dir().join("server.toml"), "workers = 3").unwrap();
    server.signal(SIGHUP);
    server.wait(Said::ReloadDone);
    let told = status(&server);
    assert_eq!(told["schema"], 1);
    let mut found = BTreeSet::new();
    keys(&told, "", &mut found);
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/status.md")).unwrap();
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
    let documented: BTreeSet<String> = rows
        .flat_map(|names| names.split("`, `"))
        .map(|name| name.trim_end_matches('`').to_owned())
        .collect();
    assert!(documented.is_superset(&found), "not documented: {:?}", found.difference(&documented));
    // What this server has nothing of cannot be seen here.
    let unseen = ["workers[].requests_in_flight", "deaths[].requests_in_flight"];
    let gone = |name: &&String| !found.contains(*name) && !unseen.iter().any(|of| name.starts_with(of));
    let gone: Vec<&String> = documented.iter().filter(gone).collect();
    assert!(gone.is_empty(), "no such keys: {gone:?}");
}

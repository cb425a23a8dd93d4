//! `log_format = "json"`: the error log as objects, whose names docs/events.md lists. Not here: that the list is right (events_list), and how
//! a line is taken apart, which the units know.

use crate::support::{DEADLINE, Program, Said, eventually, repository};
use nix::sys::signal::Signal::{SIGHUP, SIGKILL, SIGTERM};
use std::collections::BTreeSet;
use std::fs;

/// The names of docs/events.md.
fn listed() -> BTreeSet<String> {
    let page = repository::read("docs/events.md");
    let names = page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    names.map(str::to_owned).collect()
}

#[test]
fn every_line_is_an_object_with_a_name_that_is_listed() {
    let text = "workers = 2\ntimeout = '5m'\n";
    let mut server = Program::probe().config(text).expect_workers(2).start();
    let started = server.wait_text("master started");
    assert_eq!(
        (started.value("workers"), started.value("version")),
        (Some("2"), Some(env!("CARGO_PKG_VERSION")))
    );
    assert!(started.value("workers_by").unwrap().ends_with("server.toml:1"), "{}", started.raw);
    assert!(started.value("settings_by").unwrap().contains("server.toml: 2, flags: "), "{}", started.raw);
    let orders = server.wait_text("orders taken");
    for key in ["stop", "resize", "reload", "upgrade"] {
        assert!(orders.value(key).is_some(), "{key}: {}", orders.raw);
    }
    assert!(orders.value("reload").unwrap().contains("max_workers"), "it is fixed: {}", orders.raw);

    // The format is as new as the settings that serve.
    fs::write(server.dir().join("server.toml"), format!("{text}log_format = 'json'\n")).unwrap();
    server.signal(SIGHUP);
    server.wait_text("\"event\":\"reload_done\"");
    let exits = |server: &crate::support::Server| server.log_with("\"event\":\"worker_exited\"").len();
    eventually(DEADLINE, "only the new workers are there", || {
        server.workers().len() == 2 && exits(&server) >= 2
    });
    let before = exits(&server);
    let victim = server.workers()[0];
    server.signal_to(victim, SIGKILL);
    eventually(DEADLINE, "its end is told", || exits(&server) > before);
    fs::write(server.dir().join("server.toml"), "workers = 0\n").unwrap();
    server.signal(SIGHUP);
    server.wait_text("\"event\":\"reload_refused\"");
    server.signal(SIGTERM);
    server.wait_exit();
    server.wait_text("\"event\":\"stopped\"");

    let known = listed();
    let (objects, lines): (Vec<String>, Vec<String>) =
        server.log().into_iter().map(|line| line.raw).partition(|raw| raw.starts_with('{'));
    assert!(objects.len() > 10, "{objects:?}");
    let adopted = lines.iter().position(|line| line.contains("reload adopted"));
    assert_eq!(adopted, None, "it is said in the new form: {lines:?}");
    let mut named = BTreeSet::new();
    for raw in &objects {
        let line: serde_json::Value =
            serde_json::from_str(raw).unwrap_or_else(|error| panic!("{error}: {raw}"));
        let name = line["event"].as_str().unwrap();
        assert!(known.contains(name), "{name} is not listed: {raw}");
        assert!(line["time"].as_str().unwrap().ends_with('Z') && line["fields"].is_object(), "{raw}");
        if name == "worker_exited" && line["fields"]["pid"] == victim {
            assert_eq!(line["fields"]["cause"], "killed by SIGKILL", "{raw}");
            assert_eq!((&line["level"], &line["process"]), (&"warning".into(), &"master".into()), "{raw}");
        }
        named.insert(name.to_owned());
    }
    for name in ["reload_adopted", "worker_spawned", "worker_ready", "worker_told_to_drain", "stopping"] {
        assert!(named.contains(name), "{name} is not among {named:?}");
    }
    assert_eq!(server.count(Said::Stopped), 0, "nothing is said in text any more");
}

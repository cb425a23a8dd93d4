//! What one server invalidates, another on the same database stops serving, too: over a link that works, that was cut, that
//! has died without a word, and when who listens is killed.

use crate::support::postgres::Cluster;
use crate::support::proxy::Proxy;
use crate::support::{DEADLINE, Program, Said, Server, alone, busy, eventually};
use nix::sys::signal::Signal::{SIGHUP, SIGKILL, SIGUSR2};
use serde_json::json;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// The listener finds out within five seconds that its link is dead, and begins anew.
const FINDS_OUT: Duration = Duration::from_secs(5);

const ROUTES: &str = r#"
[[route]]
path = "/items"
sql = "select name from items order by id"
cache = "1h"
tags = ["items"]

[[route]]
path = "/items"
methods = ["POST"]
sql = "insert into items (name) values (:name)"
params = { name = "text" }
invalidates = ["items"]

# Nobody says that it is out of date.
[[route]]
path = "/count"
sql = "select count(*) as count from items"
one = true
cache = "1h"
tags = ["count"]
"#;

fn shop(database: SocketAddr, more: &str) -> Program {
    let url = format!("postgres://postgres@{database}/postgres");
    Program::stock()
        .config(&format!("[database]\nurl = \"{url}\"\n{more}\n[cache]\nnotify = true\n{ROUTES}"))
        // One cache, so that a stale page cannot hide behind another worker's fresh one.
        .workers(1)
}

/// It listens.
fn opened(database: SocketAddr) -> Server {
    let server = shop(database, "").start();
    server.wait(Said::NotifyListening);
    server
}

fn cluster() -> Cluster {
    let cluster = Cluster::start();
    cluster.client().batch_execute("CREATE TABLE items (id serial, name text UNIQUE NOT NULL)").unwrap();
    cluster
}

/// None where the database is not to be had.
fn names(server: &Server) -> Vec<String> {
    let answer = server.get("/items");
    if answer.status == 503 {
        return Vec::new();
    }
    assert_eq!(answer.status, 200, "{}", answer.text());
    let items = answer.json();
    items.as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect()
}

fn add(server: &Server, name: &str) -> u16 {
    server.connect().post_json("/items", &json!({ "name": name })).unwrap().status
}

fn count(server: &Server) -> u64 {
    server.get("/count").json()["count"].as_u64().unwrap()
}

fn has(server: &Server, name: &str) -> bool {
    names(server).iter().any(|known| known == name)
}

fn times(server: &Server) -> usize {
    server.count(Said::NotifyListening)
}

#[test]
fn what_is_written_here_is_seen_there() {
    let _alone = alone();
    let cluster = cluster();
    let (here, there) = (opened(cluster.addr()), opened(cluster.addr()));
    let mut waits = Vec::new();
    for number in 0..20 {
        let name = format!("n{number}");
        assert!(!has(&there, &name));
        assert_eq!(add(&here, &name), 200);
        let begin = Instant::now();
        eventually(DEADLINE, "the other server tells of it", || has(&there, &name));
        waits.push(begin.elapsed());
        assert!(has(&here, &name), "here it is seen at once");
    }
    waits.sort();
    println!("from the answer here to the page there: median {:?}, most {:?}", waits[10], waits[19]);
    // What is refused changes nothing, and is told in the same words as ever.
    assert_eq!(add(&here, "n1"), 409);
    assert_eq!(names(&there).len(), 20);
    // Nobody else's word on the channel disturbs.
    let mut client = cluster.client();
    client.batch_execute("NOTIFY ferricorn; NOTIFY ferricorn, 'what?'; NOTIFY ferricorn, 'tag:'").unwrap();
    assert_eq!(add(&there, "back"), 200);
    eventually(DEADLINE, "the other way", || has(&here, "back"));
    // A tag that is too long for the channel stands for everything.
    let before = [count(&here), count(&there)];
    client.batch_execute("INSERT INTO items (name) VALUES ('unsaid')").unwrap();
    assert_eq!([count(&here), count(&there)], before, "nobody was told");
    client.batch_execute("NOTIFY ferricorn, 'all'").unwrap();
    eventually(DEADLINE, "both read it anew", || {
        [count(&here), count(&there)] == before.map(|rows| rows + 1)
    });
    assert_eq!((times(&here), times(&there)), (1, 1));
    assert_eq!(cluster.count("application_name = 'ferricorn/notify'"), 2, "one for each server");
}

#[test]
fn what_was_missed_while_the_link_was_cut_is_made_up_for() {
    let _alone = alone();
    let cluster = cluster();
    let proxy = Proxy::to(cluster.addr());
    let (here, there) = (opened(cluster.addr()), opened(proxy.addr()));
    assert!(!has(&there, "cut"));
    proxy.refuse();
    there.wait_text("cache notifications interrupted");
    assert_eq!(add(&here, "cut"), 200);
    assert!(!has(&there, "cut"), "it cannot know yet");
    proxy.pass();
    eventually(DEADLINE, "it listens again", || times(&there) == 2);
    eventually(DEADLINE, "everything is read anew", || has(&there, "cut"));
}

#[test]
fn a_link_that_died_without_a_word_is_found_out() {
    let _alone = alone();
    let cluster = cluster();
    let proxy = Proxy::to(cluster.addr());
    let (here, there) = (opened(cluster.addr()), opened(proxy.addr()));
    let listener = there.listeners();
    assert!(!has(&there, "silent"));
    proxy.swallow();
    let begin = Instant::now();
    assert_eq!(add(&here, "silent"), 200);
    there.wait_text("cache notifications stalled");
    assert!(begin.elapsed() < busy(FINDS_OUT), "{:?}", begin.elapsed());
    assert!(!has(&there, "silent"), "it cannot know yet");
    proxy.pass();
    eventually(DEADLINE, "it listens again", || times(&there) == 2);
    eventually(DEADLINE, "everything is read anew", || has(&there, "silent"));
    assert_ne!(there.listeners(), listener);
}

#[test]
fn who_listens_and_is_killed_has_a_successor_that_makes_up_for_it() {
    let _alone = alone();
    let cluster = cluster();
    let proxy = Proxy::to(cluster.addr());
    let (here, mut there) = (opened(cluster.addr()), opened(proxy.addr()));
    assert!(!has(&there, "killed"));
    let workers = there.workers();
    // So that the successor cannot listen before the change.
    proxy.pause();
    there.signal_to(there.listeners()[0], SIGKILL);
    there.wait_text("notify exited");
    assert_eq!(add(&here, "killed"), 200);
    proxy.pass();
    eventually(DEADLINE, "another one listens", || times(&there) >= 2);
    eventually(DEADLINE, "everything is read anew", || has(&there, "killed"));
    assert_eq!(there.workers(), workers, "no worker noticed");
    there.stop();
}

#[test]
fn a_reload_and_an_upgrade_have_listeners_of_their_own() {
    let _alone = alone();
    let cluster = cluster();
    let here = opened(cluster.addr());
    // The least budget: 2 × 1 worker, two who listen, one to ask.
    let mut there = shop(cluster.addr(), "max_connections = 5").start();
    there.wait(Said::NotifyListening);
    let first = there.listeners();
    there.signal(SIGHUP);
    eventually(DEADLINE, "another one listens", || times(&there) == 2 && there.listeners().len() == 1);
    assert_ne!(there.listeners(), first);
    assert_eq!(add(&here, "reloaded"), 200);
    eventually(DEADLINE, "it hears", || has(&there, "reloaded"));
    there.signal(SIGUSR2);
    there.follow_upgrade(1);
    eventually(DEADLINE, "the new master's listens", || times(&there) == 3);
    assert_eq!(add(&here, "upgraded"), 200);
    eventually(DEADLINE, "it hears", || has(&there, "upgraded"));
    eventually(DEADLINE, "the old ones are gone", || {
        cluster.count("application_name = 'ferricorn/notify'") == 2
    });
    // Switched off, there is nobody.
    let settings = there.dir().join("server.toml");
    let text = std::fs::read_to_string(&settings).unwrap().replace("notify = true", "notify = false");
    std::fs::write(settings, text).unwrap();
    there.signal(SIGHUP);
    eventually(DEADLINE, "nobody listens", || there.listeners().is_empty());
    there.stop();
}

#[test]
fn without_postgresql_it_is_refused() {
    for url in ["", "url = \"sqlite:a.db\""] {
        let text = format!("[database]\n{url}\n[cache]\nnotify = true\n");
        let outcome = Program::stock().config(&text).run();
        assert_eq!(outcome.code, Some(2));
        let wanted = "cache.notify: got true; allowed: false, or a postgres:// database.url";
        assert!(outcome.stderr.contains(wanted), "{}", outcome.stderr);
    }
    let text =
        "[database]\nurl = \"postgres://a@127.0.0.1/a\"\nmax_connections = 6\n[cache]\nnotify = true\n";
    let outcome = Program::stock().config(text).args("-w 2").run();
    assert!(outcome.stderr.contains("max_connections: got 6; allowed: at least 7"), "{}", outcome.stderr);
}

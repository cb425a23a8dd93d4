//! What one worker invalidates, no worker serves any more: beside each other, over an upgrade, and where one dies.

use crate::shop;
use crate::support::program::put_program;
use crate::support::{Connection, DEADLINE, Program, Said, Server, alone, eventually, proc};
use nix::sys::signal::Signal::{SIGTERM, SIGUSR2};
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;

const PAIRS: u64 = 10_000;
const PAIRS_IN_AN_UPGRADE: u64 = 1_000;
fn set(connection: &mut Connection, value: u64, by: &str) {
    let answer = connection.request("POST", &format!("/value?set={value}&by={by}"), &[], b"").unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// What is cached in each worker, and how the others are told of a change.
#[derive(Clone, Copy)]
struct Cached {
    path: &'static str,
    told_by: &'static [&'static str],
}

const VALUE: Cached = Cached { path: "/value", told_by: &["key", "tag", "clear"] };
/// By the layer that keeps whole responses.
const PAGE: Cached = Cached { path: "/page", told_by: &["tag"] };

fn read(connection: &mut Connection) -> u64 {
    read_at(connection, VALUE.path)
}

fn read_at(connection: &mut Connection, path: &str) -> u64 {
    let answer = connection.get(path).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.text().parse().unwrap()
}

/// Sets and reads `pairs` times, from the number `from` on, each time through two other workers of these. Meanwhile one
/// more client of each worker reads all the time, so that loads and changes overlap. Gives the stale ones among all that
/// was read.
fn stale_reads(server: &Server, workers: usize, from: u64, pairs: u64) -> Vec<String> {
    stale_reads_of(VALUE, server, workers, from, pairs)
}

fn stale_reads_of(cached: Cached, server: &Server, workers: usize, from: u64, pairs: u64) -> Vec<String> {
    let mut own = server.connections_to_all(workers);
    let others = server.connections_to_all(workers);
    let (set_so_far, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let judge = |value: u64, least: u64, who: i32| {
        (value < least).then(|| format!("worker {who} gave {value} when {least} had been set"))
    };
    thread::scope(|scope| {
        // Also when a request fails, which would else be waited for in vain.
        let end = AtEnd(&done);
        let readers: Vec<_> = others
            .into_iter()
            .map(|(pid, mut connection)| {
                let (set_so_far, done) = (&set_so_far, &done);
                scope.spawn(move || {
                    let mut stale = Vec::new();
                    while !done.load(SeqCst) {
                        let least = set_so_far.load(SeqCst);
                        stale.extend(judge(read_at(&mut connection, cached.path), least, pid));
                    }
                    stale
                })
            })
            .collect();
        let mut stale = Vec::new();
        for number in 0..pairs {
            let (value, turn) = (from + number, number as usize);
            let by = cached.told_by[turn / workers % cached.told_by.len()];
            set(&mut own[turn % workers].1, value, by);
            set_so_far.store(value, SeqCst);
            let (pid, reader) = &mut own[(turn + 1 + turn / workers % (workers - 1)) % workers];
            stale.extend(judge(read_at(reader, cached.path), value, *pid));
        }
        drop(end);
        stale.extend(readers.into_iter().flat_map(|reader| reader.join().unwrap()));
        stale
    })
}

struct AtEnd<'a>(&'a AtomicBool);

impl Drop for AtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

#[track_caller]
fn assert_none_stale(stale: &[String]) {
    assert!(stale.is_empty(), "{} stale, such as: {}", stale.len(), stale[0]);
}

#[test]
fn of_10_000_reads_after_a_write_none_is_stale() {
    let _alone = alone();
    let mut server = Program::probe().workers(3).start();
    assert_none_stale(&stale_reads(&server, 3, 1, PAIRS));
    server.stop();
}

#[test]
fn no_response_is_served_that_was_made_before_a_write() {
    let _alone = alone();
    let mut server = Program::probe().workers(3).start();
    assert_none_stale(&stale_reads_of(PAGE, &server, 3, 1, PAIRS / 4));
    let mut clients = server.connections_to_all(3);
    for (pid, client) in &mut clients {
        let [first, second] = [(); 2].map(|()| client.get("/page").unwrap());
        assert_eq!((first.text(), second.worker()), (second.text(), *pid));
        assert!(second.field("age").is_some(), "it is kept");
        let etag = second.field("etag").unwrap().to_owned();
        let known = client.request("GET", "/page", &[("if-none-match", &etag)], b"").unwrap();
        assert_eq!((known.status, known.field("content-length")), (304, None));
        let head = client.request("HEAD", "/page", &[], b"").unwrap();
        let length = second.body.len().to_string();
        assert_eq!((head.status, head.field("content-length")), (200, Some(length.as_str())));
        assert_eq!(head.field("etag"), Some(etag.as_str()));
    }
    server.stop();
}

#[test]
fn none_is_stale_while_two_masters_serve() {
    let _alone = alone();
    let mut server = Program::probe().workers(2).args("--upgrade manual").start();
    assert_none_stale(&stale_reads(&server, 2, 100, 100));
    server.signal(SIGUSR2);
    server.wait(Said::Beside);
    assert_none_stale(&stale_reads(&server, 4, 1000, PAIRS_IN_AN_UPGRADE));
    assert!(is_cached(&server, server.workers()[0]), "the same program hashes alike");
    server.signal(SIGTERM);
    server.follow_upgrade(1);
    assert_none_stale(&stale_reads(&server, 2, 5000, 100));
    server.stop();
}

#[test]
fn none_is_stale_while_another_program_serves_beside_and_after_it_left() {
    let _alone = alone();
    let mut server = Program::replaceable().workers(2).args("--upgrade manual").start();
    let (old, worker) = (server.pid(), server.workers()[0]);
    assert!(is_cached(&server, worker));
    // Another file is another program, whose keys may hash otherwise.
    let new = server.dir().join("new");
    put_program(&server.dir().join("server"), &new);
    fs::rename(new, server.dir().join("server")).unwrap();
    for (count, leaves) in [(1, SIGTERM), (2, SIGTERM)] {
        server.signal(SIGUSR2);
        let new = server.wait_count(Said::UpgradeStarted, count).number("pid");
        server.wait_count(Said::Beside, count);
        assert_none_stale(&stale_reads(&server, 4, 10_000 * count as u64, PAIRS_IN_AN_UPGRADE));
        assert!(!is_cached(&server, worker), "the old ones cache nothing");
        assert!(is_cached(&server, proc::children(new)[0]), "the new ones do");
        if count == 1 {
            server.signal_to(new, leaves);
            server.wait(Said::SuccessorLeft);
            eventually(DEADLINE, "the old ones cache again", || is_cached(&server, worker));
        } else {
            server.signal_to(old, leaves);
            server.follow_upgrade(1);
        }
        assert_none_stale(&stale_reads(&server, 2, 15_000 * count as u64, 100));
    }
    server.stop();
}

/// Whether this worker remembers what it has loaded.
fn is_cached(server: &Server, worker: i32) -> bool {
    let mut found = None;
    eventually(DEADLINE, "a connection to that worker", || {
        let mut connection = server.connect();
        let answer = connection.get("/pid").unwrap();
        found = (answer.worker() == worker).then_some(connection);
        found.is_some()
    });
    let mut connection = found.unwrap();
    let loads = [(); 2].map(|()| connection.get("/cached?key=a").unwrap().text());
    loads[0] == loads[1]
}

#[test]
fn who_dies_between_a_change_and_the_telling_leaves_nothing_stale() {
    // At info the log tells only the steps of a crash loop.
    let mut server = Program::probe().workers(2).args("--log-level debug").start();
    for round in 1..=5 {
        let mut connections = server.connections_to_all(2);
        let value = round;
        for (_, connection) in &mut connections {
            assert_eq!(read(connection), value - 1);
        }
        let (victim, mut dying) = connections.pop().unwrap();
        let died = dying.request("POST", &format!("/value?set={value}&by=death"), &[], b"");
        assert!(died.is_err(), "{died:?}");
        server.wait_about(Said::Exited, victim);
        // By then the master has thought of the caches.
        server.wait_count(Said::Ready, 2 + round as usize);
        assert_eq!(read(&mut connections[0].1), value);
    }
    server.stop();
}

#[test]
fn a_route_that_invalidates_is_seen_by_whoever_asks_next() {
    let list = "select id, name, price from items order by id desc limit 100\"";
    let settings = shop::settings("url = \"sqlite:shop.db\"\nsetup = \"setup-{backend}.sql\"")
        .replace(list, &format!("{list}\ncache = \"1h\"\ntags = [\"items\", \"prices\"]"))
        .replace("status = 201", "status = 201\ninvalidates = \"items\"");
    let mut server = Program::stock()
        .file("setup-sqlite.sql", shop::SETUP_SQLITE)
        .config(&settings)
        .expect_workers(2)
        .start();
    let mut clients: Vec<_> = (0..8).map(|_| server.connect()).collect();
    for round in 0..200 {
        let name = format!("item {round}");
        let body = serde_json::json!({ "name": name, "price": round });
        let posted = clients[round % 8].post_json("/items", &body).unwrap();
        assert_eq!(posted.status, 201);
        for client in &mut clients {
            assert_eq!(client.get("/items").unwrap().json()[0]["name"], *name, "round {round}");
        }
    }
    server.stop();
}

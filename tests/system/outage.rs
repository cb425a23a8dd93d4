//! A database that stops, stalls, vanishes or moves, behind a proxy that counts who asks for it: what its pages say
//! meanwhile, what others notice, and when all is well again.

use crate::support::postgres::Cluster;
use crate::support::proxy::Proxy;
use crate::support::{DEADLINE, Load, Program, Server, alone, busy, eventually, holds_for, millis, seconds};
use std::net::SocketAddr;
use std::time::Instant;

const WORKERS: usize = 2;
/// The promise: a page that needs the database says so by then; `--pool-timeout` and a second.
const SAYS_SO: u64 = 2;
/// The promise: all is well so many seconds after the database's return.
const WELL: u64 = 2;

fn url(hosts: &[SocketAddr]) -> String {
    let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
    format!("postgres://postgres@{}/postgres", hosts.join(","))
}

/// Its workers have connections, which are idle by now for so long that they are asked before they are used.
fn served(hosts: &[SocketAddr]) -> Server {
    let server = Program::probe()
        .variable("FERRICORN_DATABASE_URL", &url(hosts))
        .args("--pool-size 8 --threads 8 --pool-timeout 1s --request-timeout 5s")
        .workers(WORKERS)
        .start();
    let load = || Load::on(server.target()).path("/db?token=").connections(8).at_least(400).start().finish();
    // The first connections may take a busy machine longer than a page may wait for one.
    load();
    load().assert_none_failed();
    holds_for(millis(1100), "nobody asks", || true);
    server
}

/// Pages of the database are refused in time, at whichever worker, and others are served as ever.
#[track_caller]
fn assert_only_its_pages_suffer(server: &Server) {
    let mut others = Vec::new();
    for _ in 0..8 {
        let begin = Instant::now();
        let response = server.get("/db?token=away");
        assert_eq!(response.status, 503, "{}", response.text());
        assert!(response.field("retry-after").is_some());
        assert!(begin.elapsed() < busy(seconds(SAYS_SO)), "{:?}", begin.elapsed());
        let begin = Instant::now();
        assert_eq!(server.get("/echo?msg=other").text(), "other");
        others.push(begin.elapsed());
    }
    // Whether a machine stood still for one of them says nothing.
    others.sort_unstable();
    assert!(others[others.len() / 2] < millis(500), "{others:?}");
}

#[track_caller]
fn assert_well_soon(server: &Server) {
    let mut workers = server.connections_to_all(WORKERS);
    let all_serve =
        || workers.iter_mut().all(|(_, worker)| worker.get("/db?token=back").unwrap().text() == "back");
    eventually(seconds(WELL) * 5, "the pages answer again by themselves", all_serve);
    let load = Load::on(server.target()).path("/db?token=").connections(8).at_least(400).start();
    load.finish().assert_none_failed();
}

#[test]
fn a_database_that_stops_under_load_is_asked_seldom_until_it_is_back() {
    let _alone = alone();
    let cluster = Cluster::start();
    let proxy = Proxy::to(cluster.addr());
    let mut server = served(&[proxy.addr()]);
    let workers = server.workers();
    let load = Load::on(server.target()).path("/db?token=").connections(8).pausing(millis(5)).start();
    load.wait_answered(200);
    cluster.stop();
    eventually(DEADLINE, "its pages say 503", || (0..10).all(|_| server.get("/db?token=away").status == 503));
    let (before, begin) = (proxy.attempts(), Instant::now());
    while begin.elapsed() < seconds(4) {
        assert_only_its_pages_suffer(&server);
    }
    let (attempts, rounds) = (proxy.attempts() - before, begin.elapsed().as_millis() / 400 + 2);
    assert!(attempts >= WORKERS, "each worker looks by itself: {attempts}");
    assert!(attempts as u128 <= WORKERS as u128 * rounds, "{attempts} in {:?}", begin.elapsed());
    cluster.restart();
    assert_well_soon(&server);
    load.finish();
    assert_eq!(server.workers(), workers, "nobody had to be replaced");
    server.stop();
}

#[test]
fn a_database_that_stalls_is_given_up_in_time() {
    let _alone = alone();
    let cluster = Cluster::start();
    let proxy = Proxy::to(cluster.addr());
    let mut server = served(&[proxy.addr()]);
    let workers = server.workers();
    proxy.pause();
    assert_only_its_pages_suffer(&server);
    proxy.pass();
    assert_well_soon(&server);
    assert_eq!(server.workers(), workers, "nobody had to be replaced");
    server.stop();
}

#[test]
fn a_statement_that_a_stall_caught_ends_with_its_request() {
    let _alone = alone();
    let cluster = Cluster::start();
    let proxy = Proxy::to(cluster.addr());
    let mut server = served(&[proxy.addr()]);
    let mut caught: Vec<_> = (0..4)
        .map(|_| {
            let mut client = server.connect();
            client.send("GET /db/sleep?ms=4000 HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
            client
        })
        .collect();
    eventually(DEADLINE, "they sleep", || cluster.count("query LIKE '%pg_sleep%' AND state = 'active'") == 4);
    proxy.pause();
    assert_eq!(server.get("/echo?msg=other").text(), "other");
    for client in &mut caught {
        assert_eq!(client.read().unwrap().status, 504);
    }
    assert_only_its_pages_suffer(&server);
    proxy.pass();
    assert_well_soon(&server);
    server.stop();
}

#[test]
fn a_host_that_vanished_is_given_up_in_time() {
    let _alone = alone();
    let cluster = Cluster::start();
    let proxy = Proxy::to(cluster.addr());
    let mut server = served(&[proxy.addr()]);
    proxy.swallow();
    assert_only_its_pages_suffer(&server);
    proxy.pass();
    assert_well_soon(&server);
    server.stop();
}

#[test]
fn connections_that_were_cut_are_made_anew() {
    let _alone = alone();
    let cluster = Cluster::start();
    let proxy = Proxy::to(cluster.addr());
    let mut server = served(&[proxy.addr()]);
    // They were idle, and are found closed: nobody notices.
    proxy.cut();
    let load = Load::on(server.target()).path("/db?token=").connections(8).at_least(400).start();
    load.finish().assert_none_failed();
    proxy.refuse();
    eventually(DEADLINE, "its pages say 503", || (0..10).all(|_| server.get("/db?token=away").status == 503));
    assert_only_its_pages_suffer(&server);
    proxy.pass();
    assert_well_soon(&server);
    server.stop();
}

#[test]
fn the_next_host_of_the_url_takes_over() {
    let _alone = alone();
    let (first, second) = (Cluster::start(), Cluster::start());
    let proxies = [&first, &second].map(|cluster| Proxy::to(cluster.addr()));
    let mut server = served(&proxies.each_ref().map(Proxy::addr));
    assert_eq!(proxies[1].attempts(), 0, "the first one that answers is the one");
    first.stop();
    assert_well_soon(&server);
    assert!(proxies[1].open() > 0);
    first.restart();
    server.stop();

    // One that takes connections and says nothing costs each attempt its time.
    let mut server = served(&proxies.each_ref().map(Proxy::addr));
    assert!(proxies[0].open() > 0);
    proxies[0].swallow();
    assert_only_its_pages_suffer_or_move(&server);
    assert_well_soon(&server);
    server.stop();
}

/// Refused in time, or served by the other host.
#[track_caller]
fn assert_only_its_pages_suffer_or_move(server: &Server) {
    for _ in 0..8 {
        let begin = Instant::now();
        assert!([200, 503].contains(&server.get("/db?token=away").status));
        assert!(begin.elapsed() < busy(seconds(SAYS_SO)), "{:?}", begin.elapsed());
        assert_eq!(server.get("/echo?msg=other").text(), "other");
    }
}

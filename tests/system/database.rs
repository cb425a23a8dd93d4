//! Databases that come and go, the setup script, and connections that nobody may get back.

use crate::shop;
use crate::support::postgres::Cluster;
use crate::support::server::End;
use crate::support::{DEADLINE, Load, Program, Said, alone, eventually, holds_for, millis, seconds};
use std::time::Instant;

fn probe_on(url: &str) -> Program {
    Program::probe().variable("FERRICORN_DATABASE_URL", url)
}

#[test]
fn tokens_pass_through_either_database() {
    let _alone = alone();
    let cluster = Cluster::start();
    for url in [cluster.url(), "sqlite:probe.db".to_owned()] {
        let mut server = probe_on(&url).workers(2).args("--pool-timeout 1m").start();
        let load = Load::on(server.target()).path("/db?token=").at_least(2000).start();
        load.finish().assert_none_failed();
        server.stop();
    }
}

#[test]
fn a_connection_left_in_a_failed_transaction_never_comes_back_dirty() {
    let cluster = Cluster::start();
    for url in [cluster.url(), "sqlite:probe.db".to_owned()] {
        let mut server = probe_on(&url).args("-w 1 --pool-size 1").start();
        for round in 0..5 {
            assert_eq!(server.get("/db/error").status, 500, "{url}");
            let token = format!("/db?token={round}");
            assert_eq!(server.get(&token).text(), round.to_string(), "{url}");
        }
        server.stop();
    }
}

#[test]
fn an_exhausted_pool_is_a_503_within_pool_timeout_and_other_pages_are_served() {
    let cluster = Cluster::start();
    let args = "-w 1 --threads 4 --pool-size 1 --pool-timeout 1s --statement-timeout 10m";
    let mut server = probe_on(&cluster.url()).args(args).start();
    let mut holder = server.connect();
    holder.send("GET /db/sleep?ms=600000 HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
    let asleep = "query LIKE '%pg_sleep%' AND state = 'active' AND application_name LIKE 'ferricorn%'";
    eventually(DEADLINE, "it holds the connection", || cluster.count(asleep) == 1);
    let begin = Instant::now();
    let mut waiting = server.connect();
    waiting.send("GET /db?token=late HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
    assert_eq!(server.get("/echo?msg=x").text(), "x");
    let response = waiting.read().unwrap();
    assert_eq!(response.status, 503);
    assert!(response.field("retry-after").is_some());
    assert!(begin.elapsed() >= millis(900) && begin.elapsed() < seconds(10), "{:?}", begin.elapsed());
    let wake = format!("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE {asleep}");
    cluster.client().execute(&wake, &[]).unwrap();
    assert_eq!(holder.read().unwrap().status, 500, "its statement was ended");
    assert_eq!(server.get("/db?token=again").text(), "again");
    server.stop();
}

#[test]
fn a_database_that_goes_and_comes_back_costs_only_its_own_pages() {
    let cluster = Cluster::start();
    let mut server = probe_on(&cluster.url()).args("-w 2 --pool-timeout 1s").expect_workers(2).start();
    assert_eq!(server.get("/db?token=before").text(), "before");
    let workers = server.workers();
    cluster.stop();
    eventually(DEADLINE, "the pages of the database say 503", || server.get("/db?token=x").status == 503);
    for _ in 0..5 {
        let begin = Instant::now();
        let response = server.get("/db?token=away");
        assert_eq!(response.status, 503);
        assert!(response.field("retry-after").is_some());
        assert!(begin.elapsed() < seconds(10), "{:?}", begin.elapsed());
        assert_eq!(server.get("/echo?msg=other").text(), "other");
    }
    cluster.restart();
    // Each worker finds out for itself.
    let all_back = || (0..20).all(|_| server.get("/db?token=back").text() == "back");
    eventually(DEADLINE, "they answer again by themselves", all_back);
    assert_eq!(server.workers(), workers, "no worker was replaced");
    server.stop();
}

#[test]
fn an_unreachable_database_does_not_stop_the_start() {
    let url = "postgres://nobody@127.0.0.1:1/nothing";
    let mut server = probe_on(url).args("-w 2 --pool-timeout 500ms").expect_workers(2).start();
    assert_eq!(server.get("/").status, 200);
    assert_eq!(server.get("/db?token=x").status, 503);
    server.stop();
}

#[test]
fn the_setup_script_runs_once_however_many_start() {
    let cluster = Cluster::start();
    // Two masters with four workers each, at the same time, on one empty database.
    let mut servers: Vec<_> =
        (0..2).map(|_| shop::on_postgres(&cluster.url()).args("-w 4").expect_workers(4).spawn()).collect();
    for server in &servers {
        server.wait_count(Said::Ready, 4);
        eventually(DEADLINE, "the shop is filled", || server.get("/items").status == 200);
        assert_eq!(server.get("/items").json().as_array().unwrap().len(), 2);
        assert_eq!(server.count(Said::SetupDone), 1);
    }
    servers.iter_mut().for_each(|server| server.stop());
}

#[test]
fn the_script_does_not_run_against_an_url_from_outside() {
    let cluster = Cluster::start();
    let settings = shop::settings("url = \"sqlite:shop.db\"\nsetup = \"setup-{backend}.sql\"");
    let program = Program::stock()
        .file("setup-sqlite.sql", shop::SETUP_SQLITE)
        .file("setup-postgres.sql", shop::SETUP_POSTGRES)
        .config(&settings);
    let program = program.variable("FERRICORN_DATABASE_URL", &cluster.url());
    let mut server = program.expect_workers(2).start();
    assert_eq!(server.get("/items").status, 500, "there is no such table");
    assert_eq!(server.count(Said::SetupDone), 0);
    server.stop();
}

#[test]
fn a_wrong_script_ends_the_start_with_exit_code_3() {
    let settings = shop::settings("url = \"sqlite:shop.db\"\nsetup = \"setup.sql\"");
    let program = Program::stock().file("setup.sql", "create tabel items (id integer);\n").config(&settings);
    let mut server = program.spawn();
    assert_eq!(server.wait_exit(), End::Code(3));
    server.wait_text("tabel");
    assert!(server.workers().is_empty());
}

#[test]
fn the_script_waits_for_a_database_that_is_away_at_start() {
    let cluster = Cluster::start();
    let url = cluster.url();
    cluster.stop();
    let mut server = shop::on_postgres(&url).args("--pool-timeout 500ms").spawn();
    server.wait_count(Said::SetupRetry, 2);
    holds_for(millis(300), "the server does not give up", || !server.has_ended());
    cluster.restart();
    server.wait(Said::SetupDone);
    eventually(DEADLINE, "the shop opens", || {
        server.try_get("/items").is_ok_and(|response| response.status == 200)
    });
    server.stop();
}

#[test]
fn a_statement_that_takes_too_long_is_ended_by_the_database() {
    let cluster = Cluster::start();
    let mut server = probe_on(&cluster.url()).args("-w 1 --statement-timeout 500ms").start();
    let begin = Instant::now();
    assert_eq!(server.get("/db/sleep?ms=20000").status, 500);
    assert!(begin.elapsed() < seconds(10), "{:?}", begin.elapsed());
    assert_eq!(server.get("/db?token=fine").text(), "fine");
    server.stop();
}

#[test]
fn a_client_that_leaves_takes_its_statement_with_it() {
    let cluster = Cluster::start();
    // No time limit is to end it in the client's place.
    let args = "-w 1 --threads 1 --pool-timeout 3s --timeout 120s --statement-timeout 0";
    let mut server = probe_on(&cluster.url()).args(args).start();
    let worker = server.worker();
    let asleep = "query LIKE '%pg_sleep%' AND state = 'active'";
    let mut client = server.connect();
    client.send("GET /db/sleep?ms=60000 HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
    eventually(DEADLINE, "it sleeps", || cluster.count(asleep) == 1);
    // Who holds a connection for longer than others wait for one is told of.
    let line = server.wait_text("database connection held for long");
    assert!(line.value("taken_at").is_some_and(|place| place.starts_with("examples/probe.rs:")), "{line:?}");
    drop(client);
    eventually(DEADLINE, "it is cancelled", || cluster.count(asleep) == 0);
    assert_eq!(server.get("/db?token=free").text(), "free");
    assert_eq!(cluster.count("state LIKE 'idle in transaction%'"), 0);
    assert_eq!(server.worker(), worker);
    server.stop();
}

#[test]
fn a_request_that_is_late_takes_its_statement_with_it() {
    let cluster = Cluster::start();
    let args = "-w 1 --threads 1 --timeout 10s --request-timeout 4s";
    let mut server = probe_on(&cluster.url()).args(args).start();
    let worker = server.worker();
    for _ in 0..3 {
        assert_eq!(server.get("/db/sleep?ms=60000").status, 504);
        // A busy machine may take longer over a new connection than a request has.
        eventually(DEADLINE, "its thread is free", || server.get("/db?token=free").text() == "free");
    }
    assert_eq!(cluster.count("query LIKE '%pg_sleep%' AND state = 'active'"), 0);
    assert_eq!(server.worker(), worker, "nobody had to be replaced");
    server.stop();
}

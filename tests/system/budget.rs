//! The budget of database connections: never more than that, whatever happens to workers and masters.

use crate::support::postgres::{Cluster, Watch};
use crate::support::server::End;
use crate::support::{DEADLINE, Load, Program, Said, Server, alone, eventually};
use nix::sys::signal::Signal::{SIGHUP, SIGKILL, SIGUSR2};

const BUDGET: usize = 6;

fn program(cluster: &Cluster) -> Program {
    // They wait for each other's connections, on a slow machine for long.
    let args = format!("--threads 8 --max-connections {BUDGET} --pool-timeout 1m");
    Program::probe().variable("FERRICORN_DATABASE_URL", &cluster.url()).args(&args)
}

/// Kept by all stories of this file: who watches sees the budget in use, of which one is set aside, and no more.
fn assert_kept(watch: Watch) {
    let (looks, most) = watch.finish();
    println!("{looks} looks, at most {most} connections");
    assert!(looks > 20, "only {looks} looks");
    assert!([BUDGET - 1, BUDGET].contains(&most), "{most} of {looks} looks");
}

fn load(server: &Server) -> Load {
    Load::on(server.target()).connections(24).path("/db?token=")
}

#[test]
fn reloads_keep_the_budget_and_lose_nothing() {
    let _alone = alone();
    let cluster = Cluster::start();
    let mut server = program(&cluster).workers(2).start();
    let watch = cluster.watch("ferricorn%");
    let load = load(&server).start();
    load.wait_answered(500);
    for round in 1..=5 {
        server.signal(SIGHUP);
        server.wait_count(Said::ReloadDone, round);
        load.wait_more(500);
        // The budget has a share for two generations, not for three.
        eventually(DEADLINE, "the old workers have left", || server.workers().len() == 2);
    }
    load.finish().assert_none_failed();
    assert_kept(watch);
    server.stop();
}

#[test]
fn upgrades_keep_the_budget_and_lose_nothing() {
    let _alone = alone();
    let cluster = Cluster::start();
    let mut server = program(&cluster).workers(2).start();
    let watch = cluster.watch("ferricorn%");
    let load = load(&server).start();
    load.wait_answered(500);
    for round in 1..=3 {
        server.signal(SIGUSR2);
        server.follow_upgrade(round);
        load.wait_more(500);
    }
    load.finish().assert_none_failed();
    assert_kept(watch);
    server.stop();
}

#[test]
fn workers_that_are_killed_keep_the_budget() {
    let _alone = alone();
    let cluster = Cluster::start();
    let mut server = program(&cluster).workers(2).start();
    let watch = cluster.watch("ferricorn%");
    let load = load(&server).start();
    load.wait_answered(500);
    for round in 1..=5 {
        let victim = server.workers()[0];
        server.signal_to(victim, SIGKILL);
        server.wait_count(Said::Ready, 2 + round);
        load.wait_more(500);
    }
    let report = load.finish();
    assert!(report.wrong_status.is_empty(), "{report}");
    assert_kept(watch);
    server.stop();
}

#[test]
fn a_statement_that_outlives_its_worker_counts_until_it_ends() {
    let _alone = alone();
    let cluster = Cluster::start();
    let mut server = program(&cluster).args("-w 1 --statement-timeout 10m").start();
    let watch = cluster.watch("ferricorn%");
    // One is set aside, and one is left for the next worker.
    let mut sleepers: Vec<_> = (0..BUDGET - 2).map(|_| server.connect()).collect();
    for sleeper in &mut sleepers {
        sleeper.send("GET /db/sleep?ms=600000 HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
    }
    let asleep = "query LIKE '%pg_sleep%' AND state = 'active' AND application_name LIKE 'ferricorn%'";
    eventually(DEADLINE, "they sleep", || cluster.count(asleep) == BUDGET - 2);
    let victim = server.worker();
    server.signal_to(victim, SIGKILL);
    server.wait_count(Said::Ready, 2);
    let load = load(&server).start();
    load.wait_answered(100);
    assert_eq!(cluster.count(asleep), BUDGET - 2, "they sleep on");
    let wake = format!("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE {asleep}");
    cluster.client().execute(&wake, &[]).unwrap();
    eventually(DEADLINE, "the tokens come back", || {
        cluster.count("query NOT LIKE '%pg_sleep%' AND application_name LIKE 'ferricorn%'") == BUDGET - 1
    });
    load.finish().assert_none_failed();
    assert_kept(watch);
    server.stop();
}

#[test]
fn a_worker_that_needs_none_leaves_its_part_to_the_others() {
    let _alone = alone();
    let cluster = Cluster::start();
    let mut server = program(&cluster).workers(2).start();
    // Both workers hold all they can get.
    let first = load(&server).at_least(1000).start();
    first.finish().assert_none_failed();
    let stopped = server.workers()[0];
    let mut connections = server.connections_to_all(2);
    let (_, connection) = connections.iter_mut().find(|(pid, _)| *pid != stopped).unwrap();
    for _ in 0..10 {
        connection.send("GET /db?token=one HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
        assert_eq!(connection.read().unwrap().text(), "one");
    }
    server.stop();
}

#[test]
fn a_budget_that_the_database_cannot_hold_is_refused() {
    let cluster = Cluster::start();
    let program = |file: &str| {
        let settings =
            format!("bind = '127.0.0.1:0'\nworkers = 2\n[database]\nurl = '{}'\n{file}", cluster.url());
        Program::probe().unbound().config(&settings)
    };
    let arithmetic = "has room for 97 = max_connections 100 - superuser_reserved_connections 3";

    let outcome = program("max_connections = 4").run();
    assert_eq!(outcome.code, Some(2), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("max_connections: got 4; allowed: at least 5"), "{}", outcome.stderr);

    let mut server = program("max_connections = 98").spawn();
    assert_eq!(server.wait_exit(), End::Code(3));
    server.wait_lines(arithmetic, 1);

    let mut server = program("max_connections = 97").expect_workers(2).start();
    let file = server.dir().join("server.toml");
    let settings = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, settings.replace("max_connections = 97", "max_connections = 98")).unwrap();
    server.signal(SIGHUP);
    server.wait(Said::ReloadRefused);
    server.wait_lines(arithmetic, 1);
    assert_eq!(server.get("/db?token=serves").text(), "serves");
    std::fs::write(&file, settings.replace("max_connections = 97", "max_connections = 96")).unwrap();
    server.signal(SIGHUP);
    server.wait(Said::ReloadDone);
    server.stop();
}

#[test]
fn a_database_that_cannot_be_asked_is_asked_later() {
    let cluster = Cluster::start();
    cluster.stop();
    let mut server = Program::probe()
        .variable("FERRICORN_DATABASE_URL", &cluster.url())
        .args("-w 1 --max-connections 98 --pool-timeout 500ms")
        .start();
    server.wait_lines("database limit could not be asked for", 1);
    assert_eq!(server.get("/").status, 200);
    cluster.restart();
    eventually(DEADLINE, "the database is back", || server.get("/db?token=x").status == 200);
    server.wait_lines("database limit too low", 1);
    server.stop();
}

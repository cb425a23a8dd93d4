//! What a page with one row of PostgreSQL costs: with a connection for each request, over the pool, and from axum with
//! tokio-postgres and deadpool. Run by benches/run-database; not a test: it prints, and judges nothing.

#![allow(unreachable_pub, reason = "`pub` marks what the support modules offer")]

#[path = "../shared/mod.rs"]
#[allow(dead_code, reason = "other benchmarks use the rest of it")]
mod shared;
#[path = "../../tests/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the tests use the rest of it")]
mod support;

use shared::load::{Load, ON_CLIENT_CORE, ON_SERVER_CORE, Outcome};
use shared::{Figures, setting};
use std::path::Path;
use std::process::Command;
use support::postgres::Cluster;
use support::{Program, Server};

const ROUNDS: usize = 9;
const ROUND_SECONDS: u64 = 3;
const WARM_UP_SECONDS: u64 = 1;
const CONNECTIONS: &str = "32";
/// Of each server; so many handler threads, too.
const POOL_SIZES: [usize; 2] = [4, 16];

/// The one that the others are compared with.
const MEASURE: usize = 2;

struct Case {
    name: &'static str,
    server: Server,
    path: &'static str,
}

fn main() {
    if !shared::is_asked_for() {
        return;
    }
    setting::print();
    let cluster = Cluster::start();
    let version: String = cluster.client().query_one("SHOW server_version", &[]).unwrap().get(0);
    println!("database  PostgreSQL {version}");
    let mut client = cluster.client();
    client
        .batch_execute("CREATE TABLE items (id int PRIMARY KEY, name text NOT NULL, price int NOT NULL)")
        .unwrap();
    client
        .batch_execute("INSERT INTO items SELECT i, 'item ' || i, i FROM generate_series(1, 1000) i")
        .unwrap();
    client.batch_execute("VACUUM ANALYZE items").unwrap();
    keep_on_client_core(&cluster);
    for size in POOL_SIZES {
        compare(&cluster, size);
    }
}

/// Processes for connections are forked from the one that is told here.
fn keep_on_client_core(cluster: &Cluster) {
    let pid = cluster.postmaster().to_string();
    let moved = Command::new(ON_CLIENT_CORE[0]).args(["-a", "-c", "-p", ON_CLIENT_CORE[2], &pid]).output();
    assert!(moved.expect("taskset is installed").status.success());
}

fn compare(cluster: &Cluster, size: usize) {
    let args = format!("-w 1 --threads {size} --access-logfile access.log");
    let ours = || {
        let program = Program::example("database_service").through(&ON_SERVER_CORE).args(&args);
        program.variable("FERRICORN_DATABASE_URL", &cluster.url()).start()
    };
    let axum = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers/release/axum_database");
    let axum = Program::at(axum)
        .through(&ON_SERVER_CORE)
        .variable("FERRICORN_DATABASE_URL", &cluster.url())
        .variable("POOL_SIZE", &size.to_string())
        .spawn();
    axum.wait_listening();
    let cases = [
        Case { name: "a connection a request", server: ours(), path: "/connect" },
        Case { name: "pool, handler threads", server: ours(), path: "/pooled" },
        Case { name: "axum, deadpool", server: axum, path: "/pooled" },
    ];
    for case in &cases {
        let answer = case.server.get(case.path);
        assert_eq!((answer.status, answer.text()), (200, "item 1 1\n".into()), "{}", case.name);
    }
    println!("\na page with one row, pools of {size}; {ROUNDS} rounds of {ROUND_SECONDS} s for each in turn");
    println!("  ferricorn with {args}; wrk -t1 -c{CONNECTIONS} -d{ROUND_SECONDS}s");
    println!("  the server on one core, wrk and PostgreSQL on the other");
    for case in &cases {
        load(case, WARM_UP_SECONDS);
    }
    let rounds: Vec<Vec<Outcome>> =
        (0..ROUNDS).map(|_| cases.iter().map(|case| load(case, ROUND_SECONDS)).collect()).collect();
    for (at, case) in cases.iter().enumerate() {
        let figures =
            |value: fn(&Outcome) -> f64| Figures::of(rounds.iter().map(|round| value(&round[at])).collect());
        let ratios = |value: fn(&Outcome) -> f64| {
            Figures::of(rounds.iter().map(|round| value(&round[at]) / value(&round[MEASURE])).collect())
        };
        println!("  {}", case.name);
        println!("    {} requests a second", figures(|outcome| outcome.requests_per_second));
        println!("    {} × {}", ratios(|outcome| outcome.requests_per_second), cases[MEASURE].name);
        println!("    {} µs CPU a request", figures(|outcome| outcome.cpu));
        println!("    {} × {}", ratios(|outcome| outcome.cpu), cases[MEASURE].name);
    }
}

fn load(case: &Case, seconds: u64) -> Outcome {
    Load::start(&case.server, case.path, CONNECTIONS, seconds).finish()
}

//! What accepting costs with few and with many workers, and how evenly kept connections are spread, on a shared socket
//! and with `reuse_port`. Run by benches/run-accept; not a test: it prints, and judges nothing.

#![allow(unreachable_pub, reason = "`pub` marks what the support modules offer")]

#[path = "../shared/mod.rs"]
#[allow(dead_code, reason = "it loads in another way")]
mod shared;
#[path = "../../tests/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the tests use the rest of it")]
mod support;

use shared::{Figures, setting};
use std::process::Command;
use std::time::Duration;
use support::spread::{Coming, shares, variation};
use support::{Program, Server, proc};

const ROUNDS: usize = 3;
const ROUND_SECONDS: u64 = 2;
const CLIENTS: &str = "64";
const WORKERS: [usize; 3] = [2, 8, 32];
const KINDS: [(&str, &str); 2] = [("shared socket", ""), ("reuse_port", "--reuse-port")];

const SPREADS: usize = 10;
const SPREAD_WORKERS: usize = 8;
const SPREAD_CONNECTIONS: usize = 400;

/// The server runs on one core and the client on the other, or both on all.
const PLACES: [(&str, [&str; 3], [&str; 3]); 2] = [
    ("the server on one core, the client on the other", ["taskset", "-c", "0"], ["taskset", "-c", "1"]),
    ("server and client on both cores", ["taskset", "-c", "0,1"], ["taskset", "-c", "0,1"]),
];

fn main() {
    if !shared::is_asked_for() {
        return;
    }
    setting::print();
    for (place, server, client) in PLACES {
        println!("\nCPU per connection with one request, {ROUNDS} rounds of {ROUND_SECONDS} s; {place}");
        println!("  hello -w N; wrk -t1 -c{CLIENTS} -d{ROUND_SECONDS}s -H 'Connection: close'");
        for (kind, args) in KINDS {
            compare_workers(kind, args, &server, &client);
        }
    }
    println!(
        "\ncoefficient of variation of {SPREAD_CONNECTIONS} kept connections over {SPREAD_WORKERS} workers, {SPREADS} times"
    );
    for (kind, args) in KINDS {
        for coming in [Coming::Together, Coming::OneByOne] {
            let variations = (0..SPREADS).map(|_| one_spread(args, coming)).collect();
            println!("  {:26}  {}", format!("{kind}, {coming:?}"), Figures::of(variations));
        }
    }
}

fn compare_workers(kind: &str, args: &str, on_server_core: &[&str], on_client_core: &[&str]) {
    let start =
        |workers| Program::example("hello").through(on_server_core).workers(workers).args(args).start();
    let mut costs = vec![Vec::new(); WORKERS.len()];
    for round in 0..ROUNDS {
        // Another one comes first each time, so that a drift of the machine falls on all.
        for at in (0..WORKERS.len()).map(|at| (at + round) % WORKERS.len()) {
            costs[at].push(cpu_per_connection(&start(WORKERS[at]), on_client_core));
        }
    }
    for (workers, cost) in WORKERS.iter().zip(&costs) {
        let ratios = cost.iter().zip(&costs[0]).map(|(cost, few)| cost / few).collect();
        println!("  {:26}  {} µs", format!("{kind}, {workers} workers"), Figures::of(cost.clone()));
        println!("  {:26}  {} × {} workers", "", Figures::of(ratios), WORKERS[0]);
    }
}

/// Microseconds of CPU that all processes of the server used for one connection.
fn cpu_per_connection(server: &Server, on_client_core: &[&str]) -> f64 {
    let processes = [vec![server.pid()], proc::descendants(server.pid())].concat();
    drive(server, on_client_core, 1);
    let cpu = || processes.iter().map(|&pid| proc::cpu_time(pid)).sum::<Duration>();
    let before = cpu();
    let connections = drive(server, on_client_core, ROUND_SECONDS);
    (cpu() - before).as_secs_f64() * 1e6 / connections as f64
}

/// Loads the server with wrk and returns how many requests it answered, each on a connection of its own.
fn drive(server: &Server, on_client_core: &[&str], seconds: u64) -> u64 {
    let mut command = Command::new(on_client_core[0]);
    command.args(&on_client_core[1..]).args(["wrk", "-t1", "-c", CLIENTS, "-d", &format!("{seconds}s")]);
    command.args(["-H", "Connection: close"]).arg(format!("http://{}/", server.addr()));
    let output = command.output().expect("wrk is installed");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(!text.contains("Non-2xx") && !text.contains("Socket errors"), "{text}");
    let line = text.lines().find(|line| line.contains(" requests in ")).expect("wrk sums up");
    line.split_whitespace().next().and_then(|count| count.parse().ok()).expect("wrk counts requests")
}

fn one_spread(args: &str, coming: Coming) -> f64 {
    let server = Program::example("probe").workers(SPREAD_WORKERS).args(args).start();
    // The last one that became ready may not have its connections yet.
    drop(server.connections_to_all(SPREAD_WORKERS));
    variation(&shares(&server, SPREAD_CONNECTIONS, coming), SPREAD_WORKERS)
}

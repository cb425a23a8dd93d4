//! What Ferricorn costs: CPU per keep-alive request beside bare hyper, cached pages beside uncached ones that cost nothing, time
//! from exec to the first answer, and the private memory of a worker. Run by benches/run; not a test: it prints, and judges nothing.

#![allow(unreachable_pub, reason = "`pub` marks what the support modules offer")]

#[path = "../shared/mod.rs"]
#[allow(dead_code, reason = "other benchmarks use the rest of it")]
mod shared;
#[path = "../../tests/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the tests use the rest of it")]
mod support;

mod hits;

use shared::load::{Load, ON_SERVER_CORE};
use shared::{Figures, setting};
use std::fs;
use std::net::TcpListener;
use std::time::Instant;
use support::{Connection, Program, Server, Target};

/// Each round loads all servers at the same time: what a virtual machine's neighbours take, they take from all alike.
const ROUNDS: usize = 15;
const ROUND_SECONDS: u64 = 3;
const WARM_UP_SECONDS: u64 = 1;
const CONNECTIONS: &str = "32";
const STARTS: usize = 30;
/// Requests before the memory is read, over this many connections one after the other.
const MEMORY_REQUESTS: usize = 2000;
const MEMORY_CONNECTIONS: usize = 20;

const HELLO_ARGS: &str = "-w 1 --access-logfile access.log";

/// The same page as text of the stock app, and as the answer of a statement that is kept.
const STOCK: &str = r#"
[database]
url = "sqlite:demo.db"

[[route]]
path = "/"
text = "Hello from Ferricorn\n"

[[route]]
path = "/cached"
sql = "SELECT 'Hello from Ferricorn' AS text"
cache = "60s"
"#;

fn main() {
    if !shared::is_asked_for() {
        return;
    }
    setting::print();
    compare_cpu();
    compare_cached();
    hits::measure();
    for (name, args) in [("hello", "-w 2"), ("bare_hyper", "")] {
        first_answer(name, args);
    }
    memory();
}

/// A server, and the page of it that is asked for.
type Case<'a> = (&'a str, &'a Server, &'a str);

fn compare_cpu() {
    let bare = Program::example("bare_hyper").through(&ON_SERVER_CORE).spawn();
    bare.wait_listening();
    let (service, hello) = (start("hello_service"), start("hello"));
    for server in [&service, &hello] {
        assert_same_answer(server, &bare);
    }
    println!("\nCPU per keep-alive request");
    print_cpu(
        &[("bare hyper", &bare, "/"), ("service", &service, "/"), ("hello", &hello, "/")],
        &[(1, 0), (2, 0)],
    );
}

/// Each cached page beside a page that is the same and takes no work, served in the same way.
fn compare_cached() {
    let (service, hello, layer) = (start("hello_service"), start("hello"), start("cached"));
    let stock = Program::stock().through(&ON_SERVER_CORE).config(STOCK).args(HELLO_ARGS).start();
    let cases = [
        ("service", &service, "/"),
        ("hello", &hello, "/"),
        ("hello behind the response cache", &layer, "/"),
        ("text of the stock app", &stock, "/"),
    ];
    println!("\nCPU per keep-alive request, cached pages");
    print_cpu(&cases, &[(1, 2), (0, 2)]);
    let again = Program::stock().through(&ON_SERVER_CORE).config(STOCK).args(HELLO_ARGS).start();
    let cases = [("text of the stock app", &stock, "/"), ("cached sql of the stock app", &again, "/cached")];
    print_cpu(&cases, &[(0, 1)]);
}

fn start(name: &str) -> Server {
    Program::example(name).through(&ON_SERVER_CORE).args(HELLO_ARGS).start()
}

/// What each costs, and of each pair the first in parts of the second.
fn print_cpu(cases: &[Case<'_>], pairs: &[(usize, usize)]) {
    println!("  {ROUNDS} rounds of {ROUND_SECONDS} s, all servers loaded at the same time");
    println!("  ferricorn with {HELLO_ARGS}; for each, wrk -t1 -c{CONNECTIONS} -d{ROUND_SECONDS}s");
    cpu_per_request(cases, WARM_UP_SECONDS);
    let rounds: Vec<Vec<f64>> = (0..ROUNDS).map(|_| cpu_per_request(cases, ROUND_SECONDS)).collect();
    for (at, (name, ..)) in cases.iter().enumerate() {
        println!("  {name}: {} µs", Figures::of(rounds.iter().map(|round| round[at]).collect()));
    }
    for &(one, other) in pairs {
        let ratios = rounds.iter().map(|round| round[one] / round[other]).collect();
        println!("  {} / {}: {}", cases[one].0, cases[other].0, Figures::of(ratios));
    }
}

/// Both must do the same work: the same head, but for the date, and the same body.
fn assert_same_answer(hello: &Server, bare: &Server) {
    let (one, other) = (hello.get("/"), bare.get("/"));
    assert_eq!(one.body, other.body);
    for name in ["content-type", "content-length"] {
        assert_eq!(one.field(name), other.field(name), "{name}");
    }
    assert!(one.field("date").is_some() && other.field("date").is_some());
}

/// Microseconds of CPU that all processes of each server used for one request.
fn cpu_per_request(cases: &[Case<'_>], seconds: u64) -> Vec<f64> {
    let loads: Vec<Load<'_>> =
        cases.iter().map(|(_, server, path)| Load::start(server, path, CONNECTIONS, seconds)).collect();
    loads.into_iter().map(|load| load.finish().cpu).collect()
}

fn first_answer(name: &str, args: &str) {
    let times = (0..STARTS).map(|_| one_start(name, args).as_secs_f64() * 1e3).collect();
    println!("\nexec to first answer, {}, {STARTS} starts", [name, args].join(" ").trim());
    println!("  {} ms", Figures::of(times));
}

fn one_start(name: &str, args: &str) -> std::time::Duration {
    let addr = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port");
    let program = Program::example(name).bind(&addr.to_string()).args(args);
    let begin = Instant::now();
    let server = program.spawn();
    loop {
        // Refused until the socket listens; then the answer comes as soon as a worker is there.
        if let Ok(mut connection) = Connection::open(&Target::Tcp(addr)) {
            let response = connection.get("/").expect("the first answer");
            assert_eq!(response.status, 200);
            break;
        }
        assert!(begin.elapsed() < support::DEADLINE, "{name} does not listen");
        std::thread::yield_now();
    }
    let elapsed = begin.elapsed();
    drop(server);
    elapsed
}

fn memory() {
    let server = Program::example("hello").args(HELLO_ARGS).start();
    for _ in 0..MEMORY_CONNECTIONS {
        let mut connection = server.connect();
        for _ in 0..MEMORY_REQUESTS / MEMORY_CONNECTIONS {
            assert_eq!(connection.get("/").expect("an answer").status, 200);
        }
    }
    let worker = server.worker();
    let rollup = fs::read_to_string(format!("/proc/{worker}/smaps_rollup")).expect("the worker is ours");
    let line = rollup.lines().find(|line| line.starts_with("Private_Dirty:")).expect("see proc(5)");
    let kib: f64 = line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("see proc(5)");
    println!(
        "\nprivate dirty memory of a worker after {MEMORY_REQUESTS} requests\n  {:.2} MiB",
        kib / 1024.0
    );
}

//! What Ferricorn costs: CPU per keep-alive request beside bare hyper, time from exec to the first answer,
//! and the private memory of a worker. Run by benches/run; not a test: it prints, and judges nothing.

#![allow(unreachable_pub, reason = "`pub` marks what the support modules offer")]

#[path = "../../tests/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the tests use the rest of it")]
mod support;

mod figures;
mod setting;

use figures::Figures;
use std::fs;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use support::{Connection, Program, Server, Target, proc};

/// Each round loads all servers at the same time: what a virtual machine's neighbours take, they take from all alike.
const ROUNDS: usize = 15;
const ROUND_SECONDS: u64 = 3;
const WARM_UP_SECONDS: u64 = 1;
const CONNECTIONS: &str = "32";
const STARTS: usize = 30;
/// Requests before the memory is read, over this many connections one after the other.
const MEMORY_REQUESTS: usize = 2000;
const MEMORY_CONNECTIONS: usize = 20;

/// The server runs on one core and the client on the other.
const ON_SERVER_CORE: [&str; 3] = ["taskset", "-c", "0"];
const ON_CLIENT_CORE: [&str; 3] = ["taskset", "-c", "1"];

const HELLO_ARGS: &str = "-w 1 --access-logfile access.log";

fn main() {
    // `cargo test --benches` also runs this, and means something else.
    if !std::env::args().any(|arg| arg == "--bench") {
        return;
    }
    setting::print();
    compare_cpu();
    for (name, args) in [("hello", "-w 2"), ("bare_hyper", "")] {
        first_answer(name, args);
    }
    memory();
}

fn compare_cpu() {
    let start = |name| Program::example(name).through(&ON_SERVER_CORE).args(HELLO_ARGS).start();
    let bare = Program::example("bare_hyper").through(&ON_SERVER_CORE).spawn();
    bare.wait_listening();
    let servers = [("bare hyper", bare), ("service", start("hello_service")), ("hello", start("hello"))];
    println!(
        "\nCPU per keep-alive request, {ROUNDS} rounds of {ROUND_SECONDS} s, all servers loaded at the same time"
    );
    println!("  ferricorn with {HELLO_ARGS}; for each, wrk -t1 -c{CONNECTIONS} -d{ROUND_SECONDS}s");
    for (_, server) in &servers {
        assert_same_answer(server, &servers[0].1);
    }
    cpu_per_request(&servers, WARM_UP_SECONDS);
    let rounds: Vec<Vec<f64>> = (0..ROUNDS).map(|_| cpu_per_request(&servers, ROUND_SECONDS)).collect();
    for (at, (name, _)) in servers.iter().enumerate() {
        let cost = rounds.iter().map(|round| round[at]).collect();
        let ratios = rounds.iter().map(|round| round[at] / round[0]).collect();
        println!("  {name:10}  {} µs", Figures::of(cost));
        println!("  {:10}  {} × bare hyper", "", Figures::of(ratios));
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
fn cpu_per_request(servers: &[(&str, Server)], seconds: u64) -> Vec<f64> {
    let used = |server: &Server| {
        let processes = [vec![server.pid()], proc::descendants(server.pid())].concat();
        processes.iter().map(|&pid| proc::cpu_time(pid)).sum::<Duration>()
    };
    let before: Vec<Duration> = servers.iter().map(|(_, server)| used(server)).collect();
    let clients: Vec<Child> = servers.iter().map(|(_, server)| load(server, seconds)).collect();
    let requests: Vec<u64> = clients.into_iter().map(requests_of).collect();
    let costs = servers.iter().zip(before).zip(requests);
    costs
        .map(|(((_, server), before), requests)| {
            (used(server) - before).as_secs_f64() * 1e6 / requests as f64
        })
        .collect()
}

fn load(server: &Server, seconds: u64) -> Child {
    let mut command = Command::new(ON_CLIENT_CORE[0]);
    command.args(&ON_CLIENT_CORE[1..]).args(["wrk", "-t1", "-c", CONNECTIONS, "-d", &format!("{seconds}s")]);
    command.arg(format!("http://{}/", server.addr())).stdout(Stdio::piped());
    command.spawn().expect("wrk is installed")
}

/// How many requests wrk had answered.
fn requests_of(client: Child) -> u64 {
    let output = client.wait_with_output().expect("wrk ends");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(!text.contains("Non-2xx") && !text.contains("Socket errors"), "{text}");
    let line = text.lines().find(|line| line.contains(" requests in ")).expect("wrk sums up");
    line.split_whitespace().next().and_then(|count| count.parse().ok()).expect("wrk counts requests")
}

fn first_answer(name: &str, args: &str) {
    let times = (0..STARTS).map(|_| one_start(name, args).as_secs_f64() * 1e3).collect();
    println!("\nexec to first answer, {}, {STARTS} starts", [name, args].join(" ").trim());
    println!("  {} ms", Figures::of(times));
}

fn one_start(name: &str, args: &str) -> Duration {
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

//! Many requests while workers come and go: a reload loses none, and a death only those that were open on it.

use super::both;
use crate::support::http2::{Ended, Http2};
use crate::support::{Program, Said, Server, Target, alone, eventually, seconds};
use nix::sys::signal::Signal::{SIGHUP, SIGKILL};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};

/// Requests that are open at a time on each connection.
const AT_A_TIME: usize = 8;
const CONNECTIONS: usize = 4;

#[derive(Default)]
struct Counts {
    stop: AtomicBool,
    answered: AtomicU64,
    /// A GOAWAY said that they were not looked at.
    to_be_sent_again: AtomicU64,
    lost: AtomicU64,
}

/// Asks on, over one connection after the other.
fn ask_on(target: Target, counts: Arc<Counts>) -> JoinHandle<()> {
    thread::spawn(move || {
        while !counts.stop.load(Relaxed) {
            let Ok(mut client) = Http2::try_open(&target) else {
                // Its worker died while they shook hands.
                counts.lost.fetch_add(1, Relaxed);
                continue;
            };
            let mut is_over = false;
            while !is_over && !counts.stop.load(Relaxed) {
                let streams: Vec<u32> =
                    (0..AT_A_TIME).map_while(|_| client.try_ask("/echo?msg=on").ok()).collect();
                is_over = streams.len() < AT_A_TIME;
                // They are answered in any order.
                for (stream, ended) in client.wait_all(&streams) {
                    match ended {
                        Ended::Answered(200, _) => counts.answered.fetch_add(1, Relaxed),
                        Ended::GoneAway(_, last) if last < stream => {
                            counts.to_be_sent_again.fetch_add(1, Relaxed)
                        }
                        _ => counts.lost.fetch_add(1, Relaxed),
                    };
                    is_over |= !matches!(ended, Ended::Answered(..));
                }
                is_over |= client.is_told_to_leave();
            }
        }
    })
}

fn start(targets: &[Target; 2]) -> (Arc<Counts>, Vec<JoinHandle<()>>) {
    let counts = Arc::new(Counts::default());
    let each = targets.iter().cycle().take(CONNECTIONS);
    (counts.clone(), each.map(|target| ask_on(target.clone(), counts.clone())).collect())
}

fn wait_more(counts: &Counts, more: u64) {
    let until = counts.answered.load(Relaxed) + more;
    eventually(seconds(120), "requests are answered", || counts.answered.load(Relaxed) >= until);
}

fn finish(counts: &Counts, threads: Vec<JoinHandle<()>>) {
    counts.stop.store(true, Relaxed);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn reloads_lose_no_request() {
    let _alone = alone();
    let (mut server, targets) = both(Program::probe().workers(2));
    let (counts, threads) = start(&targets);
    for done in 1..=10 {
        server.signal(SIGHUP);
        server.wait_count(Said::ReloadDone, done);
        wait_more(&counts, 500);
    }
    finish(&counts, threads);
    assert_eq!(counts.lost.load(Relaxed), 0, "of {}", counts.answered.load(Relaxed));
    server.stop();
}

#[test]
fn a_death_loses_what_was_open_on_it_and_nothing_else() {
    let _alone = alone();
    let (mut server, targets) = both(Program::probe().workers(2));
    let (counts, threads) = start(&targets);
    for killed in 1..=5 {
        wait_more(&counts, 500);
        let lost = counts.lost.load(Relaxed);
        server.signal_to(server.workers()[0], SIGKILL);
        server.wait_count(Said::Ready, 2 + killed);
        wait_more(&counts, 500);
        let lost = counts.lost.load(Relaxed) - lost;
        assert!(lost <= (AT_A_TIME * CONNECTIONS) as u64, "{lost}");
    }
    finish(&counts, threads);
    server.stop();
}

/// How many requests `h2load` would send.
const RUN: u64 = 3000;

/// How many requests `h2load` had answered. It takes no other connection for one that ends, and counts what it then did not
/// send as failed.
fn h2load(url: &str) -> u64 {
    let output = Command::new("h2load").args(["-n", &RUN.to_string(), "-c", "4", "-m", "8", url]).output();
    let text = String::from_utf8_lossy(&output.unwrap().stdout).into_owned();
    let line =
        text.lines().find_map(|line| line.strip_prefix("requests: ")).unwrap_or_else(|| panic!("{text}"));
    let count = |what: &str| {
        let found = line.split(", ").find_map(|part| part.strip_suffix(what));
        found.and_then(|count| count.trim().parse().ok()).unwrap_or_else(|| panic!("{what} in {line:?}"))
    };
    count("succeeded")
}

fn urls(server: &Server, clear: &Target) -> [String; 2] {
    let Target::Tcp(clear) = clear else { panic!("{clear:?}") };
    [format!("https://{}/", server.addr()), format!("http://{clear}/")]
}

#[test]
fn h2load_is_answered_all_that_workers_took_while_they_change() {
    let _alone = alone();
    let (mut server, targets) = both(Program::probe().workers(2));
    let stop = Arc::new(AtomicBool::new(false));
    // By a reload, some of them.
    let were_ended = Arc::new(AtomicBool::new(false));
    let loads: Vec<_> = urls(&server, &targets[1])
        .into_iter()
        .map(|url| {
            let (stop, were_ended) = (stop.clone(), were_ended.clone());
            thread::spawn(move || {
                let mut runs = Vec::new();
                while !stop.load(Relaxed) {
                    runs.push(h2load(&url));
                    were_ended.fetch_or(runs.last().is_some_and(|answered| *answered < RUN), Relaxed);
                }
                runs
            })
        })
        .collect();
    let mut done = 0;
    eventually(seconds(120), "reloads end some", || {
        done += 1;
        server.signal(SIGHUP);
        server.wait_count(Said::ReloadDone, done);
        thread::sleep(crate::support::millis(200));
        done >= 8 && were_ended.load(Relaxed)
    });
    stop.store(true, Relaxed);
    let runs: Vec<u64> = loads.into_iter().flat_map(|load| load.join().unwrap()).collect();
    server.stop();
    let exits = server.log().into_iter().filter(|line| line.is(Said::Exited));
    let taken: u64 = exits.map(|line| u64::try_from(line.number("requests")).unwrap()).sum();
    assert_eq!(taken, runs.iter().sum::<u64>(), "taken and answered; {runs:?}");
}

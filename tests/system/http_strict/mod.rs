//! What the server makes of requests that are good, bad and tricky, by the sections of RFC 9110 and RFC 9112.
//! Not here: limits on time, which have stories of their own.
//!
//! Each request is followed by a good one, the sentinel. It is sent whole, byte by byte and cut at random places, and the
//! verdict has to be the same.

mod answers;
mod corpus;
mod table;
mod talk;
mod unread;

use crate::support::{Dice, Program, Target};
use corpus::Case;
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use talk::{Split, converse};

/// How often each request is cut at random.
const CUTS: usize = 2;
/// How many requests are asked about at a time.
const AT_ONCE: usize = 4;

#[test]
fn every_request_gets_the_verdict_of_its_section() {
    let mut server = Program::probe().workers(1).start();
    let Target::Tcp(addr) = server.target() else { unreachable!("it listens on TCP") };
    let cases = corpus::all();
    let (next, wrong) = (AtomicUsize::new(0), Mutex::new(String::new()));
    let outcomes = Mutex::new(vec![String::new(); cases.len()]);
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                let mut dice = Dice::new();
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(case) = cases.get(index) else { break };
                    match judge(addr, case, &mut dice) {
                        Ok(outcome) => outcomes.lock().unwrap()[index] = outcome,
                        Err(why) => wrong.lock().unwrap().push_str(&why),
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    let count = wrong.lines().count();
    assert!(wrong.is_empty(), "{count} of {} requests:\n{wrong}", cases.len());
    server.stop();
    table::hold(&cases, &outcomes.into_inner().unwrap());
}

/// What became of it, every time.
fn judge(addr: SocketAddr, case: &Case, dice: &mut Dice) -> Result<String, String> {
    let mut outcome = None;
    for split in [Split::Whole, Split::Bytes].into_iter().chain([Split::Random; CUTS]) {
        let seen = converse(addr, &case.bytes, split, dice);
        let verdict = case.allowed.iter().find(|verdict| verdict.is(&seen)).map(|verdict| verdict.outcome());
        if verdict.is_none() || outcome.as_ref().is_some_and(|outcome| verdict.as_ref() != Some(outcome)) {
            let Case { rule, name, allowed, .. } = case;
            let mut why = String::new();
            writeln!(why, "{rule:?} {name}: {split:?}: {seen}; allowed: {allowed:?}").unwrap();
            return Err(why);
        }
        outcome = verdict;
    }
    Ok(outcome.expect("it was sent at least once"))
}

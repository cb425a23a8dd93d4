//! What the server makes of requests that are good, bad and tricky, by the sections of RFC 9110 and RFC 9112.
//! Not here: limits on size and time, which have stories of their own.
//!
//! Each request is followed by a good one, the sentinel. It is sent whole, byte by byte and cut at random places, and the
//! verdict has to be the same.

mod answers;
mod corpus;
mod talk;

use crate::support::{Dice, Program, Target};
use corpus::Case;
use std::fmt::Write;
use talk::{Split, converse};

/// How often each request is cut at random.
const CUTS: usize = 3;

#[test]
fn every_request_gets_the_verdict_of_its_section() {
    let mut server = Program::probe().workers(1).start();
    let Target::Tcp(addr) = server.target() else { unreachable!("it listens on TCP") };
    let cases = corpus::all();
    let mut wrong = String::new();
    let mut dice = Dice::new();
    for case in &cases {
        for split in [Split::Whole, Split::Bytes].into_iter().chain([Split::Random; CUTS]) {
            let seen = converse(addr, &case.bytes, split, &mut dice);
            if !case.allowed.iter().any(|verdict| verdict.is(&seen)) {
                let Case { section, name, allowed, .. } = case;
                writeln!(wrong, "{section:<12} {name}: {split:?}: {seen}; allowed: {allowed:?}").unwrap();
                break;
            }
        }
    }
    let count = wrong.lines().count();
    assert!(wrong.is_empty(), "{count} of {} requests:\n{wrong}", cases.len());
    server.stop();
}

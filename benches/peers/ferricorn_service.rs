//! The pages of the peers by Ferricorn and axum, for benches/run-peers.

#[path = "src/pages.rs"]
#[allow(dead_code, unreachable_pub, reason = "the peers use the rest of it")]
mod pages;

use std::process::ExitCode;

fn main() -> ExitCode {
    ferricorn::run(|_worker| pages::router())
}

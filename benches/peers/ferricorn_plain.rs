//! The pages of the peers by Ferricorn and a plain tower service, for benches/run-peers.

#[path = "src/pages.rs"]
#[allow(dead_code, unreachable_pub, reason = "axum's part is another's")]
mod pages;
#[path = "src/plain.rs"]
#[allow(unreachable_pub, reason = "the peers use it too")]
mod plain;

use std::process::ExitCode;

fn main() -> ExitCode {
    ferricorn::run(|_worker| tower::service_fn(plain::answer::<ferricorn::Body>))
}

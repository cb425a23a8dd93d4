//! The smallest service: one page. `cargo run --example hello -- -b 127.0.0.1:8000`

use axum::{Router, routing::get};
use std::process::ExitCode;

fn main() -> ExitCode {
    ferricorn::run(|_worker| Router::new().route("/", get(async || "Hello from Ferricorn\n")))
}

//! The page of examples/hello.rs, served from a response cache in front of the router.

use axum::{Router, routing::get};
use ferricorn::{ResponseCacheOptions, Worker};
use std::process::ExitCode;
use std::time::Duration;
use tower::Layer;

fn main() -> ExitCode {
    ferricorn::run(|worker: Worker| {
        let pages = worker.response_cache("pages", ResponseCacheOptions::new(Duration::from_secs(30)));
        pages.layer(Router::new().route("/", get(async || "Hello from Ferricorn\n")))
    })
}

//! Ferricorn: a pre-fork application server for axum routers and tower services.
//!
//! A master binds the sockets, forks workers, watches signals and children, and starts a new worker when one dies. Each worker
//! serves the app over hyper, with caches, database pools and handler threads of its own.
//!
//! ```no_run
//! use axum::{Router, routing::get};
//! use std::process::ExitCode;
//!
//! fn main() -> ExitCode {
//!     ferricorn::run(|_worker| Router::new().route("/", get(async || "Hello from Ferricorn\n")))
//! }
//! ```
//!
//! ```text
//!                    signals                    ┌────────────┐
//!                       │      spawn, drain     │  worker 0  │── app, cache, pool
//!  config ── serve ── master ─────────────────▶ ├────────────┤
//!                       │  arbiter: decisions   │  worker 1  │── app, cache, pool
//!                       ▼                       └────────────┘
//!                  scoreboard ◀── phase, heartbeat, counters ┘
//! ```
//!
//! To read the source: `serve` (how the parts meet), `master` (the loop), `master/arbiter` (every decision), `worker` (a
//! worker's life), `worker/connection` (a request's), `app` (what an app is given), `config/table` (the settings).

mod admin;
mod app;
pub mod config;
mod control;
mod ctl;
#[cfg(feature = "guards")]
#[doc(hidden)]
pub mod guards;
mod health;
mod logging;
mod master;
mod scoreboard;
mod serve;
pub mod testing;
mod worker;

pub use app::{
    Body, Cache, CacheOptions, CacheStats, CacheTags, CachedBody, CachedService, ClientInfo, Counter,
    Database, Deadline, Error, Gauge, Histogram, HttpService, Isolation, MAX_TAGS, Metrics, Peer, Pool,
    PostgresSession, Program, ProgramOptions, RequestId, ResponseCacheLayer, ResponseCacheOptions,
    ResponseFuture, Scheme, SqliteSession, TaggedCache, TlsInfo, TransactionOptions, Worker,
};
#[doc(hidden)]
pub use serve::command_lines;
pub use serve::{Alone, App, Shared, run, run_stock};
pub use worker::{Answered, Around, Bare, PostRequest, PreRequest};

/// The examples of the documents are compiled with the tests.
#[cfg(doctest)]
mod documents {
    #[doc = include_str!("../README.md")]
    struct Readme;
    #[doc = include_str!("../docs/applications.md")]
    struct Applications;
    #[doc = include_str!("../docs/behind-a-proxy.md")]
    struct BehindAProxy;
    #[doc = include_str!("../docs/hooks.md")]
    struct Hooks;
    #[doc = include_str!("../docs/testing.md")]
    struct Testing;
    #[doc = include_str!("../docs/caching.md")]
    struct Caching;
    #[doc = include_str!("../docs/programs.md")]
    struct Programs;
}

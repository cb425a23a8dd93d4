//! Ferricorn: a pre-fork application server for axum and tower services.

mod app;
pub mod config;
mod logging;
mod master;
mod scoreboard;
mod serve;
mod worker;

pub use app::{Body, Cache, CacheStats, Database, Error, Peer, Pool, PostgresSession, SqliteSession, Worker};
pub use serve::{run, run_stock};

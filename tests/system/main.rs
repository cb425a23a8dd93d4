//! The system tests: each starts the real program on a port of its own and tells one story about it.
//! Not here: rules that a table can test beside their code.
//!
//! They run as threads of one process (`cargo test`): `support::alone` keeps loads and measurements apart.

#![allow(unreachable_pub, reason = "`pub` marks what the support modules offer to the tests")]

#[path = "../support/mod.rs"]
mod support;

mod access_log;
mod admin;
mod app;
mod arrows;
mod behind_proxy;
mod budget;
mod coherence;
mod crash;
mod crowd;
mod ctl;
mod daemon;
mod dashboard;
mod database;
mod deadline;
mod documents;
mod events;
mod events_list;
mod examples;
mod first_steps;
mod fork_failure;
mod haproxy;
mod hooks;
mod http2;
mod http_strict;
mod inherited;
mod layers;
mod limits;
mod main_job;
mod metrics;
mod nginx;
mod notify;
mod obituary;
mod options;
mod outage;
mod pgbouncer;
mod place;
mod preload;
mod privileges;
mod probes;
mod process;
mod program;
mod readme;
mod ready_database;
mod recycle;
mod reload;
mod resize;
mod reuse_port;
mod shop;
mod siege;
mod signals;
mod sizing;
mod slow;
mod spread;
mod status;
mod stock;
mod stock_cache;
mod stock_check;
mod stock_files;
mod stock_program;
mod stock_stream;
mod stop;
mod storm;
mod systemd;
mod testing;
mod timeouts;
mod tls;
mod upgrade;
mod websocket;

//! What an application is given and what it gives back: the `Worker` handle, caches, databases,
//! handler threads, programs beside it, deadlines; and the stock app. Not here: connections, processes.

mod blocking;
mod cache;
mod client;
mod current;
pub(crate) mod database;
mod deadline;
mod error;
mod handle;
pub(crate) mod layers;
mod metrics;
mod peer;
mod program;
mod request_id;
mod response_cache;
pub(crate) mod routes;
mod service;
mod tls_info;

pub(crate) use cache::tag_slot;
pub use cache::{Cache, CacheOptions, CacheStats, MAX_TAGS, TaggedCache};
pub use client::{ClientInfo, Scheme};
pub use database::{Database, Isolation, Pool, PostgresSession, SqliteSession, TransactionOptions};
pub use deadline::Deadline;
pub use error::Error;
pub use handle::Worker;
pub(crate) use layers::Unlogged;
pub use metrics::{Counter, Gauge, Histogram, Metrics};
pub use peer::Peer;
pub(crate) use program::DESCRIPTORS_OF_A_CHILD;
pub use program::{Program, ProgramOptions};
pub use request_id::RequestId;
pub use response_cache::{
    CacheTags, CachedBody, CachedService, ResponseCacheLayer, ResponseCacheOptions, ResponseFuture,
};
pub(crate) use service::BoxError;
pub use service::HttpService;
pub use tls_info::TlsInfo;

/// The body of a request as an app receives it: axum's, so that a `Router` and any tower service for it fit.
pub type Body = axum::body::Body;

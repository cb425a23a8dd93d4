//! The pages that all servers are asked for, and how axum serves them: with its own listener, and by Ferricorn.

use axum::body::Bytes;
use axum::extract::DefaultBodyLimit;
use axum::http::header::CONTENT_TYPE;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Serialize;
use tower_http::services::ServeDir;

pub const HELLO: &str = "Hello from Ferricorn\n";
pub const TEXT: &str = "text/plain; charset=utf-8";
pub const BYTES: &str = "application/octet-stream";
/// What is downloaded, from memory: 1 MiB.
pub static DOWNLOAD: [u8; 1 << 20] = [b'x'; 1 << 20];

/// One of the rows of the JSON page, which is made anew for each request.
#[derive(Serialize)]
pub struct Item {
    id: usize,
    name: &'static str,
    price: usize,
}

/// About 1 KB of JSON.
pub fn items() -> Vec<Item> {
    (1..=28).map(|id| Item { id, name: "acorn", price: id * 10 }).collect()
}

pub fn router() -> Router {
    Router::new()
        .route("/", get(async || HELLO))
        .route("/json", get(async || Json(items())))
        .route("/length", post(async |body: Bytes| body.len().to_string()))
        .route("/download", get(async || ([(CONTENT_TYPE, BYTES)], DOWNLOAD.as_slice())))
        .nest_service("/files", ServeDir::new("files"))
        .layer(DefaultBodyLimit::max(1 << 20))
}

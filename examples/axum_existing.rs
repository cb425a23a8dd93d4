//! A service that was written for axum's own server, and what it took to move it: three lines for five.
//! `cargo run --example axum_existing -- -b 127.0.0.1:8000`
//!
//! ```diff
//! -#[tokio::main]
//! -async fn main() {
//! -    let listener = tokio::net::TcpListener::bind("127.0.0.1:8000").await.unwrap();
//! -    axum::serve(listener, app()).await.unwrap();
//! +fn main() -> std::process::ExitCode {
//! +    ferricorn::run(|_worker| app())
//!  }
//! ```
//!
//! Handlers, state, layers and `tokio::spawn` stay as they are. What to look at: the state is now one for each worker, and the
//! client's address is a `ferricorn::Peer` in place of a `ConnectInfo`.

use axum::extract::{Path, Request, State};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

fn main() -> std::process::ExitCode {
    ferricorn::run(|_worker| app())
}

#[derive(Default)]
struct Visits(AtomicU64);

#[derive(Deserialize, Serialize)]
struct Sum {
    terms: Vec<i64>,
    #[serde(default)]
    sum: i64,
}

fn app() -> Router {
    Router::new()
        .route("/hello/{name}", get(hello))
        .route("/sum", post(sum))
        .fallback(async || (StatusCode::NOT_FOUND, "there is no such page\n"))
        .layer(from_fn(no_sniff))
        .with_state(Arc::new(Visits::default()))
}

async fn hello(State(visits): State<Arc<Visits>>, Path(name): Path<String>) -> String {
    let number = visits.0.fetch_add(1, Relaxed) + 1;
    format!("hello {name}, you are visitor {number}\n")
}

async fn sum(Json(mut sum): Json<Sum>) -> Response {
    match sum.terms.iter().try_fold(0, |total: i64, term| total.checked_add(*term)) {
        Some(total) => {
            sum.sum = total;
            Json(sum).into_response()
        }
        None => (StatusCode::UNPROCESSABLE_ENTITY, "the sum is too large\n").into_response(),
    }
}

async fn no_sniff(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response.headers_mut().insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}

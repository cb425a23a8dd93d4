//! A service that logs every hook as it runs, and whose `[app]` table has one of them fail. Not here: the tests.

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use ferricorn::{App, Worker};
use std::process::ExitCode;
use std::time::Duration;

#[derive(serde::Deserialize)]
struct Wishes {
    #[serde(default)]
    greeting: String,
    /// The hook to panic in.
    #[serde(default)]
    panic: String,
    /// What the warm-up does: `fail`, or `hang`.
    #[serde(default)]
    warm_up: String,
}

fn main() -> ExitCode {
    App::new()
        .settings::<Wishes>()
        .on_starting(|worker| told(worker, "starting"))
        .warm_up(warm_up)
        .on_ready(|worker| told(worker, "ready"))
        .pre_request(|worker, request| {
            told(worker, "pre_request");
            request.headers.insert("x-slot", worker.slot().into());
        })
        .post_request(|worker, answered| {
            let status = answered.head.status.as_u16();
            log::info!("answered {} {} {status} took={:?}", answered.method, answered.uri, answered.took);
            answered.head.headers.insert("x-worker-slot", worker.slot().into());
        })
        .on_draining(|worker| told(worker, "draining"))
        .on_aborting(|worker| told(worker, "aborting"))
        .on_exit(|worker| told(worker, "exit"))
        .run(|worker| {
            let greeting = worker.app_settings::<Wishes>().greeting.clone();
            Router::new()
                .route("/", get(move |headers: HeaderMap| async move { format!("{greeting} {:?}", headers["x-slot"]) }))
                .route("/bad", get(async || StatusCode::BAD_GATEWAY))
                .route("/panic", get(async || -> () { panic!("asked to") }))
                .route("/slow", get(async || tokio::time::sleep(Duration::from_secs(60)).await))
        })
}

async fn warm_up(worker: Worker) -> Result<(), &'static str> {
    tokio::time::sleep(Duration::from_millis(1)).await;
    told(&worker, "warm_up");
    match worker.app_settings::<Wishes>().warm_up.as_str() {
        "fail" => Err("told to fail"),
        "hang" => std::future::pending().await,
        _ => Ok(()),
    }
}

fn told(worker: &Worker, hook: &str) {
    log::info!("hook {hook}");
    assert!(worker.app_settings::<Wishes>().panic != hook, "told to panic in {hook}");
}

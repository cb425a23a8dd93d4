//! One row of a database as a page: over the worker's pool, and with a connection of its own for each request.

use axum::{Router, extract::State, routing::get};
use ferricorn::{Error, Worker};
use postgres::{Client, NoTls, Row};
use std::process::ExitCode;

const ITEM: &str = "SELECT name, price FROM items WHERE id = $1";

fn main() -> ExitCode {
    ferricorn::run(|worker: Worker| {
        let app = Router::new().route("/pooled", get(pooled)).route("/connect", get(connect));
        app.with_state(worker)
    })
}

async fn pooled(State(worker): State<Worker>) -> Result<String, Error> {
    worker.postgres().run(|session| Ok(page(&session.query_one(ITEM, &[&1_i32])?))).await
}

async fn connect(State(worker): State<Worker>) -> Result<String, Error> {
    let item = || {
        let url = std::env::var("FERRICORN_DATABASE_URL").expect("the benchmark sets it");
        let row = Client::connect(&url, NoTls)?.query_one(ITEM, &[&1_i32])?;
        Ok(page(&row))
    };
    worker.blocking(item).await?
}

fn page(row: &Row) -> String {
    let (name, price): (&str, i32) = (row.get(0), row.get(1));
    format!("{name} {price}\n")
}

//! A service whose answers come from a Python program that each worker runs beside itself.
//!
//! `curl 'http://127.0.0.1:8000/measure?text=a+copper+kettle'`, or `curl --json '{"text": "a copper kettle"}'` to the same path.

use axum::extract::{Query, State};
use axum::routing::get;
use axum::{Json, Router};
use ferricorn::{App, Error, Program, ProgramOptions};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::process::ExitCode;
use std::time::Duration;

/// The `[app]` table of the config file.
#[derive(Deserialize)]
struct Offline {
    #[serde(default = "measure")]
    program: Vec<String>,
    #[serde(default = "two")]
    children: usize,
    #[serde(default = "two_seconds")]
    timeout_ms: u64,
}

fn measure() -> Vec<String> {
    ["python3", "examples/offline_process.py"].map(str::to_owned).to_vec()
}

fn two() -> usize {
    2
}

fn two_seconds() -> u64 {
    2000
}

#[derive(Deserialize, Serialize)]
struct Question {
    text: String,
}

fn main() -> ExitCode {
    App::new().settings::<Offline>().run(|worker| {
        let Offline { program, children, timeout_ms } = worker.app_settings();
        let options = ProgramOptions::new(program)
            .children(*children)
            .timeout(Duration::from_millis(*timeout_ms))
            .max_line(64 * 1024);
        let program = worker.program("measure", options);
        Router::new().route("/measure", get(asked).post(posted)).with_state(program)
    })
}

async fn asked(
    State(program): State<Program>,
    Query(question): Query<Question>,
) -> Result<Json<Value>, Error> {
    Ok(Json(program.call(&question).await?))
}

async fn posted(
    State(program): State<Program>,
    Json(question): Json<Question>,
) -> Result<Json<Value>, Error> {
    Ok(Json(program.call(&question).await?))
}

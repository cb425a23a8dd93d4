//! Workers that share a model of 200 MB: it is loaded once for each generation, and each worker's memory holds the same copy.
//! `cargo run --release --example preload -- -w 4`, then `curl 127.0.0.1:8000/7`. To see what the workers have in common:
//! `grep -E '^(Rss|Pss|Private)' /proc/$(pgrep -f -n example/preload)/smaps_rollup`.

use axum::extract::Path;
use axum::{Router, routing::get};
use ferricorn::App;
use std::convert::Infallible;
use std::process::ExitCode;

/// 50 million weights of 4 bytes.
const WEIGHTS: usize = 50_000_000;

/// Stands for one that a library reads from a file.
struct Model {
    weights: Vec<f32>,
}

impl Model {
    fn load() -> Result<Model, Infallible> {
        Ok(Model { weights: (0..WEIGHTS).map(|index| (index % 1000) as f32 / 1000.0).collect() })
    }

    fn answer(&self, input: usize) -> Option<f32> {
        self.weights.get(input).map(|weight| weight * 2.0)
    }
}

fn main() -> ExitCode {
    App::new().preload(|_settings| Model::load()).run(|_worker, model: &'static Model| {
        Router::new()
            .route("/{input}", get(async |Path(input): Path<usize>| format!("{:?}\n", model.answer(input))))
    })
}

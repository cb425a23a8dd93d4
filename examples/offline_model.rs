//! A model of 200 MB that answers without a network: it is loaded once for each generation of workers, whose memory holds the same
//! copy, and it computes on handler threads. `cargo run --release --example offline_model -- -w 4`, then
//! `curl 127.0.0.1:8000/nearest/7` and `curl --json '[7, 1234]' 127.0.0.1:8000/nearest`. To see what the workers have in
//! common: `grep -E '^(Rss|Pss|Private)' /proc/$(pgrep -f -n example/offline_model)/smaps_rollup`.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use ferricorn::{App, Error, Worker};
use std::convert::Infallible;
use std::process::ExitCode;

/// 500,000 words of 100 weights, each of 4 bytes.
const WORDS: usize = 500_000;
const WEIGHTS: usize = 100;
/// A word is compared with those of its group.
const GROUP: usize = 1000;
/// A request never asks for more words: a call that computes cannot be stopped.
const MAX_ASKED: usize = 100;

type Loaded = State<(Worker, &'static Model)>;

/// Words as points, of which those with a similar meaning are near each other. It stands for one that a library reads from a file;
/// in this one a word with an even number is nearest to the next.
struct Model {
    weights: Vec<f32>,
}

impl Model {
    fn load() -> Result<Model, Infallible> {
        let weight = |index: usize| {
            let (pair, is_odd) = (index / WEIGHTS / 2, index / WEIGHTS % 2 == 1);
            (pair * (index % WEIGHTS + 1) % 1009) as f32 / 1009.0 + if is_odd { 0.0001 } else { 0.0 }
        };
        Ok(Model { weights: (0..WORDS * WEIGHTS).map(weight).collect() })
    }

    fn nearest(&self, word: usize) -> usize {
        let group = word / GROUP * GROUP;
        let others = (group..group + GROUP).filter(|other| *other != word);
        let nearest =
            others.min_by(|one, other| self.distance(word, *one).total_cmp(&self.distance(word, *other)));
        nearest.expect("a group has more than one word")
    }

    fn distance(&self, one: usize, other: usize) -> f32 {
        let weights = |word: usize| &self.weights[word * WEIGHTS..(word + 1) * WEIGHTS];
        weights(one).iter().zip(weights(other)).map(|(a, b)| (a - b) * (a - b)).sum()
    }
}

fn main() -> ExitCode {
    App::new().preload(|_settings| Model::load()).run(|worker, model: &'static Model| {
        Router::new()
            .route("/nearest", post(nearest_of_all))
            .route("/nearest/{word}", get(nearest))
            .with_state((worker, model))
    })
}

async fn nearest(loaded: Loaded, Path(word): Path<usize>) -> Result<Response, Error> {
    answer(loaded, vec![word]).await
}

async fn nearest_of_all(loaded: Loaded, Json(words): Json<Vec<usize>>) -> Result<Response, Error> {
    answer(loaded, words).await
}

/// On a handler thread, because the event loop would serve nobody else meanwhile. As many are under way as there are `threads`.
async fn answer(State((worker, model)): Loaded, words: Vec<usize>) -> Result<Response, Error> {
    if words.len() > MAX_ASKED || words.iter().any(|word| *word >= WORDS) {
        let why = format!("at most {MAX_ASKED} words, each below {WORDS}\n");
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, why).into_response());
    }
    let nearest = move || words.into_iter().map(|word| model.nearest(word)).collect::<Vec<_>>();
    Ok(Json(worker.blocking(nearest).await?).into_response())
}

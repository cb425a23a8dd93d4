//! The stock app: the routes that the config file declares, as an axum router.
//! Not here: reading the file; pools, caches and handler threads.
//!
//! A request's way: `input` takes its parameters and checks them, `statement` looks into the route's cache or sends
//! them to a handler thread, `postgres` or `sqlite` binds them there, runs the statement and writes its `rows` as JSON.
//! Where that fails, `refusal` is the response. `check` has looked at the routes before anything was started.
//!
//! What an answer looks like:
//! - `text`: that text, `text/plain`.
//! - `sql`: an array of objects, a member for each column, in the statement's order. With `one = true` the first row's
//!   object, or 404 when there is none.
//! - `sql` without columns, an INSERT without RETURNING: `{"rows_affected": 1}`; with `one = true` 404 when that is 0.
//! - `status = 204`: no body.

mod check;
mod input;
mod path;
mod postgres;
mod refusal;
mod rows;
mod sql;
mod sqlite;
mod statement;
mod value;
mod welcome;

pub(crate) use check::check;

use crate::app::Worker;
use crate::config::{Answer, Route, Settings};
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::routing::{MethodFilter, MethodRouter, on};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Method, StatusCode};
use refusal::Refusal;
use statement::Endpoint;
use std::future::ready;
use std::sync::Arc;

/// The routes of the worker's settings, which `check` must have passed; the welcome page when there are none.
pub(crate) fn build(worker: &Worker) -> Router {
    let settings: &Settings = worker.settings();
    let mut router = Router::new();
    if settings.routes.is_empty() {
        router = router.route("/", welcome::page(worker.slot()));
    }
    for route in &settings.routes {
        router = router.route(&route.path, endpoint(worker, route));
    }
    router
        .fallback(|| ready(Refusal::NotFound))
        .method_not_allowed_fallback(|| ready(Refusal::MethodNotAllowed))
        // The server has one limit for all bodies.
        .layer(DefaultBodyLimit::disable())
}

fn endpoint(worker: &Worker, route: &Route) -> MethodRouter {
    match &route.answer {
        Answer::Text(text) => {
            let status = StatusCode::from_u16(route.status).expect("check saw the status");
            let text = Bytes::from(text.clone());
            let answer = move || ready((status, [(CONTENT_TYPE, "text/plain; charset=utf-8")], text.clone()));
            on(filter(&route.methods), answer)
        }
        Answer::Sql { sql, params, one } => {
            let endpoint = Arc::new(Endpoint::new(worker, route, sql, params, *one));
            on(filter(&route.methods), move |request: Request| Arc::clone(&endpoint).answer(request))
        }
    }
}

fn filter(methods: &[String]) -> MethodFilter {
    let one = |method: &String| {
        let method: Method = method.parse().expect("check saw the methods");
        MethodFilter::try_from(method).expect("axum has a filter for every method that check allows")
    };
    methods.iter().map(one).reduce(MethodFilter::or).expect("check saw that there is a method")
}

#[cfg(test)]
mod tests;

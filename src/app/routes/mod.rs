//! The stock app: the routes that the config file declares, as an axum router.
//! Not here: reading the file; pools, caches and handler threads.
//!
//! A request's way: `guard` looks at what is common to all routes (tokens, limits) and hands it to the route's kind:
//! `text`, `redirect`, `files`, `program`, or `sql` and `template`. For the last three `input` takes the parameters, and
//! `kept` keeps the answers of routes with `cache`.
//! Where that fails, `refusal` is the response. `check` has looked at the routes before anything was started, and `prove`
//! tries their statements on the database when asked to, and when a reload is on trial.

mod check;
mod files;
mod guard;
mod input;
mod kept;
mod path;
mod program;
mod prove;
mod redirect;
mod refusal;
mod rule;
mod sql;
mod template;
mod text;
mod value;
mod welcome;

pub(crate) use check::check;
pub(crate) use prove::{prove, prove_on_trial};

use crate::app::Worker;
use crate::app::layers::{Compress, Settled};
use crate::config::{Kind, Route, Settings};
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::middleware::map_response;
use axum::response::Response;
use axum::routing::{MethodFilter, MethodRouter, on};
use guard::Guard;
use http::header::ALLOW;
use http::{HeaderValue, Method, StatusCode, Uri};
use refusal::Refusal;
use std::collections::BTreeMap;
use std::future::ready;
use std::sync::Arc;
use template::Templates;

/// The routes of the worker's settings, which `check` must have passed; the welcome page when there are none.
///
/// # Panics
/// When a template can no longer be read: the worker cannot start, and says why.
pub(crate) fn build(worker: &Worker) -> Router {
    let settings: &Settings = worker.settings();
    let mut router = Router::new();
    if settings.routes.is_empty() {
        router = router.route("/", welcome::page(worker.slot()));
    }
    let templates = match Templates::load(settings) {
        Ok(templates) => Arc::new(templates),
        Err(reason) => panic!("{reason}"),
    };
    let shared = sql::Shared::new(worker, &templates);
    let mut methods: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for route in &settings.routes {
        methods.entry(&route.path).or_default().extend(route.methods.iter().map(String::as_str));
        let endpoint = endpoint(worker, &shared, route);
        router = router.route(&route.path, with_own_compression(endpoint, route, settings));
    }
    for (path, methods) in methods {
        if !methods.contains(&"OPTIONS") {
            router = router.route(path, options(methods));
        }
    }
    router
        .fallback(|uri: Uri| ready(Refusal::NotFound.response(uri.path())))
        .method_not_allowed_fallback(|uri: Uri| ready(Refusal::MethodNotAllowed.response(uri.path())))
        // The server has one limit for all bodies, and a route may have its own.
        .layer(DefaultBodyLimit::disable())
}

/// How many children the programs of all routes have, in each worker.
pub(crate) fn program_children(settings: &Settings) -> u64 {
    let of_route = |route: &Route| match &route.kind {
        Kind::Program(program) => program.children as u64,
        Kind::Text(_) | Kind::Sql(_) | Kind::Template { .. } | Kind::Static(_) | Kind::Redirect(_) => 0,
    };
    settings.routes.iter().map(of_route).sum()
}

/// A route with a word of its own on that is left alone by what is around the app.
fn with_own_compression(endpoint: MethodRouter, route: &Route, settings: &Settings) -> MethodRouter {
    let Some(encodings) = route.compress else { return endpoint };
    let settle = |mut answer: Response| {
        answer.extensions_mut().insert(Settled);
        ready(answer)
    };
    let endpoint =
        if encodings.is_none() { endpoint } else { endpoint.layer(Compress::new(encodings, settings)) };
    endpoint.layer(map_response(settle))
}

fn endpoint(worker: &Worker, shared: &sql::Shared, route: &Route) -> MethodRouter {
    let status = StatusCode::from_u16(route.status).expect("check saw the status");
    let endpoint = match &route.kind {
        Kind::Text(text) => Endpoint::Text(text::Text::new(status, text)),
        Kind::Sql(query) => Endpoint::Query(sql::Endpoint::new(shared, route, query, None)),
        Kind::Template { name, query } => {
            Endpoint::Query(sql::Endpoint::new(shared, route, query, Some(name)))
        }
        Kind::Static(folder) => Endpoint::Files(files::Files::new(folder, &route.path)),
        Kind::Redirect(to) => Endpoint::Redirect(redirect::Redirect::new(status, to)),
        Kind::Program(of_route) => Endpoint::Program(program::Endpoint::new(worker, route, of_route)),
    };
    let guarded = Arc::new((Guard::new(route, worker.settings()), endpoint));
    on(filter(&route.methods), move |request: Request| {
        let guarded = Arc::clone(&guarded);
        async move {
            let (guard, endpoint) = &*guarded;
            guard.answer(request, |request| endpoint.answer(request)).await
        }
    })
}

/// A route's kind, made ready to answer.
enum Endpoint {
    Text(text::Text),
    Query(sql::Endpoint),
    Files(files::Files),
    Redirect(redirect::Redirect),
    Program(program::Endpoint),
}

impl Endpoint {
    /// Its future is moved, several times over, for each request, and has the room of its largest part. So what waits for a
    /// database, a program or a file is boxed within, and what only hands something out is not.
    async fn answer(&self, request: Request) -> Result<Response, Refusal> {
        match self {
            Endpoint::Text(text) => Ok(text.answer()),
            Endpoint::Query(query) => query.answer(request).await,
            Endpoint::Files(files) => Box::pin(files.answer(request)).await,
            Endpoint::Redirect(redirect) => redirect.answer(request).await,
            Endpoint::Program(program) => program.answer(request).await,
        }
    }
}

/// What OPTIONS is answered where no route answers it itself.
fn options(mut methods: Vec<&str>) -> MethodRouter {
    if methods.contains(&"GET") {
        methods.push("HEAD");
    }
    methods.push("OPTIONS");
    let allow = HeaderValue::try_from(methods.join(", ")).expect("methods are ASCII");
    on(MethodFilter::OPTIONS, move || ready((StatusCode::NO_CONTENT, [(ALLOW, allow.clone())])))
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

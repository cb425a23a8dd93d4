//! Probes on the public addresses, answered by the worker that gets them, before the app and what is around it: as the admin
//! process answers them, but only while this worker has time. Not here: what a verdict comes from.

use crate::app::Body;
use crate::config::Settings;
use crate::health::{self, Probe};
use crate::scoreboard::{Board, now_millis};
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use pin_project_lite::pin_project;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tower::util::Oneshot;
use tower::{Layer, Service, ServiceExt};

/// In the extensions of an answer: the access log has no line for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unlogged;

#[derive(Clone)]
pub(super) struct Probes {
    asked: Arc<Asked>,
}

struct Asked {
    board: Board,
    paths: [(String, Probe); 2],
}

impl Probes {
    pub(super) fn new(settings: &Settings, board: Board) -> Probes {
        let Settings { health_path, ready_path, .. } = settings;
        let paths = [(health_path.clone(), Probe::Alive), (ready_path.clone(), Probe::Ready)];
        Probes { asked: Arc::new(Asked { board, paths }) }
    }
}

impl Asked {
    /// `None`: the request is for the app. A path that is set begins with a slash, so one that is not is nobody's.
    fn answer<B>(&self, request: &Request<B>) -> Option<Response<Body>> {
        let path = request.uri().path();
        let (_, probe) = self.paths.iter().find(|(of_probe, _)| of_probe == path)?;
        if ![Method::GET, Method::HEAD].contains(request.method()) {
            let mut refusal = Response::new(Body::from("a probe is asked with GET or HEAD\n"));
            *refusal.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
            refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return Some(refusal);
        }
        let verdict = health::judge(probe.with(request.uri().query()), &self.board, now_millis());
        let mut answer = Response::new(Body::from(verdict.to_text()));
        if verdict.is_good() {
            // Some come every second for years; what has gone wrong is worth a line.
            answer.extensions_mut().insert(Unlogged);
        } else {
            *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        }
        for (name, value) in [
            (CONTENT_TYPE, health::MEDIA_TYPE),
            (CACHE_CONTROL, "no-store"),
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ] {
            answer.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        Some(answer)
    }
}

impl<S> Layer<S> for Probes {
    type Service = Probed<S>;

    fn layer(&self, inner: S) -> Probed<S> {
        Probed { inner, asked: self.asked.clone() }
    }
}

#[derive(Clone)]
pub(super) struct Probed<S> {
    inner: S,
    asked: Arc<Asked>,
}

impl<S> Service<Request<Body>> for Probed<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Probing<Oneshot<S, Request<Body>>>;

    /// Always: an app that is not ready for another request keeps no probe waiting.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        match self.asked.answer(&request) {
            Some(answer) => Probing::Answered { answer: Some(answer) },
            None => Probing::Passed { future: self.inner.clone().oneshot(request) },
        }
    }
}

pin_project! {
    #[project = ProbingView]
    pub(super) enum Probing<F> {
        Answered { answer: Option<Response<Body>> },
        /// To the app.
        Passed { #[pin] future: F },
    }
}

impl<F, E> Future for Probing<F>
where
    F: Future<Output = Result<Response<Body>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            ProbingView::Answered { answer } => {
                Poll::Ready(Ok(answer.take().expect("a future is not polled after its end")))
            }
            ProbingView::Passed { future } => future.poll(cx),
        }
    }
}

//! One request, from the gate to the head of its answer. Not here: the connection that it came over, the bodies.

use super::BoxError;
use super::body::{AnswerBody, RequestBody, Ticket};
use super::connection::{Stage, Watched};
use super::gate::{self, Refusal};
use crate::app::Body;
use crate::scoreboard::{InFlight, RequestPhase};
use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use pin_project_lite::pin_project;
use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use tower::Service;

pin_project! {
    /// The future of an answer. Written out and not as an async block: hyper moves it about before it is first polled, and
    /// the block would hold the request four times over.
    pub(super) struct Answering<'a, S, F> {
        watched: &'a Watched,
        ticket: Option<Ticket>,
        in_flight: InFlight,
        #[pin]
        step: Step<S, F>,
    }
}

pin_project! {
    #[project = StepView]
    enum Step<S, F> {
        Refused { refusal: Refusal },
        /// Until the service is ready for the request.
        Waiting { service: S, request: Option<Request<Body>> },
        Called { #[pin] future: F },
    }
}

impl<'a, S, F> Answering<'a, S, F> {
    pub(super) fn new(
        watched: &'a Arc<Watched>,
        service: S,
        request: Request<Incoming>,
    ) -> Answering<'a, S, F> {
        let ticket = Ticket::new(watched, &request);
        let has_body = !http_body::Body::is_end_stream(request.body());
        watched.enter(if has_body { Stage::Body } else { Stage::Answer });
        watched.body_left.store(has_body, Ordering::Relaxed);
        let floor = &watched.floor;
        let (method, path) = (request.method().as_str(), request.uri().path());
        let now = floor.coarse_now.load(Ordering::Relaxed);
        let in_flight = watched.place.begin(&floor.seat.in_flight, method, path, now);
        let step = match gate::check(&request, &floor.settings) {
            Ok(()) => {
                let mut request = request.map(|body| {
                    if has_body {
                        Body::new(RequestBody::new(body, watched, in_flight))
                    } else {
                        Body::empty()
                    }
                });
                request.extensions_mut().insert(watched.peer);
                Step::Waiting { service, request: Some(request) }
            }
            Err(refusal) => Step::Refused { refusal },
        };
        Answering { watched, ticket: Some(ticket), in_flight, step }
    }
}

impl<S, B> Future for Answering<'_, S, S::Future>
where
    S: Service<Request<Body>, Response = Response<B>, Error: Into<BoxError>>,
{
    type Output = Result<Response<AnswerBody<B>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let in_flight = *this.in_flight;
        let outcome = match this.step.as_mut().project() {
            StepView::Refused { refusal } => Err(*refusal),
            // A panic in the app ends its request, not the worker; the panic hook has logged it.
            StepView::Waiting { .. } | StepView::Called { .. } => {
                // The app's code knows, by a thread-local, for which request it works.
                let ask = AssertUnwindSafe(|| in_flight.during(|| ask(this.step, cx)));
                ready!(catch_unwind(ask).unwrap_or_else(|_| failed()))
            }
        };
        let ticket = this.ticket.take().expect("a future is not polled after its end");
        let watched = *this.watched;
        in_flight.enter(RequestPhase::Writing);
        watched.answering.store(true, Ordering::Relaxed);
        Poll::Ready(Ok(match outcome {
            _ if watched.too_large.load(Ordering::Relaxed) => refused(Refusal::BODY, ticket),
            Ok(response) => answered(watched, response, ticket),
            Err(refusal) => refused(refusal, ticket),
        }))
    }
}

const fn failed<T>() -> Poll<Result<T, Refusal>> {
    Poll::Ready(Err(Refusal::FAILED))
}

/// Asks the app, as far as it is ready to be asked.
fn ask<S, B>(
    mut step: Pin<&mut Step<S, S::Future>>,
    cx: &mut Context<'_>,
) -> Poll<Result<Response<B>, Refusal>>
where
    S: Service<Request<Body>, Response = Response<B>, Error: Into<BoxError>>,
{
    if let StepView::Waiting { service, request } = step.as_mut().project() {
        if let Err(error) = ready!(service.poll_ready(cx)) {
            return app_failed(error.into());
        }
        let request = request.take().expect("it is taken when the service is called, once");
        let future = service.call(request);
        step.set(Step::Called { future });
    }
    let StepView::Called { future } = step.project() else { return failed() };
    match ready!(future.poll(cx)) {
        Ok(response) => Poll::Ready(Ok(response)),
        Err(error) => app_failed(error.into()),
    }
}

fn app_failed<T>(error: BoxError) -> Poll<Result<T, Refusal>> {
    log::error!("app failed error=\"{error}\"");
    failed()
}

fn answered<B>(watched: &Watched, mut response: Response<B>, ticket: Ticket) -> Response<AnswerBody<B>> {
    if watched.floor.is_draining() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    let status = response.status();
    response.map(|body| AnswerBody::app(body, ticket.with(status)))
}

/// The server's own answer; where it doubts the request's framing, the last one on its connection.
fn refused<B>(refusal: Refusal, ticket: Ticket) -> Response<AnswerBody<B>> {
    let mut response = Response::new(AnswerBody::text(refusal.reason, ticket.with(refusal.status)));
    *response.status_mut() = refusal.status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    if refusal.status != StatusCode::INTERNAL_SERVER_ERROR {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

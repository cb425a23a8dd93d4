//! One request, from the gate to the head of its answer. Not here: the connection that it came over, the bodies.

use super::body::{AnswerBody, RequestBody, Ticket};
use super::forwarded;
use super::framing::{Fault, UNREAD};
use super::gate::{self, Fields, Refusal};
use super::watched::{Stage, Watched};
use crate::app::{Body, BoxError, Deadline, RequestId, Scheme, Unlogged};
use crate::scoreboard::{InFlight, RequestPhase};
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use pin_project_lite::pin_project;
use std::borrow::Borrow;
use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tower::Service;

pin_project! {
    /// The future of an answer. Written out and not as an async block: hyper moves it about before it is first polled, and
    /// the block would hold the request four times over.
    pub(super) struct Answering<W, S, F> {
        watched: W,
        ticket: Option<Box<Ticket>>,
        in_flight: InFlight,
        // Boxed, so that a request is no larger for it where `request_timeout` is off.
        limit: Option<Box<Limit>>,
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

impl<W: Borrow<Arc<Watched>>, S, F> Answering<W, S, F> {
    /// `over` is what the request came over, borrowed from the connection or, where it is a stream, its own.
    pub(super) fn new(over: W, service: S, mut request: Request<Incoming>) -> Answering<W, S, F> {
        let watched = over.borrow();
        let ids = watched.floor.request_ids.as_ref();
        let id = ids.map(|ids| ids.give(&mut request, watched.origin().is_trusted));
        let fields = Fields::of(request.headers());
        let settings = &watched.floor.settings;
        let scheme = Scheme::of_connection(watched.tls.get().is_some() || watched.origin().is_secured);
        let told = forwarded::judge(&request, &fields, watched.origin(), scheme, settings);
        let mut ticket = Ticket::new(watched, &request, &fields, scheme, told.as_deref(), id);
        let fault = watched.fault();
        if fault.is_some() && request.method().as_str() == UNREAD {
            ticket.line_is_unread();
        }
        let has_body = !http_body::Body::is_end_stream(request.body());
        watched.enter(if has_body { Stage::Body } else { Stage::Answer });
        watched.body_left.store(has_body, Ordering::Relaxed);
        if has_body && fields.waits_for_word(request.version()) {
            watched.waits_for_word.store(true, Ordering::Relaxed);
        }
        let floor = &watched.floor;
        let (method, path) = (request.method().as_str(), request.uri().path());
        let in_flight = watched.place.begin(&floor.seat.in_flight, method, path, watched.began_millis());
        let mut limit = None;
        let checked = match fault {
            Some(fault) => Err(fault.refusal()),
            None => gate::check(&request, &fields, settings)
                .and_then(|()| told.as_deref().map_or(Ok(()), forwarded::Verdict::check)),
        };
        let has_some_to_drop = fields.has_some_to_drop(settings);
        let step = match checked {
            Ok(()) => {
                if has_some_to_drop {
                    gate::drop_underscored(request.headers_mut());
                }
                let mut request = request.map(|body| {
                    if has_body {
                        Body::new(RequestBody::new(body, watched, in_flight))
                    } else {
                        Body::empty()
                    }
                });
                if let Some(tls) = watched.tls.get() {
                    request.extensions_mut().insert(tls.clone());
                }
                if let Some(told) = told {
                    told.apply(&mut request, settings);
                }
                limit = Limit::set(&request, settings.request_timeout);
                Step::Waiting { service, request: Some(request) }
            }
            Err(refusal) => Step::Refused { refusal },
        };
        Answering { watched: over, ticket: Some(ticket), in_flight, limit, step }
    }

    /// The app is not to see it.
    pub(super) fn refuse_unasked(&mut self, refusal: Refusal) {
        self.step = Step::Refused { refusal };
    }

    /// Answers with this in place of whatever the app is at.
    pub(super) fn refuse(self: Pin<&mut Self>, refusal: Refusal) {
        self.project().step.set(Step::Refused { refusal });
    }
}

impl<W, S, B> Future for Answering<W, S, S::Future>
where
    W: Borrow<Arc<Watched>>,
    S: Service<Request<Body>, Response = Response<B>, Error: Into<BoxError>>,
{
    type Output = Result<Response<AnswerBody<B>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let watched: &Arc<Watched> = (*this.watched).borrow();
        // What is logged from here on is of this request.
        let _named = this.ticket.as_ref().and_then(|ticket| ticket.id()).map(RequestId::enter);
        let in_flight = *this.in_flight;
        let outcome = match this.step.as_mut().project() {
            StepView::Refused { refusal } => Err(*refusal),
            // A panic in the app ends its request, not the worker; the panic hook has logged it.
            StepView::Waiting { .. } | StepView::Called { .. } => {
                // The app's code knows, by thread-locals, for which request it works and until when.
                let _in_time = this.limit.as_ref().map(|limit| limit.deadline.enter());
                let _peer = watched.origin().peer.enter();
                let _former = in_flight.make_current();
                let step = this.step.as_mut();
                let asked = catch_unwind(AssertUnwindSafe(|| ask(step, cx))).unwrap_or_else(|_| failed());
                if asked.is_pending() && this.limit.as_mut().is_some_and(|limit| limit.has_passed(cx)) {
                    // What the app was at ends here, and with it what it queued.
                    this.step.set(Step::Refused { refusal: Refusal::LATE });
                    Err(Refusal::LATE)
                } else {
                    ready!(asked)
                }
            }
        };
        let ticket = this.ticket.take().expect("a future is not polled after its end");
        in_flight.enter(RequestPhase::Writing);
        watched.answering.store(true, Ordering::Relaxed);
        Poll::Ready(Ok(match outcome {
            _ if watched.too_large.load(Ordering::Relaxed) => refused(watched, Refusal::BODY, ticket),
            _ if watched.is_body_bad.load(Ordering::Relaxed) => {
                refused(watched, watched.fault().map_or(Refusal::BAD_BODY, Fault::refusal), ticket)
            }
            Ok(response) => answered(watched, response, ticket),
            Err(refusal) => refused(watched, refusal, ticket),
        }))
    }
}

/// How long the answer to one request may take to begin.
struct Limit {
    deadline: Deadline,
    /// Made when the app does not answer at once.
    passed: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    request_timeout: Duration,
    method: Method,
    target: Option<PathAndQuery>,
}

impl Limit {
    /// A zero time is none.
    fn set(request: &Request<Body>, request_timeout: Duration) -> Option<Box<Limit>> {
        if request_timeout.is_zero() {
            return None;
        }
        let deadline = Deadline::after(request_timeout);
        let (method, target) = (request.method().clone(), request.uri().path_and_query().cloned());
        Some(Box::new(Limit { deadline, passed: None, request_timeout, method, target }))
    }

    /// Whether the deadline has passed; if not, the task is woken when it does.
    fn has_passed(&mut self, cx: &mut Context<'_>) -> bool {
        let passed = self.passed.get_or_insert_with(|| Box::pin(self.deadline.clone().passed()));
        let has_passed = passed.as_mut().poll(cx).is_ready();
        if has_passed {
            let Limit { request_timeout, method, target, .. } = self;
            let path = target.as_ref().map_or("*", PathAndQuery::path);
            log::warn!("request timed out method={method} path={path:?} request_timeout={request_timeout:?}");
        }
        has_passed
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

fn answered<B>(
    watched: &Watched,
    mut response: Response<B>,
    mut ticket: Box<Ticket>,
) -> Response<AnswerBody<B>> {
    let status = response.status();
    if watched.waits_for_word.load(Ordering::Relaxed) {
        // From now on it cannot be told to go on.
        watched.ends.store(true, Ordering::Relaxed);
    }
    // With 101 the field means the change of protocol.
    if watched.is_last() && status != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    ticket.note_answer(status, response.headers_mut());
    if response.extensions().get::<Unlogged>().is_some() {
        ticket.leave_out();
    }
    response.map(|body| AnswerBody::app(body, ticket))
}

/// The server's own answer; where it doubts the request's framing, the last one on its connection.
fn refused<B>(watched: &Watched, refusal: Refusal, mut ticket: Box<Ticket>) -> Response<AnswerBody<B>> {
    let mut response = Response::new(());
    *response.status_mut() = refusal.status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    let app_is_to_blame = [Refusal::FAILED, Refusal::LATE].contains(&refusal);
    if (!app_is_to_blame || watched.is_last()) && !watched.is_stream() {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        ticket.note_refusal();
    }
    ticket.note_answer(refusal.status, headers);
    response.map(|()| AnswerBody::text(refusal.reason, ticket))
}

//! Bodies on their way: a request's, held to its limit; an answer's, followed to its end, which is where a request is
//! over, counted and logged. Not here: timeouts.

use super::access_log::{Asked, LEFT, Line, Outcome};
use super::forwarded::Verdict;
use super::gate::Fields;
use super::request_id;
use super::rest;
use super::watched::{Stage, Watched};
use crate::app::{BoxError, RequestId, Scheme};
use crate::scoreboard::{InFlight, RequestPhase};
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use pin_project_lite::pin_project;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

/// A request's body: at most `limit_request_body` bytes.
pub(super) struct RequestBody {
    /// There until it is dropped.
    incoming: Option<Incoming>,
    left: u64,
    is_begun: bool,
    /// There is nothing more of it, or nothing that is wanted.
    is_over: bool,
    /// The number of this body on its connection.
    turn: u64,
    /// Since when the app, and not the client, is who the body waits for, on the coarse clock; 0: it is the client.
    ready_since: u64,
    watched: Arc<Watched>,
    in_flight: InFlight,
}

impl RequestBody {
    pub(super) fn new(incoming: Incoming, watched: &Arc<Watched>, in_flight: InFlight) -> RequestBody {
        watched.body_bytes.store(0, Ordering::Relaxed);
        let turn = watched.bodies.load(Ordering::Relaxed) + 1;
        watched.bodies.store(turn, Ordering::Relaxed);
        RequestBody {
            incoming: Some(incoming),
            left: watched.floor.settings.limit_request_body,
            is_begun: false,
            is_over: false,
            turn,
            ready_since: 0,
            watched: watched.clone(),
            in_flight,
        }
    }

    /// Only the time in which the app waits for the client counts against it.
    fn note_wait(&mut self, is_pending: bool) {
        let now = self.watched.floor.coarse_now.load(Ordering::Relaxed);
        if !std::mem::replace(&mut self.is_begun, true) {
            // An app that was busy before it asked for the body costs the client no time.
            self.watched.touch();
            // hyper has told the client to go on, if it waited for that.
            self.watched.waits_for_word.store(false, Ordering::Relaxed);
        } else if is_pending && self.ready_since > 0 {
            self.watched.forgive(now.saturating_sub(self.ready_since));
        }
        match (is_pending, self.ready_since) {
            (true, _) => self.ready_since = 0,
            (false, 0) => self.ready_since = now,
            (false, _) => {}
        }
        self.watched.body_awaited.store(is_pending, Ordering::Relaxed);
    }

    fn incoming(&mut self) -> &mut Incoming {
        self.incoming.as_mut().expect("it is taken when this is dropped")
    }

    fn read_to_its_end(&mut self) {
        self.is_over = true;
        self.watched.body_left.store(false, Ordering::Relaxed);
        if self.watched.stage() == Stage::Body {
            self.watched.enter(Stage::Answer);
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = Pin::new(self.incoming()).poll_frame(cx);
        self.note_wait(polled.is_pending());
        if polled.is_pending() {
            self.in_flight.pass(RequestPhase::Handler, RequestPhase::Reading);
        } else {
            self.in_flight.pass(RequestPhase::Reading, RequestPhase::Handler);
        }
        let frame = match ready!(polled) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => {
                self.is_over = true;
                self.watched.is_body_bad.store(true, Ordering::Relaxed);
                return Poll::Ready(Some(Err(error.into())));
            }
            None => {
                self.read_to_its_end();
                return Poll::Ready(None);
            }
        };
        if let Some(data) = frame.data_ref() {
            let bytes = data.len() as u64;
            self.watched.body_bytes.fetch_add(bytes, Ordering::Relaxed);
            let Some(left) = self.left.checked_sub(bytes) else {
                self.is_over = true;
                self.watched.too_large.store(true, Ordering::Relaxed);
                return Poll::Ready(Some(Err("the body is larger than limit_request_body".into())));
            };
            self.left = left;
        }
        if self.is_end_stream() {
            self.read_to_its_end();
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if !self.is_over && !self.watched.is_stream() {
            // Nobody waits for the client any more.
            self.watched.body_awaited.store(false, Ordering::Relaxed);
            if let Some(incoming) = self.incoming.take() {
                rest::leave(incoming, &self.watched, self.turn);
            }
        }
    }
}

/// A request under way. When it is dropped, the request is over. In a box, since it goes through hyper with the answer's body, which
/// is moved a dozen times, and to read what was just written costs more than an allocation.
pub(super) struct Ticket {
    watched: Arc<Watched>,
    line: Option<Line>,
    /// The client's name in the log, where it is not the connection's.
    client: Option<Box<str>>,
    id: Option<RequestId>,
    bytes: u64,
}

impl Ticket {
    pub(super) fn new<B>(
        watched: &Arc<Watched>,
        request: &Request<B>,
        fields: &Fields<'_>,
        scheme: Scheme,
        told: Option<&Verdict>,
        id: Option<RequestId>,
    ) -> Box<Ticket> {
        watched.begin();
        let asked = told.map_or(Asked { scheme, host: None }, Verdict::asked);
        let line = watched.floor.access_log.as_ref().map(|log| log.line(request, fields, asked));
        let client = line.as_ref().and(told).map(|told| told.name().into());
        Box::new(Ticket { watched: watched.clone(), line, client, id, bytes: 0 })
    }

    pub(super) fn id(&self) -> Option<&RequestId> {
        self.id.as_ref()
    }

    /// The request line was none that could be read.
    pub(super) fn line_is_unread(&mut self) {
        self.line = self.line.take().map(|line| Line::unread(line.status));
    }

    /// The server answers in the app's place, and the connection ends with it.
    pub(super) fn note_refusal(&self) {
        self.watched.has_refused.store(true, Ordering::Relaxed);
    }

    /// The answer's head stands, but for what the ticket puts into it.
    pub(super) fn note_answer(&mut self, status: StatusCode, headers: &mut HeaderMap) {
        let Ticket { watched, line, id, .. } = self;
        watched.class.store((status.as_u16() / 100) as u8, Ordering::Relaxed);
        if let (Some(ids), Some(id)) = (&watched.floor.request_ids, id) {
            headers.insert(ids.name(), request_id::value(id));
        }
        if let (Some(access_log), Some(line)) = (&watched.floor.access_log, line) {
            line.status = status;
            access_log.note_answer(line, headers);
        }
    }

    /// The access log is to have no line for it.
    pub(super) fn leave_out(&mut self) {
        self.line = None;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let floor = &self.watched.floor;
        self.watched.answered();
        let (class, took) = self.watched.finish();
        floor.seat.tally.answered(class, took, self.bytes);
        let served = floor.served.load(Ordering::Relaxed) + 1;
        floor.served.store(served, Ordering::Relaxed);
        if served == floor.max_requests {
            floor.retire("max_requests");
        }
        if let (Some(access_log), Some(line)) = (&floor.access_log, &mut self.line) {
            if line.status == LEFT && self.watched.is_late.load(Ordering::Relaxed) {
                line.status = StatusCode::REQUEST_TIMEOUT;
            }
            let client = self.client.as_deref().unwrap_or(&self.watched.origin().name);
            let outcome = Outcome { bytes: self.bytes, micros: took, id: self.id.as_ref() };
            access_log.write(client, line, &outcome);
        }
    }
}

pin_project! {
    /// An answer's body: the app's, or the server's own words.
    pub(super) struct AnswerBody<B> {
        #[pin]
        app: Option<B>,
        text: &'static str,
        ticket: Box<Ticket>,
    }
}

impl<B> AnswerBody<B> {
    pub(super) fn app(body: B, ticket: Box<Ticket>) -> AnswerBody<B> {
        AnswerBody { app: Some(body), text: "", ticket }
    }

    pub(super) fn text(text: &'static str, ticket: Box<Ticket>) -> AnswerBody<B> {
        AnswerBody { app: None, text, ticket }
    }
}

impl<B> Body for AnswerBody<B>
where
    B: Body<Data = Bytes, Error: Into<BoxError>>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.project();
        let _named = this.ticket.id().map(RequestId::enter);
        let frame = match this.app.as_pin_mut() {
            Some(body) => ready!(body.poll_frame(cx)).map(|frame| frame.map_err(Into::into)),
            None => {
                let text = std::mem::take(this.text);
                (!text.is_empty()).then(|| Ok(Frame::data(Bytes::from_static(text.as_bytes()))))
            }
        };
        match &frame {
            Some(Ok(frame)) => this.ticket.bytes += frame.data_ref().map_or(0, Bytes::len) as u64,
            Some(Err(error)) => log::error!("answer cut short error=\"{error}\""),
            None => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.app.as_ref().map_or(self.text.is_empty(), Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.app.as_ref().map_or_else(|| SizeHint::with_exact(self.text.len() as u64), Body::size_hint)
    }
}

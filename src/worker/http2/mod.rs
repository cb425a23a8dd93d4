//! HTTP/2 (RFC 9113): hyper's on a stream that is watched from below, as HTTP/1 is, and each of its streams is a request with
//! a `Watched` of its own. Not here: what a request must be (the gate), when it is too late (the sweep).

mod budget;
mod exchange;
mod frames;
mod heads;
mod request;
mod session;
mod wire;

pub(super) use session::Session;

use super::connection::{Entry, linger};
use super::sweep::End;
use super::watched::{Stage, Watched};
use super::{App, tls};
use crate::app::BoxError;
use crate::scoreboard::Slow;
use bytes::Bytes;
use exchange::{Exchange, Tasks};
use frames::NO_ERROR;
use http::StatusCode;
use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::error::Error;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use wire::Wire;

/// What HTTP/2 in the clear begins with (RFC 9113, 3.4): a method that HTTP/1 has not.
const FIRST_BYTES: &[u8; 4] = b"PRI ";
/// All bodies of a connection that the app has not read yet have so many times the room of one.
const WINDOWS: u32 = 4;
/// The largest window that there is (RFC 9113, 6.9.1).
const MAX_WINDOW: u32 = (1 << 31) - 1;
/// How much of an answer is held for a client that does not take it, beside the piece that the app has just given.
const SEND_BUFFER: usize = 16 * 1024;

/// The handshake has settled on it.
pub(super) fn is_agreed(watched: &Watched) -> bool {
    watched.tls.get().is_some() && watched.stream.lock().has_agreed_on_http2()
}

/// Only the first bytes can tell.
pub(super) fn is_possible(watched: &Watched) -> bool {
    watched.tls.get().is_none() && watched.floor.settings.http2.is_spoken_in_the_clear()
}

/// Waits for them, in the stage that a new connection is in.
pub(super) async fn is_begun(watched: &Watched) -> bool {
    let stream = watched.stream.take();
    let is_begun = stream.begins_with(FIRST_BYTES).await;
    watched.stream.put(stream);
    is_begun
}

/// Serves the connection to its end.
pub(super) async fn serve<S, B>(watched: Arc<Watched>, service: S, entry: Arc<Entry>)
where
    S: App<B>,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let session = watched.session.get_or_init(|| Arc::new(Session::new(&watched.floor))).clone();
    let settings = &watched.floor.settings.http2;
    let mut http2 = Builder::new(Tasks(session.clone()));
    http2
        .max_concurrent_streams(settings.max_concurrent_streams)
        .initial_stream_window_size(settings.initial_window_size)
        .initial_connection_window_size(settings.initial_window_size.saturating_mul(WINDOWS).min(MAX_WINDOW))
        .max_frame_size(settings.max_frame_size)
        .max_header_list_size(settings.max_header_list_size)
        .max_pending_accept_reset_streams(settings.max_concurrent_streams as usize)
        .max_send_buf_size(SEND_BUFFER);
    let wire = TokioIo::new(Wire::new(watched.clone(), session.clone(), entry.clone()));
    let (connection, guarding, over) = (watched.clone(), entry.clone(), session.clone());
    let answer = service_fn(move |request| {
        Exchange::begin(over.open(&connection, &guarding), service.clone(), request)
    });
    let mut serving = pin!(http2.serve_connection(wire, answer));
    if watched.floor.is_draining() {
        session.leave(&watched);
    }
    let mut is_told = false;
    let ended = loop {
        tokio::select! {
            biased;
            () = session.told_to_leave(), if !is_told => {
                is_told = true;
                serving.as_mut().graceful_shutdown();
            }
            ended = poll_fn(|cx| {
                let ended = serving.as_mut().poll(cx);
                session.log_refused(&watched);
                ended
            }) => break ended,
        }
    };
    let is_refused = ended.as_ref().is_err_and(|error| is_by_us(&session, error));
    session.log_unanswered(&watched, is_refused);
    if let Err(error) = ended {
        note_failure(&watched, &session, &error, is_refused);
        linger(&watched.stream).await;
    }
    drop(entry);
}

fn of_h2(error: &hyper::Error) -> Option<&h2::Error> {
    error.source().and_then(|source| source.downcast_ref())
}

/// It is this side that ended the connection, for what the client sent.
fn is_by_us(session: &Session, error: &hyper::Error) -> bool {
    session.has_overspent() || of_h2(error).is_some_and(h2::Error::is_library)
}

/// A client can have many fail: it is no line that all logs have.
fn note_failure(watched: &Watched, session: &Session, error: &hyper::Error, is_refused: bool) {
    let is_too_much = |error: &h2::Error| error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM);
    if is_refused && (session.has_overspent() || of_h2(error).is_some_and(is_too_much)) {
        watched.floor.seat.tally.flooded();
    }
    let peer = watched.origin().peer;
    let reason = error.source().map_or_else(|| error.to_string(), ToString::to_string);
    log::debug!("http/2 connection failed peer={peer} reason={reason:?}");
}

/// The connection is to take no more requests than are on their way (RFC 9113, 6.8), and to end with the last of them.
pub(super) fn leave(watched: &Watched) {
    if let Some(session) = watched.session.get() {
        session.leave(watched);
    }
}

/// Streams and connections whose clients take nothing of what waits for them, though the socket has room.
pub(super) fn each_stalled(
    session: &Session,
    watched: &Arc<Watched>,
    now: u64,
    mut tell: impl FnMut(&Arc<Watched>),
) {
    let limit = watched.floor.settings.send_timeout.as_millis() as u64;
    if limit > 0 && !watched.stall.is_on() {
        let before = now.saturating_sub(limit);
        session.each_stalled_stream(before, &mut tell);
        if session.is_stalled(before) {
            tell(watched);
        }
    }
}

/// A stream's body came too slowly.
pub(super) fn cut(stream: &Watched) {
    stream.floor.seat.tally.cut(Slow::Body);
    stream.is_late.store(true, Ordering::Relaxed);
    if stream.answering.load(Ordering::Relaxed) {
        // hyper resets what is given up.
        stream.abort();
    } else if let Some(session) = stream.connection().and_then(|connection| connection.session.get()) {
        session.wake(stream);
    }
}

/// A stream's client takes nothing of its answer. hyper resets what is given up.
pub(super) fn give_up(stream: &Watched) {
    stream.floor.seat.tally.cut(Slow::Answer);
    stream.abort();
}

/// A connection has been without a request for too long, or has begun with something and does not go on, or takes nothing.
pub(super) fn end(watched: &Arc<Watched>, end: End) {
    let Some(session) = watched.session.get() else { return };
    match end {
        // A request may be on its way: it is announced first that none is taken any more.
        End::Silent if watched.stage() == Stage::Idle && !session.has_left_for_long(watched) => {
            session.leave(watched);
        }
        End::Stalled => {
            watched.floor.seat.tally.cut(Slow::Answer);
            session.say_goodbye(watched, NO_ERROR);
        }
        End::Silent | End::Unsecured => session.say_goodbye(watched, NO_ERROR),
        End::TooSlow => {
            if session.is_within_head() {
                watched.floor.log_unread(watched, StatusCode::REQUEST_TIMEOUT);
            }
            watched.floor.seat.tally.cut(Slow::Head);
            session.say_goodbye(watched, NO_ERROR);
            let stream = watched.stream.clone();
            tokio::spawn(async move { linger(&stream).await });
        }
    }
}

/// Nothing more comes of it.
fn close(watched: &Watched) {
    tls::say_goodbye(&watched.stream);
    watched.abort();
}

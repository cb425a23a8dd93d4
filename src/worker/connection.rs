//! One connection: hyper's HTTP/1 on a stream, watched from below for what hyper has no timers for.
//! Not here: when it is too late (the sweep), what is allowed (the gate).

use super::answer::Answering;
use super::framing::Limits;
use super::stream::{Shared, Stream};
use super::watched::{Origin, Stage, Watched};
use super::wire::Wire;
use super::{App, Floor, allowance, crowd, http2, prelude, tls};
use crate::app::{BoxError, Peer};
use bytes::Bytes;
use http::StatusCode;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use slab::Slab;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

/// How much of an unwanted request is read and thrown away after the answer, and for how long: closing with bytes
/// unread resets the connection, and the client may lose the answer (RFC 9112, 9.6).
const DISCARD_BYTES: usize = 8 * 1024 * 1024;
const DISCARD_TIME: Duration = Duration::from_secs(5);

/// All connections of a worker.
#[derive(Default)]
pub(super) struct Connections {
    open: Mutex<Slab<Arc<Watched>>>,
    /// Told at each close.
    closed: Notify,
}

impl Connections {
    fn lock(&self) -> MutexGuard<'_, Slab<Arc<Watched>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn count(&self) -> usize {
        self.lock().len()
    }

    pub(super) fn each(&self, mut look: impl FnMut(&Arc<Watched>)) {
        self.lock().iter().for_each(|(_, watched)| look(watched));
    }

    /// Until fewer than `limit` are open.
    pub(super) async fn room(&self, limit: usize) {
        loop {
            let closed = self.closed.notified();
            if self.count() < limit {
                return;
            }
            closed.await;
        }
    }

    /// Until the next one is closed.
    pub(super) async fn one_closed(&self) {
        self.closed.notified().await;
    }

    pub(super) async fn all_closed(&self) {
        self.room(1).await;
    }
}

/// A connection's entry, taken out when its task has ended, however that comes about, and its stream is closed: after an
/// upgrade the app has the stream.
pub(super) struct Entry {
    floor: Arc<Floor>,
    key: usize,
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut open = self.floor.connections.lock();
        let watched = open.remove(self.key);
        watched.place.end(&self.floor.seat.in_flight);
        crowd::leave(&watched);
        allowance::give_back(&watched);
        watched.stall.outlive(self.floor.settings.send_timeout, &watched.stream.lock());
        self.floor.seat.connections.store(open.len() as u32, Ordering::Relaxed);
        drop(open);
        self.floor.connections.closed.notify_waiters();
    }
}

/// Serves a connection in a task of its own, unless its client has too many.
pub(super) fn serve<S, B>(floor: &Arc<Floor>, stream: Stream, peer: Peer, speaks_tls: bool, service: S)
where
    S: App<B>,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    floor.seat.tally.accepted();
    let stage = if speaks_tls { Stage::Handshake } else { Stage::New };
    let watched = Arc::new(Watched::new(floor, Shared::new(stream), stage, None));
    // Who that is may be for a proxy to say.
    if !prelude::is_due(peer, &floor.settings) && !watched.is_from(Origin::of(peer, &floor.settings)) {
        return;
    }
    let mut open = floor.connections.lock();
    let entry = Arc::new(Entry { floor: floor.clone(), key: open.insert(watched.clone()) });
    floor.seat.connections.store(open.len() as u32, Ordering::Relaxed);
    drop(open);
    let task = tokio::spawn(run(watched.clone(), peer, service, entry));
    watched.set_task(task.abort_handle());
}

async fn run<S, B>(watched: Arc<Watched>, peer: Peer, service: S, entry: Arc<Entry>)
where
    S: App<B>,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let settings = &watched.floor.settings;
    if watched.peer().is_none() {
        // Boxed, so that a connection is no larger where no proxy announces it.
        let origin = Box::pin(prelude::read(&watched.stream, peer, &watched.floor)).await;
        if !origin.is_some_and(|origin| watched.is_from(origin)) {
            return;
        }
    }
    // Boxed for the same reason.
    if watched.stage() == Stage::Handshake && !Box::pin(tls::secure(&watched)).await {
        return;
    }
    if http2::is_agreed(&watched) || http2::is_possible(&watched) && Box::pin(http2::is_begun(&watched)).await
    {
        return Box::pin(http2::serve(watched, service, entry)).await;
    }
    let mut http1 = hyper::server::conn::http1::Builder::new();
    let limits = Limits::of(settings);
    // A client that closes its sending side is taken for gone, and its call, if it still waits, is not begun.
    // Where hyper may let a client close its side, `has_left` does not.
    let can_peek = watched.stream.lock().can_peek();
    http1.half_close(can_peek).keep_alive(!settings.keepalive.is_zero()).max_buf_size(limits.head_buffer());
    if settings.limit_request_fields > 100 {
        // hyper keeps up to 100 on the stack; more cost an allocation a request.
        http1.max_headers(settings.limit_request_fields);
    }
    let wire = TokioIo::new(Wire::new(watched.clone(), limits, entry.clone()));
    let watching = &watched;
    let connection = http1
        .serve_connection(wire, service_fn(move |request| Answering::new(watching, service.clone(), request)))
        .with_upgrades();
    let mut connection = pin!(connection);
    let ended = poll_fn(|cx| {
        if watching.ends.load(Ordering::Relaxed) {
            // It may have been found out when the head of the answer had gone.
            connection.as_mut().graceful_shutdown();
        }
        match connection.as_mut().poll(cx) {
            Poll::Pending if can_peek && watching.has_left(cx) => Poll::Ready(None),
            polled => polled.map(Some),
        }
    })
    .await;
    if let Some(Err(error)) = &ended
        && let Some(status) = refused_by_hyper(error)
        && watched.stage() == Stage::Head
    {
        watched.floor.log_unread(&watched, status);
    }
    let is_unread =
        [&watched.body_left, &watched.has_refused].iter().any(|flag| flag.load(Ordering::Relaxed));
    // Where we close and the client has sent more, or sends it before it has read all, a reset would cost it the answer.
    let is_whole = matches!(ended, Some(Ok(())));
    if !is_whole || is_unread || watched.is_last() && (watched.has_more() || watched.stall.has_been()) {
        linger(&watched.stream).await;
    }
    drop(entry);
}

/// What hyper answers by itself to a head that it cannot read.
fn refused_by_hyper(error: &hyper::Error) -> Option<StatusCode> {
    error.is_parse().then(|| match error.is_parse_too_large() {
        // For the line hyper has a status of its own, and no way to ask for it but the words.
        true if error.to_string().to_ascii_lowercase().contains("uri") => StatusCode::URI_TOO_LONG,
        true => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        false => StatusCode::BAD_REQUEST,
    })
}

/// Ends the sending side and discards what the client still sends, so that it reads its answer.
pub(super) async fn linger(stream: &Shared) {
    let discard = async {
        poll_fn(|cx| Pin::new(&mut *stream.lock()).poll_shutdown(cx)).await?;
        let mut left = DISCARD_BYTES;
        let mut buffer = vec![0; 16 * 1024];
        while left > 0 {
            let mut chunk = ReadBuf::new(&mut buffer);
            poll_fn(|cx| Pin::new(&mut *stream.lock()).poll_read(cx, &mut chunk)).await?;
            match chunk.filled().len() {
                0 => break,
                bytes => left = left.saturating_sub(bytes),
            }
        }
        io::Result::Ok(())
    };
    let _ = tokio::time::timeout(DISCARD_TIME, discard).await;
}

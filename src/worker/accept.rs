//! Taking connections from a listener. Not here: serving them.

use super::stream::Listener;
use super::{App, Floor, LAST_ACCEPTS, Offers, connection};
use crate::app::BoxError;
use bytes::Bytes;
use nix::libc::{EINVAL, EMFILE, ENFILE, ENOBUFS, ENOMEM};
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tokio::sync::watch;

/// How long accepting rests where the process or the machine has no descriptor or memory left: waiting connections
/// stay in the queue, for another worker or for later.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// How long a worker that has its share leaves new connections to others, and how many it takes then.
const COURTESY: Duration = Duration::from_millis(1);
const CREDIT: u32 = 4;
/// By how many connections, or else by which part, a worker may be above the average.
const SLACK: usize = 3;
const SLACK_PART: usize = 16;

/// Who accepts from a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeldBy {
    All,
    /// It is a queue of our own: nobody else would take what we leave.
    Us,
}

/// Accepts until told to stop, and then what still waits, at most `LAST_ACCEPTS` long. At `worker_connections` it leaves
/// new ones to other workers.
pub(super) async fn accept<S, B>(
    floor: Arc<Floor>,
    listener: Listener,
    held_by: HeldBy,
    service: S,
    mut stop: watch::Receiver<bool>,
) where
    S: App<B>,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let mut turn = Turn::default();
    loop {
        let next = async {
            floor.connections.room(floor.settings.worker_connections).await;
            let mut accept = pin!(listener.accept());
            loop {
                turn.take(&floor, held_by).await;
                if let Some(accepted) = once(accept.as_mut()).await {
                    break accepted;
                }
                turn = Turn::default();
            }
        };
        tokio::select! {
            biased;
            _ = stop.changed() => break,
            accepted = next => match accepted {
                Ok((stream, peer)) => connection::serve(&floor, stream, peer, listener.speaks_tls(), service.clone()),
                Err(error) if is_closed(&error) => return,
                Err(error) => tokio::time::sleep(pause_after(&floor, &error)).await,
            },
        }
    }
    take_waiting(&floor, &listener, service).await;
}

/// Takes what waits in the queues that are offered, until told to stop, and then from those still offered.
pub(super) async fn take_offers<S, B>(
    floor: Arc<Floor>,
    offers: Offers,
    service: S,
    mut stop: watch::Receiver<bool>,
) where
    S: App<B>,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let Offers { offers, take } = offers;
    let Ok(offers) = UnixDatagram::from_std(offers) else { return };
    let listen = |fd| Listener::new(fd, &floor.settings);
    loop {
        tokio::select! {
            biased;
            _ = stop.changed() => break,
            // The master offers again what is not taken.
            () = floor.connections.room(floor.settings.worker_connections) => {}
        }
        let offered = tokio::select! {
            biased;
            _ = stop.changed() => break,
            ready = offers.readable() => match ready {
                Ok(()) => offers.try_io(Interest::READABLE, || take(offers.as_fd())),
                Err(_) => return,
            },
        };
        if let Ok(listener) = offered.and_then(listen) {
            take_waiting(&floor, &listener, service.clone()).await;
        }
    }
    while let Ok(listener) = take(offers.as_fd()).and_then(listen) {
        take_waiting(&floor, &listener, service.clone()).await;
    }
}

/// Accepts until nothing waits or there is no room, at most `LAST_ACCEPTS` long.
async fn take_waiting<S, B>(floor: &Arc<Floor>, listener: &Listener, service: S)
where
    S: App<B>,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let until = Instant::now() + LAST_ACCEPTS;
    while Instant::now() < until && floor.connections.count() < floor.settings.worker_connections {
        match listener.accept_waiting() {
            Ok((stream, peer)) => {
                connection::serve(floor, stream, peer, listener.speaks_tls(), service.clone())
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock || is_closed(&error) => break,
            Err(error) => tokio::time::sleep(pause_after(floor, &error)).await,
        }
    }
}

/// When a worker may take the next connection. All workers of a socket are told of a connection, and whoever is first
/// has it: left to that, some have five times as many as others. So one that has its share waits a moment first.
#[derive(Default)]
struct Turn {
    /// How many it may take now, having waited.
    credit: u32,
}

impl Turn {
    async fn take(&mut self, floor: &Floor, held_by: HeldBy) {
        if held_by == HeldBy::Us {
            return;
        }
        if self.credit > 0 {
            self.credit -= 1;
            return;
        }
        let mut courtesy = pin!(tokio::time::sleep(COURTESY));
        while has_its_share(floor) {
            tokio::select! {
                () = floor.connections.one_closed() => {}
                () = &mut courtesy => {
                    // Nobody wanted it. The others may hang: what waits must not wait for each turn anew.
                    self.credit = CREDIT;
                    return;
                }
            }
        }
    }
}

/// Whether this worker has clearly more connections open than a worker has on average.
fn has_its_share(floor: &Floor) -> bool {
    let own = floor.connections.count();
    // The board is only looked at where there is something to share.
    own > SLACK && {
        let mean = floor.board.mean_connections();
        own > mean + SLACK.max(mean / SLACK_PART)
    }
}

/// Polls the future now, and if it is not ready gives `None` when it may be worth another poll.
async fn once<F: Future>(mut future: Pin<&mut F>) -> Option<F::Output> {
    let mut polled = false;
    poll_fn(move |cx| {
        if std::mem::replace(&mut polled, true) {
            return Poll::Ready(None);
        }
        future.as_mut().poll(cx).map(Some)
    })
    .await
}

/// The master has closed the queue for everybody: it takes no connections any more (accept(2)).
fn is_closed(error: &io::Error) -> bool {
    error.raw_os_error() == Some(EINVAL)
}

/// A connection that failed before it was accepted is its client's affair; a lack is everybody's.
fn pause_after(floor: &Floor, error: &io::Error) -> Duration {
    floor.seat.tally.accept_failed();
    match error.raw_os_error() {
        Some(EMFILE | ENFILE | ENOBUFS | ENOMEM) => {
            log::error!(
                "connection could not be accepted error=\"{error}\" pause={EXHAUSTED_PAUSE:?} remedy=\"raise ulimit -n, or lower worker_connections\""
            );
            EXHAUSTED_PAUSE
        }
        Some(_) | None => Duration::ZERO,
    }
}

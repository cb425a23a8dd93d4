//! Taking connections from a listener. Not here: serving them.

use super::stream::Listener;
use super::{App, BoxError, Floor, LAST_ACCEPTS, Offers, connection};
use bytes::Bytes;
use nix::libc::{EINVAL, EMFILE, ENFILE, ENOBUFS, ENOMEM};
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tokio::sync::watch;

/// How long accepting rests where the process or the machine has no descriptor or memory left: waiting connections
/// stay in the queue, for another worker or for later.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// Accepts until told to stop, and then what still waits, at most `LAST_ACCEPTS` long. At `worker_connections` it leaves
/// new ones to other workers.
pub(super) async fn accept<S, B>(
    floor: Arc<Floor>,
    listener: Listener,
    service: S,
    mut stop: watch::Receiver<bool>,
) where
    S: App<B>,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    loop {
        let next = async {
            floor.connections.room(floor.settings.worker_connections).await;
            listener.accept().await
        };
        tokio::select! {
            biased;
            _ = stop.changed() => break,
            accepted = next => match accepted {
                Ok((stream, peer)) => connection::serve(&floor, stream, peer, service.clone()),
                Err(error) if is_closed(&error) => return,
                Err(error) => tokio::time::sleep(pause_after(&error)).await,
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
        if let Ok(listener) = offered.and_then(Listener::new) {
            take_waiting(&floor, &listener, service.clone()).await;
        }
    }
    while let Ok(listener) = take(offers.as_fd()).and_then(Listener::new) {
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
            Ok((stream, peer)) => connection::serve(floor, stream, peer, service.clone()),
            Err(error) if error.kind() == ErrorKind::WouldBlock || is_closed(&error) => break,
            Err(error) => tokio::time::sleep(pause_after(&error)).await,
        }
    }
}

/// The master has closed the queue for everybody: it takes no connections any more (accept(2)).
fn is_closed(error: &io::Error) -> bool {
    error.raw_os_error() == Some(EINVAL)
}

/// A connection that failed before it was accepted is its client's affair; a lack is everybody's.
fn pause_after(error: &io::Error) -> Duration {
    match error.raw_os_error() {
        Some(EMFILE | ENFILE | ENOBUFS | ENOMEM) => {
            log::error!("connection could not be accepted error=\"{error}\" pause={EXHAUSTED_PAUSE:?}");
            EXHAUSTED_PAUSE
        }
        Some(_) | None => Duration::ZERO,
    }
}

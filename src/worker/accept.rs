//! Taking connections from a listener. Not here: serving them.

use super::stream::{Listener, Stream};
use super::{App, BoxError, Floor, LAST_ACCEPTS, connection};
use crate::app::Peer;
use bytes::Bytes;
use nix::libc::{EMFILE, ENFILE, ENOBUFS, ENOMEM};
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::{Duration, Instant};
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
    let shared = floor.clone();
    let take =
        move |(stream, peer): (Stream, Peer)| connection::serve(&shared, stream, peer, service.clone());
    loop {
        let next = async {
            floor.connections.room(floor.settings.worker_connections).await;
            listener.accept().await
        };
        tokio::select! {
            biased;
            _ = stop.changed() => break,
            accepted = next => match accepted {
                Ok(accepted) => take(accepted),
                Err(error) => tokio::time::sleep(pause_after(&error)).await,
            },
        }
    }
    let until = Instant::now() + LAST_ACCEPTS;
    while Instant::now() < until && floor.connections.count() < floor.settings.worker_connections {
        match listener.accept_waiting() {
            Ok(accepted) => take(accepted),
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => tokio::time::sleep(pause_after(&error)).await,
        }
    }
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

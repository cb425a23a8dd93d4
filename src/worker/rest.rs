//! What an app leaves of a request's body. A little is read away, so that the connection can be kept; with more it ends behind the
//! answer. hyper would do so or not by how the bytes were cut: it looks at what has come, once. Not here: bodies that are read.

use super::watched::{Stage, Watched};
use http_body::Body;
use hyper::body::Incoming;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::runtime::Handle;

/// The most that is read away for the sake of a connection: more costs the client longer than a new one does.
const KEPT_BYTES: u64 = 64 * 1024;
/// And for how long.
const KEPT_TIME: Duration = Duration::from_secs(5);

/// The app has dropped a body that is not at its end. What is said in the head of an answer that has not begun, and what becomes of
/// the connection, depends on the request alone: on the length that it announces, or else on that of its chunks.
pub(super) fn leave(incoming: Incoming, watched: &Arc<Watched>, turn: u64) {
    let is_long = incoming.size_hint().exact().is_some_and(|left| left > KEPT_BYTES);
    // A client that was not told to go on may send the body or not: what comes next could be either.
    if is_long || watched.waits_for_word.load(Ordering::Relaxed) || watched.is_last() {
        watched.ends.store(true, Ordering::Relaxed);
    }
    match Handle::try_current() {
        Ok(runtime) => drop(runtime.spawn(read_away(incoming, watched.clone(), turn))),
        // On a thread of the app's own.
        Err(_) => watched.ends.store(true, Ordering::Relaxed),
    }
}

async fn read_away(mut incoming: Incoming, watched: Arc<Watched>, turn: u64) {
    let mut is_over = false;
    if !watched.ends.load(Ordering::Relaxed) {
        let reading = tokio::time::timeout(KEPT_TIME, is_short(&mut incoming));
        is_over = reading.await.unwrap_or(false);
    }
    if !is_over {
        // Before hyper learns that nobody wants the body: it might find the rest of it there.
        watched.ends.store(true, Ordering::Relaxed);
    } else if watched.bodies.load(Ordering::Relaxed) == turn {
        watched.body_left.store(false, Ordering::Relaxed);
        let stage = watched.stage();
        if stage == Stage::Body {
            watched.enter(Stage::Answer);
        } else if stage == Stage::Rest {
            watched.enter(Stage::Idle);
        }
    }
}

/// Whether it ended well before it was too long.
async fn is_short(incoming: &mut Incoming) -> bool {
    let mut left = KEPT_BYTES;
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut *incoming).poll_frame(cx)).await {
        let Ok(frame) = frame else { return false };
        let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
        match left.checked_sub(bytes) {
            Some(fewer) => left = fewer,
            None => return false,
        }
    }
    true
}

//! What is known of an HTTP/2 connection beside hyper: its streams, its frames as they pass, whether it is to end. Not here:
//! hyper, and what a stream is about.

use super::budget::{Budget, Overspent};
use super::close;
use super::exchange::Guard;
use super::frames::{Frame, Kind, NO_ERROR, Scanner, go_away};
use super::heads::Heads;
use crate::worker::connection::Entry;
use crate::worker::watched::{Stage, Watched};
use crate::worker::{Floor, IDLE_LINGER, access_log};
use http::StatusCode;
use slab::Slab;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};
use tokio::sync::Notify;

pub(in crate::worker) struct Session {
    traffic: Mutex<Traffic>,
    streams: Mutex<Slab<Stream>>,
    /// When it was told to leave, on the floor's coarse clock; 0: it was not.
    left_at: AtomicU64,
    leaving: Notify,
    /// Since when it would have been idle: when the client last took some of an answer.
    idle_since: AtomicU64,
    /// So far.
    requests: AtomicU64,
    /// When an answer was last handed over to hyper, or given up.
    closed_at: AtomicU64,
}

/// What passes below hyper.
struct Traffic {
    incoming: Scanner,
    outgoing: Scanner,
    heads: Heads,
    budget: Budget,
    has_overspent: bool,
}

/// A stream that the app or hyper is at work for.
struct Stream {
    watched: Arc<Watched>,
    /// hyper has not started its task yet.
    is_new: bool,
    waker: Option<Waker>,
    /// Since when a piece of the answer waits for the client's window; 0: none does.
    handed_at: u64,
}

impl Session {
    pub(super) fn new(floor: &Floor) -> Session {
        let traffic = Traffic {
            incoming: Scanner::of_client(),
            outgoing: Scanner::of_server(),
            heads: Heads::default(),
            budget: Budget::new(floor.coarse_now.load(Ordering::Relaxed)),
            has_overspent: false,
        };
        Session {
            traffic: Mutex::new(traffic),
            streams: Mutex::default(),
            left_at: AtomicU64::new(0),
            leaving: Notify::new(),
            idle_since: AtomicU64::new(floor.coarse_now.load(Ordering::Relaxed)),
            requests: AtomicU64::new(0),
            closed_at: AtomicU64::new(0),
        }
    }

    fn traffic(&self) -> MutexGuard<'_, Traffic> {
        self.traffic.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn streams(&self) -> MutexGuard<'_, Slab<Stream>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // What passes.

    /// The client sent this.
    ///
    /// # Errors
    /// It has sent too much that is for nothing, and is to be served no longer.
    pub(super) fn received(&self, watched: &Watched, bytes: &[u8]) -> Result<(), Overspent> {
        let mut traffic = self.traffic();
        traffic.budget.count_time(watched.floor.coarse_now.load(Ordering::Relaxed));
        let Traffic { incoming, heads, budget, .. } = &mut *traffic;
        let mut spent = Ok(());
        incoming.scan(bytes, |frame| {
            if spent.is_ok() {
                spent = budget.spend(&frame);
            }
            heads.received(&frame);
        });
        if incoming.is_at_rest() {
            heads.rest();
        }
        traffic.has_overspent |= spent.is_err();
        self.settle(watched, &traffic, false);
        spent
    }

    /// The socket took this.
    pub(super) fn sent(&self, watched: &Watched, pieces: &[impl Deref<Target = [u8]>], count: usize) {
        let mut traffic = self.traffic();
        let Traffic { outgoing, heads, budget, .. } = &mut *traffic;
        let (mut left, mut is_answer, mut resets) = (count, false, Vec::new());
        for piece in pieces {
            let piece = &piece[..left.min(piece.len())];
            left -= piece.len();
            outgoing.scan(piece, |frame| {
                is_answer |= matches!(frame.kind, Kind::Data | Kind::Headers);
                budget.earn_by(&frame);
                heads.sent(&frame);
                // Behind an answer that leaves the body unread there is one without an error.
                if frame.kind == Kind::Reset && frame.code != NO_ERROR {
                    resets.push(frame);
                }
            });
        }
        self.settle(watched, &traffic, is_answer);
        drop(traffic);
        resets.iter().for_each(|frame| note_reset(watched, frame));
    }

    /// The connection's stage. `is_answer`: a client that takes an answer is not idle.
    fn settle(&self, watched: &Watched, traffic: &Traffic, is_answer: bool) {
        let now = watched.floor.coarse_now.load(Ordering::Relaxed);
        let stage = if traffic.heads.has_open() {
            Stage::Answer
        } else if !traffic.incoming.is_at_rest() {
            Stage::Head
        } else {
            Stage::Idle
        };
        let before = watched.stage();
        let began = matches!(before, Stage::New | Stage::Answer);
        if is_answer || (began && stage == Stage::Idle) {
            self.idle_since.store(now, Ordering::Relaxed);
        }
        if stage == Stage::Idle {
            watched.enter_again(stage, self.idle_since.load(Ordering::Relaxed));
        } else if stage != before {
            watched.enter(stage);
        }
        // With no time to be idle in, the first answer is the last.
        if stage == Stage::Idle && before == Stage::Answer && watched.floor.settings.keepalive.is_zero() {
            self.leave(watched);
        }
    }

    /// hyper has looked at all that has come: what never became a request has a line all the same.
    pub(super) fn log_refused(&self, watched: &Watched) {
        let refused = self.traffic().heads.settle(self.requests.load(Ordering::Relaxed));
        refused.into_iter().for_each(|status| watched.floor.log_unread(watched, status));
    }

    /// The same for what the end of the connection leaves unanswered. `is_refused`: it is the server that ended it.
    pub(super) fn log_unanswered(&self, watched: &Watched, is_refused: bool) {
        // What comes after the last GOAWAY is not the server's any more, and the client was told so.
        if self.left_at.load(Ordering::Relaxed) == 0 {
            let status = if is_refused { StatusCode::BAD_REQUEST } else { access_log::left() };
            let count = self.traffic().heads.unanswered(is_refused);
            (0..count).for_each(|_| watched.floor.log_unread(watched, status));
        }
    }

    /// Part of a request's head has come.
    pub(super) fn is_within_head(&self) -> bool {
        self.traffic().incoming.is_within_head()
    }

    /// It sent too much that was for nothing.
    pub(super) fn has_overspent(&self) -> bool {
        self.traffic().has_overspent
    }

    // Streams.

    /// A request has come.
    pub(super) fn open(self: &Arc<Session>, connection: &Arc<Watched>, entry: &Arc<Entry>) -> Guard {
        let watched = Arc::new(Watched::stream_of(connection));
        let stream = Stream { watched: watched.clone(), is_new: true, waker: None, handed_at: 0 };
        let key = self.streams().insert(stream);
        let limit = connection.floor.settings.keepalive_requests;
        if self.requests.fetch_add(1, Ordering::Relaxed) + 1 == limit {
            self.leave(connection);
        }
        Guard::new(self.clone(), watched, key, entry.clone())
    }

    /// Its answer is handed over, or it was given up.
    pub(super) fn close(&self, key: usize) {
        let Stream { watched, .. } = self.streams().remove(key);
        self.closed_at.store(watched.floor.coarse_now.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// The stream whose task hyper starts now: it has just been opened.
    pub(super) fn started(&self, task: tokio::task::AbortHandle) {
        let mut streams = self.streams();
        if let Some((_, stream)) = streams.iter_mut().find(|(_, stream)| stream.is_new) {
            stream.is_new = false;
            stream.watched.set_task(task);
        }
    }

    pub(in crate::worker) fn each_stream(&self, mut look: impl FnMut(&Arc<Watched>)) {
        self.streams().iter().for_each(|(_, stream)| look(&stream.watched));
    }

    /// A piece of the answer was given to hyper, which asks for the next one when it has room for this one; or it asks.
    pub(super) fn hand(&self, key: usize, is_given: bool) {
        if let Some(stream) = self.streams().get_mut(key) {
            let now = stream.watched.floor.coarse_now.load(Ordering::Relaxed);
            stream.handed_at = if is_given { now.max(1) } else { 0 };
        }
    }

    /// Streams whose client opens no window for what waits, by `before` at the latest.
    pub(in crate::worker) fn each_stalled_stream(&self, before: u64, mut look: impl FnMut(&Arc<Watched>)) {
        let streams = self.streams();
        let stalled = streams.iter().filter(|(_, stream)| (1..before).contains(&stream.handed_at));
        stalled.for_each(|(_, stream)| look(&stream.watched));
    }

    /// All that is open is handed over, and the client has taken nothing of it since `before`.
    pub(in crate::worker) fn is_stalled(&self, before: u64) -> bool {
        let last = self.idle_since.load(Ordering::Relaxed).max(self.closed_at.load(Ordering::Relaxed));
        last < before && self.traffic().heads.has_open() && self.streams().is_empty()
    }

    /// Notes how the stream's task is woken.
    pub(super) fn note_waker(&self, key: usize, cx: &Context<'_>) {
        if let Some(stream) = self.streams().get_mut(key)
            && stream.waker.as_ref().is_none_or(|known| !known.will_wake(cx.waker()))
        {
            stream.waker = Some(cx.waker().clone());
        }
    }

    /// Has the stream's task look at what was noted for it.
    pub(super) fn wake(&self, of: &Watched) {
        let streams = self.streams();
        let found = streams.iter().find(|(_, stream)| std::ptr::eq(&*stream.watched, of));
        if let Some(waker) = found.and_then(|(_, stream)| stream.waker.as_ref()) {
            waker.wake_by_ref();
        }
    }

    // The end.

    /// Takes no more than is on its way, and ends when that is answered.
    pub(super) fn leave(&self, watched: &Watched) {
        if self.left_at.load(Ordering::Relaxed) == 0 {
            let now = watched.floor.coarse_now.load(Ordering::Relaxed);
            self.left_at.store(now.max(1), Ordering::Relaxed);
            self.leaving.notify_one();
        }
    }

    pub(super) async fn told_to_leave(&self) {
        self.leaving.notified().await;
    }

    /// It was told, and the client had the time to hear of it.
    pub(super) fn has_left_for_long(&self, watched: &Watched) -> bool {
        let (left_at, now) =
            (self.left_at.load(Ordering::Relaxed), watched.floor.coarse_now.load(Ordering::Relaxed));
        left_at != 0 && now.saturating_sub(left_at) >= IDLE_LINGER.as_millis() as u64
    }

    /// Ends the connection with what is open on it.
    pub(super) fn say_goodbye(&self, watched: &Watched, error: u32) {
        self.tell_end(watched, error);
        close(watched);
    }

    /// Tells the client which requests are lost, if it can be told: within a frame nothing else can be said.
    pub(super) fn tell_end(&self, watched: &Watched, error: u32) {
        let traffic = self.traffic();
        if traffic.outgoing.is_between_frames() {
            let _ = watched.stream.lock().try_write(&go_away(traffic.heads.last_stream(), error));
        }
    }
}

/// Why a request was refused, where its line in the access log cannot say. A client can have many of them: it is no line that
/// all logs have.
fn note_reset(watched: &Watched, Frame { stream, code, .. }: &Frame) {
    let peer = watched.origin().peer;
    log::debug!("http/2 stream reset peer={peer} stream={stream} reason={:?}", h2::Reason::from(*code));
}

//! What is known of a connection while it is served: where it comes from, where it is in its life, what is counted in its name;
//! of a stream of HTTP/2 the same. Not here: who serves it (`connection`), when it is too late (the sweep).

use super::framing::Fault;
use super::stall::Stall;
use super::stream::Shared;
use super::{Floor, access_log, allowance, crowd, http2};
use crate::app::{Peer, TlsInfo};
use crate::config::{LogTarget, Settings};
use crate::scoreboard::Place;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};
use tokio::task::AbortHandle;

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Stage {
    /// Open, and nothing ever came.
    New = 0,
    /// Between requests.
    Idle = 1,
    /// Part of a head has come.
    Head = 2,
    /// The head is complete, the body is still coming.
    Body = 3,
    /// The app has all it was sent, or has begun to answer.
    Answer = 4,
    /// It speaks another protocol now, and is the app's.
    Upgraded = 5,
    /// TLS begins.
    Handshake = 6,
    /// It has its answer. What the app left of the body is read away.
    Rest = 7,
}

/// Where a connection comes from.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) peer: Peer,
    /// What the peer says of clients is believed.
    pub(super) is_trusted: bool,
    /// A proxy has said, by the PROXY protocol, that the client came to it by TLS.
    pub(super) is_secured: bool,
    /// As the access log has it; empty where there is none.
    pub(super) name: String,
}

impl Origin {
    pub(super) fn of(peer: Peer, settings: &Settings) -> Origin {
        let trust = &settings.forwarded_allow_ips;
        let is_trusted = match peer {
            Peer::Tcp(addr) => trust.covers(addr.ip()),
            Peer::Unix => trust.covers_unix(),
        };
        let is_logged = settings.accesslog != LogTarget::Off;
        let name = if is_logged { access_log::client(peer) } else { String::new() };
        Origin { peer, is_trusted, is_secured: false, name }
    }
}

/// What the sweep has to know of a connection.
pub(super) struct Watched {
    pub(super) floor: Arc<Floor>,
    pub(super) stream: Shared,
    /// Set before anything of HTTP is read.
    origin: OnceLock<Origin>,
    /// Set by the handshake; where there was none, never.
    pub(super) tls: OnceLock<TlsInfo>,
    stage: AtomicU8,
    /// When the stage began, on the floor's coarse clock.
    since: AtomicU64,
    /// Bytes of the body so far.
    pub(super) body_bytes: AtomicU64,
    /// The body grew beyond `limit_request_body`.
    pub(super) too_large: AtomicBool,
    /// Bytes came while the app was answering: the head of the next request, perhaps in part.
    pub(super) ahead: AtomicBool,
    /// The next request that hyper reads stands for one with this fault; 0: there is none.
    fault: AtomicU8,
    /// The body broke off, or is none.
    pub(super) is_body_bad: AtomicBool,
    /// The server has refused a request: what the client sent behind it is unread.
    pub(super) has_refused: AtomicBool,
    /// The request's body was not read to its end.
    pub(super) body_left: AtomicBool,
    /// How many bodies there were.
    pub(super) bodies: AtomicU64,
    /// The client sends the body when it is told to, and has not been.
    pub(super) waits_for_word: AtomicBool,
    /// The connection ends behind the answer under way, or the one that was last.
    pub(super) ends: AtomicBool,
    /// The worker drains, and it is this connection's turn: it ends behind the next answer.
    is_dismissed: AtomicBool,
    /// The app waits for more of the body: what is slow is the client.
    pub(super) body_awaited: AtomicBool,
    /// When the request under way began, in `now_micros`, and the first digit of its answer's status; 0: there is none yet.
    /// Here and not with the request, which is moved about.
    began: AtomicU64,
    pub(super) class: AtomicU8,
    /// The answer has begun: the server may no longer write one of its own.
    pub(super) answering: AtomicBool,
    /// The request was too slow, and the server has told the client so below hyper.
    pub(super) is_late: AtomicBool,
    /// Whether the client takes what it is sent.
    pub(super) stall: Stall,
    /// The kernel may hold more of an answer than for others.
    pub(super) has_large_allowance: AtomicBool,
    /// Whose number of connections it is counted in, as bits; 0: nobody's.
    pub(super) client: AtomicU64,
    /// Requests so far, where `keepalive_requests` bounds them.
    requests: AtomicU64,
    /// The request under way, on the board.
    pub(super) place: Place,
    /// Set where HTTP/2 is spoken, which has a `Watched` for each of its streams, too.
    pub(super) session: OnceLock<Arc<http2::Session>>,
    /// This is a stream of that connection.
    of: Option<Arc<Watched>>,
    task: Mutex<Option<AbortHandle>>,
}

impl Watched {
    pub(super) fn new(floor: &Arc<Floor>, stream: Shared, stage: Stage, of: Option<Arc<Watched>>) -> Watched {
        Watched {
            floor: floor.clone(),
            stream,
            origin: OnceLock::new(),
            tls: OnceLock::new(),
            stage: AtomicU8::new(stage as u8),
            since: AtomicU64::new(floor.coarse_now.load(Ordering::Relaxed)),
            body_bytes: AtomicU64::new(0),
            too_large: AtomicBool::new(false),
            ahead: AtomicBool::new(false),
            fault: AtomicU8::new(0),
            is_body_bad: AtomicBool::new(false),
            has_refused: AtomicBool::new(false),
            body_left: AtomicBool::new(false),
            bodies: AtomicU64::new(0),
            waits_for_word: AtomicBool::new(false),
            ends: AtomicBool::new(false),
            is_dismissed: AtomicBool::new(floor.is_draining()),
            body_awaited: AtomicBool::new(false),
            began: AtomicU64::new(0),
            class: AtomicU8::new(0),
            answering: AtomicBool::new(false),
            is_late: AtomicBool::new(false),
            stall: Stall::default(),
            has_large_allowance: AtomicBool::new(false),
            client: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            place: Place::default(),
            session: OnceLock::new(),
            of,
            task: Mutex::new(None),
        }
    }

    /// Whether that client may have this connection; if not, it has been told.
    pub(super) fn is_from(&self, origin: Origin) -> bool {
        crowd::admit(self, &origin) && self.origin.set(origin).is_ok()
    }

    /// One stream of an HTTP/2 connection.
    pub(super) fn stream_of(connection: &Arc<Watched>) -> Watched {
        let Watched { floor, stream, .. } = &**connection;
        let watched = Watched::new(floor, stream.clone(), Stage::Answer, Some(connection.clone()));
        if let Some(tls) = connection.tls.get() {
            let _ = watched.tls.set(tls.clone());
        }
        watched
    }

    /// `None` where this is one.
    pub(super) fn connection(&self) -> Option<&Arc<Watched>> {
        self.of.as_ref()
    }

    pub(super) fn is_stream(&self) -> bool {
        self.of.is_some()
    }

    pub(super) fn origin(&self) -> &Origin {
        let origin = self.origin.get().or_else(|| self.of.as_ref()?.origin.get());
        origin.expect("it is known before there is a request")
    }

    /// What is wrong with the request that hyper has just read, or with its body.
    pub(super) fn fault(&self) -> Option<Fault> {
        Fault::of(self.fault.load(Ordering::Relaxed))
    }

    pub(super) fn note_fault(&self, fault: Fault) {
        self.fault.store(fault as u8, Ordering::Relaxed);
    }

    /// `None` while a proxy has not said it.
    pub(super) fn peer(&self) -> Option<Peer> {
        self.origin.get().map(|origin| origin.peer)
    }

    pub(super) fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Relaxed) {
            0 => Stage::New,
            1 => Stage::Idle,
            2 => Stage::Head,
            3 => Stage::Body,
            4 => Stage::Answer,
            5 => Stage::Upgraded,
            6 => Stage::Handshake,
            7.. => Stage::Rest,
        }
    }

    pub(super) fn enter(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::Relaxed);
        self.touch();
    }

    /// The stage began before.
    pub(super) fn enter_again(&self, stage: Stage, since: u64) {
        self.stage.store(stage as u8, Ordering::Relaxed);
        self.since.store(since, Ordering::Relaxed);
    }

    /// The stage begins now.
    pub(super) fn touch(&self) {
        self.since.store(self.floor.coarse_now.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// The stage began later than was thought, by so many milliseconds.
    pub(super) fn forgive(&self, millis: u64) {
        self.since.store(self.since() + millis, Ordering::Relaxed);
    }

    pub(super) fn since(&self) -> u64 {
        self.since.load(Ordering::Relaxed)
    }

    /// Whether the socket takes what it is given. A client that reads, however slowly, is not idle.
    pub(super) fn note_written<T>(&self, written: Poll<T>) -> Poll<T> {
        if written.is_pending() {
            self.stall.begin();
            allowance::ask(self);
        } else if self.stall.is_on() {
            self.stall.end();
            if matches!(self.stage(), Stage::Idle | Stage::Head) {
                self.touch();
            }
        }
        written
    }

    /// A request begins.
    pub(super) fn begin(&self) {
        if self.floor.settings.keepalive_requests > 0 {
            self.requests.store(self.requests.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
        self.began.store(self.floor.clock.begin(), Ordering::Relaxed);
        self.class.store(0, Ordering::Relaxed);
    }

    /// When the request under way began, on the clock of `now_millis`.
    pub(super) fn began_millis(&self) -> u64 {
        self.began.load(Ordering::Relaxed) / 1000
    }

    /// The server means to close the connection behind the answer to this request. One of several streams does not say so.
    pub(super) fn is_last(&self) -> bool {
        let limit = self.floor.settings.keepalive_requests;
        let is_last = limit > 0 && self.requests.load(Ordering::Relaxed) >= limit
            || self.is_dismissed.load(Ordering::Relaxed)
            || self.ends.load(Ordering::Relaxed);
        is_last && !self.is_stream()
    }

    /// The worker leaves: the connection takes what is on its way, and ends.
    pub(super) fn dismiss(&self) {
        self.is_dismissed.store(true, Ordering::Relaxed);
        http2::leave(self);
    }

    /// Bytes of another request have come, read or not.
    pub(super) fn has_more(&self) -> bool {
        match self.stage() {
            Stage::Head => true,
            Stage::Upgraded => false,
            Stage::New | Stage::Idle | Stage::Body | Stage::Answer | Stage::Handshake | Stage::Rest => {
                self.stream.lock().has_unread()
            }
        }
    }

    /// It is over: the first digit of its answer's status, and how many microseconds it took.
    pub(super) fn finish(&self) -> (u8, u64) {
        let took = self.floor.clock.end().saturating_sub(self.began.load(Ordering::Relaxed));
        (self.class.load(Ordering::Relaxed), took)
    }

    /// Whether the client closed its side while it has an answer to wait for. Looked at, not read, and not before there is
    /// time: hyper would take a buffer for it at each request.
    pub(super) fn has_left(&self, cx: &mut Context<'_>) -> bool {
        if self.stage() != Stage::Answer || self.ahead.load(Ordering::Relaxed) {
            return false;
        }
        match self.stream.lock().poll_first_byte(cx) {
            Poll::Ready(Ok(Some(_))) => {
                self.ahead.store(true, Ordering::Relaxed);
                false
            }
            Poll::Ready(Ok(None) | Err(_)) => true,
            Poll::Pending => false,
        }
    }

    /// The answer is complete: what comes now is another request.
    pub(super) fn answered(&self) {
        // The event loop alone writes them: no step of this need be atomic, and a locked instruction costs.
        let stage = match self.class.load(Ordering::Relaxed) {
            // 101, the one answer of its class that is an answer.
            1 => Stage::Upgraded,
            _ if self.ahead.load(Ordering::Relaxed) => Stage::Head,
            _ if self.body_left.load(Ordering::Relaxed) && !self.is_stream() => Stage::Rest,
            _ => Stage::Idle,
        };
        for flag in [&self.too_large, &self.is_body_bad, &self.body_awaited, &self.answering, &self.ahead] {
            flag.store(false, Ordering::Relaxed);
        }
        self.enter(stage);
    }

    /// What `abort` ends.
    pub(super) fn set_task(&self, task: AbortHandle) {
        *self.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
    }

    /// Drops hyper's side of the connection, and with it the app's future.
    pub(super) fn abort(&self) {
        if let Some(task) = self.task.lock().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
    }
}

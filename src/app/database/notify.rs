//! What is invalidated reaches other servers on the same database: who changes something sends the tag with NOTIFY, in the
//! same transaction, and a process of each server listens and moves the tag's counter there. docs/caching.md says what that
//! guarantees. Not here: who starts the process anew when it dies (the master).
//!
//! Nothing is said on a connection that has died quietly, so the listener sends itself something every few seconds. If that
//! does not come back, the process ends: the client has no way out of a call that waits for a dead server.

use super::budget::Budget;
use super::dial::{Contact, Dialer, describe};
use super::postgres::find_token;
use crate::app::Error;
use crate::app::cache::tag_slot;
use crate::config::{DatabaseUrl, Settings};
use crate::scoreboard::{Board, Generations, Slot, now_millis};
use postgres::Client;
use postgres::fallible_iterator::FallibleIterator;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

/// The same for all servers on a database.
pub(super) const CHANNEL: &str = "ferricorn";
pub(super) const TELL: &str = "SELECT pg_notify($1, $2)";

/// The longest payload: PostgreSQL takes less than 8000 bytes (<https://www.postgresql.org/docs/current/sql-notify.html>).
const MAX_PAYLOAD: usize = 7999;
const TAG: &str = "tag:";
const PROBE: &str = "probe:";
const EVERYTHING: &str = "all";

/// How often the listener sends itself something, and how long that may take to come back; so may LISTEN.
const PROBE_EVERY: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(3);
/// How often it looks whether it is to leave.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The pauses between attempts to connect: doubled from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(5);
/// How long the server may take to say goodbye.
const FAREWELL: Duration = Duration::from_secs(3);

const STALLED: i32 = 75; // EX_TEMPFAIL, sysexits.h

/// What says to a receiver that this tag is out of date. One that is too long, or cannot be sent, stands for everything.
pub(super) fn payload(tag: &str) -> String {
    if tag.len() + TAG.len() > MAX_PAYLOAD || tag.contains('\0') {
        return EVERYTHING.to_owned();
    }
    format!("{TAG}{tag}")
}

/// What a payload means.
#[derive(Debug, PartialEq, Eq)]
enum Heard<'a> {
    Tag(&'a str),
    Everything,
    /// A listener's word to itself.
    Probe(&'a str),
    /// From somebody else on this channel, or a later version.
    Unknown,
}

fn read(payload: &str) -> Heard<'_> {
    if let Some(tag) = payload.strip_prefix(TAG) {
        Heard::Tag(tag)
    } else if let Some(probe) = payload.strip_prefix(PROBE) {
        Heard::Probe(probe)
    } else if payload == EVERYTHING {
        Heard::Everything
    } else {
        Heard::Unknown
    }
}

/// What a session will invalidate on its own server.
#[derive(Clone)]
pub(super) struct Telling {
    /// `None`: it has no caches to tell.
    generations: Option<Generations>,
    others: bool,
    noted: Vec<Slot>,
}

impl Telling {
    pub(super) fn new(settings: &Settings, board: Board) -> Telling {
        Telling { generations: Some(board.generations), others: settings.cache.notify, noted: Vec::new() }
    }

    /// For a session that changes nothing.
    pub(super) fn nobody() -> Telling {
        Telling { generations: None, others: false, noted: Vec::new() }
    }

    /// Whether other servers are to hear of it.
    pub(super) fn tells_others(&self) -> bool {
        self.others
    }

    pub(super) fn note(&mut self, tag: &str) {
        let slot = tag_slot(tag);
        if !self.noted.contains(&slot) {
            self.noted.push(slot);
        }
    }

    /// Invalidates what was noted. It stays noted until the call is over: a transaction of the app's own may still commit.
    pub(super) fn bump(&self) {
        if let Some(generations) = self.generations {
            self.noted.iter().for_each(|slot| generations.bump(*slot));
        }
    }

    /// What was noted did not happen.
    pub(super) fn forget(&mut self) {
        self.noted.clear();
    }

    pub(super) fn end_of_call(&mut self) {
        self.bump();
        self.forget();
    }
}

/// Listens until told to leave; returns the process's exit code. A byte through `line` calls `reopen_log`, its end asks to
/// leave.
pub(crate) fn work(settings: &Settings, board: Board, line: UnixStream, reopen_log: fn()) -> i32 {
    let url = settings.cache.notify_url.as_ref().or(settings.database.url.as_ref());
    let Some(DatabaseUrl::Postgres(url)) = url else { return 0 };
    let dialer = match Dialer::new(url, &format!("{}/notify", settings.proc_name)) {
        Ok(dialer) => dialer,
        Err(reason) => {
            log::error!("cache notifications could not begin reason={reason:?}");
            return 1;
        }
    };
    let state = Arc::new(State::default());
    let listener =
        Listener { dialer, board, budget: Budget::new(settings, board), state: Arc::clone(&state) };
    let listening = thread::Builder::new().name("listen".into()).spawn(move || listener.live());
    let Ok(listening) = listening else { return 1 };
    if !watch(line, &state, reopen_log) {
        log::warn!("cache notifications stalled limit={PATIENCE:?}");
        return STALLED;
    }
    state.leaving.store(true, Relaxed);
    let until = Instant::now() + FAREWELL;
    while !listening.is_finished() && Instant::now() < until {
        thread::sleep(Duration::from_millis(5));
    }
    0
}

/// Until the line ends (true), or something takes the server too long.
fn watch(mut line: UnixStream, state: &State, reopen_log: fn()) -> bool {
    if line.set_nonblocking(false).and_then(|()| line.set_read_timeout(Some(LOOK_EVERY))).is_err() {
        return true;
    }
    loop {
        match line.read(&mut [0; 16]) {
            Ok(0) => return true,
            Ok(_) => reopen_log(),
            Err(_) => {}
        }
        let since = state.waiting_since.load(Relaxed);
        if since != 0 && now_millis().saturating_sub(since) > PATIENCE.as_millis() as u64 {
            return false;
        }
    }
}

/// What the two threads share.
#[derive(Default)]
struct State {
    leaving: AtomicBool,
    /// Since when an answer of the server is due, on the board's clock; 0: none is.
    waiting_since: AtomicU64,
}

impl State {
    fn wait(&self) {
        self.waiting_since.store(now_millis(), Relaxed);
    }

    fn got_it(&self) {
        self.waiting_since.store(0, Relaxed);
    }

    fn is_leaving(&self) -> bool {
        self.leaving.load(Relaxed)
    }
}

struct Listener {
    dialer: Dialer,
    board: Board,
    budget: Option<Arc<Budget>>,
    state: Arc<State>,
}

impl Listener {
    fn live(&self) {
        let (mut pause, mut told) = (FIRST_PAUSE, String::new());
        while !self.state.is_leaving() {
            let ended = self.attend(&mut pause, &mut told);
            self.state.got_it();
            if let Err(reason) = ended
                && reason != told
            {
                log::warn!("cache notifications interrupted reason={reason:?}");
                told = reason;
            }
            let until = Instant::now() + pause;
            while !self.state.is_leaving() && Instant::now() < until {
                thread::sleep(pause.min(LOOK_EVERY));
            }
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }

    /// One connection's life. `Ok`: it was time to leave.
    fn attend(&self, pause: &mut Duration, told: &mut String) -> Result<(), String> {
        let contact = Arc::new(Contact::default());
        let short = |error: Error| match error {
            Error::DatabaseDown(reason) => reason,
            other => other.to_string(),
        };
        // Declared before the client: it must outlive it.
        let mut token = match &self.budget {
            Some(budget) => Some(find_token(budget, &self.dialer).map_err(short)?),
            None => None,
        };
        if let Some(token) = &mut token {
            token.accompany(&contact);
        }
        let words = |error: postgres::Error| describe(&error);
        let mut client = self.dialer.dial(&contact).map_err(words)?;
        self.state.wait();
        client.batch_execute(&format!("LISTEN {CHANNEL}")).map_err(words)?;
        let backend = client.query_one("SELECT pg_backend_pid()", &[]).map_err(words)?.get::<_, i32>(0);
        if let Some(token) = &mut token {
            token.note_backend(backend as u32);
        }
        // After LISTEN: what was said before is made up for, and what is said from now on is heard.
        self.board.generations.bump_all();
        self.state.got_it();
        log::info!("cache notifications listening backend={backend}");
        (*pause, *told) = (FIRST_PAUSE, String::new());
        self.hear(&mut client, backend)
    }

    fn hear(&self, client: &mut Client, backend: i32) -> Result<(), String> {
        let words = |error: postgres::Error| describe(&error);
        let (mut number, mut is_out) = (0_u64, false);
        let mut next = Instant::now();
        while !self.state.is_leaving() {
            if !is_out && Instant::now() >= next {
                number += 1;
                is_out = true;
                self.state.wait();
                let probe = format!("{PROBE}{backend}.{number}");
                client.execute(TELL, &[&CHANNEL, &probe]).map_err(words)?;
            }
            let wait = if is_out {
                LOOK_EVERY
            } else {
                next.saturating_duration_since(Instant::now()).min(LOOK_EVERY)
            };
            let own = format!("{backend}.{number}");
            let mut notifications = client.notifications();
            let mut heard = notifications.timeout_iter(wait);
            while let Some(notification) = heard.next().map_err(words)? {
                match read(notification.payload()) {
                    Heard::Tag(tag) => self.board.generations.bump(tag_slot(tag)),
                    Heard::Everything => self.board.generations.bump_all(),
                    Heard::Probe(probe) if probe == own => {
                        is_out = false;
                        self.state.got_it();
                        next = Instant::now() + PROBE_EVERY;
                    }
                    Heard::Probe(_) | Heard::Unknown => {}
                }
                if self.state.is_leaving() || (!is_out && Instant::now() >= next) {
                    break;
                }
            }
            drop(heard);
            drop(notifications);
            if client.is_closed() {
                return Err("the connection was closed".to_owned());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_understood_and_fits() {
        let longest = "x".repeat(MAX_PAYLOAD - TAG.len());
        for tag in ["items", "", "all", "probe:1", "tag:tag:", "ä\n", &longest] {
            let payload = payload(tag);
            assert!(payload.len() < 8000);
            assert_eq!(read(&payload), Heard::Tag(tag));
        }
        for tag in [&format!("{longest}x"), "a\0b"] {
            assert_eq!(read(&payload(tag)), Heard::Everything);
        }
        for unknown in ["", "tags", "ALL", "{\"tag\": \"items\"}", "prob:1"] {
            assert_eq!(read(unknown), Heard::Unknown, "{unknown:?}");
        }
    }
}

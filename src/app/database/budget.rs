//! A worker's part of the server's budget of database connections: no connection is made without a token, and a token
//! is given back when the database's process has ended that served the connection. Not here: the tokens themselves
//! (the scoreboard), and what the database can hold (`limit`). docs/database.md has the arithmetic.
//!
//! One token is set aside for questions. The others go to whoever comes first. But each worker has a share, half of what would be its if the budget were divided
//! among the workers: so there is a share for the workers that a reload or an upgrade starts beside the old ones. Who
//! has less than that and goes short says so, and who has more gives up connections that nobody uses.

use super::dial::Contact;
use crate::config::{DatabaseUrl, Settings};
use crate::scoreboard::{Board, Held, Lost, Tokens, now_millis};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

/// How often one who goes short looks for a token.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// How long the database may take to notice that a client is gone which it was not at work for.
const NOTICE: Duration = Duration::from_secs(5);

/// The same for a connection that it had refused, or greeted.
const REFUSAL: Duration = Duration::from_millis(500);

/// How often, in milliseconds, a worker asks after lost connections, as long as there are any.
const ASK_EVERY: u64 = 50;

pub(super) struct Budget {
    board: Board,
    max: usize,
    workers: usize,
    /// What is in no worker's share.
    aside: usize,
    /// For how long a statement may run after its client has died; `None`: for ever.
    grace: Option<Duration>,
    /// Tokens of this process.
    held: AtomicUsize,
    /// Those of connections that are about to be closed because others go short.
    promised: AtomicUsize,
    /// This worker drains: it needs no share.
    leaving: AtomicBool,
    /// When it last asked after lost connections.
    asked: AtomicU64,
    /// Whether the database was asked if it has room for all of it.
    checked: AtomicBool,
}

impl Budget {
    /// `None` where there is none, and for SQLite, which has no processes to count.
    pub(super) fn new(settings: &Settings, board: Board) -> Option<Arc<Budget>> {
        let database = &settings.database;
        let applies = database.max_connections > 0 && matches!(database.url, Some(DatabaseUrl::Postgres(_)));
        let statement = database.statement_timeout;
        applies.then(|| {
            Arc::new(Budget {
                board,
                max: database.max_connections,
                workers: settings.workers as usize,
                aside: settings.connections_set_aside(),
                grace: if statement.is_zero() { None } else { Some(statement + NOTICE) },
                held: AtomicUsize::new(0),
                promised: AtomicUsize::new(0),
                leaving: AtomicBool::new(false),
                asked: AtomicU64::new(0),
                checked: AtomicBool::new(false),
            })
        })
    }

    fn tokens(&self) -> &'static Tokens {
        self.board.tokens
    }

    /// What this worker may keep while others go short.
    fn share(&self) -> usize {
        if self.leaving.load(Relaxed) {
            return 0;
        }
        let workers = self.workers.max(self.board.standing().workers_wanted as usize);
        (self.max.saturating_sub(self.aside) / (2 * workers.max(1))).max(1)
    }

    /// Waits for a token, for at most `wait`.
    pub(super) fn take(self: &Arc<Budget>, wait: Duration) -> Option<Token> {
        let deadline = Instant::now() + wait;
        let me = std::process::id();
        let mut looked_for_dead = false;
        loop {
            if let Some(held) = self.tokens().claim(self.max, me, NOTICE) {
                self.held.fetch_add(1, Relaxed);
                return Some(Token {
                    budget: Arc::clone(self),
                    held: Some(held),
                    contact: None,
                    aside: false,
                });
            }
            if !looked_for_dead {
                looked_for_dead = true;
                self.tokens().abandon_the_dead();
            }
            if self.held.load(Relaxed) < self.share() {
                self.tokens().wish();
            }
            if Instant::now() >= deadline {
                return None;
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    /// Waits for the token that is set aside, for at most `wait`. It is for questions that take a moment.
    pub(super) fn take_aside(self: &Arc<Budget>, wait: Duration) -> Option<Token> {
        let deadline = Instant::now() + wait;
        loop {
            if let Some(held) = self.tokens().claim_aside(std::process::id(), NOTICE) {
                return Some(Token {
                    budget: Arc::clone(self),
                    held: Some(held),
                    contact: None,
                    aside: true,
                });
            }
            if Instant::now() >= deadline {
                return None;
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    /// How large it is, if that is still to be checked with the database; told once.
    pub(super) fn to_check(&self) -> Option<usize> {
        (!self.checked.swap(true, Relaxed)).then_some(self.max)
    }

    pub(super) fn set_leaving(&self) {
        self.leaving.store(true, Relaxed);
    }

    /// Whether a connection that nobody uses should be closed, because somebody else goes short.
    pub(super) fn must_yield(&self) -> bool {
        let kept = || self.held.load(Relaxed).saturating_sub(self.promised.load(Relaxed));
        self.tokens().is_wished() && kept() > self.share()
    }

    /// One will be closed, which may take a moment.
    pub(super) fn promise(&self) {
        self.promised.fetch_add(1, Relaxed);
    }

    /// Whether it may help to ask after lost connections.
    pub(super) fn has_lost(&self) -> bool {
        self.tokens().lost().iter().any(|lost| lost.backend() != 0)
    }

    /// The lost connections, if it is time to ask after them.
    pub(super) fn to_ask_after(&self) -> Vec<Lost> {
        let (asked, now) = (self.asked.load(Relaxed), now_millis());
        let is_due =
            asked + ASK_EVERY <= now && self.asked.compare_exchange(asked, now, Relaxed, Relaxed).is_ok();
        if !is_due {
            return Vec::new();
        }
        let mut lost = self.tokens().lost();
        lost.retain(|lost| lost.backend() != 0);
        lost
    }

    /// The database has no such process any more.
    pub(super) fn found_gone(&self, lost: Lost) {
        self.tokens().find(lost);
    }
}

/// The right to one connection. Must outlive the connection.
pub(super) struct Token {
    budget: Arc<Budget>,
    held: Option<Held>,
    /// It is the one that is set aside, which is in nobody's share.
    aside: bool,
    /// What became of the connection; `None`: there was none yet.
    contact: Option<Arc<Contact>>,
}

impl Token {
    pub(super) fn budget(&self) -> &Budget {
        &self.budget
    }

    /// For the connection that is about to be made.
    pub(super) fn accompany(&mut self, contact: &Arc<Contact>) {
        self.contact = Some(Arc::clone(contact));
    }

    pub(super) fn note_backend(&mut self, backend: u32) {
        if let Some(held) = &mut self.held {
            self.budget.tokens().note_backend(held, backend, self.budget.grace);
        }
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        let Some(held) = self.held.take() else { return };
        let tokens = self.budget.tokens();
        match &self.contact {
            Some(contact) if contact.has_parted() => tokens.free(held),
            // It was idle, or its statement was cancelled; if not, whoever asks after it will see.
            Some(contact) if contact.is_up() => tokens.lose(held, None),
            Some(contact) if contact.was_refused() => tokens.lose(held, Some(REFUSAL)),
            Some(contact) if contact.was_reached() => tokens.lose(held, Some(NOTICE)),
            Some(_) | None => tokens.free(held),
        }
        if self.aside {
            return;
        }
        self.budget.held.fetch_sub(1, Relaxed);
        let _ = self.budget.promised.fetch_update(Relaxed, Relaxed, |promised| promised.checked_sub(1));
    }
}

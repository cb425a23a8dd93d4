//! How connections are made, and what the last attempt says about the database.
//! Not here: what a caller concludes from it.

use super::TransactionOptions;
use super::pool::RETRY_WAIT;
use crate::app::Error;
use crate::app::blocking::{Group, Threads};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// The time between two attempts to reach a database that is down, at least: less than r2d2's own.
const ATTEMPT_PAUSE: Duration = RETRY_WAIT.saturating_sub(Duration::from_millis(100));

const UNPOISONED: &str = "nothing that can panic runs under this lock";

/// What a pool holds: a connection that can carry transactions and knows whether it may be used again.
/// All of it blocks.
pub trait Session: Sized + Send + 'static {
    fn begin(&mut self, options: TransactionOptions) -> Result<(), Error>;
    fn commit(&mut self) -> Result<(), Error>;
    fn roll_back(&mut self) -> Result<(), Error>;
    /// Asks the other side whether it is still there. Bounded by a second.
    fn is_alive(&mut self) -> bool;
    /// After use: whether the next caller gets a session as if new. Asks the database only when there is a doubt.
    fn is_clean(&mut self) -> bool;
    /// Whether `error` means that the connection is lost, rather than a statement refused.
    fn lost(&self, error: &Error) -> Option<String>;
    /// Whether the database rolled a transaction back for another one's sake, so that it may succeed the next time.
    fn is_worth_a_retry(&self, error: &Error) -> bool;
    /// What ends a statement that runs.
    fn canceller(&self) -> Arc<dyn Cancel>;
}

/// Ends the statement that runs on a connection, from another thread, if it can.
pub trait Cancel: Send + Sync {
    /// May block for a few seconds.
    fn cancel(&self);
}

/// Makes a connection; called on r2d2's thread. `PoolTimeout`: the server's budget has none left.
pub(super) type Connect<C> = Box<dyn Fn() -> Result<C, Error> + Send + Sync>;

/// What is known about the database, for all who wait for a connection.
pub(super) struct Health {
    /// Why the last attempt to connect failed; `None` after one that worked and before the first.
    /// Its watchers are also told when a connection comes back.
    down: watch::Sender<Option<Arc<str>>>,
    /// How many connections were found lost. One that was made or tested before the last of them is suspect.
    losses: AtomicU64,
    /// The last attempt found no token in the server's budget.
    is_short: AtomicBool,
    /// When the last attempt to connect failed.
    failed_at: Mutex<Option<Instant>>,
}

impl Health {
    pub(super) fn new() -> Health {
        Health {
            down: watch::Sender::new(None),
            losses: AtomicU64::new(0),
            is_short: AtomicBool::new(false),
            failed_at: Mutex::new(None),
        }
    }

    /// Whether it is the server's own budget that keeps a connection from being made.
    pub(super) fn is_short(&self) -> bool {
        self.is_short.load(Relaxed)
    }

    pub(super) fn down(&self) -> Option<Arc<str>> {
        self.down.borrow().clone()
    }

    /// Resolves when an attempt to connect ends, or a connection comes back.
    pub(super) fn changes(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.down.subscribe()
    }

    pub(super) fn came_back(&self) {
        if self.down.receiver_count() > 0 {
            self.down.send_modify(|_| {});
        }
    }

    pub(super) fn losses(&self) -> u64 {
        self.losses.load(Relaxed)
    }

    pub(super) fn lose(&self) {
        self.losses.fetch_add(1, Relaxed);
    }

    fn connected(&self) {
        self.is_short.store(false, Relaxed);
        *self.failed_at.lock().expect(UNPOISONED) = None;
        if self.down.send_replace(None).is_some() {
            log::info!("database is back");
        }
    }

    fn found_no_token(&self) {
        if !self.is_short.swap(true, Relaxed) {
            log::warn!(
                "database connection waits reason=\"database.max_connections are in use\" effect=\"requests wait for up to pool_timeout\" remedy=\"more of them, or fewer workers\""
            );
        }
    }

    /// Why it is too soon for another attempt: each connection that is wanted asks for itself, and a database that is
    /// away, or comes back, is to be asked by one of them.
    fn too_soon(&self) -> Option<Arc<str>> {
        let failed_at = *self.failed_at.lock().expect(UNPOISONED);
        failed_at.filter(|at| at.elapsed() < ATTEMPT_PAUSE).and_then(|_| self.down())
    }

    fn failed(&self, reason: &str) {
        self.is_short.store(false, Relaxed);
        *self.failed_at.lock().expect(UNPOISONED) = Some(Instant::now());
        let before = self.down.send_replace(Some(reason.into()));
        if before.as_deref() != Some(reason) {
            log::error!(
                "database connection failed reason={reason:?} effect=\"who needs one is answered 503\""
            );
        }
    }
}

/// r2d2's view of it.
pub(super) struct Manager<C> {
    pub(super) connect: Connect<C>,
    pub(super) health: Arc<Health>,
    /// The calls that wait for a connection.
    pub(super) threads: Arc<Threads>,
    pub(super) calls: Group,
}

/// A session in the pool.
pub(super) struct Pooled<C> {
    /// Boxed, because the pool moves what it holds a dozen times for each use.
    pub(super) session: Box<C>,
    /// It must not be used again.
    pub(super) spent: bool,
    /// `Health::losses` when it last proved alive.
    pub(super) losses: u64,
    pub(super) idle_since: Instant,
    pub(super) made: Instant,
    pub(super) cancel: Arc<dyn Cancel>,
}

/// Closes connections on a thread of their own. A client that waits for an answer waits for it also when it is
/// closed, and a database that hangs never answers: no handler thread may be lost to that. There is one for each
/// connection on its way out.
#[derive(Debug)]
pub(super) struct Goodbye;

impl<C: Session> r2d2::CustomizeConnection<Pooled<C>, ConnectFailed> for Goodbye {
    fn on_release(&self, pooled: Pooled<C>) {
        say_goodbye(pooled);
    }
}

/// Drops `closing` on a thread of its own.
pub(super) fn say_goodbye(closing: impl Send + 'static) {
    // Where no thread can be started it is dropped here: better late than never.
    let _ = std::thread::Builder::new().name("goodbye".into()).spawn(move || drop(closing));
}

/// Why a connection could not be made; never holds a password.
#[derive(Debug)]
pub(super) struct ConnectFailed(String);

impl fmt::Display for ConnectFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConnectFailed {}

impl<C: Session> r2d2::ManageConnection for Manager<C> {
    type Connection = Pooled<C>;
    type Error = ConnectFailed;

    fn connect(&self) -> Result<Pooled<C>, ConnectFailed> {
        if let Some(reason) = self.health.too_soon() {
            return Err(ConnectFailed(reason.to_string()));
        }
        let losses = self.health.losses();
        // A panic would leave r2d2 counting a connection that never comes.
        let made = catch_unwind(AssertUnwindSafe(&self.connect));
        let made = made.unwrap_or_else(|_| Err(Error::DatabaseDown("connecting panicked".into())));
        match made {
            Ok(session) => {
                // r2d2 hands the connection out a moment later: who is woken now waits for it there.
                self.health.connected();
                self.threads.unpark(self.calls);
                let (now, cancel) = (Instant::now(), session.canceller());
                let session = Box::new(session);
                Ok(Pooled { session, spent: false, losses, idle_since: now, made: now, cancel })
            }
            Err(Error::PoolTimeout) => {
                self.health.found_no_token();
                Err(ConnectFailed("database.max_connections are in use".into()))
            }
            Err(error) => {
                let reason = match error {
                    Error::DatabaseDown(reason) => reason,
                    other => other.to_string(),
                };
                self.health.failed(&reason);
                Err(ConnectFailed(reason))
            }
        }
    }

    fn is_valid(&self, pooled: &mut Pooled<C>) -> Result<(), ConnectFailed> {
        if pooled.session.is_alive() { Ok(()) } else { Err(ConnectFailed("closed".into())) }
    }

    fn has_broken(&self, pooled: &mut Pooled<C>) -> bool {
        pooled.spent
    }
}

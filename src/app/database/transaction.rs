//! Transactions: how one is asked for, what ends it, and when it is tried again. Not here: the connection.

use super::checkout::Checkout;
use super::health::Session;
use crate::app::Error;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::thread;
use std::time::{Duration, Instant};

/// The pause before the first repetition, doubled for each that follows, up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LAST_PAUSE: Duration = Duration::from_millis(100);

/// How isolated a transaction is from others that run at the same time.
/// <https://www.postgresql.org/docs/current/transaction-iso.html>
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Each statement sees what was committed before it began. PostgreSQL's default.
    ReadCommitted,
    /// All statements see what was committed before the first one. Fails where it would change what changed since.
    RepeatableRead,
    /// As if transactions ran one after the other. Fails where that cannot be.
    Serializable,
}

/// What is asked of a transaction; [`Default`]: what the database does by itself, tried once.
///
/// ```
/// # use ferricorn::{Error, Isolation, TransactionOptions, Worker};
/// async fn book(worker: Worker, seat: i32) -> Result<u64, Error> {
///     let options = TransactionOptions::new().isolation(Isolation::Serializable).retries(3);
///     let book = "UPDATE seats SET free = false WHERE id = $1 AND free";
///     worker.postgres().transaction_with(options, move |tx| Ok(tx.execute(book, &[&seat])?)).await
/// }
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[must_use]
pub struct TransactionOptions {
    pub(super) isolation: Option<Isolation>,
    pub(super) read_only: bool,
    retries: u32,
}

impl TransactionOptions {
    pub fn new() -> TransactionOptions {
        TransactionOptions::default()
    }

    /// On SQLite every transaction is serializable, whatever is asked for.
    pub fn isolation(mut self, isolation: Isolation) -> TransactionOptions {
        self.isolation = Some(isolation);
        self
    }

    /// A statement that would change something fails.
    pub fn read_only(mut self) -> TransactionOptions {
        self.read_only = true;
        self
    }

    /// How often the closure may be run again, from its beginning, after the database rolled the transaction back for another
    /// one's sake: a serialization failure (40001) or a deadlock (40P01), on SQLite a file that stayed busy. Default: 0.
    /// What the closure does besides, outside the database, is done again, too.
    pub fn retries(mut self, count: u32) -> TransactionOptions {
        self.retries = count;
        self
    }
}

/// Runs `work` in a transaction, again while that is allowed and may help.
pub(crate) fn in_transaction<C: Session, T>(
    session: &mut C,
    options: TransactionOptions,
    call: &Checkout,
    mut work: impl FnMut(&mut C) -> Result<T, Error>,
) -> Result<T, Error> {
    let mut pause = FIRST_PAUSE;
    for _ in 0..options.retries {
        let error = match once(session, options, call, &mut work) {
            Err(error) if session.is_worth_a_retry(&error) && !call.has_left() => error,
            outcome => return outcome,
        };
        log::debug!("transaction is tried again error={:?}", error.to_string());
        thread::sleep(uneven(pause));
        pause = (pause * 2).min(LAST_PAUSE);
    }
    once(session, options, call, work)
}

fn once<C: Session, T>(
    session: &mut C,
    options: TransactionOptions,
    call: &Checkout,
    work: impl FnOnce(&mut C) -> Result<T, Error>,
) -> Result<T, Error> {
    session.begin(options)?;
    match catch_unwind(AssertUnwindSafe(|| work(session))) {
        // Whoever wanted it has not heard of it, and never will.
        Ok(Ok(_)) if call.has_left() => {
            session.roll_back()?;
            Err(Error::TimedOut)
        }
        Ok(Ok(value)) => session.commit().map(|()| value),
        Ok(Err(error)) => {
            // What `work` says is what the caller acts on; `is_clean` sees a transaction that is still open.
            roll_back(session);
            Err(error)
        }
        Err(panic) => {
            roll_back(session);
            resume_unwind(panic)
        }
    }
}

fn roll_back<C: Session>(session: &mut C) {
    if let Err(failure) = session.roll_back() {
        log::warn!("rollback failed error={:?}", failure.to_string());
    }
}

/// From half of it to all of it, so that two who were in each other's way are not again.
fn uneven(pause: Duration) -> Duration {
    let mut hasher = std::hash::DefaultHasher::new();
    std::hash::Hash::hash(&(Instant::now(), thread::current().id()), &mut hasher);
    let die = std::hash::Hasher::finish(&hasher) % 1000;
    pause / 2 + (pause / 2).mul_f64(die as f64 / 1000.0)
}

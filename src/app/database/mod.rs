//! The database of a worker: which one, and a pool of connections that async code cannot misuse.
//! Not here: the statements of the stock app.

mod budget;
mod checkout;
mod dial;
mod health;
pub(crate) mod limit;
pub(crate) mod notify;
mod pool;
mod pooled;
mod postgres;
pub(crate) mod probe;
pub(crate) mod setup;
mod sqlite;
#[cfg(test)]
mod tests;
mod tls;
mod transaction;

pub(crate) use self::checkout::Checkout;
pub(crate) use self::health::Session;
pub use self::pool::Pool;
pub use self::postgres::PostgresSession;
pub use self::sqlite::SqliteSession;
pub(crate) use self::transaction::in_transaction;
pub use self::transaction::{Isolation, TransactionOptions};

use super::blocking::Threads;
use crate::config::{DatabaseUrl, Settings};
use crate::scoreboard::Board;
use budget::Budget;
use std::sync::Arc;

/// The configured database, whichever it is; a handle, cheap to clone.
#[derive(Clone)]
pub enum Database {
    Postgres(Pool<PostgresSession>),
    Sqlite(Pool<SqliteSession>),
}

impl Database {
    pub(crate) fn new(
        settings: &Settings,
        slot: u32,
        board: Board,
        threads: &Arc<Threads>,
    ) -> Option<Database> {
        let (threads, seat) = (Arc::clone(threads), board.seat(slot));
        let database = match settings.database.url.as_ref()? {
            DatabaseUrl::Postgres(url) => {
                let name = format!("{}/w{slot}", settings.proc_name);
                let budget = Budget::new(settings, board);
                let telling = notify::Telling::new(settings, board);
                let connect = postgres::connector(url, &settings.database, &name, budget.clone(), telling);
                Database::Postgres(Pool::new(&settings.database, threads, connect, budget, seat))
            }
            DatabaseUrl::Sqlite(path) => {
                let connect = sqlite::connector(path.clone(), &settings.database);
                Database::Sqlite(Pool::new(&settings.database, threads, connect, None, seat))
            }
        };
        // A worker that is ready has a word on it.
        database.show();
        Some(database)
    }

    /// Shows on the worker's seat how the pool stands.
    pub(crate) fn show(&self) {
        match self {
            Database::Postgres(pool) => pool.show(),
            Database::Sqlite(pool) => pool.show(),
        }
    }

    /// Closes what is idle, and blocks meanwhile; what is in use closes when it comes back.
    pub(crate) fn close(&self) {
        match self {
            Database::Postgres(pool) => pool.close(),
            Database::Sqlite(pool) => pool.close(),
        }
    }
}

/// Whether the URL can be understood, and the files that it names be read; connects to nothing. `Ok`: what is weak about
/// it, if so. No message holds the password.
pub(crate) fn check(settings: &Settings) -> Result<Option<String>, String> {
    let check = |url: &Option<DatabaseUrl>| match url {
        Some(DatabaseUrl::Postgres(url)) => dial::check(url),
        Some(DatabaseUrl::Sqlite(_)) | None => Ok(None),
    };
    let listening = check(&settings.cache.notify_url)?;
    Ok(check(&settings.database.url)?.or(listening))
}

//! The database of a worker: which one, and a pool of connections that async code cannot misuse.
//! Not here: the statements of the stock app.

mod health;
mod pool;
mod postgres;
pub(crate) mod setup;
mod sqlite;
#[cfg(test)]
mod tests;

pub use self::pool::Pool;
pub use self::postgres::PostgresSession;
pub use self::sqlite::SqliteSession;

use super::blocking::Threads;
use crate::config::{DatabaseUrl, Settings};
use crate::scoreboard::Seat;
use std::sync::Arc;

/// The configured database, whichever it is; a handle, cheap to clone.
#[derive(Clone)]
pub enum Database {
    Postgres(Pool<PostgresSession>),
    Sqlite(Pool<SqliteSession>),
}

impl Database {
    pub(crate) fn new(settings: &Settings, slot: u32, threads: &Arc<Threads>) -> Option<Database> {
        let threads = Arc::clone(threads);
        match settings.database.url.as_ref()? {
            DatabaseUrl::Postgres(url) => {
                let name = format!("{}/w{slot}", settings.proc_name);
                let connect = postgres::connector(url, &settings.database, name);
                Some(Database::Postgres(Pool::new(&settings.database, threads, connect)))
            }
            DatabaseUrl::Sqlite(path) => {
                let connect = sqlite::connector(path.clone(), &settings.database);
                Some(Database::Sqlite(Pool::new(&settings.database, threads, connect)))
            }
        }
    }

    /// Shows on the worker's seat how the pool stands.
    pub(crate) fn show(&self, seat: &Seat) {
        match self {
            Database::Postgres(pool) => pool.show(seat),
            Database::Sqlite(pool) => pool.show(seat),
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

/// Whether the URL can be understood; connects to nothing. The message does not hold the password.
pub(crate) fn check(settings: &Settings) -> Result<(), String> {
    match &settings.database.url {
        Some(DatabaseUrl::Postgres(url)) => postgres::parse(url).map(drop),
        Some(DatabaseUrl::Sqlite(_)) | None => Ok(()),
    }
}

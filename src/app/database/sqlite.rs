//! An SQLite connection in a pool. Not here: waiting for one.

use super::health::{Connect, Session};
use crate::app::Error;
use crate::config::DatabaseSettings;
use rusqlite::Connection;
use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::time::Duration;

/// How many statements `prepare_cached` keeps for a connection.
const MAX_STATEMENTS: usize = 256;

/// A connection to SQLite: rusqlite's `Connection`, with the write-ahead log and foreign keys switched on.
///
/// ```
/// # use ferricorn::{Error, Worker};
/// async fn count(worker: Worker) -> Result<i64, Error> {
///     worker.sqlite().run(|db| Ok(db.query_row("SELECT count(*) FROM users", [], |row| row.get(0))?)).await
/// }
/// ```
pub struct SqliteSession(pub(crate) Connection);

impl Deref for SqliteSession {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.0
    }
}

impl DerefMut for SqliteSession {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.0
    }
}

impl Session for SqliteSession {
    fn begin(&mut self) -> Result<(), Error> {
        Ok(self.0.execute_batch("BEGIN IMMEDIATE")?)
    }

    fn commit(&mut self) -> Result<(), Error> {
        Ok(self.0.execute_batch("COMMIT")?)
    }

    fn roll_back(&mut self) -> Result<(), Error> {
        // Some errors have rolled back already: https://www.sqlite.org/lang_transaction.html
        if self.0.is_autocommit() { Ok(()) } else { Ok(self.0.execute_batch("ROLLBACK")?) }
    }

    fn is_alive(&mut self) -> bool {
        true // a file has nobody on the other side
    }

    fn is_clean(&mut self) -> bool {
        self.0.is_autocommit()
    }

    fn lost(&self, _: &Error) -> Option<String> {
        None
    }
}

pub(super) fn connector(path: PathBuf, settings: &DatabaseSettings) -> Connect<SqliteSession> {
    let busy_timeout = settings.pool_timeout;
    Box::new(move || {
        let opened = open(&path, busy_timeout);
        opened.map(SqliteSession).map_err(|error| Error::DatabaseDown(error.to_string()))
    })
}

/// Waits for other writers for `busy_timeout`.
pub(super) fn open(path: &std::path::Path, busy_timeout: Duration) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(busy_timeout)?; // first: switching to the log locks the file
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.set_prepared_statement_cache_capacity(MAX_STATEMENTS);
    Ok(connection)
}

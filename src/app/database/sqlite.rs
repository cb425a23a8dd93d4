//! An SQLite connection in a pool. Not here: waiting for one.

use super::TransactionOptions;
use super::health::{Cancel, Connect, Session};
use crate::app::Error;
use crate::config::DatabaseSettings;
use rusqlite::{Connection, InterruptHandle};
use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How many statements `prepare_cached` keeps for a connection.
const MAX_STATEMENTS: usize = 256;

const SWITCH_PAUSE: Duration = Duration::from_millis(1);

/// A connection to SQLite: rusqlite's `Connection`, with the write-ahead log and foreign keys switched on.
///
/// ```
/// # use ferricorn::{Error, Worker};
/// async fn count(worker: Worker) -> Result<i64, Error> {
///     worker.sqlite().run(|db| Ok(db.query_row("SELECT count(*) FROM users", [], |row| row.get(0))?)).await
/// }
/// ```
pub struct SqliteSession {
    connection: Connection,
    /// In a transaction that may not write.
    read_only: bool,
}

impl SqliteSession {
    pub(crate) fn new(connection: Connection) -> SqliteSession {
        SqliteSession { connection, read_only: false }
    }

    /// After a transaction that could only read.
    fn allow_writes(&mut self) -> Result<(), Error> {
        if self.read_only {
            self.connection.pragma_update(None, "query_only", false)?;
            self.read_only = false;
        }
        Ok(())
    }
}

impl Deref for SqliteSession {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl DerefMut for SqliteSession {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.connection
    }
}

impl Session for SqliteSession {
    fn begin(&mut self, options: TransactionOptions) -> Result<(), Error> {
        if options.read_only {
            self.read_only = true;
            self.connection.pragma_update(None, "query_only", true)?;
            return Ok(self.connection.execute_batch("BEGIN")?);
        }
        Ok(self.connection.execute_batch("BEGIN IMMEDIATE")?)
    }

    fn commit(&mut self) -> Result<(), Error> {
        match self.connection.execute_batch("COMMIT") {
            Ok(()) => self.allow_writes(),
            Err(error) => {
                // A busy file leaves the transaction open.
                self.roll_back()?;
                Err(error.into())
            }
        }
    }

    fn roll_back(&mut self) -> Result<(), Error> {
        // Some errors have rolled back already: https://www.sqlite.org/lang_transaction.html
        if !self.connection.is_autocommit() {
            self.connection.execute_batch("ROLLBACK")?;
        }
        self.allow_writes()
    }

    fn is_alive(&mut self) -> bool {
        true // a file has nobody on the other side
    }

    fn is_clean(&mut self) -> bool {
        self.connection.is_autocommit() && !self.read_only
    }

    fn lost(&self, _: &Error) -> Option<String> {
        None
    }

    fn is_worth_a_retry(&self, error: &Error) -> bool {
        matches!(error, Error::Sqlite(error) if is_busy(error))
    }

    fn canceller(&self) -> Arc<dyn Cancel> {
        Arc::new(Interrupt(self.connection.get_interrupt_handle()))
    }
}

struct Interrupt(InterruptHandle);

impl Cancel for Interrupt {
    fn cancel(&self) {
        self.0.interrupt();
    }
}

pub(super) fn connector(path: PathBuf, settings: &DatabaseSettings) -> Connect<SqliteSession> {
    let busy_timeout = settings.pool_timeout;
    Box::new(move || {
        let opened = open(&path, busy_timeout);
        opened.map(SqliteSession::new).map_err(|error| Error::DatabaseDown(error.to_string()))
    })
}

/// Waits for other writers for `busy_timeout`.
pub(super) fn open(path: &std::path::Path, busy_timeout: Duration) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(busy_timeout)?; // first: switching to the log locks the file
    switch_to_log(&connection, Instant::now() + busy_timeout)?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.set_prepared_statement_cache_capacity(MAX_STATEMENTS);
    Ok(connection)
}

/// Of two that switch a new file over at once, SQLite refuses one without waiting: each holds what the other needs.
fn switch_to_log(connection: &Connection, deadline: Instant) -> rusqlite::Result<()> {
    loop {
        match connection.pragma_update(None, "journal_mode", "WAL") {
            Err(error) if is_busy(&error) && Instant::now() < deadline => std::thread::sleep(SWITCH_PAUSE),
            switched => return switched,
        }
    }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    let busy = [rusqlite::ErrorCode::DatabaseBusy, rusqlite::ErrorCode::DatabaseLocked];
    error.sqlite_error_code().is_some_and(|code| busy.contains(&code))
}

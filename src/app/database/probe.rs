//! One connection to the configured database, for a look at it before anything serves. It blocks, and changes nothing.
//! Not here: what is looked at.

use super::budget::{Budget, Token};
use super::dial::{Contact, Dialer, describe};
use super::notify::Telling;
use super::pooled::Pooled;
use super::{PostgresSession, SqliteSession};
use crate::config::{DatabaseUrl, Settings};
use crate::scoreboard::Board;
use rusqlite::{Connection, OpenFlags};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How long to wait for somebody who has locked the file.
const BUSY_WAIT: Duration = Duration::from_secs(1);

/// How long a statement may take to be looked at: its tables may be locked.
const STATEMENT_WAIT: Duration = Duration::from_secs(2);
/// How long to wait for the connection that is set aside, where connections are counted.
const TOKEN_WAIT: Duration = Duration::from_secs(2);

pub(crate) struct Probe {
    pub(crate) session: Session,
    /// Outlives the session.
    _token: Option<Token>,
    /// The setup script has run.
    pub(crate) is_set_up: bool,
}

pub(crate) enum Session {
    Postgres(Box<PostgresSession>),
    Sqlite(SqliteSession),
}

/// Connects. A file of SQLite that is not there yet is stood for by one in memory, made by the setup script.
///
/// A server that runs gives its `board`, for its connections are counted.
///
/// # Errors
/// Why the database cannot be looked at; it is no fault of the settings.
pub(crate) fn open(settings: &Settings, board: Option<Board>) -> Result<Option<Probe>, String> {
    let mut is_set_up = false;
    let budget = board.and_then(|board| Budget::new(settings, board));
    let mut token = match &budget {
        Some(budget) => Some(
            budget.take_aside(TOKEN_WAIT).ok_or("its connection for questions was taken the whole time")?,
        ),
        None => None,
    };
    let session = match &settings.database.url {
        None => return Ok(None),
        Some(DatabaseUrl::Postgres(url)) => {
            let mut dialer = Dialer::new(url, &format!("{}/check", settings.proc_name))?;
            let is_pooled = settings.database.transaction_pooler;
            if !is_pooled {
                dialer.limit_statements(STATEMENT_WAIT);
            }
            let contact = Arc::new(Contact::default());
            if let Some(token) = &mut token {
                token.accompany(&contact);
            }
            let client = dialer.dial(&contact).map_err(|error| describe(&error))?;
            let mut session = PostgresSession::new(client, &dialer, Telling::nobody());
            session.pooled = is_pooled.then(|| Pooled::new(STATEMENT_WAIT));
            Session::Postgres(Box::new(session))
        }
        Some(DatabaseUrl::Sqlite(path)) if path.exists() => {
            Session::Sqlite(SqliteSession::new(read_only(path)?))
        }
        Some(DatabaseUrl::Sqlite(path)) => {
            is_set_up = true;
            Session::Sqlite(SqliteSession::new(in_memory(path, settings)?))
        }
    };
    Ok(Some(Probe { session, _token: token, is_set_up }))
}

fn read_only(path: &Path) -> Result<Connection, String> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let opened = Connection::open_with_flags(path, flags).and_then(|connection| {
        connection.busy_timeout(BUSY_WAIT)?;
        Ok(connection)
    });
    opened.map_err(|error| format!("{}: {error}", path.display()))
}

fn in_memory(path: &Path, settings: &Settings) -> Result<Connection, String> {
    let away = format!("{}: there is no such file yet", path.display());
    let script = settings.database.setup.as_ref().ok_or(away)?;
    let text = std::fs::read_to_string(script).map_err(|error| format!("{}: {error}", script.display()))?;
    let made = Connection::open_in_memory().and_then(|connection| {
        connection.execute_batch(&text)?;
        Ok(connection)
    });
    made.map_err(|error| format!("{}: {error}", script.display()))
}

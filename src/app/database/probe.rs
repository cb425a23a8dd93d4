//! One connection to the configured database, for a look at it before anything serves. It blocks, and changes nothing.
//! Not here: what is looked at.

use super::dial::{Contact, Dialer, describe};
use super::notify::Telling;
use super::{PostgresSession, SqliteSession};
use crate::config::{DatabaseUrl, Settings};
use rusqlite::{Connection, OpenFlags};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How long to wait for somebody who has locked the file.
const BUSY_WAIT: Duration = Duration::from_secs(1);

pub(crate) struct Probe {
    pub(crate) session: Session,
    /// The setup script has run.
    pub(crate) is_set_up: bool,
}

pub(crate) enum Session {
    Postgres(Box<PostgresSession>),
    Sqlite(SqliteSession),
}

/// Connects. A file of SQLite that is not there yet is stood for by one in memory, made by the setup script.
///
/// # Errors
/// Why the database cannot be looked at; it is no fault of the settings.
pub(crate) fn open(settings: &Settings) -> Result<Option<Probe>, String> {
    let mut is_set_up = false;
    let session = match &settings.database.url {
        None => return Ok(None),
        Some(DatabaseUrl::Postgres(url)) => {
            let dialer = Dialer::new(url, &format!("{}/check", settings.proc_name))?;
            let client = dialer.dial(&Arc::new(Contact::default())).map_err(|error| describe(&error))?;
            Session::Postgres(Box::new(PostgresSession::new(client, &dialer, Telling::nobody())))
        }
        Some(DatabaseUrl::Sqlite(path)) if path.exists() => {
            Session::Sqlite(SqliteSession::new(read_only(path)?))
        }
        Some(DatabaseUrl::Sqlite(path)) => {
            is_set_up = true;
            Session::Sqlite(SqliteSession::new(in_memory(path, settings)?))
        }
    };
    Ok(Some(Probe { session, is_set_up }))
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

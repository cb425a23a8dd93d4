//! The script that prepares the database at the server's start. Plain blocking code for a short-lived process,
//! one try. Not here: when it runs, and whether it is tried again.

use super::budget::Budget;
use super::dial::{Contact, Dialer, describe};
use super::sqlite;
use crate::config::{DatabaseUrl, Settings};
use crate::scoreboard::Board;
use ::postgres::Client;
use ::postgres::error::{ErrorPosition, SqlState};
use rusqlite::ErrorCode;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The key of the PostgreSQL advisory lock that is held while the script runs: "ferricor" as a number, so that
/// several servers that start on one database take turns.
const ADVISORY_LOCK: i64 = i64::from_be_bytes(*b"ferricor");

/// How long to wait for another server's script, or for a table that somebody has locked.
const LOCK_WAIT: Duration = Duration::from_secs(10);

/// How the script ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It ran, or there is none.
    Done,
    /// The database cannot be reached or is locked; another try may help.
    Away(String),
    /// The script is wrong, or cannot be read; another try will not help.
    Wrong(String),
}

/// Runs the script `[database] setup` in one transaction, which a failure rolls back whole.
pub(crate) fn set_up(settings: &Settings, board: Board) -> Outcome {
    let (Some(url), Some(path)) = (&settings.database.url, &settings.database.setup) else {
        return Outcome::Done;
    };
    let script = match std::fs::read_to_string(path) {
        Ok(script) => script,
        Err(error) => return Outcome::Wrong(format!("{}: {error}", path.display())),
    };
    let ended = match url {
        DatabaseUrl::Postgres(url) => run_on_postgres(url, settings, board, path, &script),
        DatabaseUrl::Sqlite(database) => run_on_sqlite(database, path, &script),
    };
    ended.err().unwrap_or(Outcome::Done)
}

fn run_on_postgres(
    url: &str,
    settings: &Settings,
    board: Board,
    path: &Path,
    script: &str,
) -> Result<(), Outcome> {
    let dialer = Dialer::new(url, &format!("{}/setup", settings.proc_name)).map_err(Outcome::Wrong)?;
    // Declared before the client: it must outlive it.
    let mut token = match Budget::new(settings, board) {
        Some(budget) => {
            let busy = || Outcome::Away("another question to the database takes too long".to_owned());
            Some(budget.take_aside(LOCK_WAIT).ok_or_else(busy)?)
        }
        None => None,
    };
    let contact = Arc::new(Contact::default());
    if let Some(token) = &mut token {
        token.accompany(&contact);
    }
    let mut client = dialer.dial(&contact).map_err(|error| Outcome::Away(describe(&error)))?;
    let away = |error: ::postgres::Error| Outcome::Away(describe(&error));
    let prologue = format!(
        "BEGIN; SET LOCAL lock_timeout = {}; SELECT pg_advisory_xact_lock({ADVISORY_LOCK})",
        LOCK_WAIT.as_millis()
    );
    client.batch_execute(&prologue).map_err(away)?;
    let judge = |error, client: &Client| judge_postgres(&error, client, path, script);
    client.batch_execute(script).map_err(|error| judge(error, &client))?;
    client.batch_execute("COMMIT").map_err(|error| judge(error, &client))
}

fn judge_postgres(error: &::postgres::Error, client: &Client, path: &Path, script: &str) -> Outcome {
    let message = describe(error);
    let Some(refusal) = error.as_db_error() else { return Outcome::Away(message) };
    let passes = [
        SqlState::LOCK_NOT_AVAILABLE,
        SqlState::T_R_DEADLOCK_DETECTED,
        SqlState::ADMIN_SHUTDOWN,
        SqlState::CRASH_SHUTDOWN,
    ];
    if passes.contains(refusal.code()) || client.is_closed() {
        return Outcome::Away(message);
    }
    let line = match refusal.position() {
        // In characters, from 1.
        Some(ErrorPosition::Original(position)) => {
            let before = script.chars().take(*position as usize - 1);
            Some(1 + before.filter(|&c| c == '\n').count())
        }
        Some(ErrorPosition::Internal { .. }) | None => None,
    };
    Outcome::Wrong(place(path, line, &message))
}

fn run_on_sqlite(database: &Path, path: &Path, script: &str) -> Result<(), Outcome> {
    let away = |error: rusqlite::Error| Outcome::Away(error.to_string());
    let connection = sqlite::open(database, LOCK_WAIT).map_err(away)?;
    connection.execute_batch("BEGIN IMMEDIATE").map_err(away)?;
    let judge = |error| judge_sqlite(&error, path, script);
    connection.execute_batch(script).map_err(judge)?;
    connection.execute_batch("COMMIT").map_err(judge)
}

fn judge_sqlite(error: &rusqlite::Error, path: &Path, script: &str) -> Outcome {
    let busy = [ErrorCode::DatabaseBusy, ErrorCode::DatabaseLocked];
    if error.sqlite_error_code().is_some_and(|code| busy.contains(&code)) {
        return Outcome::Away(error.to_string());
    }
    let (line, message) = match error {
        rusqlite::Error::SqlInputError { msg, sql, offset, .. } => {
            let at = script.find(sql.as_str()).map(|start| start + usize::try_from(*offset).unwrap_or(0));
            let before = at.and_then(|at| script.as_bytes().get(..at));
            (before.map(|text| 1 + text.iter().filter(|&&byte| byte == b'\n').count()), msg.clone())
        }
        other => (None, other.to_string()), // not our enum
    };
    Outcome::Wrong(place(path, line, &message))
}

fn place(path: &Path, line: Option<usize>, message: &str) -> String {
    let path = path.display();
    line.map_or_else(|| format!("{path}: {message}"), |line| format!("{path}:{line}: {message}"))
}

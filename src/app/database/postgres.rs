//! A PostgreSQL connection in a pool: its settings, its prepared statements, and whether it may be used again.
//! Not here: waiting for one.

use super::health::{Connect, Session};
use crate::app::Error;
use crate::config::DatabaseSettings;
use lru::LruCache;
use postgres::config::SslMode;
use postgres::error::SqlState;
use postgres::types::ToSql;
use postgres::{Client, NoTls, Row, SimpleQueryMessage, Statement};
use r2d2::ManageConnection;
use r2d2_postgres::PostgresConnectionManager;
use std::error::Error as _;
use std::time::Duration;

/// How many prepared statements a connection keeps, least recently used out first.
const MAX_STATEMENTS: usize = 256;

// What a URL does not say about a connection. libpq's names and meanings:
// https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(15);
const KEEPALIVES_IDLE: Duration = Duration::from_secs(10);
const KEEPALIVES_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVES_RETRIES: u32 = 3;

/// How long an idle connection may take to prove that it is alive.
const ALIVE_WAIT: Duration = Duration::from_millis(500);

/// A connection to PostgreSQL that keeps its statements prepared, so that a repeated one is one round trip.
///
/// Each SQL text that it is given stays prepared: put values into parameters, not into the text. What a closure
/// changes about the connection, such as `SET`, stays for the next one: use `SET LOCAL` in a transaction.
///
/// ```
/// # use ferricorn::{Error, Worker};
/// async fn name(worker: Worker, id: i32) -> Result<Option<String>, Error> {
///     let by_id = "SELECT name FROM users WHERE id = $1";
///     worker.postgres().run(move |db| Ok(db.query_opt(by_id, &[&id])?.map(|row| row.get(0)))).await
/// }
/// ```
pub struct PostgresSession {
    client: Client,
    statements: LruCache<String, Statement>,
    /// Something ran that may have opened a transaction, and nobody asked the server since.
    suspect: bool,
    /// Inside `Pool::transaction`.
    in_transaction: bool,
    /// A statement failed in this transaction, so that `COMMIT` may quietly roll back.
    failed: bool,
    /// A commit or a rollback failed: the state is unknown.
    broken: bool,
}

type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

impl PostgresSession {
    pub(super) fn new(client: Client) -> PostgresSession {
        PostgresSession {
            client,
            statements: LruCache::unbounded(),
            suspect: false,
            in_transaction: false,
            failed: false,
            broken: false,
        }
    }

    /// The prepared statement for `sql`, kept for the next time.
    pub fn prepare(&mut self, sql: &str) -> Result<Statement, postgres::Error> {
        if may_control_transaction(sql) {
            self.suspect = true;
        }
        if let Some(statement) = self.statements.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(sql).inspect_err(|_| self.failed = true)?;
        self.statements.put(sql.to_owned(), statement.clone());
        if self.statements.len() > MAX_STATEMENTS {
            self.statements.pop_lru();
        }
        Ok(statement)
    }

    /// All rows.
    pub fn query(&mut self, sql: &str, params: Params<'_>) -> Result<Vec<Row>, postgres::Error> {
        self.with_statement(sql, |client, statement| client.query(statement, params))
    }

    /// The one row; an error when there is none or more than one.
    pub fn query_one(&mut self, sql: &str, params: Params<'_>) -> Result<Row, postgres::Error> {
        self.with_statement(sql, |client, statement| client.query_one(statement, params))
    }

    /// The row, if there is one; an error when there are more.
    pub fn query_opt(&mut self, sql: &str, params: Params<'_>) -> Result<Option<Row>, postgres::Error> {
        self.with_statement(sql, |client, statement| client.query_opt(statement, params))
    }

    /// The number of rows that were changed.
    pub fn execute(&mut self, sql: &str, params: Params<'_>) -> Result<u64, postgres::Error> {
        self.with_statement(sql, |client, statement| client.execute(statement, params))
    }

    /// Runs a script of several statements, without parameters. Afterwards the pool asks the server, once, whether
    /// a transaction is open.
    pub fn batch_execute(&mut self, sql: &str) -> Result<(), postgres::Error> {
        self.suspect = true;
        self.client.batch_execute(sql)
    }

    /// The client itself, for `COPY`, portals and types. Costs the same question afterwards as `batch_execute`.
    pub fn client(&mut self) -> &mut Client {
        self.suspect = true;
        &mut self.client
    }

    fn with_statement<T>(
        &mut self,
        sql: &str,
        run: impl Fn(&mut Client, &Statement) -> Result<T, postgres::Error>,
    ) -> Result<T, postgres::Error> {
        let was_kept = self.statements.contains(sql);
        let statement = self.prepare(sql)?;
        let error = match run(&mut self.client, &statement) {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        self.failed = true;
        if !is_stale(&error) {
            return Err(error);
        }
        self.statements.pop(sql);
        // Outside a transaction a new plan of the statement may do, provided that the old one did nothing.
        if !was_kept || self.in_transaction || self.suspect || !never_ran(&error) {
            return Err(error);
        }
        let statement = self.prepare(sql)?;
        run(&mut self.client, &statement)
    }

    /// Asks whether a transaction is open: in one, `now()` is the time of its beginning. A failed one refuses to
    /// answer.
    fn is_outside_transaction(&mut self) -> bool {
        let answer = self.client.simple_query("SELECT now() = statement_timestamp()");
        answer.is_ok_and(|messages| {
            messages.iter().any(|message| match message {
                SimpleQueryMessage::Row(row) => row.get(0) == Some("t"),
                _ => false, // not our enum
            })
        })
    }

    #[cfg(test)]
    pub(super) fn kept_statements(&self) -> usize {
        self.statements.len()
    }
}

impl Session for PostgresSession {
    fn begin(&mut self) -> Result<(), Error> {
        self.client.batch_execute("BEGIN")?;
        self.in_transaction = true;
        self.failed = false;
        Ok(())
    }

    fn commit(&mut self) -> Result<(), Error> {
        // `COMMIT` of a failed transaction is a rollback that reports success; the `SELECT` refuses first.
        let doubtful = self.failed || self.suspect;
        let commit = if doubtful { "SELECT 1; COMMIT" } else { "COMMIT" };
        let Err(error) = self.client.batch_execute(commit) else {
            self.in_transaction = false;
            return Ok(());
        };
        if error.code() == Some(&SqlState::IN_FAILED_SQL_TRANSACTION) {
            self.roll_back()?;
        } else {
            self.broken = true;
        }
        Err(error.into())
    }

    fn roll_back(&mut self) -> Result<(), Error> {
        self.client.batch_execute("ROLLBACK").inspect_err(|_| self.broken = true)?;
        self.in_transaction = false;
        Ok(())
    }

    fn is_alive(&mut self) -> bool {
        self.client.is_valid(ALIVE_WAIT).is_ok()
    }

    fn is_clean(&mut self) -> bool {
        if self.broken || self.client.is_closed() {
            return false;
        }
        if self.suspect {
            self.suspect = false;
            return self.is_outside_transaction();
        }
        true
    }

    fn lost(&self, error: &Error) -> Option<String> {
        let Error::Postgres(error) = error else { return None };
        let said_goodbye = error.code().is_some_and(|code| {
            [SqlState::ADMIN_SHUTDOWN, SqlState::CRASH_SHUTDOWN, SqlState::CANNOT_CONNECT_NOW].contains(code)
        });
        let broke = error.source().is_some_and(|source| source.is::<std::io::Error>());
        let lost = said_goodbye || broke || error.is_closed() || self.client.is_closed();
        lost.then(|| describe(error))
    }
}

/// Reads the URL; the message does not hold the password.
pub(super) fn parse(url: &str) -> Result<postgres::Config, String> {
    let config: postgres::Config = url.parse().map_err(|error: postgres::Error| {
        let reason = error.source().map_or_else(|| error.to_string(), ToString::to_string);
        // What is taken for an option may be the rest of a password with a `?` in it.
        let reason = if reason.starts_with("unknown option") { "unknown option".into() } else { reason };
        format!("the postgres url is not valid: {reason}")
    })?;
    if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
        return Err("the postgres url names no host".into());
    }
    if config.get_ssl_mode() == SslMode::Require {
        return Err("the postgres url has sslmode=require, but there is no TLS to the database".into());
    }
    Ok(config)
}

/// Adds what the URL leaves open.
pub(super) fn configure(url: &str, application: &str) -> Result<postgres::Config, String> {
    let mut config = parse(url)?;
    if config.get_application_name().is_none() {
        config.application_name(application);
    }
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(CONNECT_TIMEOUT);
    }
    if config.get_tcp_user_timeout().is_none() {
        config.tcp_user_timeout(TCP_USER_TIMEOUT);
    }
    if config.get_keepalives_interval().is_none() {
        config.keepalives_idle(KEEPALIVES_IDLE).keepalives_interval(KEEPALIVES_INTERVAL);
        config.keepalives_retries(KEEPALIVES_RETRIES);
    }
    Ok(config)
}

pub(super) fn connector(
    url: &str,
    settings: &DatabaseSettings,
    application: String,
) -> Connect<PostgresSession> {
    let manager = configure(url, &application).map(|mut config| {
        if !settings.statement_timeout.is_zero() {
            // First, so that an option of the URL wins.
            let ours = format!("-c statement_timeout={}", settings.statement_timeout.as_millis());
            let options = config.get_options().map_or(ours.clone(), |theirs| format!("{ours} {theirs}"));
            config.options(&options);
        }
        PostgresConnectionManager::new(config, NoTls)
    });
    Box::new(move || {
        let manager = manager.as_ref().map_err(|reason| Error::DatabaseDown(reason.clone()))?;
        match manager.connect() {
            Ok(client) => Ok(PostgresSession::new(client)),
            Err(error) => Err(Error::DatabaseDown(describe(&error))),
        }
    })
}

/// The server's words, or the reason why there are none.
pub(super) fn describe(error: &postgres::Error) -> String {
    match (error.as_db_error(), error.source()) {
        (Some(refusal), _) => refusal.to_string(),
        (None, Some(source)) => format!("{error}: {source}"),
        (None, None) => error.to_string(),
    }
}

/// The plan no longer fits its tables, or the server does not know the statement.
/// Codes: https://www.postgresql.org/docs/current/errcodes-appendix.html
fn is_stale(error: &postgres::Error) -> bool {
    let stale = [SqlState::FEATURE_NOT_SUPPORTED, SqlState::INVALID_SQL_STATEMENT_NAME];
    error.code().is_some_and(|code| stale.contains(code))
}

/// Whether the server refused the statement before it ran. The code does not say so: a procedure may commit, and
/// then fail with any code. Only to repeat depends on this, since the names are the server's own affair.
fn never_ran(error: &postgres::Error) -> bool {
    let refusers = ["RevalidateCachedQuery", "FetchPreparedStatement"];
    error.as_db_error().is_some_and(|refusal| {
        // What went wrong inside a function says where.
        refusal.where_().is_none() && refusal.routine().is_some_and(|name| refusers.contains(&name))
    })
}

/// Whether the statement may begin or end a transaction. May say yes too often: that costs a round trip.
fn may_control_transaction(sql: &str) -> bool {
    let sql = sql.trim_start();
    let end = sql.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(sql.len());
    let word = &sql[..end];
    // No word: a comment, which may hide anything.
    let controls =
        ["begin", "start", "commit", "end", "rollback", "abort", "savepoint", "release", "prepare"];
    word.is_empty() || controls.iter().any(|control| word.eq_ignore_ascii_case(control))
}

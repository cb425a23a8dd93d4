//! A PostgreSQL connection in a pool: its settings, its prepared statements, and whether it may be used again.
//! Not here: waiting for one.

use super::budget::{Budget, Token};
use super::dial::{Contact, Dialer, describe};
use super::health::{Cancel, Connect, Session};
use super::notify::{self, Telling};
use super::pooled::Pooled;
use super::{Isolation, TransactionOptions, limit};
use crate::app::Error;
use crate::config::DatabaseSettings;
use lru::LruCache;
use postgres::error::SqlState;
use postgres::fallible_iterator::FallibleIterator;
use postgres::types::ToSql;
use postgres::{CancelToken, Client, Row, RowIter, SimpleQueryMessage, Statement};
use std::error::Error as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How many prepared statements a connection keeps, least recently used out first.
const MAX_STATEMENTS: usize = 256;

/// How long an idle connection may take to prove that it is alive.
const ALIVE_WAIT: Duration = Duration::from_millis(500);

/// How long an attempt to connect waits for a token; then another one follows.
const TOKEN_WAIT: Duration = Duration::from_millis(500);

/// How often it asks meanwhile what became of lost ones.
const ASK_EVERY: Duration = Duration::from_millis(100);

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
///
/// Behind a pooler in transaction mode, with `[database] transaction_pooler`, nothing is kept. Each call is then a transaction of
/// its own, outside of [`Pool::transaction`](super::Pool::transaction).
pub struct PostgresSession {
    pub(super) client: Client,
    statements: LruCache<String, Statement>,
    /// Behind a pooler in transaction mode.
    pub(super) pooled: Option<Pooled>,
    /// Something ran that may have opened a transaction, and nobody asked the server since.
    pub(super) suspect: bool,
    /// Inside `Pool::transaction`.
    pub(super) in_transaction: bool,
    /// A statement failed in this transaction, so that `COMMIT` may quietly roll back.
    pub(super) failed: bool,
    /// A commit or a rollback failed: the state is unknown.
    pub(super) broken: bool,
    cancel: Arc<dyn Cancel>,
    telling: Telling,
    /// Its place in the budget. After the client: it is given back when that is closed.
    token: Option<Token>,
}

type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

impl PostgresSession {
    pub(super) fn new(client: Client, dialer: &Dialer, telling: Telling) -> PostgresSession {
        let cancel = CancelRequest { token: client.cancel_token(), dialer: dialer.clone() };
        PostgresSession {
            client,
            statements: LruCache::unbounded(),
            pooled: None,
            suspect: false,
            in_transaction: false,
            failed: false,
            broken: false,
            cancel: Arc::new(cancel),
            telling,
            token: None,
        }
    }

    /// The prepared statement for `sql`, kept for the next time. With `transaction_pooler` it is not, and good within the
    /// transaction only.
    pub fn prepare(&mut self, sql: &str) -> Result<Statement, postgres::Error> {
        if may_control_transaction(sql) {
            self.suspect = true;
        }
        if self.is_pooled() {
            return self.client.prepare(sql).inspect_err(|_| self.failed = true);
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
        if self.is_pooled() {
            return self.run_typed(sql, params, |client, params| client.query_typed(sql, &params));
        }
        self.with_statement(sql, |client, statement| client.query(statement, params))
    }

    /// The one row; an error when there is none or more than one.
    pub fn query_one(&mut self, sql: &str, params: Params<'_>) -> Result<Row, postgres::Error> {
        if self.is_pooled() {
            return self.run_typed(sql, params, |client, params| client.query_typed_one(sql, &params));
        }
        self.with_statement(sql, |client, statement| client.query_one(statement, params))
    }

    /// The row, if there is one; an error when there are more.
    pub fn query_opt(&mut self, sql: &str, params: Params<'_>) -> Result<Option<Row>, postgres::Error> {
        if self.is_pooled() {
            return self.run_typed(sql, params, |client, params| client.query_typed_opt(sql, &params));
        }
        self.with_statement(sql, |client, statement| client.query_opt(statement, params))
    }

    /// The number of rows that were changed.
    pub fn execute(&mut self, sql: &str, params: Params<'_>) -> Result<u64, postgres::Error> {
        if self.is_pooled() {
            return self.run_typed(sql, params, |client, params| client.execute_typed(sql, &params));
        }
        self.with_statement(sql, |client, statement| client.execute(statement, params))
    }

    /// Hands over one row after the other, as they come: no more of them are in memory than the connection has read ahead. An
    /// error of `take` ends the statement at the server, and the connection with it.
    pub(crate) fn each<E: From<postgres::Error>>(
        &mut self,
        sql: &str,
        params: Params<'_>,
        mut take: impl FnMut(&Row) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut ended = None;
        let cancel = Arc::clone(&self.cancel);
        let mut take_all = |mut rows: RowIter<'_>| {
            while let Some(row) = rows.next()? {
                if let Err(error) = take(&row) {
                    ended = Some(error);
                    // What was on its way is read and thrown away, also where the server cannot be told.
                    cancel.cancel();
                    while let Ok(Some(_)) = rows.next() {}
                    break;
                }
            }
            Ok(())
        };
        if self.is_pooled() {
            self.run_typed(sql, params, |client, params| take_all(client.query_typed_raw(sql, params)?))?;
        } else {
            self.with_statement(sql, |client, statement| {
                take_all(client.query_raw(statement, params.iter().copied())?)
            })?;
        }
        match ended {
            // The order to end may arrive late, and must not meet another statement.
            Some(error) => {
                self.broken = true;
                Err(error)
            }
            None => Ok(()),
        }
    }

    /// Has every worker forget the entries with this tag, once what this transaction changes is committed; outside a
    /// transaction at once: call it after the change, then. With `[cache] notify` the workers of other servers on this
    /// database forget them, too, a moment later: they are told by the transaction itself, and not if it is rolled back.
    ///
    /// ```
    /// # use ferricorn::{Error, Worker};
    /// async fn reprice(worker: Worker, id: i32, price: i64) -> Result<(), Error> {
    ///     let change = "UPDATE items SET price = $2 WHERE id = $1";
    ///     let work = move |tx: &mut ferricorn::PostgresSession| {
    ///         tx.execute(change, &[&id, &price])?;
    ///         tx.invalidate_tag("items")?;
    ///         Ok(())
    ///     };
    ///     worker.postgres().transaction(work).await
    /// }
    /// ```
    ///
    /// # Errors
    /// The database's, and then the transaction has failed. Without `notify` none.
    pub fn invalidate_tag(&mut self, tag: &str) -> Result<(), postgres::Error> {
        // Whatever comes of it: where it is not told, only a miss was paid for it.
        self.telling.note(tag);
        let told = if self.tells_others() { self.tell_others(tag) } else { Ok(()) };
        if !self.in_transaction {
            self.telling.bump();
        }
        told
    }

    /// Whether what is invalidated is to be told to other servers.
    pub(crate) fn tells_others(&self) -> bool {
        self.telling.tells_others()
    }

    /// Has other servers hear of the tag when the transaction commits. This one's caches are the caller's affair.
    pub(crate) fn tell_others(&mut self, tag: &str) -> Result<(), postgres::Error> {
        self.execute(notify::TELL, &[&notify::CHANNEL, &notify::payload(tag)]).map(drop)
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
        mut run: impl FnMut(&mut Client, &Statement) -> Result<T, postgres::Error>,
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
    pub(super) fn is_outside_transaction(&mut self) -> bool {
        let answer = self.client.simple_query("SELECT now() = statement_timestamp()");
        answer.is_ok_and(|messages| {
            messages.iter().any(|message| match message {
                SimpleQueryMessage::Row(row) => row.get(0) == Some("t"),
                _ => false, // not our enum
            })
        })
    }

    /// Notes which process serves the connection, so that others can see when it is gone.
    fn begin_to_count(&mut self) -> Result<(), postgres::Error> {
        let Some(token) = &mut self.token else { return Ok(()) };
        let row = self.client.simple_query("SELECT pg_backend_pid()")?;
        let pid = numbers(&row).next().unwrap_or(0);
        token.note_backend(pid);
        if let Some(budget) = token.budget().to_check() {
            limit::check_over(&mut self.client, budget);
        }
        self.ask_after_the_lost()
    }

    fn ask_after_the_lost(&mut self) -> Result<(), postgres::Error> {
        match &self.token {
            Some(token) => ask_after_the_lost(&mut self.client, token.budget()),
            None => Ok(()),
        }
    }

    #[cfg(test)]
    pub(super) fn kept_statements(&self) -> usize {
        self.statements.len()
    }
}

impl Session for PostgresSession {
    fn begin(&mut self, options: TransactionOptions) -> Result<(), Error> {
        let isolation = match options.isolation {
            None => "",
            Some(Isolation::ReadCommitted) => " ISOLATION LEVEL READ COMMITTED",
            Some(Isolation::RepeatableRead) => " ISOLATION LEVEL REPEATABLE READ",
            Some(Isolation::Serializable) => " ISOLATION LEVEL SERIALIZABLE",
        };
        let access = if options.read_only { " READ ONLY" } else { "" };
        self.client.batch_execute(&self.beginning(&format!("{isolation}{access}")))?;
        self.in_transaction = true;
        self.failed = false;
        Ok(())
    }

    fn commit(&mut self) -> Result<(), Error> {
        // `COMMIT` of a failed transaction is a rollback that reports success; the `SELECT` refuses first.
        let doubtful = self.failed || self.suspect;
        let commit = if doubtful { "SELECT 1; COMMIT" } else { "COMMIT" };
        let committed = self.client.batch_execute(commit);
        // Whatever came of it: where the connection broke, it may have taken effect.
        self.telling.bump();
        let Err(error) = committed else {
            self.in_transaction = false;
            return Ok(());
        };
        if error.as_db_error().is_some() {
            // It says no, and no more; where it has rolled back itself, this does no harm.
            self.roll_back()?;
        } else {
            self.broken = true;
        }
        Err(error.into())
    }

    fn roll_back(&mut self) -> Result<(), Error> {
        self.client.batch_execute("ROLLBACK").inspect_err(|_| self.broken = true)?;
        self.in_transaction = false;
        self.telling.forget();
        Ok(())
    }

    fn is_alive(&mut self) -> bool {
        self.client.is_valid(ALIVE_WAIT).is_ok()
    }

    fn is_clean(&mut self) -> bool {
        self.telling.end_of_call();
        if self.broken || self.client.is_closed() {
            return false;
        }
        if self.suspect {
            self.suspect = false;
            if !self.is_outside_transaction() {
                return false;
            }
        }
        self.ask_after_the_lost().is_ok()
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

    fn is_worth_a_retry(&self, error: &Error) -> bool {
        let Error::Postgres(error) = error else { return false };
        let passes = [SqlState::T_R_SERIALIZATION_FAILURE, SqlState::T_R_DEADLOCK_DETECTED];
        error.code().is_some_and(|code| passes.contains(code))
    }

    fn canceller(&self) -> Arc<dyn Cancel> {
        Arc::clone(&self.cancel)
    }
}

impl Drop for PostgresSession {
    fn drop(&mut self) {
        self.telling.end_of_call();
    }
}

/// Asks the server to end a statement, over a connection of its own.
struct CancelRequest {
    token: CancelToken,
    dialer: Dialer,
}

impl Cancel for CancelRequest {
    fn cancel(&self) {
        match self.dialer.cancel(&self.token) {
            Ok(()) => log::debug!("database statement was cancelled"),
            Err(error) => {
                log::warn!("database statement could not be cancelled error={:?}", describe(&error))
            }
        }
    }
}

pub(super) fn connector(
    url: &str,
    settings: &DatabaseSettings,
    application: &str,
    budget: Option<Arc<Budget>>,
    telling: Telling,
) -> Connect<PostgresSession> {
    let (is_pooled, limit) = (settings.transaction_pooler, settings.statement_timeout);
    let dialer = Dialer::new(url, application).map(|mut dialer| {
        // A pooler takes no such option; there the limit comes with each transaction.
        if !limit.is_zero() && !is_pooled {
            dialer.limit_statements(limit);
        }
        dialer
    });
    Box::new(move || {
        let dialer = dialer.as_ref().map_err(|reason| Error::DatabaseDown(reason.clone()))?;
        let contact = Arc::new(Contact::default());
        let mut token = match &budget {
            Some(budget) => Some(find_token(budget, dialer)?),
            None => None,
        };
        if let Some(token) = &mut token {
            token.accompany(&contact);
        }
        let client = dialer.dial(&contact).map_err(|error| Error::DatabaseDown(describe(&error)))?;
        let mut session = PostgresSession::new(client, dialer, telling.clone());
        session.pooled = is_pooled.then(|| Pooled::new(limit));
        session.token = token;
        session.begin_to_count().map_err(|error| Error::DatabaseDown(describe(&error)))?;
        Ok(session)
    })
}

/// Waits for a token. Where all are in use and some of them are lost, the database is asked after those, over a
/// connection of its own.
pub(super) fn find_token(budget: &Arc<Budget>, dialer: &Dialer) -> Result<Token, Error> {
    let deadline = Instant::now() + TOKEN_WAIT;
    loop {
        if let Some(token) = budget.take(ASK_EVERY) {
            return Ok(token);
        }
        if Instant::now() >= deadline {
            return Err(Error::PoolTimeout);
        }
        if budget.has_lost()
            && let Some(mut aside) = budget.take_aside(Duration::ZERO)
        {
            let contact = Arc::new(Contact::default());
            aside.accompany(&contact);
            let asked = dialer.dial(&contact).and_then(|mut client| ask_after_the_lost(&mut client, budget));
            // Gone before its token is.
            drop(aside);
            asked.map_err(|error| Error::DatabaseDown(describe(&error)))?;
        }
    }
}

/// Gives back the tokens of connections whose clients died, once the database is done with them, too.
fn ask_after_the_lost(client: &mut Client, budget: &Budget) -> Result<(), postgres::Error> {
    let lost = budget.to_ask_after();
    if lost.is_empty() {
        return Ok(());
    }
    let pids: Vec<String> = lost.iter().map(|lost| lost.backend().to_string()).collect();
    let ask = format!("SELECT pid FROM pg_stat_activity WHERE pid IN ({})", pids.join(", "));
    let rows = client.simple_query(&ask)?;
    let alive: Vec<u32> = numbers(&rows).collect();
    let gone = lost.into_iter().filter(|lost| !alive.contains(&lost.backend()));
    gone.for_each(|lost| budget.found_gone(lost));
    Ok(())
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

/// The first column of all rows, where it is a number.
fn numbers(messages: &[SimpleQueryMessage]) -> impl Iterator<Item = u32> {
    messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0)?.parse().ok(),
        _ => None, // not our enum
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

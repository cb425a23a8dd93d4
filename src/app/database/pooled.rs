//! A session behind a pooler in transaction mode, such as PgBouncer: which of the database's processes it speaks to is only
//! certain within a transaction, and they serve others in between. So each statement is run in one, which brings its time limits
//! along, and nothing stays prepared after it. Not here: what is the same without a pooler.

use super::PostgresSession;
use lru::LruCache;
use postgres::Client;
use postgres::types::{ToSql, Type};
use std::sync::Arc;
use std::time::Duration;

/// Of how many statements the types of the parameters are known, least recently used out first.
const MAX_LEARNED: usize = 256;

pub(super) struct Pooled {
    /// What follows BEGIN.
    limits: String,
    learned: LruCache<String, Arc<[Type]>>,
}

type Params<'a> = &'a [&'a (dyn ToSql + Sync)];
pub(super) type Typed<'a> = Vec<(&'a (dyn ToSql + Sync), Type)>;

impl Pooled {
    /// With the limit for statements, and for a transaction that is left alone; zero: none.
    pub(super) fn new(timeout: Duration) -> Pooled {
        let millis = timeout.as_millis();
        let limits = if timeout.is_zero() {
            String::new()
        } else {
            format!(
                "; SET LOCAL statement_timeout = {millis}; SET LOCAL idle_in_transaction_session_timeout = {millis}"
            )
        };
        Pooled { limits, learned: LruCache::unbounded() }
    }
}

impl PostgresSession {
    pub(super) fn is_pooled(&self) -> bool {
        self.pooled.is_some()
    }

    /// What begins a transaction of these modes.
    pub(super) fn beginning(&self, modes: &str) -> String {
        format!("BEGIN{modes}{}", self.pooled.as_ref().map_or("", |pooled| &pooled.limits))
    }

    /// Runs `work` on one process of the database: behind a pooler, and outside a transaction, in one of its own.
    pub(crate) fn on_one_process<T, E: From<postgres::Error>>(
        &mut self,
        work: impl FnOnce(&mut PostgresSession) -> Result<T, E>,
    ) -> Result<T, E> {
        // A transaction may also be the app's own.
        if !self.is_pooled() || self.in_transaction || (self.suspect && !self.is_outside_transaction()) {
            return work(self);
        }
        self.client.batch_execute(&self.beginning(""))?;
        self.in_transaction = true;
        let outcome = work(self);
        let ended = self.client.batch_execute(if outcome.is_ok() { "COMMIT" } else { "ROLLBACK" });
        self.in_transaction = false;
        if let Err(error) = &ended {
            self.broken |= error.as_db_error().is_none();
        }
        let value = outcome?;
        ended?;
        Ok(value)
    }

    /// Runs a statement that has no name, and so leaves nothing behind, not even by rows that outlive the transaction.
    pub(super) fn run_typed<T>(
        &mut self,
        sql: &str,
        params: Params<'_>,
        run: impl FnOnce(&mut Client, Typed<'_>) -> Result<T, postgres::Error>,
    ) -> Result<T, postgres::Error> {
        let outcome = self.on_one_process(|session| {
            let types = session.types(sql, params)?;
            let typed = params.iter().copied().zip(types.iter().cloned()).collect();
            run(&mut session.client, typed)
        });
        if outcome.is_err() {
            self.failed = true;
            // They may be other ones by now.
            self.pooled.as_mut().map(|pooled| pooled.learned.pop(sql));
        }
        outcome
    }

    /// The types that the server infers.
    fn types(&mut self, sql: &str, params: Params<'_>) -> Result<Arc<[Type]>, postgres::Error> {
        if params.is_empty() {
            return Ok(Arc::new([]));
        }
        let pooled = self.pooled.as_mut().expect("it is asked behind a pooler only");
        if let Some(types) = pooled.learned.get(sql) {
            return Ok(Arc::clone(types));
        }
        // Dropped here and now: closed within the transaction, by the process that has prepared it.
        let types: Arc<[Type]> = self.client.prepare(sql)?.params().into();
        pooled.learned.put(sql.to_owned(), Arc::clone(&types));
        if pooled.learned.len() > MAX_LEARNED {
            pooled.learned.pop_lru();
        }
        Ok(types)
    }
}

//! A route whose answer is a statement's rows: from request to response.
//! Not here: each step's own work.

use super::input::{Input, Values};
use super::refusal::Refusal;
use super::rows::Broken;
use super::sql::{self, Dialect};
use super::{path, postgres, sqlite};
use crate::app::cache::Invalidation;
use crate::app::{CacheOptions, Database, TaggedCache, Worker};
use crate::config::{DatabaseUrl, Param, Route};
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Method, StatusCode};
use std::sync::Arc;

/// What a statement gives: the answer's JSON, or why there is none.
pub(super) type Outcome = Result<Bytes, Refusal>;

/// What goes to a handler thread with the values.
pub(super) struct Plan {
    /// `file:line` of the route, for the log.
    pub(super) place: String,
    /// With the database's own placeholders.
    pub(super) sql: String,
    /// What each placeholder was called.
    pub(super) names: Vec<String>,
    pub(super) one: bool,
    /// What the statement makes out of date.
    invalidation: Invalidation,
}

/// One route, in one worker.
pub(super) struct Endpoint {
    plan: Arc<Plan>,
    input: Input,
    database: Database,
    status: StatusCode,
    /// Answers to GET, whole, by the values that were bound: two spellings of one URL share theirs.
    cache: Option<TaggedCache<Values, Bytes>>,
}

/// Where the statement will run; `None` without a database.
pub(super) fn dialect(url: Option<&DatabaseUrl>) -> Option<Dialect> {
    match url? {
        DatabaseUrl::Sqlite(_) => Some(Dialect::Sqlite),
        DatabaseUrl::Postgres(_) => Some(Dialect::Postgres),
    }
}

impl Endpoint {
    /// `check` has seen the route.
    pub(super) fn new(worker: &Worker, route: &Route, sql: &str, params: &[Param], one: bool) -> Endpoint {
        let settings = worker.settings();
        let dialect = dialect(settings.database.url.as_ref()).expect("check saw the url");
        let statement = sql::translate(sql, dialect).expect("check read the sql");
        let param = |name: &String| {
            params.iter().find(|param| param.name == *name).cloned().expect("check saw the declaration")
        };
        let input = Input::new(statement.names.iter().map(param).collect(), &path::names(&route.path));
        let cache = (!route.cache.is_zero()).then(|| {
            let options = CacheOptions::new(settings.cache.capacity, route.cache);
            worker.cache_with(&format!("route {}", route.path), options).tagged(&route.tags)
        });
        Endpoint {
            plan: Arc::new(Plan {
                place: route.place.clone(),
                sql: statement.text,
                names: statement.names,
                one,
                invalidation: worker.invalidation(&route.invalidates),
            }),
            input,
            database: worker.database().expect("check saw the url"),
            status: StatusCode::from_u16(route.status).expect("check saw the status"),
            cache,
        }
    }

    pub(super) async fn answer(self: Arc<Endpoint>, request: Request) -> Result<Response, Refusal> {
        let safe = matches!(*request.method(), Method::GET | Method::HEAD);
        let values = self.input.read(request).await?;
        let json = match &self.cache {
            // A refusal is an `Err` and so is never kept.
            Some(cache) if safe => cache.get_or_load(values.clone(), || self.run(values)).await?,
            Some(_) | None => self.run(values).await?,
        };
        if self.status == StatusCode::NO_CONTENT {
            return Ok(self.status.into_response());
        }
        Ok((self.status, [(CONTENT_TYPE, "application/json")], json).into_response())
    }

    /// The whole of it, JSON included, on a handler thread.
    async fn run(&self, values: Values) -> Outcome {
        let plan = Arc::clone(&self.plan);
        let outcome = match &self.database {
            Database::Postgres(pool) => {
                let run = move |session: &mut _| plan.change(|plan| postgres::run(session, plan, &values));
                pool.run(run).await
            }
            Database::Sqlite(pool) => {
                let run = move |session: &mut _| plan.change(|plan| sqlite::run(session, plan, &values));
                pool.run(run).await
            }
        };
        outcome.map_err(Refusal::Database)?
    }
}

impl Plan {
    /// Invalidates after the statement, which commits by itself, whatever came of it: where the connection broke or the
    /// answer could not be made, it may have taken effect. It happens on the thread of the statement, because the future
    /// that waits for it may be dropped.
    fn change<T>(&self, statement: impl FnOnce(&Plan) -> T) -> T {
        let _afterwards = self.invalidation.at_the_end();
        statement(self)
    }

    pub(super) fn broken(&self, Broken(reason): &Broken) -> Refusal {
        log::error!("a route does not fit its database place={} reason={reason}", self.place);
        Refusal::Broken
    }
}

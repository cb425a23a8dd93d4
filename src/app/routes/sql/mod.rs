//! A route whose answer is made of a statement's rows: as JSON, or as a page of a template.
//! Not here: each step's own work.

mod postgres;
mod rows;
mod scan;
mod sqlite;
mod stream;

pub(super) use postgres::prove as prove_on_postgres;
pub(super) use rows::MAX_ANSWER_BYTES;
pub(super) use scan::Dialect;
pub(super) use sqlite::prove as prove_on_sqlite;

use super::input::{Input, Values};
use super::kept::Pages;
use super::path;
use super::refusal::Refusal;
use super::rule::Rule;
use super::template::{Page, Templates, media_type};
use super::value::Value;
use crate::app::cache::Invalidation;
use crate::app::database::{Checkout, Session, TransactionOptions, in_transaction};
use crate::app::{Body, Database, Error, PostgresSession, SqliteSession, Worker};
use crate::config::{DatabaseUrl, Param, ParamKind, Query, Route, Scalar, Sql};
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, StatusCode};
use scan::translate;
use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use stream::{Stream, StreamBody, Streams};

/// What comes of a request: the answer's body, or why there is none.
type Outcome = Result<Bytes, Refusal>;

/// What the routes of one worker share.
pub(super) struct Shared {
    worker: Worker,
    templates: Arc<Templates>,
    streams: Arc<Streams>,
}

/// One route, in one worker.
pub(super) struct Endpoint {
    shared: Work,
    input: Input,
    status: StatusCode,
    media_type: HeaderValue,
    /// Answers to GET, whole.
    cache: Option<Pages>,
}

/// What a request's work needs beside its values.
struct Work {
    plan: Arc<Plan>,
    worker: Worker,
    /// `None`: no statement, only a template.
    database: Option<Database>,
    streams: Arc<Streams>,
}

/// What goes to a handler thread with the values.
struct Plan {
    /// `file:line` of the route, for the log.
    place: String,
    statements: Vec<Prepared>,
    one: bool,
    page: Option<(Arc<Templates>, Page)>,
    /// What the statements make out of date.
    invalidation: Invalidation,
    /// The same tags, for other servers.
    invalidates: Vec<String>,
}

/// One statement.
pub(super) struct Prepared {
    /// `file:line` of its text, for the log.
    pub(super) place: String,
    /// With the database's own placeholders.
    pub(super) text: String,
    /// What each placeholder was called.
    pub(super) names: Vec<String>,
    /// Which of the route's values goes into each.
    picks: Vec<usize>,
}

/// Why it is not proved that a database takes a statement.
pub(super) enum Unproved {
    /// It does not.
    Wrong {
        /// How many lines below the statement's first.
        line: usize,
        what: String,
        /// Something is missing that a setup script could make.
        may_come: bool,
    },
    /// It did not say: it has gone, is busy, or has no room.
    Untried(String),
}

/// Where the statements will run; `None` without a database.
pub(super) fn dialect(url: Option<&DatabaseUrl>) -> Option<Dialect> {
    match url? {
        DatabaseUrl::Sqlite(_) => Some(Dialect::Sqlite),
        DatabaseUrl::Postgres(_) => Some(Dialect::Postgres),
    }
}

/// The declared parameters, and those that `page` brings.
pub(super) fn params(query: &Query) -> Vec<Param> {
    let mut params = query.params.clone();
    if let Some(page) = query.page {
        let paging = |name: &str, default: u32, min: i64| Param {
            required: false,
            default: Some(Scalar::Integer(default.into())),
            min: Some(Scalar::Integer(min)),
            ..Param::new(name, ParamKind::Integer)
        };
        params.push(Param { max: Some(Scalar::Integer(page.max.into())), ..paging("limit", page.limit, 1) });
        params.push(paging("offset", 0, 0));
    }
    params
}

/// A route's statements as this database reads them; the error says where and why not.
pub(super) fn prepared(route: &Route, query: &Query, dialect: Dialect) -> Result<Vec<Prepared>, String> {
    let names: Vec<String> = params(query).into_iter().map(|param| param.name).collect();
    let file = route.place.rsplit_once(':').map_or(route.place.as_str(), |(file, _)| file);
    let one = |Sql { text, line }: &Sql| {
        let place = if *line == 0 { route.place.clone() } else { format!("{file}:{line}") };
        let statement = translate(text, dialect).map_err(|error| error.to_string())?;
        let pick = |name: &String| {
            let position = names.iter().position(|known| known == name);
            position.ok_or(format!("the sql has :{name}, which params does not declare"))
        };
        let picks = statement.names.iter().map(pick).collect::<Result<_, _>>()?;
        Ok(Prepared { place, text: statement.text, names: statement.names, picks })
    };
    query.statements.iter().map(one).collect()
}

impl Shared {
    pub(super) fn new(worker: &Worker, templates: &Arc<Templates>) -> Shared {
        let settings = worker.settings();
        Shared {
            worker: worker.clone(),
            templates: Arc::clone(templates),
            streams: Arc::new(Streams::new(settings.threads, settings.timeout)),
        }
    }
}

impl Endpoint {
    /// `check` has seen the route.
    pub(super) fn new(shared: &Shared, route: &Route, query: &Query, template: Option<&str>) -> Endpoint {
        let Shared { worker, templates, streams } = shared;
        let settings = worker.settings();
        let params = params(query);
        let names: Vec<String> = params.iter().map(|param| param.name.clone()).collect();
        let statements = match dialect(settings.database.url.as_ref()) {
            Some(dialect) => prepared(route, query, dialect).expect("check read the sql"),
            None => Vec::new(),
        };
        let page = template.map(|name| {
            let page = Page { name: name.into(), params: names, one: query.one, place: route.place.clone() };
            (Arc::clone(templates), page)
        });
        let rules = params.into_iter().map(|param| Rule::new(param).expect("check saw the declaration"));
        let media_type = template.map_or(HeaderValue::from_static("application/json"), media_type);
        let database = (!statements.is_empty()).then(|| worker.database().expect("check saw the url"));
        Endpoint {
            input: Input::new(rules.collect(), &path::names(&route.path)),
            status: StatusCode::from_u16(route.status).expect("check saw the status"),
            cache: Pages::new(worker, route, &media_type),
            media_type,
            shared: Work {
                plan: Arc::new(Plan {
                    place: route.place.clone(),
                    statements,
                    one: query.one,
                    page,
                    invalidation: worker.invalidation(&route.invalidates),
                    invalidates: route.invalidates.clone(),
                }),
                worker: worker.clone(),
                database,
                streams: Arc::clone(streams),
            },
        }
    }

    pub(super) async fn answer(&self, request: Request) -> Result<Response, Refusal> {
        let is_safe = matches!(*request.method(), Method::GET | Method::HEAD);
        if let Some(pages) = self.cache.as_ref().filter(|_| is_safe) {
            return pages.answer(request, &self.input, |values| self.shared.whole(values)).await;
        }
        Box::pin(self.made(request, is_safe)).await
    }

    /// The answer, which no cache has.
    async fn made(&self, request: Request, is_safe: bool) -> Result<Response, Refusal> {
        let values = self.input.read(request).await?;
        let work = &self.shared;
        let body = if is_safe && self.may_stream() {
            match work.streamed(values).await? {
                Answer::Whole(bytes) => bytes.into(),
                Answer::Begun(body) => Body::new(body),
            }
        } else {
            work.whole(values).await?.into()
        };
        if self.status == StatusCode::NO_CONTENT {
            return Ok(self.status.into_response());
        }
        let fields = [(CONTENT_TYPE, self.media_type.clone())];
        Ok((self.status, fields, body).into_response())
    }

    fn may_stream(&self) -> bool {
        let plan = &self.shared.plan;
        let is_plain = plan.page.is_none() && !plan.one && self.status != StatusCode::NO_CONTENT;
        // A transaction must not hang on the client's reading its answer.
        is_plain && plan.statements.len() == 1
    }
}

enum Answer {
    Whole(Bytes),
    Begun(StreamBody),
}

impl Work {
    /// The answer, held whole.
    async fn whole(&self, values: Values) -> Outcome {
        if self.database.is_some() {
            return self.run(values, None).await;
        }
        let plan = Arc::clone(&self.plan);
        let rendered = self.worker.blocking(move || plan.render(None, &values)).await;
        rendered.map_err(Refusal::Database)?
    }

    /// The answer, or its beginning where it is large: the rest follows while the client reads.
    async fn streamed(&self, values: Values) -> Result<Answer, Refusal> {
        let (opening, begun) = self.streams.open();
        let mut call = Box::pin(self.run(values, Some(opening)));
        tokio::select! {
            biased;
            // From here on nobody waits for the call but the body.
            Ok(body) = begun => Ok(Answer::Begun(body.made_by(async { drop(call.await) }))),
            outcome = &mut call => outcome.map(Answer::Whole),
        }
    }

    /// All of it on a handler thread.
    fn run(
        &self,
        values: Values,
        opening: Option<stream::Opening>,
    ) -> impl Future<Output = Outcome> + Send + use<> {
        let plan = Arc::clone(&self.plan);
        let database = self.database.clone().expect("there are statements only with a database");
        async move {
            let here = Location::caller();
            let outcome = match database {
                Database::Postgres(pool) => {
                    let work = move |session: &mut _, call: &_| {
                        plan.run(session, call, &values, opening, postgres::run)
                    };
                    pool.call(here, work).await
                }
                Database::Sqlite(pool) => {
                    let work = move |session: &mut _, call: &_| {
                        plan.run(session, call, &values, opening, sqlite::run)
                    };
                    pool.call(here, work).await
                }
            };
            outcome.map_err(Refusal::Database)?
        }
    }
}

/// How a database runs a plan.
type Run<C> = fn(&mut C, &Checkout, &Plan, &[Value], Option<&mut Stream>) -> Result<Outcome, Error>;

impl Plan {
    /// Runs the statements, in a transaction if there are several or other servers are to hear of them. What they make out of date is invalidated afterwards,
    /// committed or not, whatever came of it: where the connection broke or the answer could not be made, they may have taken
    /// effect. It happens on the thread of the statement, because the future that waits for it may be dropped.
    fn run<C: Transact>(
        &self,
        session: &mut C,
        call: &Checkout,
        values: &[Value],
        opening: Option<stream::Opening>,
        run: Run<C>,
    ) -> Result<Outcome, Error> {
        let outcome = {
            let _afterwards = self.invalidation.at_the_end();
            let tells = !self.invalidates.is_empty() && session.tells_others();
            if self.statements.len() == 1 && !tells {
                let mut stream = opening.map(stream::Opening::start);
                run(session, call, self, values, stream.as_mut())?
            } else {
                self.run_all(session, call, values, run)?
            }
        };
        Ok(outcome.and_then(|json| match self.page {
            Some(_) => self.render(Some(&json), values),
            None => Ok(json),
        }))
    }

    /// A refusal rolls all of it back.
    fn run_all<C: Transact>(
        &self,
        session: &mut C,
        call: &Checkout,
        values: &[Value],
        run: Run<C>,
    ) -> Result<Outcome, Error> {
        let mut commits = false;
        let outcome = in_transaction(session, TransactionOptions::new(), call, |session| {
            let outcome =
                run(session, call, self, values, None)?.map_err(|refusal| Error::other(RolledBack(refusal)));
            if outcome.is_ok() && session.tells_others() {
                self.invalidates.iter().try_for_each(|tag| session.tell_others(tag))?;
            }
            commits = outcome.is_ok();
            outcome
        });
        match outcome {
            Ok(json) => Ok(Ok(json)),
            Err(Error::Other(error)) => match error.downcast::<RolledBack>() {
                Ok(rolled_back) => Ok(Err(rolled_back.0)),
                Err(error) => Err(Error::Other(error)),
            },
            // What is checked at the end of a transaction alone.
            Err(error) if commits => C::judge(&error, &self.place, call).map(Err).ok_or(error),
            Err(error) => Err(error),
        }
    }

    fn render(&self, json: Option<&[u8]>, values: &[Value]) -> Outcome {
        let (templates, page) = self.page.as_ref().expect("only a page is rendered");
        templates.render(page, json, values)
    }

    /// The statements in order, and which is the last.
    fn in_order(&self) -> impl Iterator<Item = (&Prepared, bool)> {
        let last = self.statements.len() - 1;
        self.statements.iter().enumerate().map(move |(number, statement)| (statement, number == last))
    }
}

impl Prepared {
    /// The values in the order of the placeholders.
    fn picked<'a>(&'a self, values: &'a [Value]) -> impl Iterator<Item = &'a Value> {
        self.picks.iter().map(|&pick| &values[pick])
    }
}

/// A session that can do several statements or none.
trait Transact: Session {
    /// Whether other servers hear what is invalidated, and that they do when the transaction commits.
    fn tells_others(&self) -> bool {
        false
    }

    fn tell_others(&mut self, _tag: &str) -> Result<(), Error> {
        Ok(())
    }

    /// What of an error is the request's doing.
    fn judge(error: &Error, place: &str, call: &Checkout) -> Option<Refusal>;
}

impl Transact for PostgresSession {
    fn tells_others(&self) -> bool {
        PostgresSession::tells_others(self)
    }

    fn tell_others(&mut self, tag: &str) -> Result<(), Error> {
        Ok(PostgresSession::tell_others(self, tag)?)
    }

    fn judge(error: &Error, place: &str, call: &Checkout) -> Option<Refusal> {
        if let Error::Postgres(error) = error { postgres::judge(error, place, call) } else { None }
    }
}

impl Transact for SqliteSession {
    fn judge(error: &Error, place: &str, call: &Checkout) -> Option<Refusal> {
        if let Error::Sqlite(error) = error { sqlite::judge(error, place, call) } else { None }
    }
}

/// A refusal that passes through a transaction, to roll it back.
#[derive(Debug)]
struct RolledBack(Refusal);

impl fmt::Display for RolledBack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a statement's refusal")
    }
}

impl std::error::Error for RolledBack {}

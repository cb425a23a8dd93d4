//! Tries the routes' statements on the database, without running them: tables, columns and types that are not there, or
//! do not fit. Not here: what can be told without a database (`check`).
//!
//! It blocks. `--check-config` calls it where it stands, the worker on trial at a reload on a thread of its own.

use super::sql::{self, Dialect, Prepared, Unproved};
use crate::app::Worker;
use crate::app::database::probe::{self, Probe, Session};
use crate::config::{Param, Settings};
use std::fmt;
use std::time::Duration;
use tokio::sync::oneshot;

/// How long a worker on trial waits for the database's opinion, and at most for half of `boot_timeout`.
const PATIENCE: Duration = Duration::from_secs(5);

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Proof {
    pub(crate) problems: Vec<Problem>,
    /// What the setup script may still make right.
    to_come: Vec<Problem>,
    /// Why the database was not asked, or not all of it.
    untried: Option<String>,
}

impl Proof {
    fn untried(reason: impl Into<String>) -> Proof {
        Proof { untried: Some(reason.into()), ..Proof::default() }
    }

    /// What is no fault, in words.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let to_come = self.to_come.iter().map(|problem| format!("{problem}; the setup script may make it"));
        let untried = self
            .untried
            .iter()
            .map(|reason| format!("the statements were not tried on the database: {reason}"));
        to_come.chain(untried).collect()
    }
}

/// A statement that the database does not take.
#[derive(Debug)]
pub(crate) struct Problem {
    /// `file:line`
    place: String,
    what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Problem { place, what } = self;
        write!(f, "{place}: route.sql: {what}")
    }
}

/// Tries every statement of every route, for a look at the settings alone.
pub(crate) fn prove(settings: &Settings) -> Proof {
    if !has_statements(settings) {
        return Proof::default();
    }
    match probe::open(settings, None) {
        Ok(Some(mut probe)) => {
            let is_to_come = settings.database.setup.is_some() && !probe.is_set_up;
            try_all(settings, &mut probe, is_to_come)
        }
        Ok(None) => Proof::default(),
        Err(reason) => Proof::untried(reason),
    }
}

/// The same in the worker on which a reload is tried, so that one with a wrong statement is refused; nothing in other workers.
/// The setup script ran at the start, so what is missing now will not come. A database that cannot say is only warned of: while
/// it is away, a reload must be possible.
///
/// # Errors
/// There are wrong statements; the log has each.
pub(crate) async fn prove_on_trial(worker: Worker) -> Result<(), String> {
    if !worker.is_on_trial() || !has_statements(worker.settings()) {
        return Ok(());
    }
    let boot_timeout = worker.settings().boot_timeout;
    let patience = if boot_timeout.is_zero() { PATIENCE } else { PATIENCE.min(boot_timeout / 2) };
    let (tell, told) = oneshot::channel();
    let try_them = move || {
        let settings = worker.settings();
        let _ = tell.send(match probe::open(settings, Some(worker.board())) {
            Ok(Some(mut probe)) => try_all(settings, &mut probe, false),
            Ok(None) => Proof::default(),
            Err(reason) => Proof::untried(reason),
        });
    };
    // One that is never heard of again ends with the connection's own limits.
    let asking = std::thread::Builder::new().name("prove".into()).spawn(try_them);
    let proof = match asking {
        Ok(_) => match tokio::time::timeout(patience, told).await {
            Ok(Ok(proof)) => proof,
            Ok(Err(_)) => Proof::untried("the thread that asked it has died"),
            Err(_) => Proof::untried(format!("no answer within {patience:?}")),
        },
        Err(error) => Proof::untried(error.to_string()),
    };
    if let Some(reason) = &proof.untried {
        log::warn!(
            "statements not tried on the database reason={reason:?} effect=\"a wrong one shows at its first request\""
        );
    }
    for Problem { place, what } in &proof.problems {
        log::error!("statement refused by the database place={place} key=route.sql reason={what:?}");
    }
    match proof.problems.as_slice() {
        [] => Ok(()),
        [problem] => Err(problem.to_string()),
        [problem, more @ ..] => Err(format!("{problem}; and {} more", more.len())),
    }
}

fn has_statements(settings: &Settings) -> bool {
    let mut queries = settings.routes.iter().filter_map(|route| route.kind.query());
    queries.any(|query| !query.statements.is_empty())
}

fn try_all(settings: &Settings, probe: &mut Probe, is_to_come: bool) -> Proof {
    let dialect = match &probe.session {
        Session::Postgres(_) => Dialect::Postgres,
        Session::Sqlite(_) => Dialect::Sqlite,
    };
    let mut proof = Proof::default();
    for (route, query) in settings.routes.iter().filter_map(|route| Some((route, route.kind.query()?))) {
        let params = sql::params(query);
        for statement in sql::prepared(route, query, dialect).expect("check read the sql") {
            match try_one(&mut probe.session, &statement, &params) {
                Ok(()) => {}
                Err(Unproved::Untried(reason)) => {
                    // Neither will the others be.
                    proof.untried = Some(reason);
                    return proof;
                }
                Err(Unproved::Wrong { line, what, may_come }) => {
                    let problem = Problem { place: below(&statement.place, line), what };
                    let of_kind =
                        if may_come && is_to_come { &mut proof.to_come } else { &mut proof.problems };
                    of_kind.push(problem);
                }
            }
        }
    }
    proof
}

fn try_one(session: &mut Session, statement: &Prepared, params: &[Param]) -> Result<(), Unproved> {
    match session {
        Session::Postgres(session) => sql::prove_on_postgres(session, statement, params),
        Session::Sqlite(session) => sql::prove_on_sqlite(session, statement),
    }
}

/// So many lines below this place.
fn below(place: &str, lines: usize) -> String {
    match place.rsplit_once(':').map(|(file, line)| (file, line.parse::<usize>())) {
        Some((file, Ok(line))) => format!("{file}:{}", line + lines),
        Some((_, Err(_))) | None => place.into(),
    }
}

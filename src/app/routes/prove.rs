//! Tries the routes' statements on the database, without running them: tables, columns and types that are not there, or
//! do not fit. For `--check-config` alone: it blocks. Not here: what can be told without a database (`check`).

use super::sql::{self, Dialect, Prepared, Unproved};
use crate::app::database::probe::{self, Session};
use crate::config::{Param, Settings};

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Proof {
    /// What is wrong, each with file and line.
    pub(crate) problems: Vec<String>,
    /// What could not be tried.
    pub(crate) warnings: Vec<String>,
}

/// Tries every statement of every route.
pub(crate) fn prove(settings: &Settings) -> Proof {
    let mut proof = Proof::default();
    if settings.routes.iter().all(|route| route.kind.query().is_none_or(|query| query.statements.is_empty()))
    {
        return proof;
    }
    let mut probe = match probe::open(settings) {
        Ok(Some(probe)) => probe,
        Ok(None) => return proof,
        Err(reason) => {
            proof.warnings.push(format!("the statements were not tried on the database: {reason}"));
            return proof;
        }
    };
    let dialect = match &probe.session {
        Session::Postgres(_) => Dialect::Postgres,
        Session::Sqlite(_) => Dialect::Sqlite,
    };
    let is_to_come = settings.database.setup.is_some() && !probe.is_set_up;
    for (route, query) in settings.routes.iter().filter_map(|route| Some((route, route.kind.query()?))) {
        let params = sql::params(query);
        for statement in sql::prepared(route, query, dialect).expect("check read the sql") {
            let tried = try_one(&mut probe.session, &statement, &params);
            let Err(Unproved { line, what, may_come }) = tried else { continue };
            let message = format!("{}: {what}", below(&statement.place, line));
            if may_come && is_to_come {
                proof.warnings.push(format!("{message}; the setup script may make it"));
            } else {
                proof.problems.push(message);
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

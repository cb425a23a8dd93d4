//! Whether the server takes a statement, and whether its parameters and columns have types that go with the route.
//! Not here: running it.

use super::encode::{Encoded, Misfit};
use super::{misfit, shapes};
use crate::app::PostgresSession;
use crate::app::routes::sql::rows::{Broken, Rows};
use crate::app::routes::sql::{Prepared, Unproved};
use crate::app::routes::value::Value;
use crate::config::{Param, ParamKind, Scalar};
use postgres::Statement;
use postgres::error::{ErrorPosition, SqlState};

/// Classes of errors that say how the server stands: connection, resources, an operator, a lock, a timeout, the system.
/// <https://www.postgresql.org/docs/current/errcodes-appendix.html>
const NOT_OF_THE_STATEMENT: [&str; 8] = ["08", "40", "53", "55", "57", "58", "F0", "XX"];

pub(in crate::app::routes) fn prove(
    session: &mut PostgresSession,
    prepared: &Prepared,
    params: &[Param],
) -> Result<(), Unproved> {
    // What fails on the way there is told as a statement's failure is.
    let judged = session.on_one_process(|session| {
        let statement = session.prepare(&prepared.text)?;
        Ok::<_, postgres::Error>(judge(&statement, prepared, params))
    });
    judged.map_err(|error| refused(&error, &prepared.text))?
}

fn judge(statement: &Statement, prepared: &Prepared, params: &[Param]) -> Result<(), Unproved> {
    let broken = |Broken(what): Broken| Unproved::Wrong { line: 0, what, may_come: false };
    for (name, kind) in prepared.names.iter().zip(statement.params()) {
        let Some(param) = params.iter().find(|param| param.name == *name) else { continue };
        match Encoded::new(&sample(param.kind), kind) {
            Err(Misfit::Type(cast)) => return Err(broken(Broken(misfit(name, kind, cast)))),
            // Another value may fit.
            Ok(_) | Err(Misfit::Value(_)) => {}
        }
    }
    shapes(statement).map_err(broken)?;
    let columns = statement.columns().iter().map(|column| column.name());
    Rows::new(columns, false, None).map(drop).map_err(broken)
}

/// Any value of the kind: only its type is looked at.
fn sample(kind: ParamKind) -> Value {
    Value::from(&match kind {
        ParamKind::Integer => Scalar::Integer(0),
        ParamKind::Number => Scalar::Number(0.0),
        ParamKind::Text => Scalar::Text(String::new()),
        ParamKind::Boolean => Scalar::Boolean(false),
    })
}

fn refused(error: &postgres::Error, sql: &str) -> Unproved {
    let Some(refusal) = error.as_db_error() else {
        return Unproved::Untried(error.to_string());
    };
    if NOT_OF_THE_STATEMENT.iter().any(|class| refusal.code().code().starts_with(class)) {
        return Unproved::Untried(refusal.message().into());
    }
    let line = match refusal.position() {
        // In characters, from 1.
        Some(ErrorPosition::Original(position)) => {
            sql.chars().take((*position as usize).saturating_sub(1)).filter(|&c| c == '\n').count()
        }
        Some(ErrorPosition::Internal { .. }) | None => 0,
    };
    let comes_with_tables = [
        SqlState::UNDEFINED_TABLE,
        SqlState::UNDEFINED_COLUMN,
        SqlState::UNDEFINED_FUNCTION,
        SqlState::UNDEFINED_OBJECT,
        SqlState::INVALID_SCHEMA_NAME,
    ];
    let may_come = comes_with_tables.contains(refusal.code());
    Unproved::Wrong { line, what: refusal.message().into(), may_come }
}

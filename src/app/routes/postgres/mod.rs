//! A route's statement on PostgreSQL: binds the values by the types that the server inferred, and writes its rows as JSON.
//! Not here: connections and their prepared statements.

mod decode;
mod encode;
mod numeric;
mod shape;

use super::refusal::{Fault, Refusal};
use super::rows::{Broken, Rows, affected};
use super::statement::{Outcome, Plan};
use super::value::Value;
use crate::app::{Error, PostgresSession};
use bytes::Bytes;
use decode::Raw;
use encode::{Encoded, Misfit};
use postgres::error::SqlState;
use postgres::types::ToSql;
use postgres::{Row, Statement};
use shape::Shape;

/// Runs the plan with these values. `Err` is the connection's or the database's trouble, for the pool to judge.
pub(super) fn run(session: &mut PostgresSession, plan: &Plan, values: &[Value]) -> Result<Outcome, Error> {
    match attempt(session, plan, values) {
        Ok(Some(answer)) => Ok(Ok(answer)),
        Ok(None) => Ok(Err(Refusal::NotFound)),
        Err(Failure::Fields(faults)) => Ok(Err(Refusal::Fields(faults))),
        Err(Failure::Broken(broken)) => Ok(Err(plan.broken(&broken))),
        Err(Failure::Database(error)) => match refusal(&error) {
            Some(refusal) => {
                log::debug!("the database refused values place={} error={}", plan.place, message(&error));
                Ok(Err(refusal))
            }
            None => {
                log::error!("a route's statement failed place={} error={}", plan.place, message(&error));
                Err(Error::Postgres(error))
            }
        },
    }
}

enum Failure {
    Fields(Vec<Fault>),
    Broken(Broken),
    Database(postgres::Error),
}

impl From<Broken> for Failure {
    fn from(broken: Broken) -> Failure {
        Failure::Broken(broken)
    }
}

impl From<postgres::Error> for Failure {
    fn from(error: postgres::Error) -> Failure {
        Failure::Database(error)
    }
}

/// The answer; `None` when one row was asked for and there was none.
fn attempt(session: &mut PostgresSession, plan: &Plan, values: &[Value]) -> Result<Option<Bytes>, Failure> {
    let statement = session.prepare(&plan.sql)?;
    let encoded = bind(&statement, plan, values)?;
    let params: Vec<&(dyn ToSql + Sync)> = encoded.iter().map(|value| value as _).collect();
    if statement.columns().is_empty() {
        return Ok(affected(session.execute(&plan.sql, &params)?, plan.one));
    }
    let shapes = shapes(&statement)?;
    let columns = statement.columns().iter().map(|column| column.name());
    let mut json = Rows::new(columns, plan.one)?;
    for row in session.query(&plan.sql, &params)? {
        json.begin_row()?;
        write_row(&row, &shapes, &mut json)?;
        if json.end_row()? {
            break;
        }
    }
    Ok(json.finish())
}

/// Encodes every value, so that the client hears of all that do not fit.
fn bind(statement: &Statement, plan: &Plan, values: &[Value]) -> Result<Vec<Encoded>, Failure> {
    let types = statement.params();
    if types.len() != values.len() {
        return Err(Broken(format!(
            "the statement has {} parameters instead of {}",
            types.len(),
            values.len()
        ))
        .into());
    }
    let (mut encoded, mut faults) = (Vec::with_capacity(values.len()), Vec::new());
    for ((value, name), kind) in values.iter().zip(&plan.names).zip(types) {
        match Encoded::new(value, kind) {
            Ok(bytes) => encoded.push(bytes),
            Err(Misfit::Value(message)) => faults.push(Fault { field: name.clone(), message }),
            Err(Misfit::Type(cast)) => {
                return Err(Broken(format!(
                    "the server takes :{name} for {kind}, which its declared type does not fit; \
                     write :{name}::{cast}::{kind}"
                ))
                .into());
            }
        }
    }
    if faults.is_empty() { Ok(encoded) } else { Err(Failure::Fields(faults)) }
}

fn shapes(statement: &Statement) -> Result<Vec<Shape>, Broken> {
    let shape = |column: &postgres::Column| {
        Shape::of(column.type_()).ok_or_else(|| {
            let (name, kind) = (column.name(), column.type_());
            Broken(format!(
                "column {name:?} is of type {kind}, which has no JSON here; cast it in the sql: {name}::text"
            ))
        })
    };
    statement.columns().iter().map(shape).collect()
}

fn write_row(row: &Row, shapes: &[Shape], json: &mut Rows) -> Result<(), Failure> {
    for (index, shape) in shapes.iter().enumerate() {
        let out = json.value();
        match row.try_get::<_, Option<Raw<'_>>>(index)? {
            None => out.extend_from_slice(b"null"),
            Some(Raw(bytes)) => decode::write(*shape, bytes, out).map_err(|misread| {
                Broken(format!("column {:?} cannot be JSON: {misread}", row.columns()[index].name()))
            })?,
        }
    }
    Ok(())
}

/// What of the server's errors is the request's doing; the rest is ours. Source: PostgreSQL 15, appendix A.
fn refusal(error: &postgres::Error) -> Option<Refusal> {
    let state = error.code()?;
    let conflicts = [
        SqlState::INTEGRITY_CONSTRAINT_VIOLATION,
        SqlState::RESTRICT_VIOLATION,
        SqlState::FOREIGN_KEY_VIOLATION,
        SqlState::UNIQUE_VIOLATION,
        SqlState::EXCLUSION_VIOLATION,
    ];
    let unprocessable = [
        SqlState::NOT_NULL_VIOLATION,
        SqlState::CHECK_VIOLATION,
        SqlState::STRING_DATA_RIGHT_TRUNCATION,
        SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
        SqlState::INVALID_DATETIME_FORMAT,
        SqlState::DATETIME_FIELD_OVERFLOW,
        SqlState::INVALID_TEXT_REPRESENTATION,
        SqlState::UNTRANSLATABLE_CHARACTER,
        SqlState::INVALID_ROW_COUNT_IN_LIMIT_CLAUSE,
        SqlState::INVALID_ROW_COUNT_IN_RESULT_OFFSET_CLAUSE,
    ];
    if conflicts.contains(state) {
        Some(Refusal::Conflict)
    } else if unprocessable.contains(state) {
        Some(Refusal::Unprocessable)
    } else {
        None
    }
}

/// The server's own words where there are any, on one line; its details repeat whole rows, which no log should hold.
fn message(error: &postgres::Error) -> String {
    match error.as_db_error() {
        Some(error) => format!("{:?} code={}", error.message(), error.code().code()),
        None => format!("{:?}", error.to_string()),
    }
}

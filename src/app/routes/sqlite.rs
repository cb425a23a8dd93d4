//! A route's statement on SQLite: binds the values, and writes its rows as JSON by the type that each value has.
//! Not here: connections and their prepared statements.

use super::refusal::Refusal;
use super::rows::{Broken, Rows, affected, write_float, write_text};
use super::statement::{Outcome, Plan};
use super::value::Value;
use crate::app::{Error, SqliteSession};
use bytes::Bytes;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{ErrorCode, Row, ToSql, ffi};
use std::io::Write;

/// Runs the plan with these values. `Err` is the connection's or the database's trouble, for the pool to judge.
pub(super) fn run(session: &mut SqliteSession, plan: &Plan, values: &[Value]) -> Result<Outcome, Error> {
    match attempt(session, plan, values) {
        Ok(Some(answer)) => Ok(Ok(answer)),
        Ok(None) => Ok(Err(Refusal::NotFound)),
        Err(Failure::Broken(broken)) => Ok(Err(plan.broken(&broken))),
        Err(Failure::Database(error)) => match refusal(&error) {
            Some(refusal) => {
                log::debug!("the database refused values place={} error={:?}", plan.place, error.to_string());
                Ok(Err(refusal))
            }
            None => {
                log::error!("a route's statement failed place={} error={:?}", plan.place, error.to_string());
                Err(Error::Sqlite(error))
            }
        },
    }
}

enum Failure {
    Broken(Broken),
    Database(rusqlite::Error),
}

impl From<Broken> for Failure {
    fn from(broken: Broken) -> Failure {
        Failure::Broken(broken)
    }
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Failure {
        Failure::Database(error)
    }
}

/// The answer; `None` when one row was asked for and there was none.
fn attempt(session: &SqliteSession, plan: &Plan, values: &[Value]) -> Result<Option<Bytes>, Failure> {
    let mut statement = session.prepare_cached(&plan.sql)?;
    // SQLite would take a parameter without a value for NULL.
    if statement.parameter_count() != values.len() {
        let (found, given) = (statement.parameter_count(), values.len());
        return Err(Broken(format!("the statement has {found} parameters instead of {given}")).into());
    }
    for (index, value) in values.iter().enumerate() {
        statement.raw_bind_parameter(index + 1, value)?;
    }
    if statement.column_count() == 0 {
        return Ok(affected(statement.raw_execute()? as u64, plan.one));
    }
    let mut json = Rows::new(statement.column_names().into_iter(), plan.one)?;
    let (columns, reads_only) = (statement.column_count(), statement.readonly());
    let mut rows = statement.raw_query();
    while let Some(row) = rows.next()? {
        json.begin_row()?;
        write_row(row, columns, &mut json)?;
        if json.end_row()? {
            break;
        }
    }
    // A change is committed by the last step, and only that step says when it cannot be.
    while !reads_only && rows.next()?.is_some() {}
    Ok(json.finish())
}

fn write_row(row: &Row<'_>, columns: usize, json: &mut Rows) -> Result<(), Failure> {
    for index in 0..columns {
        let written = write_value(row.get_ref(index)?, json.value());
        written.map_err(|misread| {
            let name = row.as_ref().column_name(index).unwrap_or("?");
            Broken(format!("column {name:?} cannot be JSON: {misread}"))
        })?;
    }
    Ok(())
}

fn write_value(value: ValueRef<'_>, json: &mut Vec<u8>) -> Result<(), &'static str> {
    match value {
        ValueRef::Null => json.extend_from_slice(b"null"),
        ValueRef::Integer(integer) => write!(json, "{integer}").expect("memory takes all that is written"),
        ValueRef::Real(real) => write_float(real, json),
        ValueRef::Text(text) => write_text(std::str::from_utf8(text).map_err(|_| "it is not UTF-8")?, json),
        ValueRef::Blob(_) => return Err("it is a blob; select hex() of it"),
    }
    Ok(())
}

/// What of the errors is the request's doing; the rest is ours. Source: sqlite.org, "Result and Error Codes".
fn refusal(error: &rusqlite::Error) -> Option<Refusal> {
    let error = error.sqlite_error()?;
    match (error.code, error.extended_code) {
        (
            ErrorCode::ConstraintViolation,
            ffi::SQLITE_CONSTRAINT_UNIQUE
            | ffi::SQLITE_CONSTRAINT_PRIMARYKEY
            | ffi::SQLITE_CONSTRAINT_ROWID
            | ffi::SQLITE_CONSTRAINT_FOREIGNKEY,
        ) => Some(Refusal::Conflict),
        // Not null, check, a strict column's type, what a trigger raised; and values too big or of the wrong type.
        (ErrorCode::ConstraintViolation | ErrorCode::TooBig | ErrorCode::TypeMismatch, _) => {
            Some(Refusal::Unprocessable)
        }
        _ => None,
    }
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let value = match self {
            Value::Null => ValueRef::Null,
            Value::Integer(integer) => ValueRef::Integer(*integer),
            Value::Number(number) => ValueRef::Real(number.as_f64()),
            Value::Text(text) => ValueRef::Text(text.as_bytes()),
            Value::Boolean(boolean) => ValueRef::Integer((*boolean).into()),
        };
        Ok(ToSqlOutput::Borrowed(value))
    }
}

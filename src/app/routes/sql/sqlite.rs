//! A route's statement on SQLite: binds the values, and writes its rows as JSON by the type that each value has.
//! Not here: connections and their prepared statements.

use super::rows::{Broken, Failure, Rows, affected, write_float, write_text};
use super::stream::Stream;
use super::{Plan, Prepared, Unproved};
use crate::app::database::Checkout;
use crate::app::routes::refusal::Refusal;
use crate::app::routes::value::Value;
use crate::app::{Error, SqliteSession};
use bytes::Bytes;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{ErrorCode, Row, ToSql, ffi};
use std::io::Write;

/// Runs the plan with these values. `Err` is the connection's or the database's trouble, for the pool to judge.
pub(super) fn run(
    session: &mut SqliteSession,
    call: &Checkout,
    plan: &Plan,
    values: &[Value],
    mut stream: Option<&mut Stream>,
) -> Result<Result<Bytes, Refusal>, Error> {
    let mut answer = Bytes::new();
    for (statement, is_last) in plan.in_order() {
        // Only the last one's rows are the answer.
        let stream = if is_last { stream.take() } else { None };
        let one = plan.one && is_last;
        match attempt(session, statement, values, one, stream) {
            Ok(rows) => answer = rows,
            Err(Failure::Fields(faults)) => return Ok(Err(Refusal::Fields(faults))),
            Err(Failure::NoRow) => return Ok(Err(Refusal::NotFound)),
            Err(Failure::Halt(halt)) => return Ok(Err(halt.refusal(&statement.place))),
            Err(Failure::Database(error)) => match judge(&error, &statement.place, call) {
                Some(refusal) => return Ok(Err(refusal)),
                None => return Err(Error::Sqlite(error)),
            },
        }
    }
    Ok(Ok(answer))
}

impl From<rusqlite::Error> for Failure<rusqlite::Error> {
    fn from(error: rusqlite::Error) -> Failure<rusqlite::Error> {
        Failure::Database(error)
    }
}

fn attempt(
    session: &SqliteSession,
    prepared: &Prepared,
    values: &[Value],
    one: bool,
    stream: Option<&mut Stream>,
) -> Result<Bytes, Failure<rusqlite::Error>> {
    let mut statement = session.prepare_cached(&prepared.text)?;
    // SQLite would take a parameter without a value for NULL.
    if statement.parameter_count() != prepared.picks.len() {
        let (found, given) = (statement.parameter_count(), prepared.picks.len());
        return Err(Broken(format!("the statement has {found} parameters instead of {given}")).into());
    }
    for (index, value) in prepared.picked(values).enumerate() {
        statement.raw_bind_parameter(index + 1, value)?;
    }
    if statement.column_count() == 0 {
        return affected(statement.raw_execute()? as u64, one).ok_or(Failure::NoRow);
    }
    let (columns, reads_only) = (statement.column_count(), statement.readonly());
    // A change must not hang on the client's reading its answer.
    let stream = stream.filter(|_| reads_only);
    let mut json = Rows::new(statement.column_names().into_iter(), one, stream)?;
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
    json.finish()?.ok_or(Failure::NoRow)
}

/// What of an error is the request's doing; it is logged either way.
pub(super) fn judge(error: &rusqlite::Error, place: &str, call: &Checkout) -> Option<Refusal> {
    let refusal = refusal(error);
    match refusal {
        Some(_) => log::debug!("the database refused values place={place} error={:?}", error.to_string()),
        // It was cancelled, or fell over what that left behind.
        None if call.has_left() => log::debug!("a route's statement was given up place={place}"),
        None => log::error!("a route's statement failed place={place} error={:?}", error.to_string()),
    }
    refusal
}

fn write_row(row: &Row<'_>, columns: usize, json: &mut Rows<'_>) -> Result<(), Failure<rusqlite::Error>> {
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

/// Whether SQLite takes the statement. What type a value has is not known before it runs.
pub(in crate::app::routes) fn prove(session: &SqliteSession, prepared: &Prepared) -> Result<(), Unproved> {
    let statement = session.prepare(&prepared.text).map_err(|error| refused(&error, &prepared.text))?;
    Rows::new(statement.column_names().into_iter(), false, None)
        .map(drop)
        .map_err(|Broken(what)| Unproved::Wrong { line: 0, what, may_come: false })
}

fn refused(error: &rusqlite::Error, sql: &str) -> Unproved {
    match error {
        rusqlite::Error::SqlInputError { msg, offset, .. } => {
            let before = usize::try_from(*offset).ok().and_then(|end| sql.as_bytes().get(..end));
            let line = before.map_or(0, |text| text.iter().filter(|&&byte| byte == b'\n').count());
            let may_come = ["no such table", "no such column"].iter().any(|what| msg.starts_with(what));
            Unproved::Wrong { line, what: msg.clone(), may_come }
        }
        // SQLite says by the message alone that a table is missing.
        other if other.sqlite_error_code() == Some(ErrorCode::Unknown) => {
            let what = other.to_string();
            Unproved::Wrong { line: 0, may_come: what.starts_with("no such"), what }
        }
        other => Unproved::Untried(other.to_string()),
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

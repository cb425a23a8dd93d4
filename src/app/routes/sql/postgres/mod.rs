//! A route's statement on PostgreSQL: binds the values by the types that the server inferred, and writes its rows as JSON.
//! Not here: connections and their prepared statements.

mod decode;
mod encode;
mod numeric;
mod prove;
mod shape;

use super::rows::{Broken, Failure, Rows, affected};
use super::stream::Stream;
use super::{Plan, Prepared};
use crate::app::database::Checkout;
use crate::app::routes::refusal::{Fault, Refusal};
use crate::app::routes::value::Value;
use crate::app::{Error, PostgresSession};
use bytes::Bytes;
use decode::Raw;
use encode::{Encoded, Misfit};
use postgres::error::SqlState;
use postgres::types::{ToSql, Type};
use postgres::{Row, Statement};
use shape::Shape;

pub(in crate::app::routes) use prove::prove;

/// Runs the plan with these values. `Err` is the connection's or the database's trouble, for the pool to judge.
pub(super) fn run(
    session: &mut PostgresSession,
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
                None => return Err(Error::Postgres(error)),
            },
        }
    }
    Ok(Ok(answer))
}

impl From<postgres::Error> for Failure<postgres::Error> {
    fn from(error: postgres::Error) -> Failure<postgres::Error> {
        Failure::Database(error)
    }
}

fn attempt(
    session: &mut PostgresSession,
    prepared: &Prepared,
    values: &[Value],
    one: bool,
    stream: Option<&mut Stream>,
) -> Result<Bytes, Failure<postgres::Error>> {
    session.on_one_process(|session| attempt_there(session, prepared, values, one, stream))
}

fn attempt_there(
    session: &mut PostgresSession,
    prepared: &Prepared,
    values: &[Value],
    one: bool,
    stream: Option<&mut Stream>,
) -> Result<Bytes, Failure<postgres::Error>> {
    let statement = session.prepare(&prepared.text)?;
    let encoded = bind(&statement, prepared, values)?;
    let params: Vec<&(dyn ToSql + Sync)> = encoded.iter().map(|value| value as _).collect();
    if statement.columns().is_empty() {
        return affected(session.execute(&prepared.text, &params)?, one).ok_or(Failure::NoRow);
    }
    let shapes = shapes(&statement)?;
    let columns = statement.columns().iter().map(|column| column.name());
    let mut json = Rows::new(columns, one, stream)?;
    let mut is_done = false;
    session.each(&prepared.text, &params, |row| {
        // With `one`, what follows the first row is read and left out.
        if !is_done {
            json.begin_row()?;
            write_row(row, &shapes, &mut json)?;
            is_done = json.end_row()?;
        }
        Ok::<(), Failure<postgres::Error>>(())
    })?;
    json.finish()?.ok_or(Failure::NoRow)
}

/// Encodes every value, so that the client hears of all that do not fit.
fn bind(
    statement: &Statement,
    prepared: &Prepared,
    values: &[Value],
) -> Result<Vec<Encoded>, Failure<postgres::Error>> {
    let types = statement.params();
    if types.len() != prepared.picks.len() {
        return Err(Broken(format!(
            "the statement has {} parameters instead of {}",
            types.len(),
            prepared.picks.len()
        ))
        .into());
    }
    let (mut encoded, mut faults) = (Vec::with_capacity(types.len()), Vec::new());
    for ((value, name), kind) in prepared.picked(values).zip(&prepared.names).zip(types) {
        match Encoded::new(value, kind) {
            Ok(bytes) => encoded.push(bytes),
            Err(Misfit::Value(message)) => faults.push(Fault { field: name.clone(), message }),
            Err(Misfit::Type(cast)) => return Err(Broken(misfit(name, kind, cast)).into()),
        }
    }
    if faults.is_empty() { Ok(encoded) } else { Err(Failure::Fields(faults)) }
}

fn misfit(name: &str, kind: &Type, cast: &str) -> String {
    format!(
        "the server takes :{name} for {kind}, which its declared type does not fit; write :{name}::{cast}::{kind}"
    )
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

fn write_row(row: &Row, shapes: &[Shape], json: &mut Rows<'_>) -> Result<(), Failure<postgres::Error>> {
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

/// What of an error is the request's doing; it is logged either way.
pub(super) fn judge(error: &postgres::Error, place: &str, call: &Checkout) -> Option<Refusal> {
    let refusal = refusal(error);
    match refusal {
        Some(_) => log::debug!("the database refused values place={place} error={}", message(error)),
        // It was cancelled, or fell over what that left behind.
        None if call.has_left() => log::debug!("a route's statement was given up place={place}"),
        None => log::error!("a route's statement failed place={place} error={}", message(error)),
    }
    refusal
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

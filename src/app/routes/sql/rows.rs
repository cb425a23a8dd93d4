//! Rows written as JSON while they are read, within bounds.
//! Not here: how one column's value looks; where they go when they are too many to be held (`stream`).

use super::stream::Stream;
use crate::app::routes::refusal::{Fault, Refusal};
use bytes::Bytes;

/// How many rows an answer that is held whole may have. Beyond it the answer is a 500 and a line in the log that asks for a
/// LIMIT: to cut it off would pass a part for the whole. The statement has run by then; what it changed stays.
pub(in crate::app::routes) const MAX_ROWS: usize = 10_000;

/// How many bytes of JSON it may have, as for rows; and a page made of it.
pub(in crate::app::routes) const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;

/// Why there is no answer, for the log; the client only sees a 500.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Broken(pub(super) String);

/// Why an answer goes no further.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Halt {
    Broken(Broken),
    /// The client went away.
    Gone,
    /// Too many streams are under way.
    Busy,
    /// The client did not take what was sent, or there was no end of it.
    TooSlow,
}

/// Why a statement gave no answer, on either database.
pub(super) enum Failure<E> {
    Fields(Vec<Fault>),
    /// One row was asked for, and there was none.
    NoRow,
    Halt(Halt),
    Database(E),
}

impl From<Broken> for Halt {
    fn from(broken: Broken) -> Halt {
        Halt::Broken(broken)
    }
}

impl<E> From<Halt> for Failure<E> {
    fn from(halt: Halt) -> Failure<E> {
        Failure::Halt(halt)
    }
}

impl<E> From<Broken> for Failure<E> {
    fn from(broken: Broken) -> Failure<E> {
        Failure::Halt(Halt::Broken(broken))
    }
}

impl Halt {
    /// For the client, if it still listens, and the log. `place` is the statement's.
    pub(super) fn refusal(self, place: &str) -> Refusal {
        match self {
            Halt::Broken(Broken(reason)) => {
                log::error!("a route does not fit its database place={place} reason={reason}");
                Refusal::Broken
            }
            Halt::Busy => {
                log::warn!(
                    "request refused status=503 reason=\"too many large answers are under way\" place={place}"
                );
                Refusal::Busy
            }
            Halt::TooSlow => {
                log::warn!("an answer was given up reason=\"it was not taken in time\" place={place}");
                Refusal::Late
            }
            Halt::Gone => {
                log::debug!("a statement was ended because its client left place={place}");
                Refusal::Late
            }
        }
    }
}

/// An array of objects in the making, or with `one` the first object alone.
pub(super) struct Rows<'a> {
    json: Vec<u8>,
    /// `"name":` of each column.
    keys: Vec<Vec<u8>>,
    count: usize,
    column: usize,
    one: bool,
    /// Where too many of them go; `None`: they are held.
    stream: Option<&'a mut Stream>,
}

impl<'a> Rows<'a> {
    /// Fails when two columns have one name: an object could only hold one of them.
    pub(super) fn new<'b>(
        columns: impl Iterator<Item = &'b str>,
        one: bool,
        stream: Option<&'a mut Stream>,
    ) -> Result<Rows<'a>, Broken> {
        let mut keys: Vec<Vec<u8>> = Vec::new();
        for name in columns {
            let mut key = Vec::with_capacity(name.len() + 3);
            write_text(name, &mut key);
            key.push(b':');
            if keys.contains(&key) {
                return Err(Broken(format!("two columns are called {name:?}; name one of them with AS")));
            }
            keys.push(key);
        }
        let json = if one { Vec::new() } else { vec![b'['] };
        Ok(Rows { json, keys, count: 0, column: 0, one, stream })
    }

    /// Begins an object; then comes `value` once for each column, then `end_row`.
    pub(super) fn begin_row(&mut self) -> Result<(), Broken> {
        if self.count == MAX_ROWS && self.stream.is_none() {
            return Err(Broken(format!("more than {MAX_ROWS} rows; write a LIMIT into the sql")));
        }
        if self.count > 0 {
            self.json.push(b',');
        }
        self.count += 1;
        self.column = 0;
        self.json.push(b'{');
        Ok(())
    }

    /// Writes the next column's name and gives the place for its value.
    pub(super) fn value(&mut self) -> &mut Vec<u8> {
        if self.column > 0 {
            self.json.push(b',');
        }
        self.json.extend_from_slice(&self.keys[self.column]);
        self.column += 1;
        &mut self.json
    }

    /// Ends an object; true when no further row is wanted.
    pub(super) fn end_row(&mut self) -> Result<bool, Halt> {
        self.json.push(b'}');
        match &mut self.stream {
            Some(stream) => {
                if self.json.len() >= stream.room() {
                    stream.push(std::mem::take(&mut self.json))?;
                }
            }
            None => {
                if self.json.len() > MAX_ANSWER_BYTES {
                    let reason = format!("more than {MAX_ANSWER_BYTES} bytes of JSON; select less");
                    return Err(Broken(reason).into());
                }
            }
        }
        Ok(self.one)
    }

    /// The answer, or what is left of it; `None` when there is no row although one was asked for.
    pub(super) fn finish(mut self) -> Result<Option<Bytes>, Halt> {
        if self.one && self.count == 0 {
            return Ok(None);
        }
        if !self.one {
            self.json.push(b']');
        }
        match self.stream {
            Some(stream) => stream.finish(self.json).map(Some),
            None => Ok(Some(self.json.into())),
        }
    }
}

/// The answer of a statement that has no columns; `None` when it touched no row although one was asked for.
pub(super) fn affected(count: u64, one: bool) -> Option<Bytes> {
    if one && count == 0 { None } else { Some(format!(r#"{{"rows_affected":{count}}}"#).into()) }
}

/// A JSON string.
pub(super) fn write_text(text: &str, json: &mut Vec<u8>) {
    serde_json::to_writer(json, text).expect("a string is JSON, and memory takes it");
}

/// A JSON number; `null` for the infinite and NaN, which JSON does not have.
pub(super) fn write_float(float: f64, json: &mut Vec<u8>) {
    serde_json::to_writer(json, &float).expect("a float is JSON, and memory takes it");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(one: bool, count: usize) -> Option<Bytes> {
        let mut rows = Rows::new(["id", "na\"me"].into_iter(), one, None).unwrap();
        for number in 0..count {
            rows.begin_row().unwrap();
            write_float(number as f64, rows.value());
            write_text("\u{1}ä", rows.value());
            if rows.end_row().unwrap() {
                break;
            }
        }
        rows.finish().unwrap()
    }

    #[test]
    fn rows_are_an_array_or_an_object() {
        let first = r#"{"id":0.0,"na\"me":"\u0001ä"}"#;
        let second = r#"{"id":1.0,"na\"me":"\u0001ä"}"#;
        let table = [
            (false, 0, Some("[]".to_string())),
            (false, 1, Some(format!("[{first}]"))),
            (false, 2, Some(format!("[{first},{second}]"))),
            (true, 0, None),
            (true, 1, Some(first.to_string())),
            (true, 2, Some(first.to_string())),
        ];
        for (one, count, expected) in table {
            assert_eq!(written(one, count), expected.map(Bytes::from), "one {one}, {count} rows");
        }
    }

    #[test]
    fn an_answer_has_bounds() {
        let mut rows = Rows::new(std::iter::empty(), false, None).unwrap();
        for _ in 0..MAX_ROWS {
            rows.begin_row().unwrap();
            rows.end_row().unwrap();
        }
        assert!(rows.begin_row().is_err());

        let mut rows = Rows::new(["a"].into_iter(), false, None).unwrap();
        rows.begin_row().unwrap();
        rows.value().resize(MAX_ANSWER_BYTES, b'1');
        assert!(rows.end_row().is_err());
    }

    #[test]
    fn a_column_name_is_used_once() {
        let error = Rows::new(["id", "name", "id"].into_iter(), false, None).map(|_| ()).unwrap_err();
        assert!(error.0.contains("\"id\""), "{error:?}");
    }
}

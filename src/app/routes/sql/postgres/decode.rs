//! A column's binary format as JSON.
//!
//! Dates and times are strings as in RFC 3339, a time with a zone in UTC with `Z`; a numeric is a JSON number with all its
//! digits; what JSON has no number for (NaN, infinity) is `null`; an infinite date is `"infinity"` or `"-infinity"`.

use super::numeric;
use super::shape::Shape;
use crate::app::routes::sql::rows::{write_float, write_text};
use postgres::types::{FromSql, Type};
use std::error::Error;
use std::io::Write;
use time::Date;

/// A column's bytes, unread.
pub(super) struct Raw<'a>(pub(super) &'a [u8]);

impl<'a> FromSql<'a> for Raw<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Raw<'a>, Box<dyn Error + Sync + Send>> {
        Ok(Raw(raw))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// What is wrong with a value, for the log.
pub(super) type Misread = &'static str;

const MICROS_A_DAY: i64 = 86_400_000_000;

/// Appends the value to `json`.
pub(super) fn write(shape: Shape, bytes: &[u8], json: &mut Vec<u8>) -> Result<(), Misread> {
    match shape {
        Shape::Boolean => text(if fixed(bytes)? == [0] { "false" } else { "true" }, json),
        Shape::Int2 => integer(i16::from_be_bytes(fixed(bytes)?).into(), json),
        Shape::Int4 => integer(i32::from_be_bytes(fixed(bytes)?).into(), json),
        Shape::Int8 => integer(i64::from_be_bytes(fixed(bytes)?), json),
        Shape::Oid => integer(u32::from_be_bytes(fixed(bytes)?).into(), json),
        // In its own width: 0.1 and not 0.10000000149011612.
        Shape::Float4 => {
            serde_json::to_writer(json, &f32::from_be_bytes(fixed(bytes)?)).map_err(|_| "no float")?
        }
        Shape::Float8 => write_float(f64::from_be_bytes(fixed(bytes)?), json),
        Shape::Numeric => {
            let decimal = numeric::decode(bytes).ok_or("it is no numeric")?;
            text(decimal.as_deref().unwrap_or("null"), json);
        }
        Shape::Text => write_text(utf8(bytes)?, json),
        Shape::Json => text(utf8(bytes)?, json),
        Shape::Jsonb => match bytes.split_first() {
            Some((1, document)) => text(utf8(document)?, json),
            _ => return Err("it is jsonb of an unknown version"),
        },
        Shape::Date => date(i32::from_be_bytes(fixed(bytes)?), json)?,
        Shape::Time => quoted(|json| time_of_day(i64::from_be_bytes(fixed(bytes)?), json), json)?,
        Shape::Timestamp => timestamp(i64::from_be_bytes(fixed(bytes)?), "", json)?,
        Shape::TimestampWithZone => timestamp(i64::from_be_bytes(fixed(bytes)?), "Z", json)?,
        Shape::Uuid => uuid(fixed(bytes)?, json),
    }
    Ok(())
}

fn fixed<const N: usize>(bytes: &[u8]) -> Result<[u8; N], Misread> {
    bytes.try_into().map_err(|_| "it has an unexpected length")
}

fn utf8(bytes: &[u8]) -> Result<&str, Misread> {
    std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8")
}

/// Appends what is JSON already.
fn text(text: &str, json: &mut Vec<u8>) {
    json.extend_from_slice(text.as_bytes());
}

fn integer(integer: i64, json: &mut Vec<u8>) {
    append(format_args!("{integer}"), json);
}

fn append(text: std::fmt::Arguments<'_>, json: &mut Vec<u8>) {
    json.write_fmt(text).expect("memory takes all that is written");
}

fn quoted(
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), Misread>,
    json: &mut Vec<u8>,
) -> Result<(), Misread> {
    json.push(b'"');
    write(json)?;
    json.push(b'"');
    Ok(())
}

fn date(days: i32, json: &mut Vec<u8>) -> Result<(), Misread> {
    match days {
        i32::MAX => text(r#""infinity""#, json),
        i32::MIN => text(r#""-infinity""#, json),
        days => quoted(|json| calendar_day(days.into(), json), json)?,
    }
    Ok(())
}

fn timestamp(micros: i64, zone: &str, json: &mut Vec<u8>) -> Result<(), Misread> {
    match micros {
        i64::MAX => text(r#""infinity""#, json),
        i64::MIN => text(r#""-infinity""#, json),
        micros => quoted(
            |json| {
                calendar_day(micros.div_euclid(MICROS_A_DAY), json)?;
                json.push(b'T');
                time_of_day(micros.rem_euclid(MICROS_A_DAY), json)?;
                text(zone, json);
                Ok(())
            },
            json,
        )?,
    }
    Ok(())
}

/// `days` since 2000-01-01. RFC 3339 knows the years 0 to 9999.
fn calendar_day(days: i64, json: &mut Vec<u8>) -> Result<(), Misread> {
    const EPOCH: i64 = 2_451_545;
    let date = i32::try_from(EPOCH + days)
        .ok()
        .and_then(|day| Date::from_julian_day(day).ok())
        .filter(|date| (0..=9999).contains(&date.year()))
        .ok_or("its year is not within 0 to 9999")?;
    append(format_args!("{:04}-{:02}-{:02}", date.year(), u8::from(date.month()), date.day()), json);
    Ok(())
}

/// Microseconds since midnight; 24:00:00 is a time in PostgreSQL.
fn time_of_day(micros: i64, json: &mut Vec<u8>) -> Result<(), Misread> {
    if !(0..=MICROS_A_DAY).contains(&micros) {
        return Err("it is no time of day");
    }
    let (seconds, fraction) = (micros / 1_000_000, micros % 1_000_000);
    append(format_args!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60), json);
    if fraction > 0 {
        let digits = format!(".{fraction:06}");
        text(digits.trim_end_matches('0'), json);
    }
    Ok(())
}

fn uuid(bytes: [u8; 16], json: &mut Vec<u8>) {
    let number = u128::from_be_bytes(bytes);
    let group = |shift: u32, digits: u32| (number >> shift) & ((1 << (4 * digits)) - 1);
    append(
        format_args!(
            r#""{:08x}-{:04x}-{:04x}-{:04x}-{:012x}""#,
            group(96, 8),
            group(80, 4),
            group(64, 4),
            group(48, 4),
            group(0, 12)
        ),
        json,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_become_json() {
        let day = MICROS_A_DAY;
        let micros = |micros: i64| micros.to_be_bytes().to_vec();
        let days = |days: i32| days.to_be_bytes().to_vec();
        let table = [
            (Shape::Boolean, vec![1], Ok("true")),
            (Shape::Boolean, vec![0], Ok("false")),
            (Shape::Int2, vec![0xff, 0xff], Ok("-1")),
            (Shape::Int4, 7i32.to_be_bytes().to_vec(), Ok("7")),
            (Shape::Int4, vec![1], Err("it has an unexpected length")),
            (Shape::Int8, micros(i64::MIN), Ok("-9223372036854775808")),
            (Shape::Oid, vec![0xff; 4], Ok("4294967295")),
            (Shape::Float4, 0.1f32.to_be_bytes().to_vec(), Ok("0.1")),
            (Shape::Float8, 0.1f64.to_be_bytes().to_vec(), Ok("0.1")),
            (Shape::Float8, f64::NAN.to_be_bytes().to_vec(), Ok("null")),
            (Shape::Float4, f32::INFINITY.to_be_bytes().to_vec(), Ok("null")),
            (Shape::Numeric, vec![0, 1, 0, 0, 0, 0, 0, 1, 0, 5], Ok("5.0")),
            (Shape::Numeric, vec![0, 0, 0, 0, 0xC0, 0, 0, 0], Ok("null")),
            (Shape::Numeric, vec![0], Err("it is no numeric")),
            (Shape::Text, b"a\"\n\xc3\xa4".to_vec(), Ok("\"a\\\"\\nä\"")),
            (Shape::Text, vec![0xff], Err("it is not UTF-8")),
            (Shape::Json, b"{\"a\": 1}".to_vec(), Ok("{\"a\": 1}")),
            (Shape::Jsonb, b"\x01[1]".to_vec(), Ok("[1]")),
            (Shape::Jsonb, b"\x02[1]".to_vec(), Err("it is jsonb of an unknown version")),
            (Shape::Date, days(0), Ok("\"2000-01-01\"")),
            (Shape::Date, days(-1), Ok("\"1999-12-31\"")),
            (Shape::Date, days(60), Ok("\"2000-03-01\"")),
            (Shape::Date, days(i32::MAX), Ok("\"infinity\"")),
            (Shape::Date, days(i32::MIN), Ok("\"-infinity\"")),
            (Shape::Date, days(4_000_000), Err("its year is not within 0 to 9999")),
            (Shape::Date, days(-800_000), Err("its year is not within 0 to 9999")),
            (Shape::Time, micros(day - 1), Ok("\"23:59:59.999999\"")),
            (Shape::Time, micros(day), Ok("\"24:00:00\"")),
            (Shape::Time, micros(-1), Err("it is no time of day")),
            (Shape::Timestamp, micros(day + 3_723_500_000), Ok("\"2000-01-02T01:02:03.5\"")),
            (Shape::Timestamp, micros(i64::MIN), Ok("\"-infinity\"")),
            (Shape::TimestampWithZone, micros(-1), Ok("\"1999-12-31T23:59:59.999999Z\"")),
            (Shape::TimestampWithZone, micros(i64::MAX), Ok("\"infinity\"")),
            (Shape::Uuid, (0x10..0x20).collect(), Ok("\"10111213-1415-1617-1819-1a1b1c1d1e1f\"")),
            (Shape::Uuid, vec![0; 15], Err("it has an unexpected length")),
        ];
        for (shape, bytes, expected) in table {
            let mut json = Vec::new();
            let result = write(shape, &bytes, &mut json);
            let written = result.map(|()| std::str::from_utf8(&json).unwrap());
            assert_eq!(written, expected, "{shape:?} {bytes:?}");
        }
    }
}

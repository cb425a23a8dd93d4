//! A value in PostgreSQL's binary format, by the type that the server inferred for its placeholder.
//!
//! | declared | fits |
//! |---|---|
//! | integer | smallint, integer, bigint, oid, real, double precision, numeric |
//! | number | real, double precision, numeric, and the integer types when it has no fraction |
//! | text | text types, enums, json, jsonb, uuid |
//! | boolean | boolean |
//!
//! Anything else is the route's mistake, not the client's, and is mended by a cast in the SQL.

use super::numeric;
use super::shape::Shape;
use crate::app::routes::value::{Complaint, Value};
use bytes::{BufMut, BytesMut};
use postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use std::error::Error;

/// A value as the server wants it; `None` is NULL.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Encoded(Option<Vec<u8>>);

/// Why a value cannot be bound.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Misfit {
    /// The type would do, this value does not: the client is told.
    Value(Complaint),
    /// No value of this kind fits the type: the operator is told to cast, first to the type given here.
    Type(&'static str),
}

const OUT_OF_RANGE: Misfit = Misfit::Value(Complaint::Borrowed("is out of range"));

impl Encoded {
    pub(super) fn new(value: &Value, kind: &Type) -> Result<Encoded, Misfit> {
        let shape = Shape::of(kind);
        let bytes = match value {
            Value::Null => return Ok(Encoded(None)),
            Value::Integer(integer) => encode_integer(*integer, shape.ok_or(Misfit::Type("bigint"))?)?,
            Value::Number(number) => {
                encode_number(number.as_f64(), shape.ok_or(Misfit::Type("double precision"))?)?
            }
            Value::Text(text) => encode_text(text, shape.ok_or(Misfit::Type("text"))?)?,
            Value::Boolean(boolean) => match shape {
                Some(Shape::Boolean) => vec![u8::from(*boolean)],
                _ => return Err(Misfit::Type("boolean")),
            },
        };
        Ok(Encoded(Some(bytes)))
    }
}

fn encode_integer(integer: i64, shape: Shape) -> Result<Vec<u8>, Misfit> {
    match shape {
        Shape::Int2 => narrow(integer, i16::to_be_bytes),
        Shape::Int4 => narrow(integer, i32::to_be_bytes),
        Shape::Int8 => Ok(integer.to_be_bytes().into()),
        Shape::Oid => narrow(integer, u32::to_be_bytes),
        Shape::Float4 => Ok((integer as f32).to_be_bytes().into()),
        Shape::Float8 => Ok((integer as f64).to_be_bytes().into()),
        Shape::Numeric => Ok(numeric::encode(&integer.to_string())),
        Shape::Boolean | Shape::Text | Shape::Json | Shape::Jsonb | Shape::Uuid => {
            Err(Misfit::Type("bigint"))
        }
        Shape::Date | Shape::Time | Shape::Timestamp | Shape::TimestampWithZone => {
            Err(Misfit::Type("bigint"))
        }
    }
}

fn narrow<T: TryFrom<i64>, const N: usize>(integer: i64, bytes: fn(T) -> [u8; N]) -> Result<Vec<u8>, Misfit> {
    T::try_from(integer).map(|narrowed| bytes(narrowed).into()).map_err(|_| OUT_OF_RANGE)
}

fn encode_number(number: f64, shape: Shape) -> Result<Vec<u8>, Misfit> {
    match shape {
        Shape::Float4 if (number as f32).is_infinite() => Err(OUT_OF_RANGE),
        Shape::Float4 => Ok((number as f32).to_be_bytes().into()),
        Shape::Float8 => Ok(number.to_be_bytes().into()),
        // Rust writes a float in the shortest way that reads back the same, and never with an exponent.
        Shape::Numeric => Ok(numeric::encode(&number.to_string())),
        Shape::Int2 | Shape::Int4 | Shape::Int8 | Shape::Oid => encode_integer(whole(number)?, shape),
        Shape::Boolean | Shape::Text | Shape::Json | Shape::Jsonb | Shape::Uuid => {
            Err(Misfit::Type("double precision"))
        }
        Shape::Date | Shape::Time | Shape::Timestamp | Shape::TimestampWithZone => {
            Err(Misfit::Type("double precision"))
        }
    }
}

fn whole(number: f64) -> Result<i64, Misfit> {
    // 2^63 itself is a float and no i64; -2^63 is both.
    let limit = 2f64.powi(63);
    if number.fract() != 0.0 {
        Err(Misfit::Value(Complaint::Borrowed("must not have a fraction")))
    } else if number < -limit || number >= limit {
        Err(OUT_OF_RANGE)
    } else {
        Ok(number as i64)
    }
}

fn encode_text(text: &str, shape: Shape) -> Result<Vec<u8>, Misfit> {
    match shape {
        Shape::Text | Shape::Json => Ok(text.into()),
        Shape::Jsonb => {
            let version = 1;
            Ok([&[version], text.as_bytes()].concat())
        }
        Shape::Uuid => uuid(text).ok_or(Misfit::Value(Complaint::Borrowed("must be a UUID"))),
        Shape::Boolean | Shape::Int2 | Shape::Int4 | Shape::Int8 | Shape::Oid => Err(Misfit::Type("text")),
        Shape::Float4 | Shape::Float8 | Shape::Numeric => Err(Misfit::Type("text")),
        Shape::Date | Shape::Time | Shape::Timestamp | Shape::TimestampWithZone => Err(Misfit::Type("text")),
    }
}

/// The form of RFC 9562, in either case; nothing looser.
fn uuid(text: &str) -> Option<Vec<u8>> {
    let (length, dashes) = (36, [8, 13, 18, 23]);
    let well_formed = text.len() == length
        && text.bytes().enumerate().all(|(at, byte)| match dashes.contains(&at) {
            true => byte == b'-',
            false => byte.is_ascii_hexdigit(),
        });
    if !well_formed {
        return None;
    }
    let digits = text.replace('-', "");
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).ok()).collect()
}

impl ToSql for Encoded {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match &self.0 {
            None => Ok(IsNull::Yes),
            Some(bytes) => {
                out.put_slice(bytes);
                Ok(IsNull::No)
            }
        }
    }

    /// `Encoded::new` has seen the type.
    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ParamKind;
    use serde_json::json;

    const TOO_FAR: Result<Option<Vec<u8>>, Misfit> = Err(OUT_OF_RANGE);

    fn bytes(bytes: &[u8]) -> Result<Option<Vec<u8>>, Misfit> {
        Ok(Some(bytes.into()))
    }

    #[test]
    fn values_are_encoded_by_the_servers_type() {
        let (integer, number) = (ParamKind::Integer, ParamKind::Number);
        let (text, boolean) = (ParamKind::Text, ParamKind::Boolean);
        let uuid = "00010203-0405-0607-0809-0A0b0c0d0e0f";
        let table = [
            (integer, json!(null), Type::INT4, Ok(None)),
            (boolean, json!(null), Type::POINT, Ok(None)),
            (integer, json!(-2), Type::INT2, bytes(&[0xff, 0xfe])),
            (integer, json!(32768), Type::INT2, TOO_FAR),
            (integer, json!(-2147483648i64), Type::INT4, bytes(&[0x80, 0, 0, 0])),
            (integer, json!(2147483648i64), Type::INT4, TOO_FAR),
            (integer, json!(i64::MAX), Type::INT8, bytes(&i64::MAX.to_be_bytes())),
            (integer, json!(-1), Type::OID, TOO_FAR),
            (integer, json!(2), Type::FLOAT4, bytes(&2f32.to_be_bytes())),
            (integer, json!(2), Type::FLOAT8, bytes(&2f64.to_be_bytes())),
            (integer, json!(2), Type::NUMERIC, bytes(&[0, 1, 0, 0, 0, 0, 0, 0, 0, 2])),
            (integer, json!(2), Type::TEXT, Err(Misfit::Type("bigint"))),
            (integer, json!(2), Type::POINT, Err(Misfit::Type("bigint"))),
            (number, json!(0.5), Type::FLOAT8, bytes(&0.5f64.to_be_bytes())),
            (number, json!(0.5), Type::FLOAT4, bytes(&0.5f32.to_be_bytes())),
            (number, json!(1e39), Type::FLOAT4, TOO_FAR),
            (number, json!(3.0), Type::INT4, bytes(&3i32.to_be_bytes())),
            (
                number,
                json!(3.5),
                Type::INT4,
                Err(Misfit::Value(Complaint::Borrowed("must not have a fraction"))),
            ),
            (number, json!(9223372036854775808u64), Type::INT8, TOO_FAR),
            (number, json!(-9223372036854775808i64), Type::INT8, bytes(&i64::MIN.to_be_bytes())),
            (number, json!(1), Type::BOOL, Err(Misfit::Type("double precision"))),
            (text, json!("ä"), Type::VARCHAR, bytes("ä".as_bytes())),
            (text, json!("{}"), Type::JSON, bytes(b"{}")),
            (text, json!("{}"), Type::JSONB, bytes(b"\x01{}")),
            (text, json!(uuid), Type::UUID, bytes(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15])),
            (
                text,
                json!("0001020304050607-0809-0a0b0c0d0e0f--"),
                Type::UUID,
                Err(Misfit::Value(Complaint::Borrowed("must be a UUID"))),
            ),
            (text, json!("ä"), Type::UUID, Err(Misfit::Value(Complaint::Borrowed("must be a UUID")))),
            (text, json!("2"), Type::INT4, Err(Misfit::Type("text"))),
            (text, json!("2024-01-01"), Type::DATE, Err(Misfit::Type("text"))),
            (boolean, json!(true), Type::BOOL, bytes(&[1])),
            (boolean, json!(true), Type::INT4, Err(Misfit::Type("boolean"))),
        ];
        for (kind, given, to, expected) in table {
            let value = Value::from_json(kind, &given).unwrap();
            assert_eq!(Encoded::new(&value, &to).map(|encoded| encoded.0), expected, "{given} to {to}");
        }
    }
}

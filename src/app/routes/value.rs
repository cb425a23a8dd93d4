//! A parameter's value: read from text or JSON by the declared kind, bound by either database, part of a cache's key.
//! Not here: where the value came from.

use crate::config::{ParamKind, Scalar};
use std::borrow::Cow;

/// A value ready to be bound. Equal values are the same bound bytes, so it can be the key of a cache.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Value {
    /// JSON `null`, whatever the kind: SQL's NULL.
    Null,
    Integer(i64),
    Number(Finite),
    /// Never with a NUL character, which no text in PostgreSQL can hold.
    Text(Box<str>),
    Boolean(bool),
}

/// A float that is neither infinite nor NaN; compared by its bits, so `0.0` and `-0.0` differ.
#[derive(Clone, Copy, Debug)]
pub(super) struct Finite(f64);

/// Why a value was refused, in words for the client.
pub(super) type Complaint = Cow<'static, str>;

const NOT_INTEGER: Complaint = Cow::Borrowed("must be an integer of at most 64 bits");
const NOT_NUMBER: Complaint = Cow::Borrowed("must be a number");
const NOT_TEXT: Complaint = Cow::Borrowed("must be a string");
const NOT_BOOLEAN: Complaint = Cow::Borrowed("must be true or false");
const HAS_NUL: Complaint = Cow::Borrowed("must not contain a NUL character");

impl Value {
    /// Reads a value from a path, a query or a form.
    pub(super) fn from_text(kind: ParamKind, text: &str) -> Result<Value, Complaint> {
        match kind {
            ParamKind::Integer => text.parse().map(Value::Integer).map_err(|_| NOT_INTEGER),
            ParamKind::Number => text.parse().ok().and_then(Value::number).ok_or(NOT_NUMBER),
            ParamKind::Text => Value::text(text),
            ParamKind::Boolean => text.parse().map(Value::Boolean).map_err(|_| NOT_BOOLEAN),
        }
    }

    /// Reads a member of a JSON object. The JSON type must be the kind's own: `"5"` is no integer, and neither is `5.0`.
    pub(super) fn from_json(kind: ParamKind, json: &serde_json::Value) -> Result<Value, Complaint> {
        if json.is_null() {
            return Ok(Value::Null);
        }
        match kind {
            ParamKind::Integer => json.as_i64().map(Value::Integer).ok_or(NOT_INTEGER),
            ParamKind::Number => json.as_f64().and_then(Value::number).ok_or(NOT_NUMBER),
            ParamKind::Text => json.as_str().ok_or(NOT_TEXT).and_then(Value::text),
            ParamKind::Boolean => json.as_bool().map(Value::Boolean).ok_or(NOT_BOOLEAN),
        }
    }

    /// What it takes in memory.
    pub(super) fn bytes(&self) -> usize {
        let text = match self {
            Value::Text(text) => text.len(),
            Value::Null | Value::Integer(_) | Value::Number(_) | Value::Boolean(_) => 0,
        };
        size_of::<Value>() + text
    }

    pub(super) fn to_json(&self) -> serde_json::Value {
        match self {
            Value::Null => serde_json::Value::Null,
            Value::Integer(integer) => (*integer).into(),
            Value::Number(number) => number.as_f64().into(),
            Value::Text(text) => (&**text).into(),
            Value::Boolean(boolean) => (*boolean).into(),
        }
    }

    fn number(number: f64) -> Option<Value> {
        number.is_finite().then_some(Value::Number(Finite(number)))
    }

    fn text(text: &str) -> Result<Value, Complaint> {
        if text.contains('\0') { Err(HAS_NUL) } else { Ok(Value::Text(text.into())) }
    }
}

impl From<&Scalar> for Value {
    fn from(scalar: &Scalar) -> Value {
        match scalar {
            Scalar::Integer(integer) => Value::Integer(*integer),
            Scalar::Number(number) => Value::Number(Finite(*number)),
            Scalar::Text(text) => Value::Text(text.as_str().into()),
            Scalar::Boolean(boolean) => Value::Boolean(*boolean),
        }
    }
}

impl Finite {
    pub(super) fn as_f64(self) -> f64 {
        self.0
    }
}

impl PartialEq for Finite {
    fn eq(&self, other: &Finite) -> bool {
        self.0.to_bits() == other.0.to_bits()
    }
}

impl Eq for Finite {}

impl std::hash::Hash for Finite {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.to_bits().hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ParamKind::{Boolean, Integer, Number, Text};
    use serde_json::json;

    fn number(number: f64) -> Result<Value, Complaint> {
        Ok(Value::Number(Finite(number)))
    }

    fn text(text: &str) -> Result<Value, Complaint> {
        Ok(Value::Text(text.into()))
    }

    #[test]
    fn text_is_read_by_kind() {
        let table = [
            (Integer, "5", Ok(Value::Integer(5))),
            (Integer, "-9223372036854775808", Ok(Value::Integer(i64::MIN))),
            (Integer, "9223372036854775808", Err(NOT_INTEGER)),
            (Integer, "", Err(NOT_INTEGER)),
            (Integer, " 5", Err(NOT_INTEGER)),
            (Integer, "5.0", Err(NOT_INTEGER)),
            (Integer, "1; DROP TABLE items", Err(NOT_INTEGER)),
            (Number, "5", number(5.0)),
            (Number, "-1.5e3", number(-1500.0)),
            (Number, "1e999", Err(NOT_NUMBER)),
            (Number, "inf", Err(NOT_NUMBER)),
            (Number, "NaN", Err(NOT_NUMBER)),
            (Number, "1,5", Err(NOT_NUMBER)),
            (Text, "", text("")),
            (Text, "it's", text("it's")),
            (Text, "a\0b", Err(HAS_NUL)),
            (Boolean, "true", Ok(Value::Boolean(true))),
            (Boolean, "false", Ok(Value::Boolean(false))),
            (Boolean, "True", Err(NOT_BOOLEAN)),
            (Boolean, "1", Err(NOT_BOOLEAN)),
        ];
        for (kind, given, expected) in table {
            assert_eq!(Value::from_text(kind, given), expected, "{kind:?} {given:?}");
        }
    }

    #[test]
    fn json_is_read_by_kind() {
        let table = [
            (Integer, json!(5), Ok(Value::Integer(5))),
            (Integer, json!(u64::MAX), Err(NOT_INTEGER)),
            (Integer, json!(5.0), Err(NOT_INTEGER)),
            (Integer, json!("5"), Err(NOT_INTEGER)),
            (Integer, json!(true), Err(NOT_INTEGER)),
            (Integer, json!(null), Ok(Value::Null)),
            (Number, json!(5), number(5.0)),
            (Number, json!(0.1), number(0.1)),
            (Number, json!("0.1"), Err(NOT_NUMBER)),
            (Text, json!("a"), text("a")),
            (Text, json!("a\0"), Err(HAS_NUL)),
            (Text, json!(5), Err(NOT_TEXT)),
            (Text, json!({"a": 1}), Err(NOT_TEXT)),
            (Text, json!(null), Ok(Value::Null)),
            (Boolean, json!(true), Ok(Value::Boolean(true))),
            (Boolean, json!(0), Err(NOT_BOOLEAN)),
            (Boolean, json!([true]), Err(NOT_BOOLEAN)),
        ];
        for (kind, given, expected) in table {
            assert_eq!(Value::from_json(kind, &given), expected, "{kind:?} {given}");
        }
    }

    #[test]
    fn values_of_different_kinds_are_different_keys() {
        let values = [
            Value::Null,
            Value::Integer(1),
            number(1.0).unwrap(),
            number(-0.0).unwrap(),
            number(0.0).unwrap(),
            text("1").unwrap(),
            Value::Boolean(true),
        ];
        let keys: std::collections::HashSet<&Value> = values.iter().collect();
        assert_eq!(keys.len(), values.len());
    }
}

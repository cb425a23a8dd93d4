//! A request's parameters: taken from the path, the query and the body, judged, and put in order.
//! Not here: what is allowed of each (`rule`); what the values do in SQL.
//!
//! The rules, each chosen so that nothing is guessed:
//! - Every declared parameter is given at most once, wherever; a second time is an error, even when equal.
//! - JSON's `null` is SQL's NULL, where the parameter is not required. Path, query and form have no way to say NULL.
//! - A field that is not declared is ignored. A misspelt name still shows: the right one is missing.
//! - The body counts only with methods that have one, and is not read at all when the path gives every parameter.

use super::refusal::{Fault, Refusal};
use super::rule::Rule;
use super::value::{Complaint, Value};
use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method};
use percent_encoding::percent_decode;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// The values of one request, in the order of the rules; cheap to clone, and the key of the route's cache.
pub(super) type Values = Arc<[Value]>;

/// Reads the parameters of one route.
pub(super) struct Input {
    rules: Vec<Rule>,
    path_gives_all: bool,
}

impl Input {
    /// `path_names` are those that the path contains.
    pub(super) fn new(rules: Vec<Rule>, path_names: &[String]) -> Input {
        let path_gives_all = rules.iter().all(|rule| path_names.contains(&rule.param.name));
        Input { rules, path_gives_all }
    }

    pub(super) async fn read(&self, request: Request) -> Result<Values, Refusal> {
        if self.rules.is_empty() {
            return Ok(Arc::new([]));
        }
        let mut slots = Slots::new(&self.rules);
        let (mut parts, body) = request.into_parts();
        let path = RawPathParams::from_request_parts(&mut parts, &())
            .await
            .map_err(|rejection| Refusal::Malformed(rejection.body_text()))?;
        for (name, text) in &path {
            slots.give_text(name, text);
        }
        slots.give_pairs(parts.uri.query().unwrap_or_default().as_bytes())?;
        if has_body(&parts.method) && !self.path_gives_all {
            let headers = std::mem::take(&mut parts.headers);
            let body = Box::pin(Bytes::from_request(Request::from_parts(parts, body), &()))
                .await
                .map_err(|rejection| Refusal::Body(rejection.status()))?;
            slots.give_body(&headers, &body)?;
        }
        slots.finish()
    }
}

/// The body of other methods has no meaning that anybody defined (RFC 9110, 9.3).
fn has_body(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// What is known so far of each parameter.
struct Slots<'a> {
    rules: &'a [Rule],
    slots: Vec<Slot>,
}

enum Slot {
    Missing,
    Given(Value),
    Wrong(Complaint),
}

impl Slots<'_> {
    fn new(rules: &[Rule]) -> Slots<'_> {
        Slots { rules, slots: rules.iter().map(|_| Slot::Missing).collect() }
    }

    fn give_text(&mut self, name: &str, text: &str) {
        if let Some(index) = self.index(name) {
            self.give(index, Value::from_text(self.rules[index].param.kind, text));
        }
    }

    /// A query or a form (URL standard, 5.1).
    fn give_pairs(&mut self, pairs: &[u8]) -> Result<(), Refusal> {
        for pair in pairs.split(|&byte| byte == b'&') {
            let split = pair.iter().position(|&byte| byte == b'=').unwrap_or(pair.len());
            let (name, text) = (&pair[..split], pair.get(split + 1..).unwrap_or_default());
            // A name that is not UTF-8 cannot be a declared one.
            let Some(index) = decode(name).and_then(|name| self.index(&name)) else { continue };
            let value = match decode(text) {
                Some(text) => Value::from_text(self.rules[index].param.kind, &text),
                None => Err("must be UTF-8".into()),
            };
            self.give(index, value);
        }
        Ok(())
    }

    fn give_body(&mut self, headers: &HeaderMap, body: &[u8]) -> Result<(), Refusal> {
        if body.is_empty() {
            return Ok(());
        }
        let given = headers.get(CONTENT_TYPE).map_or(b"".as_slice(), |value| value.as_bytes());
        let essence = given.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
        if essence.eq_ignore_ascii_case(b"application/json") {
            self.give_json(body)
                .map_err(|error| Refusal::Malformed(format!("the body is not as it must be: {error}")))
        } else if essence.eq_ignore_ascii_case(b"application/x-www-form-urlencoded") {
            self.give_pairs(body)
        } else {
            Err(Refusal::MediaType)
        }
    }

    fn give_json(&mut self, body: &[u8]) -> serde_json::Result<()> {
        let mut deserializer = serde_json::Deserializer::from_slice(body);
        Members(self).deserialize(&mut deserializer)?;
        deserializer.end()
    }

    fn index(&self, name: &str) -> Option<usize> {
        self.rules.iter().position(|rule| rule.param.name == name)
    }

    fn give(&mut self, index: usize, value: Result<Value, Complaint>) {
        self.slots[index] = match (&self.slots[index], value) {
            (Slot::Given(_) | Slot::Wrong(_), _) => Slot::Wrong("must be given only once".into()),
            (Slot::Missing, value) => match value.and_then(|value| self.rules[index].judge(value)) {
                Ok(value) => Slot::Given(value),
                Err(complaint) => Slot::Wrong(complaint),
            },
        };
    }

    fn finish(self) -> Result<Values, Refusal> {
        let (mut values, mut faults) = (Vec::with_capacity(self.slots.len()), Vec::new());
        for (rule, slot) in self.rules.iter().zip(self.slots) {
            let value = match slot {
                Slot::Given(value) => Ok(value),
                Slot::Missing => rule.absent(),
                Slot::Wrong(complaint) => Err(complaint),
            };
            match value {
                Ok(value) => values.push(value),
                Err(message) => faults.push(Fault { field: rule.param.name.clone(), message }),
            }
        }
        if faults.is_empty() { Ok(values.into()) } else { Err(Refusal::Fields(faults)) }
    }
}

/// `None` when the bytes are not UTF-8.
fn decode(bytes: &[u8]) -> Option<Cow<'_, str>> {
    let decoded: Cow<'_, [u8]> = if bytes.contains(&b'+') {
        let spaced: Vec<u8> = bytes.iter().map(|&byte| if byte == b'+' { b' ' } else { byte }).collect();
        Cow::Owned(percent_decode(&spaced).collect())
    } else {
        percent_decode(bytes).into()
    };
    match decoded {
        Cow::Borrowed(bytes) => std::str::from_utf8(bytes).ok().map(Cow::Borrowed),
        Cow::Owned(bytes) => String::from_utf8(bytes).ok().map(Cow::Owned),
    }
}

/// Reads a JSON object member by member: a member given twice is seen, one that is not declared is skipped unread.
struct Members<'a, 'b>(&'a mut Slots<'b>);

impl<'de> DeserializeSeed<'de> for Members<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Members<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        while let Some(name) = members.next_key::<Cow<'_, str>>()? {
            match self.0.index(&name) {
                Some(index) => {
                    let json: serde_json::Value = members.next_value()?;
                    self.0.give(index, Value::from_json(self.0.rules[index].param.kind, &json));
                }
                None => _ = members.next_value::<IgnoredAny>()?,
            }
        }
        Ok(())
    }
}

//! The keys of a route's table, read one by one; what is wrong is noted with its line. Not here: which keys there are.

use super::{COMMON, KINDS};
use crate::config::file::{Reader, raw};
use crate::config::values::{self, Raw};
use crate::config::web;
use std::time::Duration;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// What `wait` takes.
pub(super) const WAIT: &str = "a duration such as 500ms or 30s, from 1ms to 24h";
/// The longest time that a route may give itself.
const DAY: Duration = Duration::from_secs(24 * 3600);

pub(super) struct Fields<'a, 'file> {
    pub(super) reader: &'a mut Reader<'file>,
    pub(super) table: &'a DeTable<'a>,
    /// Where the route begins.
    pub(super) at: usize,
}

impl<'a> Fields<'a, '_> {
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// The key's place, and its value.
    pub(super) fn value(&self, key: &str) -> Option<(usize, &'a Spanned<DeValue<'a>>)> {
        self.table.get_key_value(key).map(|(name, value)| (name.span().start, value))
    }

    /// What `read` makes of the value; `None`, where it is allowed, noted.
    pub(super) fn read<T>(
        &mut self,
        key: &str,
        allowed: &str,
        read: impl Fn(&Raw) -> Option<T>,
    ) -> Option<T> {
        let (at, value) = self.value(key)?;
        let given = raw(value.get_ref());
        let read = read(&given);
        if read.is_none() {
            self.reader.problem(at, &format!("route.{key}: got {given}; allowed: {allowed}"));
        }
        read
    }

    /// The table `headers`: the fields that the route's answers have.
    pub(super) fn headers(&mut self) -> Vec<(String, String)> {
        let Some((at, value)) = self.value("headers") else { return Vec::new() };
        let DeValue::Table(table) = value.get_ref() else {
            self.reader
                .problem(at, "route.headers: allowed: a table such as { Cache-Control = \"max-age=60\" }");
            return Vec::new();
        };
        let mut found = Vec::new();
        for (name, value) in table {
            match web::route_field(name.get_ref(), &raw(value.get_ref())) {
                Ok(field) => found.push(field),
                Err(what) => self.reader.problem(name.span().start, &format!("route.headers: got {what}")),
            }
        }
        found
    }

    /// Notes what is wrong with the route as a whole.
    pub(super) fn problem(&mut self, what: &str) {
        self.reader.problem(self.at, what);
    }

    /// Notes the keys that no route has, and those that do not go with this kind.
    pub(super) fn only(&mut self, kind: &str, own: &[&str]) {
        let mut known: Vec<&'static str> = COMMON.to_vec();
        known.extend(KINDS.iter().flat_map(|(_, keys)| keys.iter()));
        for key in self.table.keys() {
            let (at, name) = (key.span().start, key.get_ref().as_ref());
            if !known.contains(&name) {
                self.reader.unknown(at, "key of a route", name, &known);
            } else if !COMMON.contains(&name) && !own.contains(&name) {
                let of: Vec<&str> =
                    KINDS.iter().filter(|(_, keys)| keys.contains(&name)).map(|(kind, _)| *kind).collect();
                let of = of.join(" and ");
                self.reader.problem(at, &format!("route.{name}: does not go with {kind}; allowed with {of}"));
            }
        }
    }
}

pub(super) fn names(raw: &Raw) -> Option<Vec<String>> {
    values::list(raw).filter(|names| names.iter().all(|name| !name.is_empty()))
}

pub(super) fn boolean(raw: &Raw) -> Option<bool> {
    if let Raw::Boolean(value) = raw { Some(*value) } else { None }
}

pub(super) fn status(raw: &Raw) -> Option<u16> {
    values::count(raw).filter(|status| (200..=599).contains(status))
}

pub(super) fn wait(raw: &Raw) -> Option<Duration> {
    values::duration(raw).filter(|wait| !wait.is_zero() && *wait <= DAY)
}

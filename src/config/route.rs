//! A `[[route]]` of the file: its form. Not here: whether its path and its statement make sense (the stock app's check).

use super::file::{Reader, raw};
use super::values::{self, Raw};
use super::{Answer, Param, ParamKind, Route};
use std::time::Duration;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

const KEYS: [&str; 10] =
    ["path", "methods", "text", "sql", "params", "one", "status", "cache", "tags", "invalidates"];
const TAGS: &str = "names such as items, in an array or one string";
const KINDS: [(&str, ParamKind); 4] = [
    ("integer", ParamKind::Integer),
    ("number", ParamKind::Number),
    ("text", ParamKind::Text),
    ("boolean", ParamKind::Boolean),
];

/// A route, or `None` where something was wrong; what, the reader has noted.
pub(super) fn read(reader: &mut Reader<'_>, route: &Spanned<DeValue<'_>>) -> Option<Route> {
    let at = route.span().start;
    let problems = reader.problems.len();
    let DeValue::Table(table) = route.get_ref() else {
        reader.problem(at, "route: allowed: tables, each begun by [[route]]");
        return None;
    };
    for key in table.keys().filter(|key| !KEYS.contains(&key.get_ref().as_ref())) {
        reader.unknown(key.span().start, "key of a route", key.get_ref(), &KEYS);
    }
    let path = field(reader, table, "path", "a path such as /items/{id}", text);
    let methods =
        field(reader, table, "methods", "methods such as GET, in an array or one string", values::list);
    let fixed = field(reader, table, "text", "a text", text);
    let sql = field(reader, table, "sql", "a statement", text);
    let params = params(reader, table);
    let one = field(reader, table, "one", "true or false", boolean).unwrap_or(false);
    let status = field(reader, table, "status", "a status from 200 to 599", status).unwrap_or(200);
    let cache =
        field(reader, table, "cache", "a duration such as 30s", values::duration).unwrap_or(Duration::ZERO);
    let tags = field(reader, table, "tags", TAGS, names).unwrap_or_default();
    let invalidates = field(reader, table, "invalidates", TAGS, names).unwrap_or_default();
    let answer = match (fixed, sql) {
        (Some(text), None) if params.is_empty() && !one => Some(Answer::Text(text)),
        (None, Some(sql)) => Some(Answer::Sql { sql, params, one }),
        (Some(_), None) => {
            reader.problem(at, "route: params and one go with sql, not with text");
            None
        }
        (Some(_), Some(_)) | (None, None) => {
            reader.problem(at, "route: needs exactly one of text and sql");
            None
        }
    };
    if path.is_none() && !table.contains_key("path") {
        reader.problem(at, "route: needs a path");
    }
    let methods =
        methods.unwrap_or_else(|| vec!["GET".into()]).iter().map(|name| name.to_uppercase()).collect();
    if reader.problems.len() > problems {
        return None;
    }
    let (path, answer, place) = (path?, answer?, reader.place(at));
    Some(Route { path, methods, answer, status, cache, tags, invalidates, place })
}

fn field<T>(
    reader: &mut Reader<'_>,
    table: &DeTable<'_>,
    key: &str,
    allowed: &str,
    read: impl Fn(&Raw) -> Option<T>,
) -> Option<T> {
    let (name, value) = table.get_key_value(key)?;
    let given = raw(value.get_ref());
    let read = read(&given);
    if read.is_none() {
        reader.problem(name.span().start, &format!("route.{key}: got {given}; allowed: {allowed}"));
    }
    read
}

fn params(reader: &mut Reader<'_>, table: &DeTable<'_>) -> Vec<Param> {
    let Some((key, value)) = table.get_key_value("params") else { return Vec::new() };
    let DeValue::Table(declared) = value.get_ref() else {
        reader.problem(key.span().start, "route.params: allowed: a table such as { id = \"integer\" }");
        return Vec::new();
    };
    let mut params = Vec::new();
    for (name, kind) in declared {
        let given = raw(kind.get_ref());
        let known = KINDS.iter().find(|(word, _)| given == Raw::Text((*word).to_owned()));
        match known {
            Some((_, kind)) => params.push(Param { name: name.get_ref().to_string(), kind: *kind }),
            None => reader.problem(
                name.span().start,
                &format!(
                    "route.params.{}: got {given}; allowed: integer, number, text or boolean",
                    name.get_ref()
                ),
            ),
        }
    }
    params
}

fn text(raw: &Raw) -> Option<String> {
    values::text(raw)
}

fn names(raw: &Raw) -> Option<Vec<String>> {
    values::list(raw).filter(|names| names.iter().all(|name| !name.is_empty()))
}

fn boolean(raw: &Raw) -> Option<bool> {
    if let Raw::Boolean(value) = raw { Some(*value) } else { None }
}

fn status(raw: &Raw) -> Option<u16> {
    values::count(raw).filter(|status| (200..=599).contains(status))
}

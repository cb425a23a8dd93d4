//! A route's statements: `sql`, `params`, `one` and `page`. Not here: a single parameter; what a statement means.

use super::Param;
use super::fields::{self, Fields};
use super::param;
use crate::config::values;
use toml::Spanned;
use toml::de::DeValue;

/// The statements of a route and what they are given.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Query {
    /// In order; several are one transaction. A template may have none.
    pub statements: Vec<Sql>,
    pub params: Vec<Param>,
    /// One object and no array.
    pub one: bool,
    pub page: Option<Page>,
}

/// A statement and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sql {
    pub text: String,
    /// The line of the file in which the text begins; 0: nowhere.
    pub line: usize,
}

/// How many rows a request gets that does not say, and how many it may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    pub limit: u32,
    pub max: u32,
}

const PAGE: &str = "a table such as { limit = 20, max = 100 }, limit from 1 to max, max at most 1000000";

/// `None` where something is wrong, which was noted.
pub(super) fn read(fields: &mut Fields<'_, '_>) -> Option<Query> {
    let statements = match fields.value("sql") {
        Some(_) => statements(fields),
        None => Some(Vec::new()),
    };
    let params = param::read(fields);
    let one = fields.read("one", "true or false", fields::boolean).unwrap_or(false);
    let page = page(fields);
    if statements.as_ref().is_some_and(Vec::is_empty) && (one || page.is_some()) {
        fields.problem("route: one and page need sql");
    }
    Some(Query { statements: statements?, params, one, page })
}

fn statements(fields: &mut Fields<'_, '_>) -> Option<Vec<Sql>> {
    let (at, value) = fields.value("sql")?;
    let statements: Option<Vec<Sql>> = match value.get_ref() {
        DeValue::Array(items) if !items.is_empty() => {
            items.iter().map(|item| statement(fields, item)).collect()
        }
        _ => statement(fields, value).map(|statement| vec![statement]),
    };
    if statements.is_none() {
        fields.reader.problem(at, "route.sql: allowed: a statement, or several in an array");
    }
    statements
}

fn statement(fields: &Fields<'_, '_>, value: &Spanned<DeValue<'_>>) -> Option<Sql> {
    let DeValue::String(text) = value.get_ref() else { return None };
    let (source, first) = (fields.reader.source(value.span()), fields.reader.line(value.span().start));
    // The line break behind the quotes of a text over several lines is not part of it.
    let begins_below = ["\"\"\"", "'''"]
        .iter()
        .any(|quotes| source.strip_prefix(quotes).is_some_and(|text| text.starts_with(['\r', '\n'])));
    Some(Sql { text: text.to_string(), line: first + usize::from(begins_below) })
}

fn page(fields: &mut Fields<'_, '_>) -> Option<Page> {
    let (at, value) = fields.value("page")?;
    let count = |key: &str| match value.get_ref() {
        DeValue::Table(table) => {
            table.get(key).and_then(|value| values::count(&super::super::file::raw(value.get_ref())))
        }
        _ => None,
    };
    let known = match value.get_ref() {
        DeValue::Table(table) => table.keys().all(|key| ["limit", "max"].contains(&key.get_ref().as_ref())),
        _ => false,
    };
    let (limit, max): (Option<u32>, Option<u32>) = (count("limit"), count("max"));
    match (limit, max) {
        (Some(limit), Some(max)) if known && (1..=max).contains(&limit) && max <= 1_000_000 => {
            Some(Page { limit, max })
        }
        (_, _) => {
            fields.reader.problem(at, &format!("route.page: allowed: {PAGE}"));
            None
        }
    }
}

//! A `[[route]]` of the file: what is common to all kinds, and which kind it is.
//! Not here: a kind's own keys, each in its file; whether path and statements make sense (the stock app's check).

mod fields;
mod param;
mod program;
mod query;
mod token;

pub use param::{Param, ParamKind, Scalar};
pub use program::Program;
pub use query::{Page, Query, Sql};
pub use token::Token;

use super::file::Reader;
use super::values;
use super::web::{self, Encodings};
use fields::Fields;
use std::path::PathBuf;
use std::time::Duration;
use toml::Spanned;
use toml::de::DeValue;

/// One `[[route]]` of the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    pub path: String,
    /// Upper case; never empty.
    pub methods: Vec<String>,
    pub kind: Kind,
    pub status: u16,
    /// How long an answer to GET may be kept; zero: not at all.
    pub cache: Duration,
    /// What its cached answers are made of, by names that other routes' `invalidates` use.
    pub tags: Vec<String>,
    /// The tags whose answers it makes out of date.
    pub invalidates: Vec<String>,
    /// `None`: the server's.
    pub limit_request_body: Option<u64>,
    /// How long the answer may take to begin; `None`: the server's `request_timeout`.
    pub timeout: Option<Duration>,
    /// `None`: the server's.
    pub compress: Option<Encodings>,
    /// Fields that its answers have, by names in lower case.
    pub fields: Vec<(String, String)>,
    /// Who may ask; empty: everybody.
    pub tokens: Vec<Token>,
    /// `file:line` of the table's header, for messages.
    pub place: String,
}

/// What answers a route's requests.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// A fixed text.
    Text(String),
    /// The rows of a statement, as JSON.
    Sql(Query),
    /// A page made from a template, with the rows of a statement, if it has one.
    Template { name: String, query: Query },
    /// The files of a folder.
    Static(PathBuf),
    /// Another address, in which `{name}` stands for a part of the path.
    Redirect(String),
    /// What a program beside the worker answers.
    Program(Program),
}

/// Keys that every route may have.
const COMMON: [&str; 11] = [
    "path",
    "methods",
    "status",
    "cache",
    "tags",
    "invalidates",
    "limit_request_body",
    "timeout",
    "compress",
    "headers",
    "tokens",
];

/// The keys that name a kind, and what else each may have. `sql` beside `template` is the template's.
const KINDS: [(&str, &[&str]); 6] = [
    ("template", &["template", "sql", "params", "one", "page"]),
    ("sql", &["sql", "params", "one", "page"]),
    ("text", &["text"]),
    ("static", &["static"]),
    ("redirect", &["redirect"]),
    ("program", &program::KEYS),
];

const TAGS: &str = "names such as items, in an array or one string";
/// The part of the path that a `static` route takes for a file's name.
const REST: &str = "{*file}";

/// A route, or `None` where something was wrong; what, the reader has noted.
pub(super) fn read(reader: &mut Reader<'_>, route: &Spanned<DeValue<'_>>) -> Option<Route> {
    let at = route.span().start;
    let problems = reader.problems.len();
    let DeValue::Table(table) = route.get_ref() else {
        reader.problem(at, "route: allowed: tables, each begun by [[route]]");
        return None;
    };
    let mut fields = Fields { reader, table, at };
    let kind = read_kind(&mut fields);
    let path = fields.read("path", "a path such as /items/{id}", values::text);
    if path.is_none() && !fields.has("path") {
        fields.problem("route: needs a path");
    }
    let methods = fields.read("methods", "methods such as GET, in an array or one string", values::list);
    let methods = methods.unwrap_or_else(|| vec!["GET".into()]);
    let status = fields.read("status", "a status from 200 to 599", fields::status);
    let cache = fields.read("cache", "a duration such as 30s", values::duration);
    let tags = fields.read("tags", TAGS, fields::names).unwrap_or_default();
    let invalidates = fields.read("invalidates", TAGS, fields::names).unwrap_or_default();
    let limit_request_body = fields.read("limit_request_body", "a size such as 64KiB", values::size);
    let timeout = fields.read("timeout", fields::WAIT, fields::wait);
    let compress = fields.read("compress", web::ENCODINGS, web::encodings);
    let own_fields = fields.headers();
    let tokens = token::read(&mut fields);
    if fields.reader.problems.len() > problems {
        return None;
    }
    let (path, kind) = (path?, kind?);
    Some(Route {
        path: if let Kind::Static(_) = kind { with_rest(path) } else { path },
        methods: methods.iter().map(|name| name.to_uppercase()).collect(),
        status: status.unwrap_or(kind.default_status()),
        kind,
        cache: cache.unwrap_or_default(),
        tags,
        invalidates,
        limit_request_body,
        timeout,
        compress,
        fields: own_fields,
        tokens,
        place: reader.place(at),
    })
}

fn read_kind(fields: &mut Fields<'_, '_>) -> Option<Kind> {
    let given: Vec<_> = KINDS.into_iter().filter(|(name, _)| fields.has(name)).collect();
    let is_one = given.len() == 1 || (given.len() == 2 && given[0].0 == "template" && given[1].0 == "sql");
    let Some(&(name, own)) = given.first().filter(|_| is_one) else {
        fields.problem(
            "route: needs exactly one of text, sql, template, static, redirect and program; template may have sql",
        );
        return None;
    };
    fields.only(name, own);
    Some(match name {
        "text" => Kind::Text(fields.read("text", "a text", values::text)?),
        "sql" => Kind::Sql(query::read(fields)?),
        "template" => {
            let name = fields.read("template", "a file's name within [templates] folder", values::text);
            let query = query::read(fields)?;
            Kind::Template { name: name?, query }
        }
        "static" => Kind::Static(fields.read("static", "a folder", values::path)??),
        "program" => Kind::Program(program::read(fields)?),
        _ => Kind::Redirect(fields.read("redirect", "an address such as /new/{id}", values::text)?),
    })
}

/// `/assets` is `/assets/{*file}`.
fn with_rest(path: String) -> String {
    if path.contains('{') { path } else { format!("{}/{REST}", path.trim_end_matches('/')) }
}

impl Kind {
    /// What it is called in the file.
    pub fn name(&self) -> &'static str {
        match self {
            Kind::Text(_) => "text",
            Kind::Sql(_) => "sql",
            Kind::Template { .. } => "template",
            Kind::Static(_) => "static",
            Kind::Redirect(_) => "redirect",
            Kind::Program(_) => "program",
        }
    }

    /// Its statements and their parameters, if it may have such.
    pub fn query(&self) -> Option<&Query> {
        match self {
            Kind::Sql(query) | Kind::Template { query, .. } => Some(query),
            Kind::Text(_) | Kind::Static(_) | Kind::Redirect(_) | Kind::Program(_) => None,
        }
    }

    fn default_status(&self) -> u16 {
        match self {
            Kind::Text(_) | Kind::Sql(_) | Kind::Template { .. } | Kind::Static(_) | Kind::Program(_) => 200,
            Kind::Redirect(_) => 302,
        }
    }
}

//! The config file: TOML, read into values that remember their lines. Not here: what the values should be.

use super::app::{self, AppSettings, AppType};
use super::error::Problem;
use super::route;
use super::table::{SETTINGS, setting};
use super::values::Raw;
use super::{Environment, Route};
use std::fs;
use std::path::{Path, PathBuf};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A config file longer than this is no config file.
const MAX_BYTES: u64 = 1024 * 1024;
/// How alike two keys must be for one to be suggested for the other, from 0 to 1.
const ALIKE: f64 = 0.85;

/// What a file holds.
pub(super) struct Contents {
    /// Key, value, line.
    pub(super) values: Vec<(&'static str, Raw, usize)>,
    pub(super) routes: Vec<Route>,
    /// `None` where the file has no `[app]` table.
    pub(super) app: Option<AppSettings>,
}

/// A file being read: where problems are, and what was found wrong so far.
pub(super) struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
    /// The offset of each line's end.
    line_ends: Vec<usize>,
    /// With the offset of each.
    pub(super) problems: Vec<(usize, Problem)>,
}

impl<'a> Reader<'a> {
    fn new(path: &'a Path, text: &'a str) -> Reader<'a> {
        let line_ends = text.match_indices('\n').map(|(at, _)| at).collect();
        Reader { path, text, line_ends, problems: Vec::new() }
    }

    pub(super) fn line(&self, offset: usize) -> usize {
        self.line_ends.partition_point(|end| *end < offset) + 1
    }

    pub(super) fn source(&self, span: std::ops::Range<usize>) -> &str {
        self.text.get(span).unwrap_or_default()
    }

    pub(super) fn place(&self, offset: usize) -> String {
        format!("{}:{}", self.path.display(), self.line(offset))
    }

    pub(super) fn problem(&mut self, offset: usize, what: &str) {
        let place = self.place(offset);
        self.problems.push((offset, Problem::new(format!("{place}: {what}"))));
    }

    /// In the order of the file.
    fn into_problems(mut self) -> Vec<Problem> {
        self.problems.sort_by_key(|(offset, _)| *offset);
        self.problems.into_iter().map(|(_, problem)| problem).collect()
    }

    pub(super) fn unknown(&mut self, offset: usize, kind: &str, given: &str, known: &[&'static str]) {
        let leaf = |key: &'_ str| key.rsplit('.').next().unwrap_or_default().to_owned();
        let likeness = |known: &str| strsim::jaro_winkler(&leaf(given), &leaf(known));
        let best = known
            .iter()
            .map(|known| (likeness(known), known))
            .max_by(|(one, _), (other, _)| one.total_cmp(other));
        let hint = match best {
            Some((likeness, known)) if likeness > ALIKE => format!("; did you mean {known}?"),
            Some(_) | None => String::new(),
        };
        self.problem(offset, &format!("{given}: unknown {kind}{hint}"));
    }
}

/// Reads a file. All that is wrong with its form is reported, not just the first.
pub(super) fn read(
    path: &Path,
    text: &str,
    environment: &Environment,
    app: Option<AppType>,
) -> Result<Contents, Vec<Problem>> {
    let (contents, problems) = read_what_can_be(path, text, environment, app)?;
    if problems.is_empty() { Ok(contents) } else { Err(problems) }
}

/// What is right in a file, and what is not; an error where it is no TOML at all.
pub(super) fn read_what_can_be(
    path: &Path,
    text: &str,
    environment: &Environment,
    app: Option<AppType>,
) -> Result<(Contents, Vec<Problem>), Vec<Problem>> {
    let mut reader = Reader::new(path, text);
    let table = match DeTable::parse(text) {
        Ok(table) => table,
        Err(error) => {
            let offset = error.span().map_or(0, |span| span.start);
            reader.problem(offset, &format!("not TOML: {}", error.message()));
            return Err(reader.into_problems());
        }
    };
    let mut contents = Contents { values: Vec::new(), routes: Vec::new(), app: None };
    read_top(&mut reader, table.get_ref(), environment, app, &mut contents);
    contents.values.sort_by_key(|(_, _, line)| *line);
    Ok((contents, reader.into_problems()))
}

/// The problem with a file that `load` did not read.
pub(super) fn unread(path: &Path, what: &str) -> Problem {
    Problem::new(format!("{}: {what}", path.display()))
}

/// # Errors
/// When the file is none, or no text.
pub(super) fn load(path: &Path) -> Result<String, String> {
    let data = fs::metadata(path).map_err(|error| error.to_string())?;
    if data.is_dir() {
        return Err("is a folder; allowed: a TOML file".into());
    }
    if !data.is_file() || data.len() > MAX_BYTES {
        return Err("allowed: a plain file of at most 1 MiB".into());
    }
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    String::from_utf8(bytes)
        .map_err(|error| format!("not UTF-8: the byte at {} is no text", error.utf8_error().valid_up_to()))
}

fn read_top(
    reader: &mut Reader<'_>,
    table: &DeTable<'_>,
    environment: &Environment,
    app: Option<AppType>,
    contents: &mut Contents,
) {
    for (key, value) in table {
        let (name, offset) = (key.get_ref().as_ref(), key.span().start);
        let is_section = SETTINGS.iter().any(|setting| setting.section() == Some(name));
        match value.get_ref() {
            DeValue::Array(routes) if name == "route" => {
                for route in routes {
                    contents.routes.extend(route::read(reader, route));
                }
            }
            _ if name == "route" => reader.problem(offset, "route: allowed: tables, each begun by [[route]]"),
            _ if name == "app" => contents.app = app::read_table(reader, offset, value, environment, app),
            DeValue::Table(section) if is_section => {
                for (key, value) in section {
                    let full = format!("{name}.{}", key.get_ref());
                    read_value(reader, &full, key, value, environment, contents);
                }
            }
            _ if is_section => {
                reader.problem(offset, &format!("{name}: allowed: a section, begun by [{name}]"))
            }
            _ => read_value(reader, name, key, value, environment, contents),
        }
    }
}

fn read_value(
    reader: &mut Reader<'_>,
    full: &str,
    key: &Spanned<std::borrow::Cow<'_, str>>,
    value: &Spanned<DeValue<'_>>,
    environment: &Environment,
    contents: &mut Contents,
) {
    let offset = key.span().start;
    let Some(setting) = setting(full) else {
        let known: Vec<&str> = SETTINGS.iter().map(|setting| setting.key).chain(["route"]).collect();
        return reader.unknown(offset, "setting", full, &known);
    };
    match expanded(raw(value.get_ref()), environment) {
        Ok(raw) => contents.values.push((setting.key, raw, reader.line(offset))),
        Err(what) => reader.problem(offset, &format!("{full}: {what}")),
    }
}

pub(super) fn raw(value: &DeValue<'_>) -> Raw {
    match value {
        DeValue::String(text) => Raw::Text(text.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or(Raw::Other("huge number"), Raw::Integer),
        DeValue::Float(number) => number.as_str().parse().map_or(Raw::Other("number"), Raw::Float),
        DeValue::Boolean(value) => Raw::Boolean(*value),
        DeValue::Array(items) => Raw::List(items.iter().map(|item| raw(item.get_ref())).collect()),
        DeValue::Datetime(_) => Raw::Other("date"),
        DeValue::Table(table) => {
            let pairs = table.iter();
            Raw::Table(
                pairs.map(|(name, value)| (name.get_ref().to_string(), raw(value.get_ref()))).collect(),
            )
        }
    }
}

/// Fills in `${NAME}` and `file:PATH`.
fn expanded(raw: Raw, environment: &Environment) -> Result<Raw, String> {
    match raw {
        Raw::Text(text) => filled_in(&text, environment).map(Raw::Text),
        Raw::List(items) => {
            items.into_iter().map(|item| expanded(item, environment)).collect::<Result<_, _>>().map(Raw::List)
        }
        Raw::Table(pairs) => {
            let pairs = pairs.into_iter().map(|(name, value)| Ok((name, expanded(value, environment)?)));
            pairs.collect::<Result<_, _>>().map(Raw::Table)
        }
        raw @ (Raw::Integer(_) | Raw::Float(_) | Raw::Boolean(_) | Raw::Other(_)) => Ok(raw),
    }
}

pub(super) fn filled_in(text: &str, environment: &Environment) -> Result<String, String> {
    match text.strip_prefix("file:") {
        Some(path) => secret(&PathBuf::from(path)),
        None => filled(text, environment),
    }
}

fn secret(path: &Path) -> Result<String, String> {
    load(path)
        .map(|text| text.trim_end_matches(['\r', '\n']).to_owned())
        .map_err(|what| format!("file:{}: {what}", path.display()))
}

/// `$$` stands for `$`.
fn filled(text: &str, environment: &Environment) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')) {
            let value = environment.get(name);
            out.push_str(value.ok_or_else(|| format!("the environment has no variable {name}"))?);
            rest = after;
        } else {
            return Err("a $ begins ${NAME}; write $$ for the character itself".into());
        }
    }
    Ok(out + rest)
}

//! The templates of the stock app: read once, when a worker starts, and rendered with rows and parameters.
//! Not here: where rows come from.
//!
//! A template gets `params`, and of its statement `rows`, or `row` with `one`. What a template inserts is escaped by the
//! end of its name: HTML for `.html`, `.htm` and `.xml`, JSON for `.json`; nothing else is. An undefined name is an error.

use super::refusal::Refusal;
use super::sql::MAX_ANSWER_BYTES;
use super::value::Value;
use crate::config::Settings;
use bytes::Bytes;
use http::HeaderValue;
use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior};
use serde_json::{Map, json};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// How many files the folder may hold, and how many bytes all of them together.
const MAX_FILES: usize = 1000;
const MAX_BYTES: u64 = 16 * 1024 * 1024;
/// How deep folders are followed.
const MAX_DEPTH: usize = 8;
/// How many steps one page may take; a loop over all rows that an answer may have takes a tenth of it.
const MAX_STEPS: u64 = 10_000_000;

pub(super) struct Templates {
    environment: Environment<'static>,
}

impl Templates {
    /// All of the folder, if one is set. The error is `file:line: what is wrong`.
    pub(super) fn load(settings: &Settings) -> Result<Templates, String> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
        environment.set_fuel(Some(MAX_STEPS));
        environment.set_formatter(|out, state, value| {
            // NULL is nothing, not a word.
            if value.is_none() { Ok(()) } else { minijinja::escape_formatter(out, state, value) }
        });
        if let Some(folder) = &settings.templates.folder {
            let mut left = MAX_BYTES;
            for path in files(folder)? {
                let read = std::fs::read_to_string(&path);
                let source = read.map_err(|error| format!("{}: {error}", path.display()))?;
                left = left.checked_sub(source.len() as u64).ok_or_else(|| too_much(folder))?;
                let name = path.strip_prefix(folder).unwrap_or(&path).display().to_string();
                environment.add_template_owned(name, source).map_err(|error| describe(&error, &path))?;
            }
        }
        Ok(Templates { environment })
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.environment.get_template(name).is_ok()
    }

    /// The page, from the statement's JSON where there is a statement.
    pub(super) fn render(
        &self,
        page: &Page,
        json: Option<&[u8]>,
        values: &[Value],
    ) -> Result<Bytes, Refusal> {
        let mut context = Map::new();
        let params = page.params.iter().zip(values).map(|(name, value)| (name.clone(), value.to_json()));
        context.insert("params".into(), params.collect::<Map<_, _>>().into());
        if let Some(json) = json {
            let rows = serde_json::from_slice(json).unwrap_or(json!(null));
            context.insert(if page.one { "row" } else { "rows" }.into(), rows);
        }
        let mut out = Limited { out: Vec::new(), max: MAX_ANSWER_BYTES };
        let context = Serde(context);
        let template = self.environment.get_template(&page.name);
        match template.and_then(|template| template.render_captured_to(context, &mut out).map(drop)) {
            Ok(()) => Ok(out.out.into()),
            Err(error) => {
                let error = describe(&error, Path::new(&page.name));
                log::error!("a template could not be rendered place={} error={error:?}", page.place);
                Err(Refusal::Broken)
            }
        }
    }
}

/// A template in its use by a route.
pub(super) struct Page {
    pub(super) name: String,
    /// What the values of a request are called.
    pub(super) params: Vec<String>,
    pub(super) one: bool,
    /// `file:line` of the route.
    pub(super) place: String,
}

/// The media type of a page, by the end of its template's name.
pub(super) fn media_type(name: &str) -> HeaderValue {
    HeaderValue::from_static(match name.rsplit_once('.').map(|(_, end)| end) {
        Some("html" | "htm") => "text/html; charset=utf-8",
        Some("xml") => "application/xml",
        Some("json") => "application/json",
        Some("csv") => "text/csv; charset=utf-8",
        Some(_) | None => "text/plain; charset=utf-8",
    })
}

/// The folder's files and those of its folders, hidden ones left out, in a fixed order.
fn files(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let mut found = Vec::new();
    let mut folders = vec![(folder.to_owned(), 0)];
    while let Some((inner, depth)) = folders.pop() {
        let entries = std::fs::read_dir(&inner).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        for entry in entries.map_err(|error| format!("{}: {error}", inner.display()))? {
            let path = entry.path();
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            if path.is_dir() && depth < MAX_DEPTH {
                folders.push((path, depth + 1));
            } else if path.is_file() {
                found.push(path);
            }
            if found.len() + folders.len() > MAX_FILES {
                return Err(too_much(folder));
            }
        }
    }
    found.sort();
    Ok(found)
}

fn too_much(folder: &Path) -> String {
    let mebibytes = MAX_BYTES >> 20;
    format!("{}: allowed: at most {MAX_FILES} templates, together at most {mebibytes} MiB", folder.display())
}

/// `file:line: what is wrong`, on one line. An error in an included template names that one.
fn describe(error: &minijinja::Error, path: &Path) -> String {
    let what = error
        .detail()
        .map_or_else(|| error.kind().to_string(), |detail| format!("{}: {detail}", error.kind()));
    let file = match error.name() {
        Some(name) if !path.ends_with(name) => name.to_owned(),
        Some(_) | None => path.display().to_string(),
    };
    error.line().map_or_else(|| format!("{file}: {what}"), |line| format!("{file}:{line}: {what}"))
}

/// Takes so many bytes and no more.
struct Limited {
    out: Vec<u8>,
    max: usize,
}

impl Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.out.len() + bytes.len() > self.max {
            return Err(io::Error::other("the page is too long"));
        }
        self.out.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loaded(files: &[(&str, &str)]) -> Result<Templates, String> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let mut settings = Settings::default();
        settings.templates.folder = Some(folder.path().to_owned());
        let at_home = |reason: String| reason.replace(&format!("{}/", folder.path().display()), "");
        Templates::load(&settings).map_err(at_home)
    }

    fn rendered(files: &[(&str, &str)], json: &str) -> Option<String> {
        let page = Page {
            name: files[0].0.into(),
            params: vec!["q".into()],
            one: json.starts_with('{'),
            place: "s.toml:7".into(),
        };
        let templates = loaded(files).unwrap();
        let bytes = templates.render(&page, Some(json.as_bytes()), &[Value::Text("<q>".into())]).ok()?;
        Some(String::from_utf8(bytes.into()).unwrap())
    }

    #[test]
    fn rows_and_parameters_are_inserted_and_escaped() {
        let html = "{% for row in rows %}{{ row.n }}:{{ row.t }};{% endfor %}{{ params.q }}";
        let json = r#"[{"t": "<b>\"", "n": 1}, {"t": null, "n": 2}]"#;
        assert_eq!(rendered(&[("a.html", html)], json).unwrap(), "1:&lt;b&gt;&quot;;2:;&lt;q&gt;");
        assert_eq!(rendered(&[("a.txt", html)], json).unwrap(), "1:<b>\";2:;<q>");
        assert_eq!(rendered(&[("a.html", "{{ row.t }}")], r#"{"t": "x"}"#).unwrap(), "x");
        let parts = [
            ("a.html", "{% extends 'in/base.html' %}{% block b %}x{% endblock %}"),
            ("in/base.html", "<{% block b %}{% endblock %}>"),
        ];
        assert_eq!(rendered(&parts, "[]").unwrap(), "<x>");
        let names = "{% for name in rows[0] %}{{ name }} {% endfor %}";
        assert_eq!(rendered(&[("a.html", names)], json).unwrap(), "t n ", "in the statement's order");
    }

    #[test]
    fn a_page_has_bounds_and_no_undefined_names() {
        for text in [
            "{{ missing }}",
            "{{ rows[0].missing }}",
            "{% for i in range(1000000) %}{% for j in range(1000000) %}{% endfor %}{% endfor %}",
            "{% for i in range(100000) %}{{ 'abcdefghij' * 100 }}{% endfor %}",
            "{% include 'nowhere.html' %}",
            "{% include 'a.html' %}",
        ] {
            assert_eq!(rendered(&[("a.html", text)], "[{}]"), None, "{text}");
        }
    }

    #[test]
    fn a_template_that_does_not_parse_is_named_with_its_line() {
        let error = loaded(&[("b/a.html", "one\n{% for x in %}"), (".hidden", "{% ")]).err().unwrap();
        assert!(error.starts_with("b/a.html:2: syntax error: "), "{error}");
        assert!(loaded(&[(".hidden", "{% ")]).is_ok());
    }
}

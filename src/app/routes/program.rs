//! A route that a program beside the worker answers: asked with an object of the parameters, it says a JSON document, which is the
//! answer, or why there is none. Not here: its processes, and what becomes of a call (`crate::app::program`).

use super::input::{Input, Values};
use super::kept::Pages;
use super::path;
use super::refusal::Refusal;
use super::rule::Rule;
use super::sql::MAX_ANSWER_BYTES;
use crate::app::{Deadline, Error, Program, ProgramOptions, Worker};
use crate::config::{self, Route, Settings};
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, StatusCode};
use nix::unistd::{AccessFlags, access};
use serde::Deserialize;
use serde_json::Map;
use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long an answer may take where neither the route nor `request_timeout` says.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Where the C library looks for programs without a PATH.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// So much of the text of a program's error is logged.
const MAX_LOGGED: usize = 512;

pub(super) struct Endpoint {
    program: Program,
    input: Input,
    /// What the values of a request are called.
    names: Vec<String>,
    status: StatusCode,
    /// Answers to GET.
    cache: Option<Pages>,
    timeout: Duration,
    /// `file:line` of the route, for the log.
    place: String,
}

/// How long the route's answer may take.
pub(super) fn timeout(route: &Route, settings: &Settings) -> Duration {
    let of_server = Some(settings.request_timeout).filter(|time| !time.is_zero());
    route.timeout.or(of_server).unwrap_or(TIMEOUT)
}

/// Looks for the program as the system will.
pub(super) fn find(word: &str) -> Result<(), String> {
    if word.contains('/') {
        return can_run(Path::new(word)).map_err(|why| format!("program is {word:?}, which {why}"));
    }
    let path = env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
    if find_in(&path, word).is_some() {
        return Ok(());
    }
    Err(format!("program is {word:?}, which is in no folder of PATH, or cannot be executed there"))
}

fn find_in(folders: &OsStr, word: &str) -> Option<PathBuf> {
    env::split_paths(folders).map(|folder| folder.join(word)).find(|file| can_run(file).is_ok())
}

fn can_run(file: &Path) -> Result<(), &'static str> {
    if !file.is_file() {
        return Err("is no file that is there");
    }
    access(file, AccessFlags::X_OK).map_err(|_| "cannot be executed")
}

impl Endpoint {
    /// `check` has seen the route. Starts the program.
    pub(super) fn new(worker: &Worker, route: &Route, program: &config::Program) -> Endpoint {
        let timeout = timeout(route, worker.settings());
        let options = ProgramOptions::new(&program.words)
            .children(program.children)
            .queue(program.queue)
            .timeout(timeout)
            .start_timeout(program.start_timeout)
            .max_line(MAX_ANSWER_BYTES);
        let rule = |param: &config::Param| Rule::new(param.clone()).expect("check saw the declaration");
        Endpoint {
            // No other route has this method at this path.
            program: worker.program(&format!("{} {}", route.methods[0], route.path), options),
            input: Input::new(program.params.iter().map(rule).collect(), &path::names(&route.path)),
            names: program.params.iter().map(|param| param.name.clone()).collect(),
            status: StatusCode::from_u16(route.status).expect("check saw the status"),
            cache: Pages::new(worker, route, &JSON),
            timeout,
            place: route.place.clone(),
        }
    }

    pub(super) async fn answer(&self, request: Request) -> Result<Response, Refusal> {
        let is_safe = matches!(*request.method(), Method::GET | Method::HEAD);
        if let Some(pages) = self.cache.as_ref().filter(|_| is_safe) {
            return pages.answer(request, &self.input, |values| self.ask(values)).await;
        }
        Box::pin(self.made(request)).await
    }

    /// The answer, which no cache has.
    async fn made(&self, request: Request) -> Result<Response, Refusal> {
        let values = self.input.read(request).await?;
        let answer = self.ask(values).await?;
        if self.status == StatusCode::NO_CONTENT {
            return Ok(self.status.into_response());
        }
        Ok((self.status, [(CONTENT_TYPE, JSON)], answer).into_response())
    }

    /// The program's document.
    async fn ask(&self, values: Values) -> Result<Bytes, Refusal> {
        let question = self.question(&values)?;
        // The very moment at which `guard` gives up: its timer fires in the same turn, and what waits is looked at first. So a call
        // that no child has taken is told from one that none has answered.
        let due = Deadline::current().and_then(|deadline| deadline.due());
        let due = due.unwrap_or_else(|| Instant::now() + self.timeout);
        let answer = self.program.ask(question, due).await.map_err(Refusal::Program)?;
        if let Some(reported) = reported(&answer) {
            return Err(self.refusal(reported));
        }
        Ok(answer.into())
    }

    fn question(&self, values: &Values) -> Result<Vec<u8>, Refusal> {
        let members =
            self.names.iter().zip(values.iter()).map(|(name, value)| (name.clone(), value.to_json()));
        let members: Map<String, serde_json::Value> = members.collect();
        let mut line = serde_json::to_vec(&members).map_err(|error| Refusal::Program(Error::other(error)))?;
        if line.len() > MAX_ANSWER_BYTES {
            return Err(Refusal::LongQuestion);
        }
        line.push(b'\n');
        Ok(line)
    }

    fn refusal(&self, reported: Reported) -> Refusal {
        match reported {
            Reported::Text(text) => {
                let text: String = text.chars().take(MAX_LOGGED).collect();
                log::error!("a program reported an error place={} error={text:?}", self.place);
                Refusal::Broken
            }
            Reported::Full(Problem { status, detail }) => match StatusCode::from_u16(status) {
                Ok(code) if (400..=599).contains(&status) => {
                    let detail =
                        detail.unwrap_or_else(|| code.canonical_reason().unwrap_or("Error").to_lowercase());
                    Refusal::Reported(code, detail)
                }
                Ok(_) | Err(_) => Refusal::Program(Error::ProgramFailed(format!(
                    "{}: it reported an error with the status {status}; allowed: 400 to 599",
                    self.place
                ))),
            },
        }
    }
}

/// An error that a program reports in place of an answer.
#[derive(Debug, Deserialize, PartialEq)]
#[serde(untagged)]
enum Reported {
    /// For the log alone.
    Text(String),
    Full(Problem),
}

/// An error that is the client's to know.
#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Problem {
    status: u16,
    detail: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ErrorAlone {
    error: Reported,
}

/// The error, where the document has nothing beside it.
fn reported(answer: &[u8]) -> Option<Reported> {
    // Most answers need not be read once more for it.
    let within = answer.trim_ascii_start().strip_prefix(b"{")?.trim_ascii_start();
    if !within.starts_with(b"\"error\"") {
        return None;
    }
    serde_json::from_slice(answer).ok().map(|ErrorAlone { error }| error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn an_error_stands_alone() {
        let text = |text: &str| Some(Reported::Text(text.into()));
        let full = |status, detail: Option<&str>| {
            Some(Reported::Full(Problem { status, detail: detail.map(Into::into) }))
        };
        let table = [
            (r#"{"error": "no model"}"#, text("no model")),
            (" {\t\"error\":\"\"} ", text("")),
            (r#"{"error": {"status": 404, "detail": "no such word"}}"#, full(404, Some("no such word"))),
            (r#"{"error": {"status": 422}}"#, full(422, None)),
            // These are answers.
            (r#"{"error": 0.25}"#, None),
            (r#"{"error": null}"#, None),
            (r#"{"error": "a", "score": 1}"#, None),
            (r#"{"score": 1, "error": "a"}"#, None),
            (r#"{"error": {"status": 404, "more": 1}}"#, None),
            (r#"{"errors": []}"#, None),
            (r#"["error"]"#, None),
            ("{}", None),
            ("1", None),
        ];
        for (answer, expected) in table {
            assert_eq!(reported(answer.as_bytes()), expected, "{answer}");
        }
    }

    #[test]
    fn a_program_is_looked_for_as_the_system_does() {
        let folder = tempfile::tempdir().unwrap();
        let make = |name: &str, mode| {
            let path = folder.path().join(name);
            fs::write(&path, "").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let (good, plain) = (make("good", 0o755), make("plain", 0o644));
        let inner = folder.path().join("folder");
        fs::create_dir(&inner).unwrap();
        assert_eq!(find(&good), Ok(()));
        assert_eq!(find(&plain), Err(format!("program is {plain:?}, which cannot be executed")));
        for missing in [inner.to_str().unwrap(), "./nothing-like-that"] {
            let wanted = format!("program is {missing:?}, which is no file that is there");
            assert_eq!(find(missing), Err(wanted));
        }
        assert_eq!(find("sh"), Ok(()));
        assert!(find("nothing-like-that").unwrap_err().contains("is in no folder of PATH"));
        let path = env::join_paths([inner.as_path(), folder.path()]).unwrap();
        assert_eq!(find_in(&path, "good").unwrap(), folder.path().join("good"));
        assert_eq!(find_in(&path, "plain"), None);
    }
}

//! The access log: a line a request, gathered and written in bulk; the combined format. Not here: other formats (`plan`), the
//! error log.

mod plan;

use super::gate::Fields;
use crate::app::{Peer, RequestId, Scheme};
use crate::config::{LogFormat, LogTarget};
use crate::logging::Sink;
use http::{HeaderMap, Request, StatusCode};
use nix::time::{ClockId, clock_gettime};
use plan::{Plan, Style, Taken};
use std::cell::Cell;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

/// How much is gathered before it is written; the sweep writes what is less.
const GATHERED: usize = 32 * 1024;
/// Room for a usual line, so that it takes one allocation.
const LINE_BYTES: usize = 256;
/// Lines up to this long leave their memory to the next one.
const SPARE_BYTES: usize = 4 * LINE_BYTES;

/// The Common Log Format's time in its brackets, in UTC.
const STAMP: &[BorrowedFormatItem<'_>] =
    format_description!("[[[day]/[month repr:short]/[year]:[hour]:[minute]:[second] +0000]");

/// The same for JSON, in its quotes: RFC 3339.
const JSON_STAMP: &[BorrowedFormatItem<'_>] =
    format_description!("\"[year]-[month]-[day]T[hour]:[minute]:[second]Z\"");

pub(super) struct AccessLog {
    /// `None`: the combined format.
    plan: Option<Plan>,
    state: Mutex<State>,
}

struct State {
    sink: Sink,
    gathered: Vec<u8>,
    /// The last second that was formatted, and how.
    second: (i64, String),
}

/// What a line says of a request, written when the request came.
pub(super) struct Line {
    /// The request line and, behind it, the two fields.
    text: Vec<u8>,
    request_line_end: usize,
    /// In place of that, where the format is another.
    taken: Option<Box<Taken>>,
    pub(super) status: StatusCode,
}

/// By which scheme and of which host the client asked, as the app has it.
#[derive(Clone, Copy, Default)]
pub(super) struct Asked<'a> {
    pub(super) scheme: Scheme,
    /// `None`: the one that the request names.
    pub(super) host: Option<&'a str>,
}

/// What a line says of how it went.
#[derive(Clone, Copy, Default)]
pub(super) struct Outcome<'a> {
    pub(super) bytes: u64,
    pub(super) micros: u64,
    pub(super) id: Option<&'a RequestId>,
}

/// What stands for a field that was not sent.
const NO_FIELD: &[u8; 4] = b" \"-\"";

/// What stands when the client left before there was an answer (nginx's convention).
pub(super) const LEFT: u16 = 499;

thread_local! {
    /// The memory of the last line, for the next one: most requests end before another begins.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

impl Line {
    fn combined<B>(request: &Request<B>, fields: &Fields<'_>) -> Line {
        let mut text = SPARE.take();
        text.reserve(LINE_BYTES);
        for piece in ["\"", request.method().as_str(), " "] {
            text.extend_from_slice(piece.as_bytes());
        }
        let target = request.uri().path_and_query().map_or("*", |target| target.as_str());
        push_escaped(&mut text, target.as_bytes());
        for piece in [" ", plan::protocol(request.version()), "\""] {
            text.extend_from_slice(piece.as_bytes());
        }
        Line::with_fields(text, [fields.referer, fields.user_agent], left())
    }

    /// Of a request that could not be read.
    pub(super) fn unread(status: StatusCode) -> Line {
        Line::with_fields(b"\"-\"".to_vec(), [b"", b""], status)
    }

    /// `text` is the request line.
    fn with_fields(mut text: Vec<u8>, fields: [&[u8]; 2], status: StatusCode) -> Line {
        let request_line_end = text.len();
        for value in fields {
            if value.is_empty() {
                text.extend_from_slice(NO_FIELD);
                continue;
            }
            text.extend_from_slice(b" \"");
            push_escaped(&mut text, value);
            text.push(b'"');
        }
        Line { text, request_line_end, taken: None, status }
    }
}

pub(super) fn left() -> StatusCode {
    StatusCode::from_u16(LEFT).expect("a three-digit number")
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.text.capacity() <= SPARE_BYTES {
            self.text.clear();
            SPARE.set(std::mem::take(&mut self.text));
        }
    }
}

impl AccessLog {
    /// `None` where the log is off.
    pub(super) fn open(target: &LogTarget, format: &LogFormat) -> io::Result<Option<AccessLog>> {
        let sink = Sink::open(target, io::stdout().as_fd(), None)?;
        Ok(sink.map(|sink| {
            let state = State { sink, gathered: Vec::new(), second: (0, String::new()) };
            AccessLog { plan: Plan::of(format), state: Mutex::new(state) }
        }))
    }

    /// Takes of a request what its line will say.
    pub(super) fn line<B>(&self, request: &Request<B>, fields: &Fields<'_>, asked: Asked<'_>) -> Line {
        match &self.plan {
            None => Line::combined(request, fields),
            Some(plan) => Line {
                text: Vec::new(),
                request_line_end: 0,
                taken: Some(Box::new(plan.take_request(request, asked))),
                status: left(),
            },
        }
    }

    /// Takes of an answer what the line will say.
    pub(super) fn note_answer(&self, line: &mut Line, headers: &HeaderMap) {
        if let (Some(plan), Some(taken)) = (&self.plan, &mut line.taken) {
            plan.take_response(taken, headers);
        }
    }

    /// A request that was answered before it could be read.
    pub(super) fn write_unread(&self, client: &str, status: StatusCode) {
        self.write(client, &Line::unread(status), &Outcome::default());
    }

    /// `client` is what stands for the client's address.
    pub(super) fn write(&self, client: &str, line: &Line, outcome: &Outcome<'_>) {
        let mut state = self.lock();
        // The coarse clock, up to a few milliseconds late, is read without a system call's or a counter's cost.
        let now = clock_gettime(ClockId::CLOCK_REALTIME_COARSE).map_or(0, |time| time.tv_sec());
        if state.second.0 != now {
            state.second = (now, stamp(now, self.plan.as_ref().map_or(Style::Text, Plan::style)));
        }
        let State { gathered, second, .. } = &mut *state;
        match &self.plan {
            None => format_line(gathered, client, line, &second.1, outcome),
            Some(plan) => {
                plan.write(gathered, client, &second.1, line.taken.as_deref(), line.status, outcome);
            }
        }
        if gathered.len() >= GATHERED {
            state.flush();
        }
    }

    pub(super) fn flush(&self) {
        self.lock().flush();
    }

    pub(super) fn reopen(&self) {
        let mut state = self.lock();
        state.flush();
        if let Err(error) = state.sink.reopen() {
            log::error!("access log could not be reopened error=\"{error}\"");
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn flush(&mut self) {
        self.sink.write_lines(&self.gathered);
        self.gathered.clear();
        let lost = self.sink.take_lost_lines();
        if lost > 0 {
            log::warn!("access log lines were dropped count={lost} cause=\"they could not be written\"");
        }
    }
}

/// `h l u t "r" s b "f" "a"`, in Gunicorn's letters, and the request's id where there are such.
fn format_line(out: &mut Vec<u8>, client: &str, line: &Line, stamp: &str, outcome: &Outcome<'_>) {
    let (request_line, fields) = line.text.split_at(line.request_line_end);
    let mut digits = itoa::Buffer::new();
    let bytes = digits.format(outcome.bytes);
    // Pieces and not a format string: this runs for every request.
    for piece in [client, " - - ", stamp, " "] {
        out.extend_from_slice(piece.as_bytes());
    }
    out.extend_from_slice(request_line);
    for piece in [" ", line.status.as_str(), " ", bytes] {
        out.extend_from_slice(piece.as_bytes());
    }
    out.extend_from_slice(fields);
    if let Some(id) = outcome.id {
        for piece in [" \"", id.as_str(), "\""] {
            out.extend_from_slice(piece.as_bytes());
        }
    }
    out.push(b'\n');
}

/// What stands for a client in the log.
pub(super) fn client(peer: Peer) -> String {
    match peer {
        Peer::Tcp(addr) => addr.ip().to_string(),
        Peer::Unix => "-".to_owned(),
    }
}

/// A value stays within its quotes and its line, whatever a client sent.
fn push_escaped(out: &mut Vec<u8>, value: &[u8]) {
    if value.is_empty() {
        return out.push(b'-');
    }
    if value.iter().all(|byte| matches!(byte, b' '..=b'~') && *byte != b'"' && *byte != b'\\') {
        return out.extend_from_slice(value);
    }
    for character in String::from_utf8_lossy(value).chars() {
        // Writing to memory does not fail.
        drop(match character {
            '"' | '\\' => write!(out, "\\{character}"),
            control if control.is_control() => write!(out, "\\x{:02x}", u32::from(control)),
            plain => write!(out, "{plain}"),
        });
    }
}

fn stamp(second: i64, style: Style) -> String {
    let format = if style == Style::Json { JSON_STAMP } else { STAMP };
    OffsetDateTime::from_unix_timestamp(second)
        .ok()
        .and_then(|time| time.format(format).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests;

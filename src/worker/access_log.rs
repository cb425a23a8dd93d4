//! The access log: a line a request, in the combined format, gathered and written in bulk. Not here: the error log.

use super::gate::Fields;
use crate::app::Peer;
use crate::config::LogTarget;
use crate::logging::Sink;
use http::{Request, StatusCode, Version};
use nix::time::{ClockId, clock_gettime};
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

/// The Common Log Format's time, in UTC.
const STAMP: &[BorrowedFormatItem<'_>] =
    format_description!("[day]/[month repr:short]/[year]:[hour]:[minute]:[second] +0000");

pub(super) struct AccessLog {
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
    pub(super) status: StatusCode,
}

thread_local! {
    /// The memory of the last line, for the next one: most requests end before another begins.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

impl Line {
    pub(super) fn new<B>(request: &Request<B>, fields: &Fields<'_>) -> Line {
        let mut text = SPARE.take();
        text.reserve(LINE_BYTES);
        for piece in ["\"", request.method().as_str(), " "] {
            text.extend_from_slice(piece.as_bytes());
        }
        let target = request.uri().path_and_query().map_or("*", |target| target.as_str());
        push_escaped(&mut text, target.as_bytes());
        let version: &[u8] =
            if request.version() == Version::HTTP_10 { b" HTTP/1.0\"" } else { b" HTTP/1.1\"" };
        text.extend_from_slice(version);
        let request_line_end = text.len();
        for value in [fields.referer, fields.user_agent] {
            text.extend_from_slice(b" \"");
            push_escaped(&mut text, value);
            text.push(b'"');
        }
        // What stands when the client left before there was an answer (nginx's convention).
        let status = StatusCode::from_u16(499).expect("a three-digit number");
        Line { text, request_line_end, status }
    }
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
    pub(super) fn open(target: &LogTarget) -> io::Result<Option<AccessLog>> {
        let sink = Sink::open(target, io::stdout().as_fd(), None)?;
        Ok(sink.map(|sink| {
            let state = State { sink, gathered: Vec::new(), second: (0, String::new()) };
            AccessLog { state: Mutex::new(state) }
        }))
    }

    /// `client` is what stands for the client's address.
    pub(super) fn write(&self, client: &str, line: &Line, bytes: u64) {
        let mut state = self.lock();
        // The coarse clock, up to a few milliseconds late, is read without a system call's or a counter's cost.
        let now = clock_gettime(ClockId::CLOCK_REALTIME_COARSE).map_or(0, |time| time.tv_sec());
        if state.second.0 != now {
            state.second = (now, stamp(now));
        }
        let State { gathered, second, .. } = &mut *state;
        format_line(gathered, client, line, &second.1, bytes);
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
            log::warn!("access log lines were dropped count={lost}");
        }
    }
}

/// `h l u t "r" s b "f" "a"`, in Gunicorn's letters.
fn format_line(out: &mut Vec<u8>, client: &str, line: &Line, stamp: &str, bytes: u64) {
    let (request_line, fields) = line.text.split_at(line.request_line_end);
    let mut digits = itoa::Buffer::new();
    let bytes = digits.format(bytes);
    // Pieces and not a format string: this runs for every request.
    for piece in [client, " - - [", stamp, "] "] {
        out.extend_from_slice(piece.as_bytes());
    }
    out.extend_from_slice(request_line);
    for piece in [" ", line.status.as_str(), " ", bytes] {
        out.extend_from_slice(piece.as_bytes());
    }
    out.extend_from_slice(fields);
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
        out.push(b'-');
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

fn stamp(second: i64) -> String {
    OffsetDateTime::from_unix_timestamp(second)
        .ok()
        .and_then(|time| time.format(STAMP).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_combined_and_one_line() {
        let request = Request::get("/a?b=%22c")
            .header("user-agent", http::HeaderValue::from_bytes(b"x\"y\\\xff\t").unwrap())
            .body(())
            .unwrap();
        let mut line = Line::new(&request, &Fields::of(request.headers()));
        line.status = StatusCode::OK;
        let mut out = Vec::new();
        let client = client(Peer::Tcp("127.0.0.1:9".parse().unwrap()));
        format_line(&mut out, &client, &line, &stamp(1_800_000_000), 12);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "127.0.0.1 - - [15/Jan/2027:08:00:00 +0000] \"GET /a?b=%22c HTTP/1.1\" 200 12 \"-\" \
             \"x\\\"y\\\\\u{fffd}\\x09\"\n"
        );
    }
}

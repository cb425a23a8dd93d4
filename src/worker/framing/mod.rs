//! Where each request begins and ends, read off the raw bytes before hyper sees them: hyper is laxer there than RFC 9112
//! allows a server behind or beside others to be. Nothing here reads or writes; the verdict on some bytes does not depend on
//! how they were cut. Not here: what hyper is as strict on (the bytes of names and values), what is judged when the head has
//! been read (the gate).

mod chunks;
mod fault;
mod guard;
mod head;
mod plain;
#[cfg(test)]
mod tests;

pub(super) use fault::Fault;
pub(super) use guard::Guard;

use crate::config::Settings;
use chunks::Chunks;
use head::{Found, Head, Span};

/// The most that hyper buffers of a request's head: room for the largest single field and then some.
const HEAD_MIN: usize = 64 * 1024;

/// So much of a request line that is too long is logged.
const LOGGED: usize = 256;

/// The method that stands for a request line that could not be read.
pub(super) const UNREAD: &str = "-";

/// How large a head may be, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    line: usize,
    fields: usize,
    field: usize,
    /// All of it.
    head: usize,
}

impl Limits {
    pub(super) fn of(settings: &Settings) -> Limits {
        let Settings { limit_request_line, limit_request_fields, limit_request_field_size, .. } = *settings;
        Limits {
            line: limit_request_line,
            fields: limit_request_fields,
            field: limit_request_field_size,
            head: HEAD_MIN.max(limit_request_line + limit_request_field_size + 1024),
        }
    }

    /// What hyper has to have room for: a little more, so that it is never the one to say so.
    pub(super) fn head_buffer(self) -> usize {
        self.head + 1024
    }
}

/// How a request's body is delimited (RFC 9112, 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Body {
    Length(u64),
    Chunked,
}

/// What of the bytes may go on, and what is wrong with the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Scanned {
    passed: usize,
    fault: Option<Fault>,
}

/// Follows the requests on one connection.
struct Scanner {
    limits: Limits,
    part: Part,
    /// Where the next request would begin is in doubt; and the request line, if that is not.
    lost: Option<(Fault, Span)>,
}

enum Part {
    Head(Head),
    /// So much of a body is still to come.
    Length(u64),
    Chunked(Chunks),
}

impl Scanner {
    fn new(limits: Limits) -> Scanner {
        Scanner { limits, part: Part::Head(Head::default()), lost: None }
    }

    /// `bytes` begin with the first one that has not passed yet. A head passes when it is complete; a body, its chunks and
    /// its trailers as they come. Nothing passes after a fault.
    #[inline]
    fn scan(&mut self, bytes: &[u8]) -> Scanned {
        if let Part::Head(head) = &self.part
            && head.is_new()
            && self.lost.is_none()
            && plain::end(bytes, &self.limits) == Some(bytes.len())
        {
            return Scanned { passed: bytes.len(), fault: None };
        }
        self.follow(bytes)
    }

    fn is_in_body(&self) -> bool {
        match self.part {
            Part::Head(_) => false,
            Part::Length(_) | Part::Chunked(_) => true,
        }
    }

    fn follow(&mut self, bytes: &[u8]) -> Scanned {
        let mut passed = 0;
        while passed < bytes.len() && self.lost.is_none() {
            let left = &bytes[passed..];
            match &mut self.part {
                Part::Head(head) => match head.scan(left, &self.limits) {
                    Found::Whole(end, body) => {
                        passed += end;
                        self.part = match body {
                            Body::Length(0) => Part::Head(Head::default()),
                            Body::Length(length) => Part::Length(length),
                            Body::Chunked => Part::Chunked(Chunks::new(&self.limits)),
                        };
                    }
                    Found::Part(part) => {
                        *head = part;
                        break;
                    }
                    Found::Bad(fault, line) => self.lost = Some((fault, line)),
                },
                Part::Length(length) => {
                    let here = usize::try_from(*length).map_or(left.len(), |length| length.min(left.len()));
                    passed += here;
                    *length -= here as u64;
                    if *length == 0 {
                        self.part = Part::Head(Head::default());
                    }
                }
                Part::Chunked(chunks) => {
                    let (here, is_over) = chunks.scan(left);
                    passed += here;
                    match is_over {
                        Ok(true) => self.part = Part::Head(Head::default()),
                        Ok(false) => {}
                        Err(fault) => self.lost = Some((fault, Span::default())),
                    }
                }
            }
        }
        Scanned { passed, fault: self.lost.map(|(fault, _)| fault) }
    }

    /// A head that is as the bad one as far as that is good, and asks for nothing.
    fn substitute(&self, head: &[u8]) -> Vec<u8> {
        let whole = self.lost.and_then(|(_, line)| line.of(head)).map(<[u8]>::to_vec);
        let is_long = matches!(self.lost, Some((Fault::LineTooLong, _)));
        let begun = || is_long.then(|| beginning(head, self.limits.line)).flatten();
        let line = whole.or_else(begun).unwrap_or_else(|| format!("{UNREAD} / HTTP/1.1").into());
        [line.as_slice(), b"\r\nhost:\r\n\r\n"].concat()
    }
}

/// What the log is to have of a request line that is longer than `limit`: a line that hyper can read. No more than was there at any
/// cut of the bytes.
fn beginning(head: &[u8], limit: usize) -> Option<Vec<u8>> {
    let line = &head[head.iter().position(|byte| !matches!(byte, b'\r' | b'\n'))?..];
    let line = &line[..line.len().min(limit).min(LOGGED)];
    let space = line.iter().position(|byte| *byte == b' ')?;
    let (method, target) = (&line[..space], &line[space + 1..]);
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/?&=-_.~+,;:@".contains(byte);
    let target = &target[..target.iter().position(|byte| !is_plain(byte)).unwrap_or(target.len())];
    let is_good = method.iter().all(u8::is_ascii_uppercase) && !method.is_empty() && target.starts_with(b"/");
    is_good.then(|| [method, b" ", target, b" HTTP/1.1"].concat())
}

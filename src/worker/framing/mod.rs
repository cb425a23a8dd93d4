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
        let unread = format!("{UNREAD} / HTTP/1.1");
        let line = self.lost.and_then(|(_, line)| line.of(head)).unwrap_or(unread.as_bytes());
        [line, b"\r\nhost:\r\n\r\n"].concat()
    }
}

//! A request's head: its lines, and what they say of the body's length. Not here: whether the rest of it is valid.

use super::{Body, Fault, Limits};

/// How many empty lines are read over before a request line: old clients send one behind a body (RFC 9112, 2.2).
const EMPTY_LINES: u8 = 4;

/// What is known of a head so far. The offsets are from its first byte, an empty line before it included.
#[derive(Clone, Copy, Default)]
pub(super) struct Head {
    /// So far it has been searched for line ends.
    looked: u32,
    /// Where the line begins that is not complete yet.
    line: u32,
    /// Where the request line is, once it is known to be good; until then, an empty range.
    request_line: Span,
    fields: u32,
    empty_lines: u8,
    is_old: bool,
    is_chunked: bool,
    has_length: bool,
    length: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    begin: u32,
    end: u32,
}

/// What has been found.
pub(super) enum Found {
    /// Where it ends, and how its body does.
    Whole(usize, Body),
    Part(Head),
    /// The first fault, whatever follows: a line is judged when it is complete, or too long.
    Bad(Fault, Span),
}

impl Head {
    /// None of it has been seen.
    pub(super) fn is_new(&self) -> bool {
        self.looked == 0
    }

    /// `head` is all that has come of it. By value, so that it is followed in registers.
    pub(super) fn scan(mut self, head: &[u8], limits: &Limits) -> Found {
        while let Some(found) = memchr::memchr(b'\n', &head[self.looked as usize..]) {
            let end = self.looked as usize + found;
            let line = &head[self.line as usize..end];
            let (line, ends_well) = match line {
                [line @ .., b'\r'] => (line, true),
                line => (line, false),
            };
            let begin = std::mem::replace(&mut self.line, end as u32 + 1);
            self.looked = self.line;
            let is_first = self.request_line.end == 0;
            let taken = if let Err(fault) = self.check_size(line.len(), end, limits) {
                Err(fault)
            } else if !ends_well {
                Err(Fault::LineEnd)
            } else if is_first {
                self.take_first(line, begin)
            } else if line.is_empty() {
                let length = Body::Length(self.length);
                return Found::Whole(end + 1, if self.is_chunked { Body::Chunked } else { length });
            } else {
                self.take_field(line, limits)
            };
            if let Err(fault) = taken {
                return Found::Bad(fault, self.request_line);
            }
        }
        self.looked = head.len() as u32;
        let begun = &head[self.line as usize..];
        let size = begun.strip_suffix(b"\r").unwrap_or(begun).len();
        match self.check_size(size, head.len() - 1, limits) {
            Ok(()) => Found::Part(self),
            Err(fault) => Found::Bad(fault, self.request_line),
        }
    }

    /// Of a line, be it complete or not, whose last byte so far is at `last`.
    fn check_size(&self, size: usize, last: usize, limits: &Limits) -> Result<(), Fault> {
        if self.request_line.end == 0 {
            if size > limits.line {
                return Err(Fault::LineTooLong);
            }
        } else if size > limits.field {
            return Err(Fault::FieldsTooLarge);
        }
        if last >= limits.head { Err(Fault::FieldsTooLarge) } else { Ok(()) }
    }

    /// The request line, or an empty one before it. Three words are hyper's to count.
    fn take_first(&mut self, line: &[u8], begin: u32) -> Result<(), Fault> {
        let Some((b" HTTP/", version)) = line.split_last_chunk::<9>().map(|(_, end)| end.split_at(6)) else {
            if !line.is_empty() {
                return Err(Fault::Line);
            }
            self.empty_lines += 1;
            return if self.empty_lines > EMPTY_LINES { Err(Fault::EmptyLines) } else { Ok(()) };
        };
        match version {
            b"1.1" => {}
            b"1.0" => self.is_old = true,
            [b'0'..=b'9', b'.', b'0'..=b'9'] => return Err(Fault::Version),
            [..] => return Err(Fault::Line),
        }
        self.request_line = Span { begin, end: begin + line.len() as u32 };
        Ok(())
    }

    /// A field's line. What is no field hyper refuses.
    fn take_field(&mut self, line: &[u8], limits: &Limits) -> Result<(), Fault> {
        self.fields += 1;
        if self.fields as usize > limits.fields {
            return Err(Fault::FieldsTooLarge);
        }
        match line[0] {
            b'c' | b'C' => value_of(b"content-length", line).map_or(Ok(()), |value| self.take_length(value)),
            b't' | b'T' => {
                value_of(b"transfer-encoding", line).map_or(Ok(()), |value| self.take_encoding(value))
            }
            _ => Ok(()),
        }
    }

    /// Digits, once (RFC 9112, 6.2 and 6.3; RFC 9110, 8.6).
    fn take_length(&mut self, value: &[u8]) -> Result<(), Fault> {
        if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
            return Err(Fault::Length);
        }
        if std::mem::replace(&mut self.has_length, true) {
            return Err(Fault::Lengths);
        }
        if self.is_chunked {
            return Err(Fault::LengthAndEncoding);
        }
        let digits = std::str::from_utf8(value).expect("digits are ASCII");
        // A length beyond this, by whatever it is, is none of a body that somebody has.
        self.length = digits.parse::<i64>().map_err(|_| Fault::LengthTooLarge)?.unsigned_abs();
        Ok(())
    }

    /// `chunked`, once, and nothing else (RFC 9112, 6.1 and 6.3).
    fn take_encoding(&mut self, value: &[u8]) -> Result<(), Fault> {
        if self.is_old {
            return Err(Fault::EncodingInOld);
        }
        if self.has_length {
            return Err(Fault::LengthAndEncoding);
        }
        if std::mem::replace(&mut self.is_chunked, true) {
            return Err(Fault::Encoding);
        }
        if value.eq_ignore_ascii_case(b"chunked") {
            return Ok(());
        }
        let is_chunked = |coding: &[u8]| coding.trim_ascii().eq_ignore_ascii_case(b"chunked");
        let is_coding = |coding: &[u8]| !coding.trim_ascii().is_empty() && !is_chunked(coding);
        let mut codings = value.rsplit(|byte| *byte == b',');
        let is_known_at_last = codings.next().is_some_and(is_chunked) && codings.all(is_coding);
        Err(if is_known_at_last { Fault::UnknownEncoding } else { Fault::Encoding })
    }
}

impl Span {
    /// These bytes of the head; `None` where the span is empty.
    pub(super) fn of(self, head: &[u8]) -> Option<&[u8]> {
        head.get(self.begin as usize..self.end as usize).filter(|bytes| !bytes.is_empty())
    }
}

/// The value of a field, without the white space around it, if the field has this name.
pub(super) fn value_of<'a>(name: &[u8], line: &'a [u8]) -> Option<&'a [u8]> {
    let (front, rest) = line.split_at_checked(name.len())?;
    let value = rest.strip_prefix(b":").filter(|_| front.eq_ignore_ascii_case(name))?;
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let begin = value.iter().position(|byte| !is_blank(byte)).unwrap_or(value.len());
    let end = value.iter().rposition(|byte| !is_blank(byte)).map_or(begin, |last| last + 1);
    Some(&value[begin..end])
}

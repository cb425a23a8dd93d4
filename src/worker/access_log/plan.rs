//! A format of the access log other than `combined`, put together once: what to take of a request, what of its answer, and how
//! the line is made of it. Not here: `combined`, which has a way of its own; files.

use super::{Asked, Outcome, push_escaped};
use crate::app::RequestId;
use crate::config::{LogAtom, LogFormat};
use http::{HeaderMap, HeaderName, Request, StatusCode, Version, header};
use std::io::Write;

/// Taken together, a line's pieces; what is known at the start is a literal.
pub(super) struct Plan {
    style: Style,
    pieces: Vec<Piece>,
    of_request: Vec<Take>,
    of_response: Vec<HeaderName>,
}

/// How a value is held within its bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// Escaped, and `-` for none.
    Text,
    /// A JSON string, or null for none.
    Json,
}

enum Piece {
    Literal(Vec<u8>),
    OfRequest(usize),
    OfResponse(usize),
    Client,
    Time,
    Status,
    Bytes,
    BytesOrDash,
    Seconds,
    Millis,
    Micros,
    DecimalSeconds,
    RequestId,
}

/// What is taken of a request when it comes.
enum Take {
    RequestLine,
    Method,
    Target,
    Path,
    Query,
    Protocol,
    Scheme,
    Host,
    Field(HeaderName),
}

/// What was taken, escaped, one after the other.
#[derive(Default)]
pub(super) struct Taken {
    text: Vec<u8>,
    ends: Vec<usize>,
}

impl Plan {
    /// `None` for `combined`.
    pub(super) fn of(format: &LogFormat) -> Option<Plan> {
        let (style, pieces) = match format {
            LogFormat::Combined => return None,
            LogFormat::Json => (Style::Json, Vec::new()),
            LogFormat::Text(_, atoms) => (Style::Text, atoms.clone()),
        };
        let mut plan = Plan { style, pieces: Vec::new(), of_request: Vec::new(), of_response: Vec::new() };
        match style {
            Style::Json => plan.add_json(),
            Style::Text => pieces.into_iter().for_each(|atom| plan.add(atom)),
        }
        Some(plan)
    }

    pub(super) fn style(&self) -> Style {
        self.style
    }

    fn add(&mut self, atom: LogAtom) {
        let field = |name: &str| HeaderName::try_from(name).expect("the settings have checked it");
        let piece = match atom {
            LogAtom::Literal(text) => Piece::Literal(text.into_bytes()),
            LogAtom::Nobody => Piece::Literal(b"-".to_vec()),
            LogAtom::Pid => Piece::Literal(format!("<{}>", std::process::id()).into_bytes()),
            LogAtom::Variable(name) => {
                let mut value = Vec::new();
                push_escaped(&mut value, std::env::var(name).unwrap_or_default().as_bytes());
                Piece::Literal(value)
            }
            LogAtom::RequestLine => self.take(Take::RequestLine),
            LogAtom::Method => self.take(Take::Method),
            LogAtom::Path => self.take(Take::Path),
            LogAtom::Query => self.take(Take::Query),
            LogAtom::Protocol => self.take(Take::Protocol),
            LogAtom::Scheme => self.take(Take::Scheme),
            LogAtom::Host => self.take(Take::Host),
            LogAtom::RequestField(name) => self.take(Take::Field(field(&name))),
            LogAtom::ResponseField(name) => {
                self.of_response.push(field(&name));
                Piece::OfResponse(self.of_response.len() - 1)
            }
            LogAtom::Client => Piece::Client,
            LogAtom::Time => Piece::Time,
            LogAtom::Status => Piece::Status,
            LogAtom::Bytes => Piece::Bytes,
            LogAtom::BytesOrDash => Piece::BytesOrDash,
            LogAtom::Seconds => Piece::Seconds,
            LogAtom::Millis => Piece::Millis,
            LogAtom::Micros => Piece::Micros,
            LogAtom::DecimalSeconds => Piece::DecimalSeconds,
            LogAtom::RequestId => Piece::RequestId,
        };
        self.pieces.push(piece);
    }

    fn take(&mut self, take: Take) -> Piece {
        self.of_request.push(take);
        Piece::OfRequest(self.of_request.len() - 1)
    }

    /// An object with these keys, in this order, in every line.
    fn add_json(&mut self) {
        let taken = [
            ("method", Take::Method),
            ("target", Take::Target),
            ("protocol", Take::Protocol),
            ("scheme", Take::Scheme),
            ("host", Take::Host),
            ("referer", Take::Field(header::REFERER)),
            ("user_agent", Take::Field(header::USER_AGENT)),
        ];
        let first = [("time", Piece::Time), ("client", Piece::Client)];
        let taken: Vec<_> = taken.into_iter().map(|(key, take)| (key, self.take(take))).collect();
        let last = [
            ("status", Piece::Status),
            ("bytes", Piece::Bytes),
            ("duration_us", Piece::Micros),
            ("request_id", Piece::RequestId),
            ("pid", Piece::Literal(std::process::id().to_string().into_bytes())),
        ];
        for (key, piece) in first.into_iter().chain(taken).chain(last) {
            let open = if self.pieces.is_empty() { "{" } else { "," };
            self.pieces.push(Piece::Literal(format!("{open}\"{key}\":").into_bytes()));
            self.pieces.push(piece);
        }
        self.pieces.push(Piece::Literal(b"}".to_vec()));
    }

    pub(super) fn take_request<B>(&self, request: &Request<B>, asked: Asked<'_>) -> Taken {
        let mut taken = Taken::default();
        let target = request.uri().path_and_query().map_or("*", |target| target.as_str());
        let (method, protocol) = (request.method().as_str(), protocol(request.version()));
        for take in &self.of_request {
            match take {
                Take::RequestLine => {
                    taken.push(self.style, format!("{method} {target} {protocol}").as_bytes())
                }
                Take::Method => taken.push(self.style, method.as_bytes()),
                Take::Target => taken.push(self.style, target.as_bytes()),
                Take::Path => taken.push(self.style, request.uri().path().as_bytes()),
                Take::Query => taken.push(self.style, request.uri().query().unwrap_or_default().as_bytes()),
                Take::Protocol => taken.push(self.style, protocol.as_bytes()),
                Take::Scheme => taken.push(self.style, asked.scheme.as_str().as_bytes()),
                Take::Host => {
                    let host = asked.host.map(str::as_bytes);
                    taken.push(self.style, host.unwrap_or_else(|| field(request.headers(), &header::HOST)));
                }
                Take::Field(name) => taken.push(self.style, field(request.headers(), name)),
            }
        }
        taken
    }

    pub(super) fn take_response(&self, taken: &mut Taken, headers: &HeaderMap) {
        for name in &self.of_response {
            taken.push(self.style, field(headers, name));
        }
    }

    /// `taken`: `None` where no request was read.
    pub(super) fn write(
        &self,
        out: &mut Vec<u8>,
        client: &str,
        stamp: &str,
        taken: Option<&Taken>,
        status: StatusCode,
        outcome: &Outcome<'_>,
    ) {
        for piece in &self.pieces {
            let number = match piece {
                Piece::Literal(text) => {
                    out.extend_from_slice(text);
                    continue;
                }
                Piece::OfRequest(at) => {
                    self.push_taken(out, taken.and_then(|taken| taken.value(*at)));
                    continue;
                }
                Piece::OfResponse(at) => {
                    let at = self.of_request.len() + at;
                    self.push_taken(out, taken.and_then(|taken| taken.value(at)));
                    continue;
                }
                Piece::Client if client == "-" => {
                    self.style.push(out, b"");
                    continue;
                }
                Piece::Client => {
                    self.style.push(out, client.as_bytes());
                    continue;
                }
                Piece::Time => {
                    out.extend_from_slice(stamp.as_bytes());
                    continue;
                }
                Piece::RequestId => {
                    self.style.push(out, outcome.id.map_or("", RequestId::as_str).as_bytes());
                    continue;
                }
                Piece::BytesOrDash if outcome.bytes == 0 => {
                    out.push(b'-');
                    continue;
                }
                Piece::DecimalSeconds => {
                    let (seconds, rest) = (outcome.micros / 1_000_000, outcome.micros % 1_000_000);
                    // Writing to memory does not fail.
                    drop(write!(out, "{seconds}.{rest:06}"));
                    continue;
                }
                Piece::Status => u64::from(status.as_u16()),
                Piece::Bytes | Piece::BytesOrDash => outcome.bytes,
                Piece::Seconds => outcome.micros / 1_000_000,
                Piece::Millis => outcome.micros / 1000,
                Piece::Micros => outcome.micros,
            };
            out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
        }
        out.push(b'\n');
    }

    fn push_taken(&self, out: &mut Vec<u8>, value: Option<&[u8]>) {
        match value {
            Some(value) => out.extend_from_slice(value),
            None => self.style.push(out, b""),
        }
    }
}

impl Style {
    /// Empty: none.
    fn push(self, out: &mut Vec<u8>, value: &[u8]) {
        match self {
            Style::Text => push_escaped(out, value),
            Style::Json if value.is_empty() => out.extend_from_slice(b"null"),
            Style::Json => push_json(out, value),
        }
    }
}

impl Taken {
    fn push(&mut self, style: Style, value: &[u8]) {
        style.push(&mut self.text, value);
        self.ends.push(self.text.len());
    }

    fn value(&self, at: usize) -> Option<&[u8]> {
        let start = at.checked_sub(1).map_or(Some(0), |before| self.ends.get(before).copied())?;
        self.text.get(start..*self.ends.get(at)?)
    }
}

/// RFC 8259, 7, and more: no control character stands in a line as it is.
fn push_json(out: &mut Vec<u8>, value: &[u8]) {
    out.push(b'"');
    for character in String::from_utf8_lossy(value).chars() {
        drop(match character {
            '"' | '\\' => write!(out, "\\{character}"),
            control if control.is_control() => write!(out, "\\u{:04x}", u32::from(control)),
            plain => write!(out, "{plain}"),
        });
    }
    out.push(b'"');
}

fn field<'a>(headers: &'a HeaderMap, name: &HeaderName) -> &'a [u8] {
    headers.get(name).map_or(b"", |value| value.as_bytes())
}

pub(super) fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2.0",
        _ => "HTTP/1.1",
    }
}

//! A client of HTTP/2 that sends frames as a test wants them, and reads those that come. It knows no header compression but
//! what is needed to tell a status. Not here: any waiting for windows.

use super::{Connection, Failure, Target};
use std::time::Duration;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RESET: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 0x1;
pub const ACK: u8 = 0x1;
pub const END_HEADERS: u8 = 0x4;

pub const NO_ERROR: u32 = 0x0;
pub const PROTOCOL_ERROR: u32 = 0x1;
pub const REFUSED_STREAM: u32 = 0x7;
pub const CANCEL: u32 = 0x8;
pub const ENHANCE_YOUR_CALM: u32 = 0xb;

/// Streams that have not been heard of: the first GOAWAY of two.
pub const ALL_STREAMS: u32 = u32::MAX >> 1;

pub struct Http2 {
    connection: Connection,
    next_stream: u32,
    /// It has said hello, and owes answers.
    is_polite: bool,
    /// The last stream and the error code of the last GOAWAY.
    gone_away: Option<(u32, u32)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// How a stream ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    Answered(u16, Vec<u8>),
    /// By which error code.
    Reset(u32),
    /// The whole connection ended, by which error code and up to which stream.
    GoneAway(u32, u32),
    Closed,
}

impl Http2 {
    /// Connects and says hello.
    #[track_caller]
    pub fn open(target: &Target) -> Http2 {
        let mut client = Http2::silent(target);
        client.greet();
        client
    }

    /// The same where the server may be gone.
    pub fn try_open(target: &Target) -> Result<Http2, Failure> {
        let mut client = Http2::over(Connection::open(target)?);
        client.try_greet()?;
        Ok(client)
    }

    /// Connects and says nothing.
    #[track_caller]
    pub fn silent(target: &Target) -> Http2 {
        Http2::over(Connection::open(target).expect("the server takes connections"))
    }

    fn over(connection: Connection) -> Http2 {
        Http2 { connection, next_stream: 1, is_polite: false, gone_away: None }
    }

    /// A GOAWAY has come.
    pub fn is_told_to_leave(&self) -> bool {
        self.gone_away.is_some()
    }

    /// The preface, and settings without a table for compression, so that each status is spelt out.
    pub fn greet(&mut self) {
        self.try_greet().expect("the server takes a hello");
    }

    fn try_greet(&mut self) -> Result<(), Failure> {
        self.is_polite = true;
        let hello = [PREFACE, &frame(SETTINGS, 0, 0, &[0, 1, 0, 0, 0, 0])].concat();
        self.connection.send(hello)
    }

    pub fn set_patience(&self, patience: Duration) {
        self.connection.set_patience(patience).expect("a socket can be told");
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> Result<(), Failure> {
        self.connection.send(bytes)
    }

    /// Sends a request whole, and gives its stream's number.
    pub fn ask(&mut self, path: &str) -> u32 {
        self.ask_with(&get(path), END_STREAM)
    }

    /// The same where the server may be gone.
    pub fn try_ask(&mut self, path: &str) -> Result<u32, Failure> {
        let stream = self.next_stream();
        self.send(frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(&get(path))))?;
        Ok(stream)
    }

    /// Sends a head; without `END_STREAM` a body is to follow.
    pub fn ask_with(&mut self, fields: &[(&str, &str)], flags: u8) -> u32 {
        let stream = self.next_stream();
        self.send(frame(HEADERS, END_HEADERS | flags, stream, &block(fields))).expect("the server reads");
        stream
    }

    pub fn next_stream(&mut self) -> u32 {
        self.next_stream += 2;
        self.next_stream - 2
    }

    #[track_caller]
    pub fn get(&mut self, path: &str) -> Ended {
        let stream = self.ask(path);
        self.wait(stream)
    }

    pub fn read(&mut self) -> Result<Frame, Failure> {
        let head = self.connection.take(9)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let payload = self.connection.take(length)?;
        let frame = Frame { kind: head[3], flags: head[4], stream, payload };
        self.gone_away = frame.gone_away().or(self.gone_away);
        // What a client owes: the answer to a ping, and to settings.
        if self.is_polite && frame.flags & ACK == 0 && [PING, SETTINGS].contains(&frame.kind) {
            let payload = if frame.kind == PING { &frame.payload[..] } else { &[] };
            let _ = self.send(self::frame(frame.kind, ACK, 0, payload));
        }
        Ok(frame)
    }

    /// Reads until the stream has ended, or all.
    #[track_caller]
    pub fn wait(&mut self, stream: u32) -> Ended {
        self.wait_all(&[stream]).remove(0).1
    }

    /// Reads until all of these streams have ended; in the order in which they did.
    #[track_caller]
    pub fn wait_all(&mut self, streams: &[u32]) -> Vec<(u32, Ended)> {
        let mut open: Vec<(u32, u16, Vec<u8>)> =
            streams.iter().map(|stream| (*stream, 0, Vec::new())).collect();
        let mut ended = Vec::new();
        while !open.is_empty() {
            let frame = match self.read() {
                Ok(frame) => frame,
                Err(Failure::Closed | Failure::Cut | Failure::Reset) => {
                    ended.extend(open.drain(..).map(|(stream, ..)| (stream, Ended::Closed)));
                    break;
                }
                Err(failure) => panic!("{open:?} did not end: {failure}"),
            };
            if let Some((last, error)) = frame.gone_away() {
                let lost = open.extract_if(.., |(stream, ..)| error != NO_ERROR || last < *stream);
                ended.extend(lost.map(|(stream, ..)| (stream, Ended::GoneAway(error, last))));
                continue;
            }
            let Some(at) = open.iter().position(|(stream, ..)| *stream == frame.stream) else { continue };
            let (stream, status, body) = &mut open[at];
            match frame.kind {
                HEADERS => *status = frame.status(),
                DATA => body.extend(&frame.payload),
                RESET => ended.push((*stream, Ended::Reset(frame.error()))),
                _ => {}
            }
            let is_last = [HEADERS, DATA].contains(&frame.kind) && frame.flags & END_STREAM != 0;
            if is_last {
                ended.push((*stream, Ended::Answered(*status, std::mem::take(body))));
            }
            if is_last || frame.kind == RESET {
                open.remove(at);
            }
        }
        ended
    }

    /// Reads to the end of the connection, and gives the last GOAWAY: its last stream and error code.
    #[track_caller]
    pub fn wait_end(&mut self) -> Option<(u32, u32)> {
        loop {
            match self.read() {
                Ok(_) => {}
                Err(Failure::Closed | Failure::Cut | Failure::Reset) => return self.gone_away,
                Err(failure) => panic!("no end: {failure}"),
            }
        }
    }
}

impl Frame {
    /// The error code of a RST_STREAM frame.
    pub fn error(&self) -> u32 {
        u32::from_be_bytes(self.payload[..4].try_into().expect("four bytes"))
    }

    /// The last stream and the error code of a GOAWAY frame.
    pub fn gone_away(&self) -> Option<(u32, u32)> {
        let number = |at: usize| u32::from_be_bytes(self.payload[at..at + 4].try_into().expect("four bytes"));
        (self.kind == GOAWAY).then(|| (number(0), number(4)))
    }

    /// `:status`, which is the first of an answer's fields.
    #[track_caller]
    pub fn status(&self) -> u16 {
        let mut block = &self.payload[..];
        while block.first().is_some_and(|byte| byte & 0xe0 == 0x20) {
            // A change of the table's size.
            block = &block[1..];
        }
        match block[0] {
            // RFC 7541, appendix A.
            indexed @ 0x88..=0x8e => [200, 204, 206, 304, 400, 404, 500][usize::from(indexed - 0x88)],
            0x08 | 0x18 | 0x48 => {
                let length = usize::from(block[1] & 0x7f);
                let text = &block[2..2 + length];
                let digits = if block[1] & 0x80 == 0 { text.to_vec() } else { huffman_digits(text) };
                String::from_utf8(digits).unwrap().parse().unwrap()
            }
            other => panic!("no status begins with {other:#x}"),
        }
    }
}

/// Three digits (RFC 7541, appendix B).
fn huffman_digits(bytes: &[u8]) -> Vec<u8> {
    let mut bits = bytes.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1));
    let mut next = |count: u32| (0..count).fold(0, |value, _| value << 1 | bits.next().unwrap_or(1));
    (0..3)
        .map(|_| match next(5) {
            short @ 0..=2 => b'0' + short,
            // 3 is 0x19 in six bits, and so on.
            long => (long << 1 | next(1)) - 0x19 + b'3',
        })
        .collect()
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

pub fn get(path: &str) -> [(&'static str, &str); 4] {
    [(":method", "GET"), (":scheme", "http"), (":authority", "test"), (":path", path)]
}

pub fn post(path: &str) -> [(&'static str, &str); 4] {
    [(":method", "POST"), (":scheme", "http"), (":authority", "test"), (":path", path)]
}

/// Fields, each spelt out.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0x10);
        for text in [name, value] {
            match u8::try_from(text.len()) {
                Ok(short) if short < 127 => block.push(short),
                _ => {
                    block.push(127);
                    let mut rest = text.len() - 127;
                    while rest >= 128 {
                        block.push((rest % 128) as u8 | 128);
                        rest /= 128;
                    }
                    block.push(rest as u8);
                }
            }
            block.extend(text.as_bytes());
        }
    }
    block
}

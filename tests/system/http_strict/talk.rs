//! Sends bytes and reads all that comes until the server closes. Not here: what should come.

use crate::support::Dice;
use std::fmt;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// After this the connection counts as open.
const PATIENCE: Duration = Duration::from_secs(20);

/// A good request that ends the connection.
const SENTINEL: &[u8] = b"GET /echo?msg=sentinel HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";

#[derive(Clone, Copy, Debug)]
pub(super) enum Split {
    Whole,
    Bytes,
    Random,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// The app signs each of its answers.
    pub(super) is_app: bool,
    pub(super) body: String,
}

#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) answers: Vec<Answer>,
    /// That of the sentinel came last.
    pub(super) is_in_step: bool,
    pub(super) is_closed: bool,
    /// What is no answer.
    pub(super) rest: String,
}

pub(super) fn converse(addr: SocketAddr, bytes: &[u8], split: Split, dice: &mut Dice) -> Seen {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    let all = [bytes, SENTINEL].concat();
    let mut left = &all[..];
    while !left.is_empty() {
        let size = match split {
            Split::Whole => left.len(),
            Split::Bytes => 1,
            Split::Random => (dice.within(1..40) as usize).min(left.len()),
        };
        // The server may have answered and closed already.
        if stream.write_all(&left[..size]).is_err() {
            break;
        }
        left = &left[size..];
    }
    let (mut buffer, mut chunk, mut is_closed) = (Vec::new(), [0; 4096], true);
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => buffer.extend_from_slice(&chunk[..count]),
            // A process that was put to sleep: reads with a time limit do not go on by themselves.
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => {
                is_closed = error.kind() == std::io::ErrorKind::ConnectionReset;
                break;
            }
        }
    }
    read(&buffer, is_closed)
}

/// All answers, one after the other; to HEAD the probe answers without a length.
fn read(bytes: &[u8], is_closed: bool) -> Seen {
    let mut seen = Seen { is_closed, ..Seen::default() };
    let mut text = String::from_utf8_lossy(bytes).into_owned();
    while let Some(end) = text.find("\r\n\r\n") {
        let head = text[..end].to_ascii_lowercase();
        let status = head.get(9..12).and_then(|status| status.parse().ok());
        let Some(status) = status.filter(|_| head.starts_with("http/1.")) else { break };
        text.drain(..end + 4);
        if status < 200 {
            continue;
        }
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let is_bodiless = status == 204 || status == 304 || text.is_empty() || text.starts_with("HTTP/1.1 ");
        let length = if is_bodiless { 0 } else { length.map_or(0, |length| length.parse().unwrap()) };
        let body: String = text.drain(..length.min(text.len())).collect();
        let is_app = head.contains("\r\nx-worker-pid: ");
        seen.answers.push(Answer { status, is_app, body });
    }
    seen.rest = text;
    seen.is_in_step = seen.answers.last().is_some_and(|answer| answer.body == "sentinel");
    if seen.is_in_step {
        seen.answers.pop();
    }
    seen
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Answer { status, is_app, .. } in &self.answers {
            write!(f, "{status}{} ", if *is_app { " by the app" } else { "" })?;
        }
        if self.is_in_step {
            f.write_str("and the sentinel's ")?;
        }
        f.write_str(if self.is_closed { "then closed" } else { "then left open" })?;
        if self.rest.is_empty() { Ok(()) } else { write!(f, ", and {:?}", self.rest) }
    }
}

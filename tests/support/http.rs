//! A small, strict HTTP/1.1 client that can also send what no well-behaved client would.
//! Not here: any retry, any leniency.

use super::tls::Secured;
use super::{DEADLINE, eventually};
use nix::sys::socket::{MsgFlags, recv};
use std::cell::RefCell;
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio_rustls::rustls::ClientConfig;

/// How long a read or write may take, unless a test asks for something else.
const PATIENCE: Duration = Duration::from_secs(30);
/// What a client sends that has begun an upload, to end it.
#[allow(dead_code, reason = "the tests of the whole program upload")]
pub const UPLOAD: &str = "upload";
/// No answer in these tests has a longer head.
const MAX_HEAD: usize = 64 * 1024;

#[derive(Clone, Debug)]
pub enum Target {
    Tcp(SocketAddr),
    Unix(PathBuf),
    Tls { addr: SocketAddr, name: String, config: Arc<ClientConfig> },
}

/// Why there is no whole answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Nobody listens.
    Refused,
    Reset,
    /// Closed before the first byte of an answer.
    Closed,
    /// Closed in the middle of an answer.
    Cut,
    TimedOut,
    /// The answer is not HTTP/1.1.
    Malformed(String),
    Other(String),
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    fields: Vec<(String, String)>,
    pub body: Vec<u8>,
}

pub struct Connection {
    stream: Stream,
    /// Bytes that were read and not yet used.
    buffer: Vec<u8>,
    /// The last answer said that no other follows.
    closing: bool,
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<RefCell<Secured>>),
}

impl Target {
    /// The address as the log gives it; `dir` is where the server runs.
    #[track_caller]
    pub fn named(on: &str, dir: &Path) -> Target {
        match on.strip_prefix("unix:") {
            Some(path) => Target::Unix(dir.join(path)),
            None => Target::Tcp(on.parse().unwrap_or_else(|_| panic!("{on:?} is no address"))),
        }
    }
}

impl Connection {
    pub fn open(target: &Target) -> Result<Connection, Failure> {
        let stream = match target {
            Target::Tcp(addr) => {
                let stream = TcpStream::connect_timeout(addr, PATIENCE)?;
                stream.set_nodelay(true)?;
                Stream::Tcp(stream)
            }
            Target::Unix(path) => Stream::Unix(UnixStream::connect(path)?),
            Target::Tls { addr, name, config } => {
                let stream = TcpStream::connect_timeout(addr, PATIENCE)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                Stream::Tls(Box::new(RefCell::new(Secured::shake_hands(stream, name, config)?)))
            }
        };
        let connection = Connection { stream, buffer: Vec::new(), closing: false };
        connection.set_patience(PATIENCE)?;
        Ok(connection)
    }

    /// Over a connection that stands already.
    pub fn over(stream: TcpStream) -> Connection {
        Connection { stream: Stream::Tcp(stream), buffer: Vec::new(), closing: false }
    }

    /// How long a single read or write may take.
    pub fn set_patience(&self, patience: Duration) -> Result<(), Failure> {
        match &self.stream {
            Stream::Tcp(stream) => {
                stream.set_read_timeout(Some(patience))?;
                stream.set_write_timeout(Some(patience))?;
            }
            Stream::Unix(stream) => {
                stream.set_read_timeout(Some(patience))?;
                stream.set_write_timeout(Some(patience))?;
            }
            Stream::Tls(secured) => {
                secured.borrow().socket().set_read_timeout(Some(patience))?;
                secured.borrow().socket().set_write_timeout(Some(patience))?;
            }
        }
        Ok(())
    }

    /// What its TLS is like; fails the test where it has none.
    #[track_caller]
    pub fn secured(&self) -> std::cell::Ref<'_, Secured> {
        match &self.stream {
            Stream::Tls(secured) => secured.borrow(),
            Stream::Tcp(_) | Stream::Unix(_) => panic!("it is in the clear"),
        }
    }

    /// Sends exactly these bytes.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> Result<(), Failure> {
        Ok(self.stream.write_all(bytes.as_ref())?)
    }

    /// Tells the server that nothing more will be sent.
    pub fn finish_sending(&self) -> Result<(), Failure> {
        match &self.stream {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write)?,
            Stream::Unix(stream) => stream.shutdown(Shutdown::Write)?,
            Stream::Tls(secured) => secured.borrow().socket().shutdown(Shutdown::Write)?,
        }
        Ok(())
    }

    /// Begins a request that ends when `UPLOAD` is sent. It is in the app's hands when this returns: the app has asked for its body.
    #[allow(dead_code, reason = "the tests of the whole program upload")]
    #[track_caller]
    pub fn begin_upload(&mut self) {
        let head = "POST /upload HTTP/1.1\r\nhost: test\r\nexpect: 100-continue\r\ncontent-length: 6\r\n\r\n";
        self.send(head).unwrap();
        eventually(DEADLINE, "the app asks for the body", || self.has_head());
    }

    #[allow(dead_code, reason = "the tests of the whole program post")]
    pub fn post_json(&mut self, path: &str, body: &serde_json::Value) -> Result<Response, Failure> {
        self.request("POST", path, &[("content-type", "application/json")], body.to_string().as_bytes())
    }

    pub fn get(&mut self, path: &str) -> Result<Response, Failure> {
        self.request("GET", path, &[], b"")
    }

    /// Sends a well-formed request and reads its answer.
    pub fn request(
        &mut self,
        method: &str,
        path: &str,
        fields: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Response, Failure> {
        self.send(request(method, path, fields, body))?;
        self.read_to(method)
    }

    /// Sends these bytes as far as the server takes them, and reads the answer: it may come, and the server
    /// close, before all is sent.
    pub fn exchange(&mut self, bytes: impl AsRef<[u8]>) -> Result<Response, Failure> {
        let sent = self.send(bytes);
        match self.read() {
            Ok(response) => Ok(response),
            Err(failure) => Err(sent.err().unwrap_or(failure)),
        }
    }

    /// Reads one whole answer to anything but HEAD.
    pub fn read(&mut self) -> Result<Response, Failure> {
        self.read_to("GET")
    }

    /// Reads one whole answer to a request with this method.
    pub fn read_to(&mut self, method: &str) -> Result<Response, Failure> {
        loop {
            let (status, fields) = self.read_head()?;
            let mut response = Response { status, fields, body: Vec::new() };
            // 100 Continue and its like come before the answer proper; 101 is the last one of its protocol.
            if (100..200).contains(&status) && status != 101 {
                continue;
            }
            self.closing = response.has_token("connection", "close");
            if method != "HEAD" && ![101, 204, 304].contains(&status) {
                response.body = self.read_body(&response)?;
            }
            return Ok(response);
        }
    }

    /// The last answer said `Connection: close`.
    pub fn is_closing(&self) -> bool {
        self.closing
    }

    /// True when the server has closed its side already; takes no time and no bytes.
    pub fn is_closed(&self) -> bool {
        let fd = match &self.stream {
            Stream::Tcp(stream) => stream.as_fd(),
            Stream::Unix(stream) => stream.as_fd(),
            Stream::Tls(secured) => return secured.borrow_mut().has_ended(),
        };
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        match recv(fd.as_raw_fd(), &mut [0], flags) {
            Ok(count) => count == 0,
            Err(nix::Error::EAGAIN) => false,
            Err(_) => true,
        }
    }

    /// Whether the head of an answer has begun to arrive; takes no byte of it.
    pub fn has_head(&self) -> bool {
        let fd = match &self.stream {
            Stream::Tcp(stream) => stream.as_fd(),
            Stream::Unix(stream) => stream.as_fd(),
            Stream::Tls(_) => panic!("the head is in a record"),
        };
        recv(fd.as_raw_fd(), &mut [0], MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT) == Ok(1)
    }

    /// Waits until the server closes and fails on any further byte. A reset counts as closed.
    pub fn read_end(&mut self) -> Result<(), Failure> {
        if !self.buffer.is_empty() {
            return Err(Failure::Malformed("bytes behind the answer".to_owned()));
        }
        match self.fill() {
            Ok(0) | Err(Failure::Reset) => Ok(()),
            Ok(_) => Err(Failure::Malformed("bytes behind the answer".to_owned())),
            Err(failure) => Err(failure),
        }
    }

    /// All bytes up to the end, whatever they are.
    #[allow(dead_code, reason = "the soak does not")]
    pub fn read_rest_raw(&mut self) -> Vec<u8> {
        while self.fill().is_ok_and(|count| count > 0) {}
        std::mem::take(&mut self.buffer)
    }

    fn read_head(&mut self) -> Result<(u16, Vec<(String, String)>), Failure> {
        let end = loop {
            if let Some(at) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break at;
            }
            if self.buffer.len() > MAX_HEAD {
                return Err(Failure::Malformed("endless head".to_owned()));
            }
            if self.fill()? == 0 {
                return Err(if self.buffer.is_empty() { Failure::Closed } else { Failure::Cut });
            }
        };
        let head = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
        self.buffer.drain(..end + 4);
        parse_head(&head).ok_or(Failure::Malformed(head))
    }

    fn read_body(&mut self, response: &Response) -> Result<Vec<u8>, Failure> {
        match (response.field("content-length"), response.has_token("transfer-encoding", "chunked")) {
            (Some(_), true) => Err(Failure::Malformed("both length and chunked".to_owned())),
            (Some(length), false) => {
                let length = length.parse().map_err(|_| Failure::Malformed(length.to_owned()))?;
                self.take(length)
            }
            (None, true) => self.read_chunks(),
            (None, false) if self.closing => self.read_rest(),
            (None, false) => Err(Failure::Malformed("no way to tell where the body ends".to_owned())),
        }
    }

    fn read_chunks(&mut self) -> Result<Vec<u8>, Failure> {
        let mut body = Vec::new();
        loop {
            let line = self.take_line()?;
            let size = line.split(';').next().unwrap_or_default();
            let size = usize::from_str_radix(size, 16).map_err(|_| Failure::Malformed(line.clone()))?;
            body.extend(self.take(size)?);
            // A chunk ends with an empty line; so does the last one, when there are no trailers.
            let line = self.take_line()?;
            if !line.is_empty() {
                return Err(Failure::Malformed(line));
            }
            if size == 0 {
                return Ok(body);
            }
        }
    }

    fn read_rest(&mut self) -> Result<Vec<u8>, Failure> {
        while self.fill()? > 0 {}
        Ok(std::mem::take(&mut self.buffer))
    }

    /// So many bytes.
    pub fn take(&mut self, count: usize) -> Result<Vec<u8>, Failure> {
        while self.buffer.len() < count {
            if self.fill()? == 0 {
                return Err(Failure::Cut);
            }
        }
        Ok(self.buffer.drain(..count).collect())
    }

    fn take_line(&mut self) -> Result<String, Failure> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|window| window == b"\r\n") {
                let line = String::from_utf8_lossy(&self.take(end)?).into_owned();
                self.take(2)?;
                return Ok(line);
            }
            if self.fill()? == 0 {
                return Err(Failure::Cut);
            }
        }
    }

    fn fill(&mut self) -> Result<usize, Failure> {
        let mut chunk = [0; 16 * 1024];
        let count = self.stream.read(&mut chunk)?;
        self.buffer.extend_from_slice(&chunk[..count]);
        Ok(count)
    }
}

impl Response {
    /// The value of a field; the name in lower case. Fails the test when the field is there twice.
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut found = self.fields.iter().filter(|(known, _)| known == name);
        let value = found.next().map(|(_, value)| value.as_str());
        assert!(found.next().is_none(), "{name} twice in {:?}", self.fields);
        value
    }

    /// True when the comma-separated list of the field names `token`.
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        let value = self.field(name).unwrap_or_default();
        value.split(',').any(|part| part.trim().eq_ignore_ascii_case(token))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.text()))
    }

    /// The worker that answered, as every answer of the probe says.
    #[track_caller]
    pub fn worker(&self) -> i32 {
        let pid = self.field("x-worker-pid").expect("every answer of the probe carries x-worker-pid");
        pid.parse().expect("x-worker-pid is a number")
    }
}

/// The bytes of a well-formed request. A body brings its own Content-Length.
pub fn request(method: &str, path: &str, fields: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: test\r\n");
    for (name, value) in fields {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() {
        head.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    [head.as_bytes(), body].concat()
}

fn parse_head(head: &str) -> Option<(u16, Vec<(String, String)>)> {
    let mut lines = head.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let fields = lines.map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_name = !name.is_empty() && !name.contains(char::is_whitespace);
        is_name.then(|| (name.to_ascii_lowercase(), value.trim().to_owned()))
    });
    Some((status, fields.collect::<Option<_>>()?))
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = match self {
                Stream::Tcp(stream) => stream.read(buffer),
                Stream::Unix(stream) => stream.read(buffer),
                Stream::Tls(secured) => secured.borrow_mut().read(buffer),
            };
            // A read with a time limit is interrupted by any signal, a child's end among them.
            if !read.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::Interrupted) {
                return read;
            }
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.write(bytes),
            Stream::Unix(stream) => stream.write(bytes),
            Stream::Tls(secured) => secured.borrow_mut().write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        match error.kind() {
            // A UNIX socket that was removed refuses in its own way.
            ErrorKind::ConnectionRefused | ErrorKind::NotFound => Failure::Refused,
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Failure::Reset,
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Failure::TimedOut,
            // TLS that ends without saying so.
            ErrorKind::UnexpectedEof => Failure::Cut,
            _ => Failure::Other(error.to_string()),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Refused => f.write_str("connection refused"),
            Failure::Reset => f.write_str("connection reset"),
            Failure::Closed => f.write_str("closed without an answer"),
            Failure::Cut => f.write_str("answer cut short"),
            Failure::TimedOut => f.write_str("no answer in time"),
            Failure::Malformed(what) => write!(f, "malformed answer: {what:?}"),
            Failure::Other(what) => f.write_str(what),
        }
    }
}

#[test]
fn heads_are_taken_strictly() {
    let cases = [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2", Some((200, 1))),
        ("HTTP/1.1 204 No Content", Some((204, 0))),
        ("HTTP/1.0 200 OK", None),
        ("HTTP/1.1 abc", None),
        ("HTTP/1.1 200 OK\r\nno colon", None),
        ("HTTP/1.1 200 OK\r\nname : value", None),
    ];
    for (head, expected) in cases {
        let parsed = parse_head(head).map(|(status, fields)| (status, fields.len()));
        assert_eq!(parsed, expected, "{head:?}");
    }
}

//! The limit: a process for each worker, with epoll, one recv and one send for a request, and answers that were made before the first one.
//! It looks for the end of a head and for what it needs of it, and is no HTTP server.

use memchr::memmem;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use peers::{Arguments, pages, prefork};
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;

const EVENTS: usize = 512;
/// Holds a head and a body of 10 KB.
const BUFFER: usize = 16 * 1024;

struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    held: usize,
    /// What of an answer is not sent yet.
    unsent: &'static [u8],
    wants_room: bool,
    closes: bool,
}

fn main() {
    let listener = prefork(&Arguments::read());
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).expect("an epoll");
    let listening = listener.as_raw_fd() as u64;
    epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, listening)).expect("it takes a listener");
    let answers = answers();
    let mut connections: Vec<Option<Connection>> = Vec::new(); // by descriptor
    let mut events = [EpollEvent::empty(); EVENTS];
    loop {
        let count = epoll.wait(&mut events, EpollTimeout::NONE).unwrap_or(0);
        for event in &events[..count] {
            if event.data() == listening {
                accept(&listener, &epoll, &mut connections);
                continue;
            }
            let slot = &mut connections[event.data() as usize];
            if slot.as_mut().is_some_and(|connection| connection.serve(&epoll, &answers).is_none()) {
                *slot = None; // closes it
            }
        }
    }
}

fn accept(listener: &TcpListener, epoll: &Epoll, connections: &mut Vec<Option<Connection>>) {
    while let Ok((stream, _)) = listener.accept() {
        stream.set_nonblocking(true).expect("a socket can be non-blocking");
        let fd = stream.as_raw_fd() as usize;
        epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, fd as u64)).expect("it takes a connection");
        if connections.len() <= fd {
            connections.resize_with(fd + 1, || None);
        }
        connections[fd] = Some(Connection::new(stream));
    }
}

impl Connection {
    fn new(stream: TcpStream) -> Connection {
        let buffer = vec![0; BUFFER];
        Connection { stream, buffer, held: 0, unsent: &[], wants_room: false, closes: false }
    }

    /// `None` where the connection is over.
    fn serve(&mut self, epoll: &Epoll, answers: &Answers) -> Option<()> {
        if !self.unsent.is_empty() {
            return self.send(epoll);
        }
        match self.stream.read(&mut self.buffer[self.held..]) {
            Ok(0) => return None,
            Ok(count) => self.held += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Some(()),
            Err(_) => return None,
        }
        let Some(head) = memmem::find(&self.buffer[..self.held], b"\r\n\r\n") else { return Some(()) };
        let head = &self.buffer[..head + 4];
        let length = if head.starts_with(b"POST ") { content_length(head) } else { 0 };
        if self.held < head.len() + length {
            return Some(());
        }
        self.closes = memmem::find(head, b"Connection: close").is_some();
        self.unsent = answers.to(head)[usize::from(self.closes)];
        self.held = 0;
        self.send(epoll)
    }

    fn send(&mut self, epoll: &Epoll) -> Option<()> {
        match self.stream.write(self.unsent) {
            Ok(count) => self.unsent = &self.unsent[count..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return None,
        }
        if self.unsent.is_empty() && self.closes {
            return None;
        }
        if self.wants_room == self.unsent.is_empty() {
            self.wants_room = !self.wants_room;
            let waits_for = if self.wants_room { EpollFlags::EPOLLOUT } else { EpollFlags::EPOLLIN };
            let mut event = EpollEvent::new(waits_for, self.stream.as_raw_fd() as u64);
            epoll.modify(&self.stream, &mut event).expect("it is there");
        }
        Some(())
    }
}

fn content_length(head: &[u8]) -> usize {
    const NAME: &[u8] = b"Content-Length: ";
    let Some(at) = memmem::find(head, NAME) else { return 0 };
    let digits = head[at + NAME.len()..].iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |length, digit| length * 10 + usize::from(digit - b'0'))
}

/// On a connection that is kept, and on one that is closed.
type Answer = [&'static [u8]; 2];

struct Answers {
    hello: Answer,
    json: Answer,
    length: Answer,
    download: Answer,
}

fn answers() -> Answers {
    let json = serde_json::to_vec(&pages::items()).expect("it is JSON");
    Answers {
        hello: answer(pages::TEXT, pages::HELLO.as_bytes()),
        json: answer("application/json", &json),
        length: answer(pages::TEXT, b"10240"),
        download: answer(pages::BYTES, &pages::DOWNLOAD),
    }
}

fn answer(kind: &str, body: &[u8]) -> Answer {
    ["", "Connection: close\r\n"].map(|connection| {
        let date = "Mon, 01 Jan 2024 00:00:00 GMT";
        let length = body.len();
        let fields = format!("Content-Type: {kind}\r\nContent-Length: {length}\r\nDate: {date}\r\n");
        let head = format!("HTTP/1.1 200 OK\r\n{fields}{connection}\r\n");
        &*[head.as_bytes(), body].concat().leak()
    })
}

impl Answers {
    fn to(&self, head: &[u8]) -> Answer {
        match head.split(|&byte| byte == b' ').nth(1) {
            Some(b"/json") => self.json,
            Some(b"/length") => self.length,
            Some(b"/download") => self.download,
            _ => self.hello,
        }
    }
}

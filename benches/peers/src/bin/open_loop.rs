//! A client that asks at a fixed rate, whatever becomes of the answers, as many people do. Each connection has a timetable of its own,
//! and a request's latency counts from the time it was due, not from when its connection was free to send it: so a stall is felt by
//! all who come meanwhile. It spins on its core, so that it is not late itself.
//!
//! `open_loop HOST:PORT CONNECTIONS RATE SECONDS` asks for `/` and prints a line of JSON. Lost is a request without a good answer. It
//! says, too, for how long in all it did not get its own core: what was due meanwhile was late without the server's doing.

use memchr::memmem;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// How long answers may still come when the last request was due.
const GRACE: Duration = Duration::from_secs(5);
/// After a connection was refused.
const PAUSE: Duration = Duration::from_millis(5);
const BUFFER: usize = 64 * 1024;
/// A turn that takes longer did not have the core: with work for all connections it takes a fraction of that.
const LONG_TURN: Duration = Duration::from_millis(1);

#[derive(Clone, Copy, PartialEq)]
enum State {
    /// It is in the queue of those to be opened.
    Closed,
    Opening,
    Idle,
    /// For the answer to the request that was due then.
    Waiting(Instant),
}

struct Connection {
    stream: TcpStream,
    state: State,
    /// Which one of all requests is its next.
    next: u64,
    buffer: Vec<u8>,
}

#[derive(Default)]
struct Outcome {
    latencies: Vec<Duration>,
    lost: u64,
    refused: u64,
    /// In turns that were long.
    away: Duration,
}

struct Client {
    addr: SocketAddr,
    request: Vec<u8>,
    poll: Poll,
    connections: Vec<Connection>,
    /// Those to be opened, and from when on: one a turn, so that a server that closes many does not have the client wait for them all.
    closed: VecDeque<(Instant, usize)>,
    /// From one request to the next, of all connections.
    interval: f64,
    begin: Instant,
    /// How many requests are due by now.
    due: u64,
    outcome: Outcome,
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [addr, connections, rate, seconds] = &args[..] else { panic!("HOST:PORT CONNECTIONS RATE SECONDS") };
    let number = |text: &str| text.parse::<f64>().expect("a number");
    let (rate, seconds) = (number(rate), number(seconds));
    let mut client = Client::open(addr.parse().expect("HOST:PORT"), number(connections) as u64, rate);
    client.ask((rate * seconds) as u64);
    client.outcome.print(seconds);
}

impl Client {
    /// All its connections are open when it returns.
    fn open(addr: SocketAddr, connections: u64, rate: f64) -> Client {
        let request = format!("GET / HTTP/1.1\r\nHost: {addr}\r\n\r\n").into_bytes();
        let poll = Poll::new().expect("an epoll");
        let connections = (0..connections)
            .map(|at| Connection {
                stream: connect(&poll, addr, at),
                state: State::Opening,
                next: at,
                buffer: Vec::new(),
            })
            .collect();
        let (begin, interval) = (Instant::now(), 1.0 / rate);
        let (closed, outcome) = (VecDeque::new(), Outcome::default());
        let mut client =
            Client { addr, request, poll, connections, closed, interval, begin, due: 0, outcome };
        let mut events = Events::with_capacity(1024);
        while client.connections.iter().any(|connection| connection.state != State::Idle) {
            assert!(begin.elapsed() < GRACE, "the connections cannot be opened");
            client.turn(&mut events);
        }
        client
    }

    fn ask(&mut self, total: u64) {
        let mut events = Events::with_capacity(1024);
        // All of it is there before it is written to, so that the kernel does not have to find memory meanwhile.
        self.outcome.latencies = vec![Duration::MAX; total as usize];
        self.outcome.latencies.clear();
        self.begin = Instant::now();
        let end = self.begin + Duration::from_secs_f64(total as f64 * self.interval) + GRACE;
        let mut before = self.begin;
        while self.outcome.done() < total {
            let now = Instant::now();
            let turn = now - before;
            before = now;
            if turn > LONG_TURN {
                self.outcome.away += turn;
            }
            let due = ((now - self.begin).as_secs_f64() / self.interval) as u64 + 1;
            for number in self.due..due.min(total) {
                self.due = number + 1;
                let at = (number % self.connections.len() as u64) as usize;
                self.send(at);
            }
            if now > end {
                self.outcome.lost = total - self.outcome.latencies.len() as u64;
                return;
            }
            self.turn(&mut events);
        }
    }

    /// What has happened on the connections, without a wait.
    fn turn(&mut self, events: &mut Events) {
        self.poll.poll(events, Some(Duration::ZERO)).expect("epoll works");
        for event in events.iter() {
            let at = event.token().0;
            match self.connections[at].state {
                State::Opening if event.is_writable() => self.opened(at),
                State::Idle | State::Waiting(_) if event.is_readable() => self.read(at),
                _ => {}
            }
        }
        if let Some((_, at)) = self.closed.pop_front_if(|(from, _)| *from <= Instant::now()) {
            self.open_again(at);
        }
    }

    fn opened(&mut self, at: usize) {
        let connection = &mut self.connections[at];
        if connection.stream.take_error().is_ok_and(|error| error.is_none()) {
            connection.state = State::Idle;
            self.send(at);
        } else {
            self.outcome.refused += 1;
            connection.state = State::Closed;
            self.closed.push_back((Instant::now() + PAUSE, at));
        }
    }

    /// Before those that were refused.
    fn reopen(&mut self, at: usize) {
        self.connections[at].state = State::Closed;
        self.closed.push_front((Instant::now(), at));
    }

    fn open_again(&mut self, at: usize) {
        let connection = &mut self.connections[at];
        connection.buffer.clear();
        connection.stream = connect(&self.poll, self.addr, at as u64);
        connection.state = State::Opening;
    }

    /// The connection's next request, if it is due and the one before it is answered.
    fn send(&mut self, at: usize) {
        let connection = &mut self.connections[at];
        if connection.state != State::Idle || connection.next >= self.due {
            return;
        }
        let due = self.begin + Duration::from_secs_f64(connection.next as f64 * self.interval);
        connection.state = State::Waiting(due);
        match connection.stream.write(&self.request) {
            Ok(written) => assert_eq!(written, self.request.len(), "a request fits"),
            Err(_) => self.ended(at),
        }
    }

    fn read(&mut self, at: usize) {
        let mut piece = [0; BUFFER];
        let step = self.connections.len() as u64;
        loop {
            let connection = &mut self.connections[at];
            match connection.stream.read(&mut piece) {
                Ok(0) => return self.ended(at),
                Ok(count) => connection.buffer.extend_from_slice(&piece[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => return self.ended(at),
            }
            let Some((good, closes)) = answer(&connection.buffer) else { continue };
            let State::Waiting(due) = connection.state else { panic!("an answer without a question") };
            connection.buffer.clear();
            connection.state = State::Idle;
            connection.next += step;
            if good {
                self.outcome.latencies.push(due.elapsed());
            } else {
                self.outcome.lost += 1;
            }
            if closes {
                return self.reopen(at);
            }
            self.send(at);
        }
    }

    /// The server has closed the connection.
    fn ended(&mut self, at: usize) {
        let step = self.connections.len() as u64;
        if let State::Waiting(_) = self.connections[at].state {
            self.outcome.lost += 1;
            self.connections[at].next += step;
        }
        self.reopen(at);
    }
}

fn connect(poll: &Poll, addr: SocketAddr, at: u64) -> TcpStream {
    let mut stream = TcpStream::connect(addr).expect("a socket");
    stream.set_nodelay(true).expect("TCP_NODELAY");
    let interest = Interest::READABLE | Interest::WRITABLE;
    poll.registry().register(&mut stream, Token(at as usize), interest).expect("it can be watched");
    stream
}

/// Whether it is good and whether the connection is over with it, once it is there as a whole.
fn answer(bytes: &[u8]) -> Option<(bool, bool)> {
    let head = memmem::find(bytes, b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&bytes[..head]).expect("a head in ASCII").to_ascii_lowercase();
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let length: usize = field("content-length:")?.parse().expect("a length");
    let closes = field("connection:") == Some("close");
    (bytes.len() >= head + length).then(|| (text.starts_with("http/1.1 200"), closes))
}

impl Outcome {
    fn done(&self) -> u64 {
        self.latencies.len() as u64 + self.lost
    }

    fn print(&mut self, seconds: f64) {
        self.latencies.sort_unstable();
        let last = self.latencies.len().checked_sub(1).expect("there are answers");
        let share = |share: f64| self.latencies[(last as f64 * share).round() as usize].as_secs_f64() * 1e3;
        println!(
            r#"{{"rate": {:.0}, "answered": {}, "lost": {}, "refused": {}, "p50": {:.3}, "p99": {:.3}, "p99.9": {:.3}, "max": {:.3}, "away": {:.3}}}"#,
            self.latencies.len() as f64 / seconds,
            self.latencies.len(),
            self.lost,
            self.refused,
            share(0.5),
            share(0.99),
            share(0.999),
            share(1.0),
            self.away.as_secs_f64() * 1e3,
        );
    }
}

//! A client that sends numbered requests from several connections and accounts for every one of them.
//! A request that was sent and not answered is lost: nothing is ever tried again. Not here: HTTP (http.rs).

use super::{Connection, DEADLINE, Failure, Target, eventually};
use super::{Response, http};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How many failures are told in full.
const MAX_TOLD: usize = 10;
/// How many failures of a connection are remembered.
const MAX_LOST: usize = 1000;
/// After a refused connection: a dead server must not cost a core.
const PAUSE_AFTER_REFUSAL: Duration = Duration::from_millis(1);

/// How clients can come: where the server listens, and whether they keep their connections.
pub const WAYS: [(&str, bool); 4] =
    [("127.0.0.1:0", true), ("127.0.0.1:0", false), ("unix:s.sock", true), ("unix:s.sock", false)];

/// What is to be sent. It goes to `/echo?msg=TOKEN` of the probe, and the answer must be that token.
pub struct Load {
    target: Target,
    connections: usize,
    keep_alive: bool,
    at_least: u64,
    pause: Duration,
    path: &'static str,
}

/// A load under way.
pub struct Running {
    threads: Vec<JoinHandle<Report>>,
    counters: Arc<Counters>,
}

#[derive(Default)]
struct Counters {
    /// Requests begun, so that `at_least` is met by all connections together.
    begun: AtomicU64,
    right: AtomicU64,
    stop: AtomicBool,
}

/// What became of the requests. `sent` is the sum of all counts that follow it.
#[derive(Default, Debug)]
pub struct Report {
    pub sent: u64,
    pub right: u64,
    pub refused: u64,
    pub reset: u64,
    pub closed: u64,
    pub cut: u64,
    pub timed_out: u64,
    pub malformed: u64,
    pub wrong_body: u64,
    pub wrong_status: BTreeMap<u16, u64>,
    /// Connections that were opened.
    pub connections: u64,
    /// Right answers by the process that gave them.
    pub workers: BTreeMap<i32, u64>,
    pub slowest: Duration,
    pub elapsed: Duration,
    /// The first failures, and no more.
    pub lost: Vec<Lost>,
}

/// A request without its right answer.
#[derive(Debug)]
#[allow(dead_code, reason = "the soak reads it")]
pub struct Lost {
    pub begin: Instant,
    pub end: Instant,
    /// Who answered before on the same connection.
    pub worker: Option<i32>,
    /// The connection came to an end: it was closed or reset, before or amid an answer.
    pub by_end_of_connection: bool,
    what: String,
}

impl Load {
    /// Eight connections that are kept alive, until `finish`.
    pub fn on(target: Target) -> Load {
        Load {
            target,
            connections: 8,
            keep_alive: true,
            at_least: 0,
            pause: Duration::ZERO,
            path: "/echo?msg=",
        }
    }

    pub fn connections(mut self, count: usize) -> Load {
        self.connections = count;
        self
    }

    /// A new connection for every request, with `Connection: close`.
    pub fn without_keep_alive(self) -> Load {
        self.keeping(false)
    }

    /// Kept connections, or one for every request.
    pub fn keeping(mut self, keep_alive: bool) -> Load {
        self.keep_alive = keep_alive;
        self
    }

    /// Goes on after `finish` until this many requests were sent.
    pub fn at_least(mut self, requests: u64) -> Load {
        self.at_least = requests;
        self
    }

    /// Each connection rests for so long after an answer.
    #[allow(dead_code, reason = "the soak does")]
    pub fn pausing(mut self, pause: Duration) -> Load {
        self.pause = pause;
        self
    }

    /// Another page that gives back the token put behind `path`.
    pub fn path(mut self, path: &'static str) -> Load {
        self.path = path;
        self
    }

    pub fn start(self) -> Running {
        let counters = Arc::new(Counters::default());
        let load = Arc::new(self);
        let threads = (0..load.connections).map(|_| {
            let (load, counters) = (Arc::clone(&load), Arc::clone(&counters));
            thread::spawn(move || Client::new(&load, &counters).run())
        });
        Running { threads: threads.collect(), counters: Arc::clone(&counters) }
    }
}

impl Running {
    /// Right answers so far.
    pub fn answered(&self) -> u64 {
        self.counters.right.load(Relaxed)
    }

    /// Waits until `count` requests in all were answered right, however slowly, as long as answers keep coming.
    #[track_caller]
    pub fn wait_answered(&self, count: u64) {
        loop {
            let before = self.answered();
            if before >= count {
                return;
            }
            eventually(DEADLINE, &format!("more than {before} of {count} right answers"), || {
                assert!(self.threads.iter().all(|thread| !thread.is_finished()), "a client gave up");
                self.answered() > before
            });
        }
    }

    /// Waits for `count` right answers more.
    #[track_caller]
    pub fn wait_more(&self, count: u64) {
        self.wait_answered(self.answered() + count);
    }

    /// Lets every connection end its request, and adds up.
    pub fn finish(self) -> Report {
        self.counters.stop.store(true, Relaxed);
        let mut sum = Report::default();
        for thread in self.threads {
            sum.add(thread.join().expect("a client does not panic"));
        }
        sum
    }
}

/// One connection at a time, one request at a time.
struct Client<'load> {
    load: &'load Load,
    counters: &'load Counters,
    connection: Option<Connection>,
    /// Who answers on it, once somebody has.
    worker: Option<i32>,
    report: Report,
}

impl<'load> Client<'load> {
    fn new(load: &'load Load, counters: &'load Counters) -> Client<'load> {
        Client { load, counters, connection: None, worker: None, report: Report::default() }
    }

    fn run(mut self) -> Report {
        let begin = Instant::now();
        loop {
            let number = self.counters.begun.fetch_add(1, Relaxed);
            if number >= self.load.at_least && self.counters.stop.load(Relaxed) {
                break;
            }
            self.one(number);
            thread::sleep(self.load.pause);
        }
        self.report.elapsed = begin.elapsed();
        self.report
    }

    fn one(&mut self, number: u64) {
        let token = format!("token-{number}");
        let begin = Instant::now();
        let result = self.exchange(&token);
        let elapsed = begin.elapsed();
        self.report.sent += 1;
        self.report.slowest = self.report.slowest.max(elapsed);
        match result {
            Ok(response) => self.judge(&token, &response, begin),
            Err(failure) => self.count_failure(&token, &failure, begin),
        }
    }

    fn exchange(&mut self, token: &str) -> Result<Response, Failure> {
        // A server may close a connection that waits; that costs nobody a request as long as none was sent.
        let usable = self.connection.take().filter(|connection| !connection.is_closed());
        let mut connection = match usable {
            Some(connection) => connection,
            None => {
                self.worker = None;
                let connection = Connection::open(&self.load.target)?;
                self.report.connections += 1;
                connection
            }
        };
        let path = format!("{}{token}", self.load.path);
        let close = [("connection", "close")];
        let fields: &[(&str, &str)] = if self.load.keep_alive { &[] } else { &close };
        connection.send(http::request("GET", &path, fields, b""))?;
        let response = connection.read()?;
        if !connection.is_closing() {
            self.connection = Some(connection);
        }
        Ok(response)
    }

    fn judge(&mut self, token: &str, response: &Response, begin: Instant) {
        if response.status != 200 {
            *self.report.wrong_status.entry(response.status).or_default() += 1;
            self.tell(begin, false, format!("{token}: {}: {:?}", response.status, response.text()));
        } else if response.body != token.as_bytes() {
            self.report.wrong_body += 1;
            self.tell(begin, false, format!("{token}: another body: {:?}", response.text()));
        } else {
            self.report.right += 1;
            self.counters.right.fetch_add(1, Relaxed);
            self.worker = response.field("x-worker-pid").and_then(|pid| pid.parse().ok());
            *self.report.workers.entry(self.worker.unwrap_or(0)).or_default() += 1;
        }
    }

    fn count_failure(&mut self, token: &str, failure: &Failure, begin: Instant) {
        match failure {
            Failure::Refused => {
                self.report.refused += 1;
                thread::sleep(PAUSE_AFTER_REFUSAL);
            }
            Failure::Reset => self.report.reset += 1,
            Failure::Closed => self.report.closed += 1,
            Failure::Cut => self.report.cut += 1,
            Failure::TimedOut => self.report.timed_out += 1,
            Failure::Malformed(_) | Failure::Other(_) => self.report.malformed += 1,
        }
        let by_end = matches!(failure, Failure::Reset | Failure::Closed | Failure::Cut);
        self.tell(begin, by_end, format!("{token}: {failure}"));
    }

    fn tell(&mut self, begin: Instant, by_end_of_connection: bool, what: String) {
        if self.report.lost.len() < MAX_LOST {
            let (end, worker) = (Instant::now(), self.worker);
            self.report.lost.push(Lost { begin, end, worker, by_end_of_connection, what });
        }
    }
}

impl Report {
    /// Requests without their right answer.
    pub fn failed(&self) -> u64 {
        self.sent - self.right
    }

    /// Fails the test, with the whole account, when a single request failed.
    #[track_caller]
    pub fn assert_none_failed(&self) {
        assert!(self.sent > 0, "nothing was sent");
        assert_eq!(self.failed(), 0, "{self}");
    }

    fn add(&mut self, other: Report) {
        self.sent += other.sent;
        self.right += other.right;
        self.refused += other.refused;
        self.reset += other.reset;
        self.closed += other.closed;
        self.cut += other.cut;
        self.timed_out += other.timed_out;
        self.malformed += other.malformed;
        self.wrong_body += other.wrong_body;
        self.connections += other.connections;
        self.slowest = self.slowest.max(other.slowest);
        self.elapsed = self.elapsed.max(other.elapsed);
        for (status, count) in other.wrong_status {
            *self.wrong_status.entry(status).or_default() += count;
        }
        for (pid, count) in other.workers {
            *self.workers.entry(pid).or_default() += count;
        }
        let room = MAX_LOST.saturating_sub(self.lost.len());
        self.lost.extend(other.lost.into_iter().take(room));
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} sent in {:?}: {} right, {} failed",
            self.sent,
            self.elapsed,
            self.right,
            self.failed()
        )?;
        let Report { refused, reset, closed, cut, timed_out, malformed, wrong_body, .. } = self;
        writeln!(f, "  refused {refused}, reset {reset}, closed {closed}, cut {cut}, timed out {timed_out}")?;
        writeln!(
            f,
            "  malformed {malformed}, wrong body {wrong_body}, wrong status {:?}",
            self.wrong_status
        )?;
        writeln!(f, "  {} connections, slowest answer {:?}", self.connections, self.slowest)?;
        writeln!(f, "  right answers by worker: {:?}", self.workers)?;
        self.lost.iter().take(MAX_TOLD).try_for_each(|lost| writeln!(f, "  {}", lost.what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Write};
    use std::net::{TcpListener, TcpStream};

    /// Answers request n as n % 6 says: right, another body, 503, cut short, closed, not HTTP.
    fn misbehave(listener: &TcpListener) {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            thread::spawn(move || while misbehave_once(&stream).is_some() {});
        }
    }

    fn misbehave_once(mut stream: &TcpStream) -> Option<()> {
        let mut head =
            BufReader::new(stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty());
        let line = head.next()?;
        head.for_each(drop);
        let token = line.split(['=', ' ']).nth(2)?.to_owned();
        let number: u64 = token.strip_prefix("token-")?.parse().ok()?;
        let length = token.len();
        let answer = match number % 6 {
            0 => format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nx-worker-pid: 7\r\n\r\n{token}"),
            1 => "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nyou".to_owned(),
            2 => "HTTP/1.1 503 Busy\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned(),
            3 => format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{token}", length + 1),
            4 => String::new(),
            _ => "HELLO\r\n\r\n".to_owned(),
        };
        stream.write_all(answer.as_bytes()).ok()?;
        (number % 6 < 2).then_some(())
    }

    #[test]
    fn every_request_is_accounted_for() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = Target::Tcp(listener.local_addr().unwrap());
        thread::spawn(move || misbehave(&listener));
        for keep_alive in [true, false] {
            let load = Load::on(target.clone()).connections(1).at_least(600);
            let load = if keep_alive { load } else { load.without_keep_alive() };
            let report = load.start().finish();
            assert_eq!(report.sent, 600, "{report}");
            let Report { right, wrong_body, cut, closed, reset, malformed, .. } = report;
            // The end of a connection may reach the client as a close or as a reset.
            assert_eq!(
                (right, wrong_body, cut, closed + reset, malformed),
                (100, 100, 100, 100, 100),
                "{report}"
            );
            assert_eq!(report.wrong_status, BTreeMap::from([(503, 100)]), "{report}");
            assert_eq!(report.failed(), 500, "{report}");
            assert_eq!(report.workers, BTreeMap::from([(7, 100)]), "{report}");
        }
    }
}

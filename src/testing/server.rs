//! The real program, started by a test and watched. Not here: apps within the test's process (local.rs).

use super::Answer;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long a test waits for what should come at once; only one that fails waits that long.
const DEADLINE: Duration = Duration::from_secs(30);
/// Options in the environment of whoever runs the tests do not decide them.
const FOREIGN: [&str; 2] = ["FERRICORN_CMD_ARGS", "FERRICORN_DATABASE_URL"];

/// A running server, on a free port of 127.0.0.1. Dropped, it is killed with all its processes; when the test fails its log is
/// printed.
///
/// ```no_run
/// use ferricorn::testing::{Server, example};
///
/// #[test]
/// fn it_says_hello() {
///     let mut command = example("hello"); // or Command::new(env!("CARGO_BIN_EXE_NAME"))
///     command.args(["-w", "1"]);
///     let server = Server::start(command);
///     assert_eq!(server.get("/").text(), "Hello from Ferricorn\n");
///     assert!(server.stop().success());
/// }
/// ```
pub struct Server {
    child: Child,
    log: Arc<Log>,
    addr: SocketAddr,
}

#[derive(Default)]
struct Log {
    lines: Mutex<Lines>,
    grown: Condvar,
}

#[derive(Default)]
struct Lines {
    all: Vec<String>,
    /// The server and all its workers are gone.
    ended: bool,
}

/// The command for an example of the package under test, which cargo builds before it runs the tests.
///
/// # Panics
/// When it was not built.
#[track_caller]
pub fn example(name: &str) -> Command {
    let test = std::env::current_exe().expect("a test knows where it is");
    // target/debug/deps/TEST, and target/debug/examples/NAME.
    let built =
        test.parent().and_then(|deps| deps.parent()).map(|profile| profile.join("examples").join(name));
    let built = built.filter(|path| path.exists());
    Command::new(
        built.unwrap_or_else(|| panic!("the example {name} is not built: run cargo build --examples")),
    )
}

impl Server {
    /// Starts the program and waits until a worker is ready. Options that the command has are kept; the address and where to
    /// log are added.
    ///
    /// # Panics
    /// When it cannot be started, or is not ready within 30 s; its log is printed.
    #[track_caller]
    pub fn start(mut command: Command) -> Server {
        command.args(["--bind", "127.0.0.1:0", "--errorlog", "-"]).process_group(0);
        for name in FOREIGN {
            command.env_remove(name);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let log = Arc::new(Log::default());
        let stderr = child.stderr.take().expect("it is a pipe");
        let writer = log.clone();
        thread::spawn(move || writer.fill_from(stderr));
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut server = Server { child, log, addr: nowhere };
        server.wait_for("worker ready");
        let listening = server.wait_for("listening on=");
        let addr = listening.split("listening on=").nth(1).and_then(|rest| rest.split_whitespace().next());
        server.addr = addr.and_then(|addr| addr.parse().ok()).expect("the log names the address");
        server
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Asks for a page, on a connection of its own.
    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path).body("").expect("the test gives a path"))
    }

    /// Sends a request on a connection of its own.
    ///
    /// # Panics
    /// When there is no whole answer within 30 s.
    #[track_caller]
    pub fn send(&self, request: Request<impl AsRef<[u8]>>) -> Answer {
        self.ask(request).unwrap_or_else(|error| panic!("no answer: {error}"))
    }

    fn ask(&self, request: Request<impl AsRef<[u8]>>) -> std::io::Result<Answer> {
        let (head, body) = request.into_parts();
        let body = body.as_ref();
        let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
        // In HTTP/1.0 an answer ends with its connection, and is not chunked.
        let mut message =
            format!("{} {target} HTTP/1.0\r\nhost: {}\r\n", head.method, self.addr).into_bytes();
        if !body.is_empty() {
            message.extend(format!("content-length: {}\r\n", body.len()).into_bytes());
        }
        for (name, value) in &head.headers {
            message.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
        }
        message.extend([b"\r\n", body].concat());
        let mut stream = TcpStream::connect_timeout(&self.addr, DEADLINE)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_write_timeout(Some(DEADLINE))?;
        stream.write_all(&message)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        parsed(&answer).ok_or_else(|| std::io::Error::other(format!("cut short: {} bytes", answer.len())))
    }

    /// The first line of the log that contains `text`, as soon as there is one.
    ///
    /// # Panics
    /// When there is none within 30 s, or the server has ended without.
    #[track_caller]
    pub fn wait_for(&self, text: &str) -> String {
        let until = Instant::now() + DEADLINE;
        let mut lines = self.log.lock();
        loop {
            if let Some(line) = lines.all.iter().find(|line| line.contains(text)) {
                return line.clone();
            }
            assert!(!lines.ended, "the server ended, and its log has no {text:?}");
            let left = until.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "within {DEADLINE:?} the log got no {text:?}");
            lines = self.log.grown.wait_timeout(lines, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Every line so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().all.clone()
    }

    /// HUP: has the server read its settings again.
    pub fn reload(&self) {
        let _ = kill(self.pid(), Signal::SIGHUP);
    }

    /// TERM, and waits for the end.
    ///
    /// # Panics
    /// When the server has not ended within 30 s.
    #[track_caller]
    pub fn stop(mut self) -> ExitStatus {
        let _ = kill(self.pid(), Signal::SIGTERM);
        let until = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                return status;
            }
            assert!(Instant::now() < until, "the server did not end within {DEADLINE:?}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The master's workers are in its group, and a process that has ended but was not waited for still has its number.
        let is_waited_for = matches!(self.child.try_wait(), Ok(Some(_)));
        if !is_waited_for {
            let _ = killpg(self.pid(), Signal::SIGKILL);
            let _ = self.child.wait();
        }
        if thread::panicking() {
            eprintln!("---- log of the server");
            self.log.lock().all.iter().for_each(|line| eprintln!("{line}"));
            eprintln!("----");
        }
    }
}

impl Log {
    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fill_from(&self, stderr: impl Read) {
        for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
            self.lock().all.push(String::from_utf8_lossy(&line).into_owned());
            self.grown.notify_all();
        }
        self.lock().ended = true;
        self.grown.notify_all();
    }
}

/// `None` where it is not whole.
fn parsed(answer: &[u8]) -> Option<Answer> {
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let mut lines = head.split("\r\n");
    let status: u16 = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(':')?;
        let name: HeaderName = name.parse().ok()?;
        headers.append(name, HeaderValue::from_str(value.trim()).ok()?);
    }
    let body = answer[end + 4..].to_vec();
    let length = headers.get("content-length").and_then(|length| length.to_str().ok()?.parse().ok());
    let is_whole = length.is_none_or(|length: usize| length == body.len());
    is_whole.then_some(Answer { status: StatusCode::from_u16(status).ok()?, headers, body: body.into() })
}

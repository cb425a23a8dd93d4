//! A running server: its log as it grows, its processes, its end. Not here: HTTP (http.rs, load.rs).

use super::program::put_program;
use super::said::{Line, Said};
use super::{Connection, DEADLINE, Failure, Program, Response, Target, eventually, proc};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The real program, started by `Program::start`. Dropping it ends the whole process group; when a test fails
/// its log is printed.
pub struct Server {
    child: Child,
    log: Arc<Log>,
    status: Option<ExitStatus>,
    /// The master that an upgrade has put in the first one's place.
    successor: Option<i32>,
    dir: TempDir,
}

#[derive(Default)]
struct Log {
    lines: Mutex<Lines>,
    grown: Condvar,
}

#[derive(Default)]
struct Lines {
    all: Vec<Line>,
    /// Nobody holds the pipe any more: the server and all its workers are gone.
    ended: bool,
}

/// How long a master's last lines are waited for. As long only where it was killed and others live on.
const LAST_LINES: Duration = Duration::from_secs(3);

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Code(i32),
    Signal(i32),
    /// It was nobody's child here.
    Unknown,
}

impl Server {
    pub(super) fn spawn(mut program: Program) -> Server {
        use std::os::unix::process::CommandExt;
        let mut command = program.command();
        let stdin = program.stdin.take().map_or_else(Stdio::null, Stdio::from);
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn().expect("the program can be started");
        let log = Arc::new(Log::default());
        let stderr = child.stderr.take().expect("stderr is a pipe");
        let mut stdout = child.stdout.take().expect("stdout is a pipe");
        let writer = Arc::clone(&log);
        thread::spawn(move || writer.fill_from(stderr));
        // The access log can go there; a full pipe would stop the server.
        thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
        Server { child, log, status: None, successor: None, dir: program.dir }
    }

    // The log

    /// The first line of this kind, as soon as there is one.
    #[track_caller]
    pub fn wait(&self, said: Said) -> Line {
        self.wait_count(said, 1)
    }

    /// Waits until there are `count` lines of this kind and returns the last of these.
    #[track_caller]
    pub fn wait_count(&self, said: Said, count: usize) -> Line {
        self.wait_matching(&format!("{count} × {said:?}"), count, |line| line.is(said))
    }

    /// The same with the time of one for each of them, for what a slow machine does one after the other.
    #[track_caller]
    pub fn wait_each(&self, said: Said, count: usize) {
        for one in 1..=count {
            self.wait_count(said, one);
        }
    }

    /// The first line of this kind about the worker `pid`.
    #[track_caller]
    pub fn wait_about(&self, said: Said, pid: i32) -> Line {
        let about = pid.to_string();
        self.wait_matching(&format!("{said:?} of {pid}"), 1, |line| {
            line.is(said) && line.value("pid") == Some(&about)
        })
    }

    /// The first line that contains `text`.
    #[track_caller]
    pub fn wait_text(&self, text: &str) -> Line {
        self.wait_matching(text, 1, |line| line.raw.contains(text))
    }

    /// Waits for `count` lines that contain `text`; there must be no more by then. What has just been done for a request
    /// may be in the log a moment after its answer.
    #[track_caller]
    pub fn wait_lines(&self, text: &str, count: usize) {
        self.wait_matching(&format!("{count} × {text}"), count, |line| line.raw.contains(text));
        assert_eq!(self.log_with(text).len(), count, "{text}");
    }

    #[track_caller]
    fn wait_matching(&self, what: &str, count: usize, matches: impl Fn(&Line) -> bool) -> Line {
        assert!(count > 0, "waiting for nothing");
        let until = Instant::now() + DEADLINE;
        let mut lines = self.log.lines();
        loop {
            if let Some(line) = lines.all.iter().filter(|line| matches(line)).nth(count - 1) {
                return line.clone();
            }
            assert!(!lines.ended, "the server ended without: {what}");
            let left = until.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "not within {DEADLINE:?} in the log: {what}");
            let waited = self.log.grown.wait_timeout(lines, left);
            lines = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// How many lines of this kind there are by now.
    pub fn count(&self, said: Said) -> usize {
        self.log().iter().filter(|line| line.is(said)).count()
    }

    /// Every line so far.
    pub fn log(&self) -> Vec<Line> {
        self.log.lines().all.clone()
    }

    /// Every line so far that contains `text`.
    pub fn log_with(&self, text: &str) -> Vec<String> {
        self.log().into_iter().map(|line| line.raw).filter(|raw| raw.contains(text)).collect()
    }

    // The processes

    /// The process that was started: the master, or the wrapper around it. After an upgrade, the new master.
    pub fn pid(&self) -> i32 {
        self.successor.unwrap_or_else(|| self.first_pid())
    }

    fn first_pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a pid fits")
    }

    /// Waits until the upgrade of this number is done and the old master has left as it should. What is asked of the server
    /// from now on is asked of the new one.
    #[track_caller]
    pub fn follow_upgrade(&mut self, number: usize) {
        let done = self.wait_count(Said::UpgradeDone, number);
        let end = self.wait_exit();
        assert!(matches!(end, End::Code(0) | End::Unknown), "{end:?}");
        self.successor = Some(done.number("pid"));
    }

    /// From now on this process is the master.
    pub fn follow(&mut self, pid: i32) {
        self.successor = Some(pid);
    }

    /// Every process of the server, its masters and those that nobody has waited for among them: the living, and the zombies.
    pub fn everybody(&self) -> (Vec<i32>, Vec<i32>) {
        proc::group(self.first_pid())
    }

    /// Follows all upgrades that are done by now, whether or not the old master has left.
    pub fn follow_upgrades(&mut self) {
        if let Some(done) = self.log().into_iter().rfind(|line| line.is(Said::UpgradeDone)) {
            // Takes the first one in, once it has left.
            self.status = self.status.or_else(|| self.child.try_wait().expect("our own child"));
            self.successor = Some(done.number("pid"));
        }
    }

    /// The living children of the master, without the admin process, who hears notifications, and what has not taken its role yet.
    pub fn workers(&self) -> Vec<i32> {
        let master = proc::comm(self.pid());
        let mut workers = proc::children(self.pid());
        workers.retain(|pid| !is_admin(*pid) && !is_notify(*pid) && proc::comm(*pid) != master);
        workers
    }

    /// The processes that answer for the server: one, and for a moment two when they change.
    pub fn admins(&self) -> Vec<i32> {
        let mut admins = proc::children(self.pid());
        admins.retain(|pid| is_admin(*pid));
        admins
    }

    /// The processes that hear what other servers invalidate: none or one, and for a moment two when they change.
    pub fn listeners(&self) -> Vec<i32> {
        let mut listeners = proc::children(self.pid());
        listeners.retain(|pid| is_notify(*pid));
        listeners
    }

    /// The master's only worker, for servers that run one.
    #[track_caller]
    pub fn worker(&self) -> i32 {
        let workers = self.workers();
        assert_eq!(workers.len(), 1, "one worker expected: {workers:?}");
        workers[0]
    }

    /// Sends a signal to the master.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).expect("the master is there");
    }

    /// Sends a signal to the master, if it is still there; true when it was.
    pub fn try_signal(&self, signal: Signal) -> bool {
        kill(Pid::from_raw(self.pid()), signal).is_ok()
    }

    /// Sends a signal to one process of the server.
    pub fn signal_to(&self, pid: i32, signal: Signal) {
        kill(Pid::from_raw(pid), signal).expect("the process is there");
    }

    /// Stops a process, and waits until it stands still.
    #[track_caller]
    pub fn halt(&self, pid: i32) {
        self.signal_to(pid, Signal::SIGSTOP);
        eventually(DEADLINE, "it stands still", || proc::is_stopped(pid));
    }

    /// Puts a script in the place of the program, which `Program::replaceable` has in the server's folder.
    #[track_caller]
    pub fn put_script(&self, script: &str) {
        let file = self.dir().join("script");
        fs::write(&file, script).unwrap();
        put_program(&file, &self.dir().join("server"));
    }

    /// Waits for the end of the master.
    #[track_caller]
    pub fn wait_exit(&mut self) -> End {
        self.wait_exit_within(DEADLINE)
    }

    #[track_caller]
    pub fn wait_exit_within(&mut self, deadline: Duration) -> End {
        eventually(deadline, "the master ends", || self.has_ended());
        self.wait_last_lines();
        if self.successor.is_some() {
            return End::Unknown;
        }
        let status = self.status.expect("it has ended");
        match (status.code(), status.signal()) {
            (Some(code), _) => End::Code(code),
            (None, Some(signal)) => End::Signal(signal),
            (None, None) => panic!("neither code nor signal: {status:?}"),
        }
    }

    pub fn has_ended(&mut self) -> bool {
        if let Some(successor) = self.successor {
            return !proc::is_alive(successor);
        }
        if self.status.is_none() {
            self.status = self.child.try_wait().expect("our own child");
        }
        self.status.is_some()
    }

    /// Waits until every process that this server started is gone, orphans too.
    #[track_caller]
    pub fn wait_nobody_left(&self, known: &[i32], deadline: Duration) -> Duration {
        eventually(deadline, "no process of the server is left", || {
            !known.iter().any(|&pid| proc::is_alive(pid))
        })
    }

    /// TERM, and the clean end that must follow.
    #[track_caller]
    pub fn stop(&mut self) {
        self.signal(Signal::SIGTERM);
        match self.wait_exit() {
            End::Unknown => drop(self.wait_text(&self.last_words())),
            end => assert_eq!(end, End::Code(0), "TERM ends in exit code 0"),
        }
    }

    /// What a master says last.
    fn last_words(&self) -> String {
        format!("[master {}] stopped", self.pid())
    }

    /// The master has ended, and its last lines may not have been read yet. One that was killed, and left somebody who still holds
    /// the pipe, is not waited for in vain.
    fn wait_last_lines(&self) {
        let (words, until) = (self.last_words(), Instant::now() + LAST_LINES);
        let mut lines = self.log.lines();
        while !lines.ended && !lines.all.iter().any(|line| line.raw.contains(&words)) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.log.grown.wait_timeout(lines, left);
            lines = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    // Where it is

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Waits for the line that names the address.
    #[track_caller]
    pub fn wait_listening(&self) -> Line {
        self.wait(Said::Listening)
    }

    #[track_caller]
    pub fn target(&self) -> Target {
        let line = self.wait_listening();
        Target::named(line.value("on").expect("listening names the address"), self.dir())
    }

    /// Where the admin process answers, by the log's last word.
    #[track_caller]
    pub fn admin_target(&self) -> Target {
        let line = self.wait_count(Said::AdminListening, self.count(Said::AdminListening).max(1));
        Target::named(line.value("on").expect("it names the address"), self.dir())
    }

    /// Asks the admin process; anything but a whole answer fails the test.
    #[track_caller]
    pub fn ask_admin(&self, path: &str) -> Response {
        let answer = Connection::open(&self.admin_target()).and_then(|mut connection| connection.get(path));
        answer.unwrap_or_else(|failure| panic!("GET {path}: {failure}"))
    }

    /// The address of a TCP server.
    #[track_caller]
    pub fn addr(&self) -> SocketAddr {
        match self.target() {
            Target::Tcp(addr) => addr,
            other => panic!("not a TCP server: {other:?}"),
        }
    }

    #[track_caller]
    pub fn connect(&self) -> Connection {
        Connection::open(&self.target()).unwrap_or_else(|failure| panic!("connect: {failure}"))
    }

    /// One request on a connection of its own; anything but a whole answer fails the test.
    #[track_caller]
    pub fn get(&self, path: &str) -> Response {
        self.try_get(path).unwrap_or_else(|failure| panic!("GET {path}: {failure}"))
    }

    pub fn try_get(&self, path: &str) -> Result<Response, Failure> {
        Connection::open(&self.target())?.get(path)
    }

    /// Asks until a connection lands at each of `count` workers, and returns a connection to each.
    #[track_caller]
    pub fn connections_to_all(&self, count: usize) -> Vec<(i32, Connection)> {
        let mut found: Vec<(i32, Connection)> = Vec::new();
        eventually(DEADLINE, "a connection to each worker", || {
            let mut connection = self.connect();
            let pid = connection.get("/pid").unwrap_or_else(|failure| panic!("GET /pid: {failure}")).worker();
            if found.iter().all(|(known, _)| *known != pid) {
                found.push((pid, connection));
            }
            found.len() == count
        });
        found
    }
}

fn is_admin(pid: i32) -> bool {
    proc::comm(pid).ends_with("-admin")
}

fn is_notify(pid: i32) -> bool {
    proc::comm(pid).ends_with("-notify")
}

impl Drop for Server {
    fn drop(&mut self) {
        let mut everybody = [proc::descendants(self.first_pid()), proc::descendants(self.pid())].concat();
        if !self.has_ended() {
            everybody.push(self.pid());
        }
        // The group outlives its leader as long as an orphaned worker or a new master is in it; ESRCH says that nobody is.
        let _ = killpg(Pid::from_raw(self.first_pid()), Signal::SIGKILL);
        for pid in everybody {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        let _ = self.child.wait();
        if thread::panicking() {
            let lines = self.log();
            eprintln!("---- log of the server, {} lines", lines.len());
            lines.iter().for_each(|line| eprintln!("{}", line.raw));
            eprintln!("---- end of the log");
        }
    }
}

impl Log {
    fn fill_from(&self, pipe: impl Read) {
        for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
            let raw = String::from_utf8_lossy(&line).into_owned();
            self.lines().all.push(Line { raw });
            self.grown.notify_all();
        }
        self.lines().ended = true;
        self.grown.notify_all();
    }

    /// A test that gives up waiting panics with the lock in its hand, and the log is printed after that.
    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

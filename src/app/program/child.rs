//! One process of a program: it is started, asked, looked at and ended, all by the thread that owns it, so that its pid is
//! never anybody else's. Not here: when it is started again.

use super::{ProgramOptions, stderr};
use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::sys::socket::{MsgFlags, recv};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use serde::de::IgnoredAny;
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// What a child takes of its worker's descriptors: one end of each socket, and a second handle to either, to end its talk with and
/// to read its errors. Some more are open while it starts.
pub(crate) const DESCRIPTORS_OF_A_CHILD: u64 = 4;

/// What is read at a time.
const PIECE: usize = 16 * 1024;

/// How long one that has closed its output may take to end by itself, so that its own exit code is told.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// How often one that should end by itself is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Why a child cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It ended, or closed its output.
    Gone,
    /// It had not answered in time.
    Late,
    NoJson,
    /// Its line was longer than `max_line`.
    TooLong,
    /// It said more than one line, or one that nobody had asked for: whose answer comes next is in doubt.
    OutOfStep,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Gone => f.write_str("it ended"),
            Fault::Late => f.write_str("it did not answer in time"),
            Fault::NoJson => f.write_str("its line is not JSON"),
            Fault::TooLong => f.write_str("its line is longer than max_line"),
            Fault::OutOfStep => f.write_str("it said more than it was asked for"),
        }
    }
}

pub(super) struct Child {
    process: std::process::Child,
    /// Its standard input and output.
    wire: UnixStream,
    /// What it says on its standard error comes in here, and is read by a thread.
    errors: UnixStream,
    reader: Option<JoinHandle<()>>,
    pub(super) born: Instant,
    pub(super) answered: u64,
    is_reaped: bool,
}

impl Child {
    /// # Errors
    /// When the system has no process, thread or descriptor to give, or does not find or run the program.
    pub(super) fn start(who: String, options: &ProgramOptions, tie: fn(&mut Command)) -> io::Result<Child> {
        let (wire, its_wire) = UnixStream::pair()?;
        let (errors, its_errors) = UnixStream::pair()?;
        let mut command = Command::new(&options.words[0]);
        // A group of its own, so that whatever it starts can be killed with it.
        command.args(&options.words[1..]).process_group(0);
        command.stdin(OwnedFd::from(its_wire.try_clone()?));
        command.stdout(OwnedFd::from(its_wire)).stderr(OwnedFd::from(its_errors));
        if let Some(folder) = &options.folder {
            command.current_dir(folder);
        }
        tie(&mut command);
        let process = command.spawn()?;
        let born = Instant::now();
        let mut child = Child { process, wire, errors, reader: None, born, answered: 0, is_reaped: false };
        let heard = child.errors.try_clone()?;
        let reader = thread::Builder::new().name("program-stderr".into());
        child.reader = Some(reader.spawn(move || stderr::log(&who, heard))?);
        Ok(child)
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// The wire, for somebody who may have to end it.
    pub(super) fn wire(&self) -> io::Result<UnixStream> {
        self.wire.try_clone()
    }

    /// Looks at it between two calls: it must be there, and silent.
    pub(super) fn look(&self) -> Result<(), Fault> {
        if !self.is_there() {
            return Err(Fault::Gone);
        }
        match recv(self.wire.as_raw_fd(), &mut [0], MsgFlags::MSG_DONTWAIT) {
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(()),
            Ok(0) | Err(_) => Err(Fault::Gone),
            Ok(_) => Err(Fault::OutOfStep),
        }
    }

    /// Asks for the answer to one line, which ends with its newline. One that has never answered may still be starting, and is
    /// not given up before `start_timeout`: then `late` is called when the answer is late, and the wait goes on.
    pub(super) fn exchange(
        &mut self,
        line: &[u8],
        options: &ProgramOptions,
        mut late: impl FnMut(),
    ) -> Result<Vec<u8>, Fault> {
        let due = Instant::now() + options.timeout;
        let given_up = if self.answered > 0 { due } else { due.max(self.born + options.start_timeout) };
        let mut left = || {
            let now = Instant::now();
            if now < due {
                return Ok(due - now);
            }
            late();
            if now < given_up { Ok(given_up - now) } else { Err(Fault::Late) }
        };
        self.ask(line, &mut left)?;
        let answer = self.answer(options.max_line, &mut left)?;
        // What is ignored is not looked at for its UTF-8, which JSON is.
        let text = std::str::from_utf8(&answer).map_err(|_| Fault::NoJson)?;
        serde_json::from_str::<IgnoredAny>(text).map_err(|_| Fault::NoJson)?;
        self.answered += 1;
        Ok(answer)
    }

    fn ask(
        &mut self,
        mut line: &[u8],
        left: &mut impl FnMut() -> Result<Duration, Fault>,
    ) -> Result<(), Fault> {
        while !line.is_empty() {
            let limited = self.wire.set_write_timeout(Some(left()?));
            match limited.and_then(|()| self.wire.write(line)) {
                Ok(count) => line = &line[count..],
                Err(error) if only_waited(&error) => {}
                Err(_) => return Err(Fault::Gone),
            }
        }
        Ok(())
    }

    fn answer(
        &mut self,
        max_line: usize,
        left: &mut impl FnMut() -> Result<Duration, Fault>,
    ) -> Result<Vec<u8>, Fault> {
        let (mut answer, mut piece) = (Vec::new(), [0; PIECE]);
        loop {
            let limited = self.wire.set_read_timeout(Some(left()?));
            let read = match limited.and_then(|()| self.wire.read(&mut piece)) {
                Ok(0) => return Err(Fault::Gone),
                Ok(count) => &piece[..count],
                Err(error) if only_waited(&error) => continue,
                Err(_) => return Err(Fault::Gone),
            };
            let end = read.iter().position(|byte| *byte == b'\n');
            answer.extend_from_slice(&read[..end.unwrap_or(read.len())]);
            if answer.len() > max_line {
                return Err(Fault::TooLong);
            }
            match end {
                Some(end) if end + 1 < read.len() => return Err(Fault::OutOfStep),
                Some(_) => return Ok(answer),
                None => {}
            }
        }
    }

    /// Ends it for this fault, and says how it ended.
    pub(super) fn end(self, fault: Fault) -> String {
        let patience = if fault == Fault::Gone { LAST_WORDS } else { Duration::ZERO };
        self.leave(patience)
    }

    /// Tells it that no more is asked, and waits `patience` for it to end by itself. Then it is killed, with all of its group.
    pub(super) fn leave(mut self, patience: Duration) -> String {
        let until = Instant::now() + patience;
        let _ = self.wire.shutdown(Shutdown::Write);
        while self.is_there() && Instant::now() < until {
            thread::sleep(LOOK_EVERY);
        }
        self.kill().map_or_else(|error| error.to_string(), |status| status.to_string())
    }

    /// It is not reaped by this: until `kill` its number, and that of its group, is nobody else's.
    fn is_there(&self) -> bool {
        let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        matches!(waitid(Id::Pid(self.group()), look), Ok(WaitStatus::StillAlive))
    }

    fn group(&self) -> Pid {
        Pid::from_raw(self.process.id() as i32)
    }

    fn kill(&mut self) -> io::Result<ExitStatus> {
        if !self.is_reaped {
            let _ = killpg(self.group(), Signal::SIGKILL);
        }
        let status = self.process.wait()?;
        self.is_reaped = true;
        Ok(status)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.kill();
        // Somebody outside its group may still have the other end: the thread that reads shall not wait for him.
        let _ = self.errors.shutdown(Shutdown::Both);
        // It has what was said until now to read, and then finds the end.
        self.reader.take().map(JoinHandle::join);
    }
}

/// A wait that was interrupted, or that ended with the time it had.
fn only_waited(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

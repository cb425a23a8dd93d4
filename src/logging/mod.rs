//! The error log: one line an event, from the master and every worker, through the `log` crate, so that an app's
//! own records land in the same place. Not here: the access log, which only borrows the `Sink`.

mod event;
mod sink;

pub(crate) use sink::{Owner, Sink};

use crate::config::{ErrorLogFormat, LogTarget, Settings};
use log::{Level, LevelFilter, Log, Metadata, Record};
use std::fmt::Write;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, Once, OnceLock, PoisonError};
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{OffsetDateTime, UtcOffset};

/// RFC 3339, in UTC, to the millisecond.
const STAMP: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

static LOGGER: Logger = Logger {
    state: Mutex::new(State { sink: None, format: ErrorLogFormat::Text, role: String::new(), pid: 0 }),
};

/// Names the request that the calling thread works for.
static REQUEST: OnceLock<fn() -> Option<String>> = OnceLock::new();

struct Logger {
    state: Mutex<State>,
}

struct State {
    sink: Option<Sink>,
    format: ErrorLogFormat,
    role: String,
    pid: u32,
}

/// Opens the error log and makes it the process's `log` target; also called at a reload, with the new settings.
/// On an error the log that was in use stays.
pub(crate) fn open(settings: &Settings, owner: Option<Owner>) -> io::Result<()> {
    let sink = Sink::open(&settings.errorlog, io::stderr().as_fd(), owner)?;
    survive_full_files();
    let mut state = LOGGER.state();
    (state.sink, state.format) = (sink, settings.log_format);
    drop(state);
    log::set_max_level(settings.loglevel);
    // It fails when a logger stands already: ours from an earlier call, or one that the program chose itself.
    let _ = log::set_logger(&LOGGER);
    Ok(())
}

/// A log that has grown to RLIMIT_FSIZE is a write that fails, and not the end of the process. Children inherit it; a program
/// that is started gets the signal's default back (execve(2)).
fn survive_full_files() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // It fails only for signals that cannot be caught.
        let _ = signal_hook::flag::register(nix::libc::SIGXFSZ, Arc::default());
    });
}

/// Makes a log's file, if it is one and is not there, for a process of another user to open.
pub(crate) fn make(target: &LogTarget, owner: Owner) -> io::Result<()> {
    match target {
        LogTarget::File(_) => Sink::open(target, io::stderr().as_fd(), Some(owner)).map(drop),
        LogTarget::Off | LogTarget::Standard => Ok(()),
    }
}

/// Names the process in every line from now on: `master`, `w3`.
pub(crate) fn sign_as(role: &str) {
    let mut state = LOGGER.state();
    (state.role, state.pid) = (role.to_owned(), std::process::id());
}

/// From now on each line of a request ends with its id, which `current` gives.
pub(crate) fn name_requests(current: fn() -> Option<String>) {
    REQUEST.get_or_init(|| current);
}

/// Opens the file anew by its name.
pub(crate) fn reopen() {
    let failed = LOGGER.state().sink.as_mut().and_then(|sink| sink.reopen().err());
    if let Some(error) = failed {
        log::error!("error log could not be reopened error=\"{error}\"");
    }
}

/// For a child that runs code of the app: from now on a panic is a line in the log, with its place.
pub(crate) fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        log::error!("panicked at={place} message=\"{}\"", panic.payload_as_str().unwrap_or("(no text)"));
    }));
}

impl Logger {
    /// A panic while a line was written leaves nothing half-changed that matters.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) || is_chatter(record) {
            return;
        }
        let mut message = record.args().to_string();
        if let Some(id) = REQUEST.get().and_then(|current| current()) {
            message.push_str(" request_id=");
            message.push_str(&id);
        }
        let mut state = self.state();
        let State { sink: Some(sink), format, role, pid } = &mut *state else { return };
        let line = |level, target: &str, message: &str| match format {
            ErrorLogFormat::Text => line(level, role, *pid, message),
            ErrorLogFormat::Json => event::json(&now(), level, (role, *pid), target, message) + "\n",
        };
        let lost = sink.take_lost_lines();
        if lost > 0 {
            let message = format!("log lines were dropped count={lost} cause=\"they could not be written\"");
            sink.write_lines(line(Level::Warn, module_path!(), &message).as_bytes());
        }
        sink.write_lines(line(record.level(), record.target(), &message).as_bytes());
    }

    fn flush(&self) {}
}

/// Libraries below us say at `info` and `debug` what nobody asked for.
fn is_chatter(record: &Record<'_>) -> bool {
    const QUIET: [&str; 4] = ["postgres", "tokio_postgres", "mio", "r2d2"];
    let library = record.target().split("::").next().unwrap_or_default();
    record.level() >= Level::Info && log::max_level() < LevelFilter::Trace && QUIET.contains(&library)
}

/// One line, whatever bytes the message holds.
fn line(level: Level, role: &str, pid: u32, message: &str) -> String {
    let mut line = format!("{} {level:<5} [{role} {pid}] ", now());
    for character in message.chars() {
        if character.is_control() {
            let _ = write!(line, "{}", character.escape_default());
        } else {
            line.push(character);
        }
    }
    line.push('\n');
    line
}

fn now() -> String {
    OffsetDateTime::now_utc().to_offset(UtcOffset::UTC).format(STAMP).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_stays_one_line_whatever_it_holds() {
        let written = line(Level::Info, "w0", 7, "a\nb\r\x1b[31m\0é");
        assert!(written.ends_with(" INFO  [w0 7] a\\nb\\r\\u{1b}[31m\\u{0}é\n"), "{written:?}");
        assert_eq!(written.matches('\n').count(), 1);
        assert_eq!(written.as_bytes()[10], b'T');
    }
}

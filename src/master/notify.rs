//! Keeps the process that hears what other servers invalidate: its line held, another one in its place when it is gone. The
//! arbiter knows nothing of it, for it serves nobody. Not here: what it does.

use crate::config::Settings;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// The times between two starts: doubled from the first to the last while they die young.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(10);
/// One that lived this long had no trouble at its start.
const SETTLED: Duration = Duration::from_secs(10);

pub(super) struct Keeper {
    /// Our end of the line to the process: a byte has it open its log anew, the end has it leave.
    line: Option<UnixStream>,
    /// When the last one was started, for what serves now.
    started: Option<Instant>,
    pause: Duration,
}

impl Keeper {
    pub(super) fn new() -> Keeper {
        Keeper { line: None, started: None, pause: FIRST_PAUSE }
    }

    /// Its end of the line, if there should be one and none `is_alive`.
    pub(super) fn tend(
        &mut self,
        settings: &Settings,
        is_alive: bool,
        now: Instant,
    ) -> Option<io::Result<UnixStream>> {
        if !settings.cache.notify || is_alive || now < self.next_start(now) {
            return None;
        }
        let lived_long = self.started.is_none_or(|started| now >= started + SETTLED);
        self.pause = if lived_long { FIRST_PAUSE } else { (self.pause * 2).min(LAST_PAUSE) };
        self.started = Some(now);
        Some(UnixStream::pair().and_then(|(line, its_line)| {
            line.set_nonblocking(true)?;
            self.line = Some(line);
            Ok(its_line)
        }))
    }

    fn next_start(&self, now: Instant) -> Instant {
        self.started.map_or(now, |started| started + self.pause)
    }

    /// When to tend it again.
    pub(super) fn next_deadline(&self, settings: &Settings, is_alive: bool, now: Instant) -> Option<Instant> {
        (settings.cache.notify && !is_alive).then(|| self.next_start(now))
    }

    /// Has the process open its log anew.
    pub(super) fn reopen_log(&mut self) {
        if let Some(line) = &mut self.line {
            let _ = line.write(&[1]);
        }
    }

    /// The process has the settings of a generation that is over: it leaves, and another one takes its place at once.
    pub(super) fn replace(&mut self) {
        self.close();
        self.started = None;
    }

    pub(super) fn close(&mut self) {
        self.line = None;
    }
}

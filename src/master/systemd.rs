//! Telling systemd, or whoever else listens on NOTIFY_SOCKET, how the server is (sd_notify(3)). Not here: the sockets that
//! systemd passes in.

use super::process::take_variable;
use nix::time::{ClockId, clock_gettime};
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

/// How long a message that found no room waits before it is sent again.
const RETRY: Duration = Duration::from_millis(100);
/// So many messages wait at most; beyond it the oldest is dropped.
const MAX_WAITING: usize = 16;

/// How many serve, how many should, and of which generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) serving: usize,
    pub(super) wanted: u32,
    pub(super) generation: u64,
}

/// The line to systemd; mute where nobody listens. It never blocks.
pub(super) struct Notifier {
    line: Option<(UnixDatagram, SocketAddr)>,
    /// Half of what systemd waits for a sign of life.
    beat_every: Option<Duration>,
    next_beat: Instant,
    waiting: VecDeque<String>,
    next_try: Instant,
    status: Option<Status>,
    is_ready: bool,
    is_reloading: bool,
    /// Another master speaks: the old one before an upgrade is over, the new one afterwards.
    is_silent: bool,
    /// What a successor is to find in its environment.
    variables: Vec<(&'static str, String)>,
}

impl Notifier {
    pub(super) fn mute() -> Notifier {
        Notifier::new(None, None)
    }

    fn new(line: Option<(UnixDatagram, SocketAddr)>, beat_every: Option<Duration>) -> Notifier {
        let now = Instant::now();
        Notifier {
            line,
            beat_every,
            next_beat: now,
            waiting: VecDeque::new(),
            next_try: now,
            status: None,
            is_ready: false,
            is_reloading: false,
            is_silent: false,
            variables: Vec::new(),
        }
    }

    /// Takes its variables out of the environment, so that no worker speaks for the server. A successor is silent until it
    /// takes over.
    pub(super) fn from_env(is_successor: bool) -> Notifier {
        let [socket, period, pid] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"].map(take_variable);
        let line = socket.as_deref().and_then(|name| open(name).ok());
        let is_for_us = pid.is_none_or(|pid| pid.parse() == Ok(std::process::id()));
        let period = period.filter(|_| is_for_us).and_then(|period| period.parse::<u64>().ok());
        let beat_every = period.filter(|period| *period > 0).map(|period| Duration::from_micros(period) / 2);
        let mut notifier = Notifier::new(line, beat_every);
        notifier.is_silent = is_successor;
        notifier.variables.extend(socket.map(|name| ("NOTIFY_SOCKET", name)));
        notifier
            .variables
            .extend(beat_every.map(|half| ("WATCHDOG_USEC", (2 * half).as_micros().to_string())));
        notifier
    }

    pub(super) fn variables(&self) -> Vec<(&'static str, String)> {
        self.variables.clone()
    }

    /// The old master's part of an upgrade: systemd listens to the main process alone, so the old one names the new one, and
    /// says no more.
    pub(super) fn hand_over(&mut self, successor: Option<nix::unistd::Pid>) {
        if let Some(pid) = successor {
            self.say(format!("MAINPID={pid}"));
        }
        self.is_silent = true;
    }

    /// The new master's part.
    pub(super) fn take_over(&mut self) {
        self.is_silent = false;
        self.status = None;
        if self.is_ready {
            self.ready();
        }
    }

    /// A worker is ready: for the first time, or again after a reload.
    pub(super) fn ready(&mut self) {
        self.is_ready = true;
        self.is_reloading = false;
        self.say(format!("READY=1\nMAINPID={}", std::process::id()));
    }

    pub(super) fn is_ready(&self) -> bool {
        self.is_ready
    }

    /// A reload begins. The time lets systemd tell this reload from an earlier one.
    pub(super) fn reloading(&mut self) {
        self.is_reloading = true;
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |time| Duration::from(time).as_micros());
        self.say(format!("RELOADING=1\nMONOTONIC_USEC={now}"));
    }

    /// The settings are read again: news only where the HUP for it came during an earlier reload.
    pub(super) fn rereading(&mut self) {
        if !self.is_reloading {
            self.reloading();
        }
    }

    /// The reload came to an end, one way or the other: the server is what it was before, or better.
    pub(super) fn reloaded(&mut self) {
        if self.is_reloading && self.is_ready {
            self.ready();
        }
    }

    pub(super) fn stopping(&mut self) {
        self.say("STOPPING=1".to_owned());
    }

    /// Says what has changed, and that the loop turns.
    pub(super) fn tend(&mut self, status: Status, now: Instant) {
        if self.status != Some(status) {
            let Status { serving, wanted, generation } = status;
            self.status = Some(status);
            self.say(format!("STATUS={serving} of {wanted} workers serve, generation {generation}"));
        }
        if let Some(every) = self.beat_every
            && now >= self.next_beat
        {
            self.next_beat = now + every;
            self.say("WATCHDOG=1".to_owned());
        }
        self.send(now);
    }

    /// When to tend it again.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.line.as_ref()?;
        let retry = (!self.waiting.is_empty()).then_some(self.next_try);
        self.beat_every.map(|_| self.next_beat).into_iter().chain(retry).min()
    }

    fn say(&mut self, message: String) {
        if self.line.is_some() && !self.is_silent {
            if self.waiting.len() == MAX_WAITING {
                self.waiting.pop_front();
            }
            self.waiting.push_back(message);
            self.send(Instant::now());
        }
    }

    /// Sends what waits, in order, until there is no room.
    fn send(&mut self, now: Instant) {
        let Some((socket, addr)) = &self.line else { return };
        while let Some(message) = self.waiting.front() {
            match socket.send_to_addr(message.as_bytes(), addr) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.next_try = now + RETRY;
                    return;
                }
                // One that nobody takes is not worth keeping.
                Ok(_) | Err(_) => self.waiting.pop_front(),
            };
        }
    }
}

/// A name that begins with @ is in the abstract namespace (unix(7)).
fn open(name: &str) -> io::Result<(UnixDatagram, SocketAddr)> {
    let addr = match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, addr))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(serving: usize) -> Status {
        Status { serving, wanted: 2, generation: 1 }
    }

    fn pair() -> (tempfile::TempDir, UnixDatagram, Notifier) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let systemd = UnixDatagram::bind(&path).unwrap();
        systemd.set_nonblocking(true).unwrap();
        let line = open(path.to_str().unwrap()).unwrap();
        (folder, systemd, Notifier::new(Some(line), None))
    }

    fn heard(systemd: &UnixDatagram) -> Vec<String> {
        let mut buffer = [0; 4096];
        std::iter::from_fn(|| systemd.recv(&mut buffer).ok().map(|length| buffer[..length].to_vec()))
            .map(|bytes| String::from_utf8(bytes).unwrap())
            .collect()
    }

    #[test]
    fn a_status_is_told_once_until_it_changes() {
        let (_folder, systemd, mut notifier) = pair();
        let now = Instant::now();
        for serving in [0, 1, 1, 2, 2] {
            notifier.tend(status(serving), now);
        }
        let told: Vec<String> =
            (0..3).map(|serving| format!("STATUS={serving} of 2 workers serve, generation 1")).collect();
        assert_eq!(heard(&systemd), told);
        assert_eq!(notifier.next_deadline(), None);
    }

    #[test]
    fn it_beats_as_often_as_asked_and_asks_to_be_woken_for_it() {
        let (_folder, systemd, mut notifier) = pair();
        notifier.beat_every = Some(Duration::from_secs(5));
        let start = Instant::now();
        for second in 0..=10 {
            notifier.tend(status(1), start + Duration::from_secs(second));
        }
        let beats = heard(&systemd).into_iter().filter(|message| message == "WATCHDOG=1").count();
        assert_eq!(beats, 3, "at 0, 5 and 10 s");
        assert_eq!(notifier.next_deadline(), Some(start + Duration::from_secs(15)));
    }

    #[test]
    fn a_full_queue_neither_blocks_nor_loses_the_end_of_a_reload() {
        let (_folder, systemd, mut notifier) = pair();
        notifier.ready();
        while notifier.waiting.is_empty() {
            notifier.stopping();
        }
        notifier.reloading();
        notifier.reloaded();
        let now = Instant::now();
        assert!(notifier.next_deadline().is_some_and(|retry| retry <= now + RETRY));
        heard(&systemd);
        notifier.send(now);
        let told = heard(&systemd);
        let last: Vec<&str> =
            told.iter().rev().take(2).map(|told| told.split('\n').next().unwrap()).collect();
        assert_eq!(last, ["READY=1", "RELOADING=1"]);
    }

    #[test]
    fn nobody_is_told_where_nobody_listens() {
        let mut notifier = Notifier::mute();
        notifier.ready();
        notifier.tend(status(1), Instant::now());
        assert_eq!(notifier.next_deadline(), None);
        assert!(notifier.waiting.is_empty());
    }
}

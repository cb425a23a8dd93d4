//! Keeps the admin process: its addresses open, its line held, another one in its place when it is gone. The arbiter knows
//! nothing of it, for it serves nobody. Not here: what it answers, and what is done about its wishes.

use super::door::{Door, House};
use crate::config::{ADMIN_SUFFIX, CONTROL_SUFFIX, Settings};
use crate::control::{Ask, News, PACKET_BYTES, Told, What, Word};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use std::io::{self, ErrorKind};
use std::mem;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

/// The times between two starts of the process: doubled from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(30);
/// One that lived this long had no trouble at its start.
const SETTLED: Duration = Duration::from_secs(10);
/// How often the master says that its loop turns, while somebody is there to hear it.
pub(super) const BEAT: Duration = Duration::from_millis(500);
/// How long a process may take to hand on what it was told.
const HAND_ON: Duration = Duration::from_secs(1);
/// Packets that are taken from a line at a time: a process that sends without end holds the master up no longer.
const PACKETS_A_TURN: usize = 8;
/// Lines kept for those who wait for an outcome with a process that has been replaced; the oldest makes room.
const MAX_RETIRED: usize = 4;
/// So long a replaced process may take to say that it will wish no more.
const FAREWELL: Duration = Duration::from_secs(5);

pub(super) struct Keeper {
    http: Door,
    control: Door,
    line: Option<Line>,
    /// Of processes that were replaced, and with which somebody waits.
    retired: Vec<Line>,
    /// Counts the processes, so that one is not taken for another.
    serial: u64,
    /// When the process was last started.
    tried: Option<Instant>,
    pause: Duration,
    /// The server is the successor's, and its addresses with it.
    has_left: bool,
    /// When somebody who waits was last told something.
    told: Option<Instant>,
}

/// Our end of the line to a process, which has the number of its start.
struct Line {
    serial: u64,
    socket: UnixDatagram,
    /// Since when it is to end.
    retired: Option<Instant>,
    /// It has said that no more wishes come.
    is_done: bool,
    /// Nobody is at the other end, or nobody with sense.
    is_gone: bool,
}

/// What a new process starts with.
pub(super) struct Outfit {
    pub(super) http: Option<OwnedFd>,
    pub(super) control: Option<OwnedFd>,
    pub(super) line: UnixDatagram,
}

impl Keeper {
    pub(super) fn new() -> Keeper {
        Keeper {
            http: Door::new("admin", "admin.bind", ADMIN_SUFFIX),
            control: Door::new("control", "admin.control", CONTROL_SUFFIX),
            line: None,
            retired: Vec::new(),
            serial: 0,
            tried: None,
            pause: FIRST_PAUSE,
            has_left: false,
            told: None,
        }
    }

    /// The number of the process that should be there.
    pub(super) fn serial(&self) -> u64 {
        self.serial
    }

    /// Opens the addresses, where that is due, and gives what a new process starts with, if there should be one and none
    /// `is_alive`.
    pub(super) fn tend(
        &mut self,
        settings: &Settings,
        house: House<'_>,
        is_alive: bool,
        now: Instant,
    ) -> Option<io::Result<Outfit>> {
        if self.has_left {
            return None;
        }
        let changed = self.http.tend(&settings.admin.bind, house, now)
            | self.control.tend(&settings.admin.control, house, now);
        if changed {
            self.replace();
        }
        let is_alive = is_alive && !changed;
        if is_alive && self.tried.is_some_and(|since| now >= since + SETTLED) {
            self.pause = FIRST_PAUSE;
        }
        if is_alive || self.is_off() || now < self.next_start(now) {
            return None;
        }
        self.pause =
            if self.tried.is_some() { self.pause * 2 } else { FIRST_PAUSE }.clamp(FIRST_PAUSE, LAST_PAUSE);
        self.tried = Some(now);
        self.serial += 1;
        Some(self.start())
    }

    fn start(&mut self) -> io::Result<Outfit> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        let outfit = Outfit { http: self.http.share()?, control: self.control.share()?, line: theirs.into() };
        self.line = Some(Line {
            serial: self.serial,
            socket: ours.into(),
            retired: None,
            is_done: false,
            is_gone: false,
        });
        Ok(outfit)
    }

    fn is_off(&self) -> bool {
        !self.http.is_open() && !self.control.is_open()
    }

    fn next_start(&self, now: Instant) -> Instant {
        self.tried.map_or(now, |tried| tried + self.pause)
    }

    /// Another master has taken over.
    pub(super) fn has_left(&self) -> bool {
        self.has_left
    }

    /// When to tend it again.
    pub(super) fn next_deadline(&self, is_alive: bool, now: Instant) -> Option<Instant> {
        if self.has_left {
            return None;
        }
        let doors = [self.http.next_try(), self.control.next_try()].into_iter().flatten();
        let start = (!is_alive && !self.is_off()).then(|| self.next_start(now));
        let beat = (!self.is_off()).then(|| now + BEAT);
        doors.chain(start).chain(beat).min()
    }

    /// What may be readable.
    pub(super) fn lines(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.line.iter().chain(&self.retired).map(|line| line.socket.as_fd())
    }

    /// What came over the lines, with the number of each; `None`: that line has ended.
    pub(super) fn hear(&mut self) -> Vec<(u64, Option<Ask>)> {
        let mut heard = Vec::new();
        for line in self.line.iter_mut().chain(&mut self.retired) {
            for _ in 0..PACKETS_A_TURN {
                let mut packet = [0; PACKET_BYTES];
                match line.socket.recv(&mut packet) {
                    Ok(0) => line.is_gone = true,
                    Ok(bytes) => match Ask::from_packet(&packet[..bytes]) {
                        Some(Ask { what: What::Farewell, .. }) => line.is_done = true,
                        Some(ask) => heard.push((line.serial, Some(ask))),
                        None => line.is_gone = true,
                    },
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(_) => line.is_gone = true,
                }
                if line.is_gone {
                    heard.push((line.serial, None));
                    break;
                }
            }
        }
        self.line.take_if(|line| line.is_gone);
        self.retired.retain(|line| !line.is_gone);
        heard
    }

    /// Tells whoever waits; a process that does not read does not hear it.
    pub(super) fn tell(&mut self, line: u64, ticket: u32, news: News) {
        self.told = Some(Instant::now());
        if let Some(line) = self.line.iter().chain(&self.retired).find(|of| of.serial == line) {
            line.say(&Word::Told(Told { ticket, news }));
        }
    }

    /// Has the process open its log anew.
    pub(super) fn reopen_log(&self) {
        self.line.iter().for_each(|line| line.say(&Word::Reopen));
    }

    /// The process has the settings of a generation that is over: it takes no more, and another one takes its place at once. It
    /// stays for those who wait with it.
    pub(super) fn replace(&mut self) {
        if let Some(mut line) = self.line.take() {
            line.say(&Word::Retire);
            line.retired = Some(Instant::now());
            if self.retired.len() >= MAX_RETIRED {
                self.retired.remove(0);
            }
            self.retired.push(line);
        }
        self.serial += 1;
        self.tried = None;
    }

    /// Ends the lines of replaced processes with which nobody waits any more.
    pub(super) fn let_go(&mut self, has_any: impl Fn(u64) -> bool, now: Instant) {
        self.retired.retain(|line| {
            let is_over = line.is_done || line.retired.is_none_or(|since| now >= since + FAREWELL);
            has_any(line.serial) || !is_over
        });
    }

    /// Whether something may still be on its way to somebody who waits.
    pub(super) fn hands_on(&self, now: Instant) -> bool {
        self.told.is_some_and(|told| now < told + HAND_ON)
    }

    /// The process leaves and the addresses are free for somebody else, for good.
    pub(super) fn leave(&mut self) {
        self.has_left = true;
        self.line = None;
        self.retired.clear();
        self.serial += 1;
        self.http.close();
        self.control.close();
    }

    /// For a child: its copies close, and the sockets' files stay.
    pub(super) fn close(&mut self) {
        self.http.leave();
        self.control.leave();
        self.line = None;
        mem::take(&mut self.retired);
    }
}

impl Line {
    /// Where there is no room, it is lost: the master waits for nobody.
    fn say(&self, word: &Word) {
        if self.socket.send(&word.to_packet()).is_err_and(|error| error.kind() == ErrorKind::WouldBlock) {
            log::warn!("admin does not read what it is told");
        }
    }
}

//! What the master writes on the board about the server and about who sits where, for a process that only reads.
//! Not here: what workers write.

use super::now_millis;
use super::reload::Kept;
use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// Why a worker ended: the kinds of causes that its obituary gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Reason {
    /// It did as it was told, or had asked for.
    Left,
    /// It exited with another code than 0.
    Failed,
    Panicked,
    /// By a signal that the master did not send: its own fault, or somebody's.
    Killed,
    OutOfMemory,
    /// The master ran out of patience with its event loop.
    Timeout,
    BootTimeout,
    GracefulTimeout,
    QuickStop,
}

impl Reason {
    pub(crate) const ALL: [Reason; 9] = [
        Reason::Left,
        Reason::Failed,
        Reason::Panicked,
        Reason::Killed,
        Reason::OutOfMemory,
        Reason::Timeout,
        Reason::BootTimeout,
        Reason::GracefulTimeout,
        Reason::QuickStop,
    ];
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::Left => "left",
            Reason::Failed => "failed",
            Reason::Panicked => "panicked",
            Reason::Killed => "killed",
            Reason::OutOfMemory => "out_of_memory",
            Reason::Timeout => "timeout",
            Reason::BootTimeout => "boot_timeout",
            Reason::GracefulTimeout => "graceful_timeout",
            Reason::QuickStop => "quick_stop",
        })
    }
}

/// The server as a whole.
#[derive(Default)]
#[repr(C, align(128))]
pub(super) struct Head {
    /// Not taken back: the server is about to stop.
    pub(super) leaving: AtomicU32,
    /// Seats from here on were never taken.
    pub(super) seats_used: AtomicU32,
    /// Reloads that came to an end.
    pub(super) reloads: AtomicU64,
    pub(super) reloads_adopted: AtomicU64,
    pub(super) reloads_refused: AtomicU64,
    pub(super) last_reload: Kept,
    /// Odd while what a dead worker counted is being moved.
    pub(super) folds: AtomicU64,
    /// What is logged, in place of the settings' word: a level as a number, and one more; 0: as the settings say.
    pub(super) level: AtomicU32,
    pub(super) ends: [AtomicU64; Reason::ALL.len()],
    generation: AtomicU64,
    workers_wanted: AtomicU32,
    stopping: AtomicU32,
    reloading: AtomicU32,
    succeeded: AtomicU32,
    started: AtomicU64,
    beat: AtomicU64,
}

/// How things stand, by the master's last word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) generation: u64,
    pub(crate) workers_wanted: u32,
    pub(crate) is_stopping: bool,
    /// New settings are on trial.
    pub(crate) is_reloading: bool,
    /// Another master has taken its place.
    pub(crate) is_succeeded: bool,
    /// When the server started and when this was said, on the clock of `now_millis`.
    pub(crate) started: u64,
    pub(crate) said: u64,
}

impl Head {
    pub(super) fn write_standing(&self, standing: &Standing) {
        self.generation.store(standing.generation, Relaxed);
        self.workers_wanted.store(standing.workers_wanted, Relaxed);
        self.succeeded.store(u32::from(standing.is_succeeded), Relaxed);
        self.stopping.store(u32::from(standing.is_stopping), Relaxed);
        self.reloading.store(u32::from(standing.is_reloading), Relaxed);
        self.started.store(standing.started, Relaxed);
        self.beat.store(standing.said, Relaxed);
    }

    pub(super) fn read_standing(&self) -> Standing {
        Standing {
            generation: self.generation.load(Relaxed),
            workers_wanted: self.workers_wanted.load(Relaxed),
            is_stopping: self.stopping.load(Relaxed) != 0,
            is_reloading: self.reloading.load(Relaxed) != 0,
            is_succeeded: self.succeeded.load(Relaxed) != 0,
            started: self.started.load(Relaxed),
            said: self.beat.load(Relaxed),
        }
    }
}

/// Who sits on a seat. The master writes it, and never reads it: a worker might have written here.
#[derive(Default)]
#[repr(C, align(64))]
pub(crate) struct Tenure {
    pid: AtomicU32,
    generation: AtomicU64,
    /// On the clock of `now_millis`.
    since: AtomicU64,
}

impl Tenure {
    pub(crate) fn begin(&self, pid: u32, generation: u64) {
        self.since.store(now_millis(), Relaxed);
        self.generation.store(generation, Relaxed);
        self.pid.store(pid, Relaxed);
    }

    pub(super) fn clear(&self) {
        self.pid.store(0, Relaxed);
        self.since.store(0, Relaxed);
    }

    /// `None`: nobody sits here.
    pub(crate) fn pid(&self) -> Option<u32> {
        Some(self.pid.load(Relaxed)).filter(|pid| *pid != 0)
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Relaxed)
    }

    pub(crate) fn since(&self) -> u64 {
        self.since.load(Relaxed)
    }
}

//! What is said to the arbiter and what it answers: facts, orders, and their reasons. Not here: any rule.

use std::time::Duration;

pub(in crate::master) type SlotId = u32;
/// Counts the readings of the settings that were put to trial, from 1.
pub(in crate::master) type Generation = u64;
/// The generation that the server starts with.
pub(in crate::master) const FIRST_GENERATION: Generation = 1;

/// What the arbiter has to know of the settings. A zero duration switches a timeout off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::master) struct Policy {
    pub(in crate::master) workers: u32,
    pub(in crate::master) timeout: Duration,
    pub(in crate::master) graceful_timeout: Duration,
    pub(in crate::master) boot_timeout: Duration,
    /// How long serving goes on after a wish to drain.
    pub(in crate::master) lame_duck: Duration,
    /// After an upgrade both masters serve, until the operator decides.
    pub(in crate::master) upgrade_is_manual: bool,
}

/// A fact. Facts about a slot that the arbiter thinks vacant are ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::master) enum Event {
    // what the operator wants
    Reload,
    Grow,
    Shrink,
    /// So many workers are wanted.
    Resize(u32),
    Drain,
    Halt,
    Upgrade,
    /// Beside a successor: no workers, but be ready to have them again.
    Rest,
    // how the orders went
    /// The settings were read again; `None`: they were refused (the shell has said why).
    Reread(Option<Policy>),
    /// A fork failed: out of processes or memory.
    SpawnFailed(SlotId),
    // what the workers show
    Ready(SlotId),
    /// The heartbeat moved.
    Beat(SlotId),
    /// The worker asks for a successor (max_requests, a stuck call), or the operator does, and it serves on until that stands.
    Retiring(SlotId),
    /// The worker began to drain by itself (somebody sent it TERM).
    Leaving(SlotId),
    Exited {
        slot: SlotId,
        clean: bool,
    },
    /// The setup helper ended.
    SetUp(Setup),
    /// The master that an upgrade started has all its workers.
    SuccessorReady,
    /// It ended, or could not be started (the shell has said why).
    SuccessorGone,
}

/// What speaks against a wish, as things stand. Told to whoever wishes; a wish that comes all the same does no harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::master) enum Objection {
    Stopping,
    AboveMaximum {
        max: u32,
    },
    BelowMinimum,
    UpgradeUnderWay,
    /// Its slot is vacant, or its worker does not serve.
    NotServing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Setup {
    Done,
    /// The database was away; worth another try.
    Away,
    /// The script is wrong; no try will mend it.
    Wrong,
}

/// What the shell is to do. It is carried out in order, each within a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::master) enum Order {
    Spawn {
        slot: SlotId,
        generation: Generation,
        /// One more try of a step of back-off that the log has told of.
        quiet: bool,
    },
    /// Fork the setup helper.
    StartSetup,
    KillSetup,
    /// TERM: finish what is open, take nothing new.
    Drain {
        slot: SlotId,
        why: Why,
    },
    /// QUIT: leave now.
    Quit(SlotId),
    /// ABRT: silent too long; leaves a core where that is switched on.
    Abort {
        slot: SlotId,
        silent: Duration,
    },
    /// KILL: overdue.
    Kill {
        slot: SlotId,
        why: Overdue,
    },
    /// Read the settings again and answer with `Reread`.
    Reread,
    /// From now on this generation is the one that serves.
    Adopt(Generation),
    /// The trial of this generation failed; forget its settings.
    Reject(Generation, Rejection),
    /// Start the binary anew beside this master.
    StartSuccessor,
    /// It is not ready in time, or no longer wanted.
    KillSuccessor(Unwanted),
    /// The successor is the server now: to it go the pidfile and the sockets' files.
    HandOver,
    /// The master's own copies of the listeners.
    CloseListeners,
    /// A line for the log that goes with no other order.
    Say(Notice),
    Finish(Ending),
}

/// Why a worker is told to drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::master) enum Why {
    Stopping,
    Surplus,
    Outdated,
    Retiring,
}
/// What took too long, so that a worker is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::master) enum Overdue {
    Boot,
    Drain,
    Abort,
    Quit,
}
/// Why a new generation is not taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::master) enum Rejection {
    Died,
    NotReadyInTime,
    Stopping,
    SpawnFailed,
}
/// Why a successor is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::master) enum Unwanted {
    NotReadyInTime,
    Stopping,
}
/// News for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::master) enum Notice {
    /// The death of this slot was the `deaths`th in a row before ready (or soon after); the next start is `delay` away.
    BackOff {
        slot: SlotId,
        deaths: u32,
        delay: Duration,
    },
    AtMaximum {
        workers: u32,
    },
    AtMinimum,
    Resized {
        workers: u32,
    },
    ReloadDone(Generation),
    SetupRetry {
        delay: Duration,
    },
    /// For the first time as many serve as are wanted.
    Staffed,
    /// A slot keeps dying before ready, and fewer serve than are wanted.
    Degraded {
        serving: u32,
        wanted: u32,
    },
    /// As many serve as are wanted, again.
    Whole {
        workers: u32,
    },
    /// Serving goes on for so long; then the drain begins.
    LameDuck {
        time: Duration,
    },
    UpgradeIgnored,
    /// The successor ended before it was ready; what was, goes on.
    UpgradeFailed,
    /// The successor ended after it was ready.
    SuccessorLeft,
    /// Until the other master has left.
    ReloadPutOff,
    RestIgnored,
    Resting,
    /// The workers come back.
    Rested,
    /// Manual: both masters serve.
    Beside,
}
/// How the master ends; the shell makes it an exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::master) enum Ending {
    Stopped,
    NeverReady,
    SetupWrong,
}

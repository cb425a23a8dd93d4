//! A slot: what its worker is about, and what its end will mean. Not here: how many workers there should be.

use super::vocabulary::{Generation, Policy, Setup};
use std::time::{Duration, Instant};

/// Between a death before ready and the next start: this, doubled by each further death.
const BOOT_BACK_OFF: Duration = Duration::from_millis(100);
const BOOT_BACK_OFF_MAX: Duration = Duration::from_secs(30);
/// The same for deaths soon after ready, which are no fault of the start.
const EARLY_BACK_OFF_MAX: Duration = Duration::from_millis(500);
/// A worker that was ready for this long had no trouble: its end starts no series of deaths.
const SETTLED: Duration = Duration::from_secs(10);

/// Between ABRT and KILL: time to write a core.
pub(super) const ABORT_GRACE: Duration = Duration::from_secs(2);
/// Between QUIT and KILL.
pub(super) const QUIT_GRACE: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Vacant,
    /// To be started again, when its back-off is over.
    Waiting {
        until: Instant,
    },
    Booting {
        since: Instant,
    },
    Serving {
        heard: Instant,
        retiring: bool,
    },
    Draining {
        since: Instant,
    },
    Quitting {
        since: Instant,
    },
    Aborting {
        since: Instant,
    },
    /// Killed before it was ready: a death that counts, and its place is kept.
    KilledInBoot,
    Killed,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) state: State,
    pub(super) generation: Generation,
    /// When its worker became ready; kept until the next one starts.
    pub(super) ready_at: Option<Instant>,
    /// Deaths in a row, forks that failed among them: what the next back-off hangs on.
    pub(super) deaths: u32,
    /// Those of them that a worker died before it was ready.
    pub(super) boot_deaths: u32,
    /// The last back-off was one of a step that is known already.
    pub(super) quiet: bool,
}

impl Slot {
    pub(super) const VACANT: Slot =
        Slot { state: State::Vacant, generation: 0, ready_at: None, deaths: 0, boot_deaths: 0, quiet: false };

    pub(super) fn start(&mut self, generation: Generation, now: Instant) {
        *self = Slot {
            state: State::Booting { since: now },
            generation,
            deaths: self.deaths,
            boot_deaths: self.boot_deaths,
            quiet: self.quiet,
            ..Slot::VACANT
        };
    }

    pub(super) fn vacate(&mut self) {
        *self = Slot::VACANT;
    }

    /// When its worker was started, while it boots.
    pub(super) fn since(&self) -> Option<Instant> {
        if let State::Booting { since } = self.state { Some(since) } else { None }
    }

    pub(super) fn is_booting(&self) -> bool {
        matches!(self.state, State::Booting { .. })
    }

    pub(super) fn is_serving(&self) -> bool {
        matches!(self.state, State::Serving { .. })
    }

    pub(super) fn is_retiring(&self) -> bool {
        matches!(self.state, State::Serving { retiring: true, .. })
    }

    pub(super) fn is_waiting(&self) -> bool {
        matches!(self.state, State::Waiting { .. })
    }

    pub(super) fn has_worker(&self) -> bool {
        !matches!(self.state, State::Vacant | State::Waiting { .. })
    }

    /// Holds a place among the wanted: it serves, is on its way, or is to be started again.
    pub(super) fn is_staffed(&self) -> bool {
        match self.state {
            State::Waiting { .. } | State::Booting { .. } | State::Serving { .. } | State::KilledInBoot => {
                true
            }
            State::Vacant
            | State::Draining { .. }
            | State::Quitting { .. }
            | State::Aborting { .. }
            | State::Killed => false,
        }
    }

    /// Whether the end of its worker, now, is a death that counts.
    pub(super) fn is_death(&self) -> bool {
        match self.state {
            State::Booting { .. } => true,
            // A successor of one that retires stands or is coming.
            State::Serving { retiring, .. } => !retiring,
            State::KilledInBoot => true,
            // Wanted, or replaced already.
            State::Vacant
            | State::Waiting { .. }
            | State::Draining { .. }
            | State::Quitting { .. }
            | State::Aborting { .. }
            | State::Killed => false,
        }
    }

    /// Counts a death and has the slot wait for its next start; returns how long.
    pub(super) fn back_off(&mut self, now: Instant) -> Duration {
        let delay = match self.ready_at {
            Some(ready_at) if now.saturating_duration_since(ready_at) >= SETTLED => {
                self.deaths = 0;
                self.quiet = false;
                Duration::ZERO
            }
            ready_at => {
                let max = if ready_at.is_some() { EARLY_BACK_OFF_MAX } else { BOOT_BACK_OFF_MAX };
                self.deaths += 1;
                let delay = doubled(self.deaths - 1).min(max);
                // A step is a longer delay, or twice as many deaths as at the last one.
                let is_longer = delay > doubled(self.deaths.saturating_sub(2)).min(max);
                self.quiet = !is_longer && !self.deaths.is_power_of_two();
                delay
            }
        };
        self.state = State::Waiting { until: now + delay };
        delay
    }

    /// When the state must be looked at again, if nothing happens; `policy` is the one it was started under.
    pub(super) fn deadline(&self, policy: &Policy) -> Option<Instant> {
        match self.state {
            State::Vacant | State::KilledInBoot | State::Killed => None,
            State::Waiting { until } => Some(until),
            State::Booting { since } => after(since, policy.boot_timeout),
            State::Serving { heard, .. } => after(heard, policy.timeout),
            State::Draining { since } => after(since, policy.graceful_timeout),
            State::Quitting { since } => Some(since + QUIT_GRACE),
            State::Aborting { since } => Some(since + ABORT_GRACE),
        }
    }

    /// The world stood still for `gap`, until `now`: nobody is late for it.
    pub(super) fn forgive(&mut self, gap: Duration, now: Instant) {
        match &mut self.state {
            State::Vacant | State::KilledInBoot | State::Killed => {}
            State::Serving { heard, .. } => *heard = now,
            State::Waiting { until: at }
            | State::Booting { since: at }
            | State::Draining { since: at }
            | State::Quitting { since: at }
            | State::Aborting { since: at } => *at += gap,
        }
    }
}

/// The setup helper's turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Helper {
    /// Nothing to do, or done.
    Idle,
    /// To be started at `at`; workers wait only for the first try.
    Due {
        at: Instant,
        tries: u32,
    },
    Running {
        since: Instant,
        tries: u32,
    },
    Killed {
        tries: u32,
    },
}

impl Helper {
    /// No worker starts before the first try has ended.
    pub(super) fn holds_workers(self) -> bool {
        matches!(
            self,
            Helper::Due { tries: 0, .. } | Helper::Running { tries: 0, .. } | Helper::Killed { tries: 0 }
        )
    }

    pub(super) fn is_alive(self) -> bool {
        matches!(self, Helper::Running { .. } | Helper::Killed { .. })
    }

    pub(super) fn deadline(self, policy: &Policy) -> Option<Instant> {
        match self {
            Helper::Idle | Helper::Killed { .. } => None,
            Helper::Due { at, .. } => Some(at),
            Helper::Running { since, .. } => after(since, policy.boot_timeout),
        }
    }

    /// What follows an end of the helper; the delay, if it is to run again.
    pub(super) fn ended(self, outcome: Setup, now: Instant) -> (Helper, Option<Duration>) {
        match (self, outcome) {
            (Helper::Running { tries, .. } | Helper::Killed { tries }, Setup::Away) => {
                let delay = doubled(tries).min(BOOT_BACK_OFF_MAX);
                (Helper::Due { at: now + delay, tries: tries + 1 }, Some(delay))
            }
            (_, Setup::Away | Setup::Done | Setup::Wrong) => (Helper::Idle, None),
        }
    }

    pub(super) fn forgive(&mut self, gap: Duration) {
        match self {
            Helper::Idle | Helper::Killed { .. } => {}
            Helper::Due { at, .. } | Helper::Running { since: at, .. } => *at += gap,
        }
    }
}

/// The master that an upgrade has started, as this one sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Successor {
    None,
    Wished,
    Starting {
        since: Instant,
    },
    /// It serves.
    Beside,
    Killed,
}

impl Successor {
    pub(super) fn is_there(self) -> bool {
        !matches!(self, Successor::None | Successor::Wished)
    }

    /// A child of this master that is to end before it.
    pub(super) fn holds_the_end(self) -> bool {
        matches!(self, Successor::Starting { .. } | Successor::Killed)
    }

    pub(super) fn forgive(&mut self, gap: Duration) {
        if let Successor::Starting { since } = self {
            *since += gap;
        }
    }

    pub(super) fn deadline(self, policy: &Policy) -> Option<Instant> {
        match self {
            Successor::Starting { since } => after(since, policy.boot_timeout),
            Successor::None | Successor::Wished | Successor::Beside | Successor::Killed => None,
        }
    }
}

fn doubled(times: u32) -> Duration {
    BOOT_BACK_OFF.saturating_mul(1_u32.checked_shl(times).unwrap_or(u32::MAX))
}

/// A timeout of zero is switched off.
fn after(since: Instant, timeout: Duration) -> Option<Instant> {
    (!timeout.is_zero()).then(|| since + timeout)
}

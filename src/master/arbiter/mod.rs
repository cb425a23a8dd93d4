//! The core: every decision of the master, as a function of what was observed. It knows slots, never pids; it is told
//! the time, and asks nobody. Not here: anything that could fail.
//!
//! One rule carries resizes, reloads and successions: *while fewer are fresh than wanted, start one; while more serve
//! than wanted, the stalest drains*. Nothing drains before its successor is ready.

mod slot;
mod vocabulary;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

pub(crate) use vocabulary::Setup;
pub(super) use vocabulary::*;

use slot::{Helper, Slot, State};
use std::time::{Duration, Instant};

/// When nothing has ever served, a slot's death before ready of this number ends the server.
const DEATHS_TO_GIVE_UP: u32 = 4;
/// Asked later than announced by more than this, the arbiter concludes that it was stopped, or the machine frozen.
const FROZEN: Duration = Duration::from_secs(1);

/// Decides what the master does.
pub(super) struct Arbiter {
    policy: Policy,
    max_workers: u32,
    wanted: u32,
    generation: Generation,
    slots: Vec<Slot>,
    trial: Option<Trial>,
    reload: Reload,
    next_generation: Generation,
    helper: Helper,
    stop: Option<Stop>,
    listeners_closed: bool,
    finished: bool,
    ever_ready: bool,
    /// A generation was adopted, and its predecessor has not left yet.
    rolling: bool,
    notices: Vec<Notice>,
    /// When the arbiter was last asked.
    asked: Instant,
}

/// A generation that has one worker, to show that it can serve.
struct Trial {
    generation: Generation,
    policy: Policy,
    canary: Option<usize>,
    failed: Option<Rejection>,
}

/// Wishes to reload: those that came while one was read or on trial become one.
#[derive(Default)]
struct Reload {
    wished: bool,
    being_read: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    Drain,
    Quit(Ending),
}

impl Arbiter {
    /// `slots` is the size of the board, at least 2 × `max_workers`.
    pub(super) fn new(policy: Policy, max_workers: u32, slots: u32, setup: bool, now: Instant) -> Arbiter {
        Arbiter {
            policy,
            max_workers,
            wanted: policy.workers,
            generation: FIRST_GENERATION,
            slots: vec![Slot::VACANT; slots as usize],
            trial: None,
            reload: Reload::default(),
            next_generation: FIRST_GENERATION + 1,
            helper: if setup { Helper::Due { at: now, tries: 0 } } else { Helper::Idle },
            stop: None,
            listeners_closed: false,
            finished: false,
            ever_ready: false,
            rolling: false,
            notices: Vec::new(),
            asked: now,
        }
    }

    /// Records a fact, and decides nothing.
    pub(super) fn observe(&mut self, event: Event, now: Instant) {
        match event {
            Event::Reload => self.reload.wished = true,
            Event::Grow if self.wanted < self.max_workers => self.resize(self.wanted + 1),
            Event::Grow => self.notices.push(Notice::AtMaximum { workers: self.wanted }),
            Event::Shrink if self.wanted > 1 => self.resize(self.wanted - 1),
            Event::Shrink => self.notices.push(Notice::AtMinimum),
            Event::Drain => self.stop = self.stop.or(Some(Stop::Drain)),
            Event::Halt => {
                if matches!(self.stop, None | Some(Stop::Drain)) {
                    self.stop = Some(Stop::Quit(Ending::Stopped));
                }
            }
            Event::Reread(read) => self.read_again(read),
            Event::SpawnFailed(slot) => self.spawn_failed(slot as usize, now),
            Event::Ready(slot) => self.ready(slot as usize, now),
            Event::Beat(slot) => {
                if let State::Serving { heard, .. } = &mut self.slots[slot as usize].state {
                    *heard = now;
                }
            }
            Event::Retiring(slot) => {
                if let State::Serving { retiring, .. } = &mut self.slots[slot as usize].state {
                    *retiring = true;
                }
            }
            Event::Leaving(id) => {
                let slot = &mut self.slots[id as usize];
                if slot.is_serving() || slot.is_booting() {
                    slot.state = State::Draining { since: now };
                    self.fail_trial_of(id as usize, Rejection::Died);
                }
            }
            Event::Exited { slot, clean } => self.exited(slot as usize, clean, now),
            Event::SetUp(outcome) => self.set_up(outcome, now),
        }
    }

    /// Compares what is with what should be. Asked twice without news, it orders nothing the second time.
    #[must_use]
    pub(super) fn decide(&mut self, now: Instant) -> Vec<Order> {
        self.forgive_a_freeze(now);
        let mut orders: Vec<Order> = self.notices.drain(..).map(Order::Say).collect();
        self.end_the_overdue(now, &mut orders);
        match self.stop {
            Some(stop) => self.wind_up(stop, now, &mut orders),
            None => {
                self.judge_the_trial(&mut orders);
                self.help_the_database(now, &mut orders);
                self.drain_the_stale(now, &mut orders);
                self.staff(now, &mut orders);
                self.start_the_canary(now, &mut orders);
            }
        }
        self.asked = now;
        orders
    }

    /// How many workers there should be.
    pub(super) fn wanted(&self) -> u32 {
        self.wanted
    }

    /// When to ask again if nothing happens; `None`: never.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let deadlines = self.slots.iter().filter_map(|slot| slot.deadline(self.policy_of(slot)));
        deadlines.chain(self.helper.deadline(&self.policy)).chain(self.next_look()).min()
    }

    /// Heartbeats are only noticed when somebody looks; without looks between, silence would count from too late.
    fn next_look(&self) -> Option<Instant> {
        let watched = !self.policy.timeout.is_zero() && self.slots.iter().any(Slot::is_serving);
        watched.then(|| self.asked + self.policy.timeout / 4)
    }

    fn policy_of(&self, slot: &Slot) -> &Policy {
        match &self.trial {
            Some(trial) if trial.generation == slot.generation => &trial.policy,
            Some(_) | None => &self.policy,
        }
    }

    // Facts

    fn resize(&mut self, workers: u32) {
        self.wanted = workers;
        self.notices.push(Notice::Resized { workers });
    }

    fn read_again(&mut self, read: Option<Policy>) {
        self.reload.being_read = false;
        if let Some(policy) = read {
            let generation = self.next_generation;
            self.next_generation += 1;
            self.trial = Some(Trial { generation, policy, canary: None, failed: None });
        }
    }

    fn ready(&mut self, slot: usize, now: Instant) {
        let slot = &mut self.slots[slot];
        if slot.is_booting() {
            slot.state = State::Serving { heard: now, retiring: false };
            slot.ready_at = Some(now);
            self.ever_ready = true;
        }
    }

    fn spawn_failed(&mut self, at: usize, now: Instant) {
        if self.slots[at].is_booting() && !self.fails_trial(at, Rejection::SpawnFailed) {
            self.wait_for_next_start(at, now);
        }
    }

    fn exited(&mut self, at: usize, clean: bool, now: Instant) {
        let slot = self.slots[at];
        if !slot.has_worker() || self.fails_trial(at, Rejection::Died) {
            return;
        }
        // A successor of one that was retiring or outdated stands or is coming: nothing is started in its place.
        let counts = slot.is_death(clean) && slot.generation == self.generation && !slot.is_retiring();
        if !counts || self.stop.is_some() {
            self.slots[at].vacate();
            return;
        }
        self.wait_for_next_start(at, now);
        self.slots[at].boot_deaths += 1;
        let gives_up = !self.ever_ready && self.slots[at].boot_deaths >= DEATHS_TO_GIVE_UP;
        if gives_up && self.trial.is_none() {
            self.stop = Some(Stop::Quit(Ending::NeverReady));
        }
    }

    fn wait_for_next_start(&mut self, at: usize, now: Instant) {
        let delay = self.slots[at].back_off(now);
        if !delay.is_zero() {
            self.notices.push(Notice::BackOff { slot: at as u32, deaths: self.slots[at].deaths, delay });
        }
    }

    /// If the slot is the trial's, its failure is the trial's.
    fn fail_trial_of(&mut self, at: usize, rejection: Rejection) {
        if let Some(trial) = self.trial.as_mut().filter(|trial| trial.canary == Some(at)) {
            trial.failed.get_or_insert(rejection);
        }
    }

    /// Whether the slot was the trial's; its end is the trial's.
    fn fails_trial(&mut self, at: usize, rejection: Rejection) -> bool {
        match &mut self.trial {
            Some(trial) if trial.canary == Some(at) => {
                trial.failed.get_or_insert(rejection);
                self.slots[at].vacate();
                true
            }
            Some(_) | None => false,
        }
    }

    fn set_up(&mut self, outcome: Setup, now: Instant) {
        let (helper, retry) = self.helper.ended(outcome, now);
        self.helper = helper;
        self.notices.extend(retry.map(|delay| Notice::SetupRetry { delay }));
        if outcome == Setup::Wrong && self.stop.is_none() {
            self.stop = Some(Stop::Quit(Ending::SetupWrong));
        }
    }

    // Decisions

    fn forgive_a_freeze(&mut self, now: Instant) {
        let Some(announced) = self.next_deadline() else { return };
        if now.saturating_duration_since(announced) > FROZEN {
            // It may have begun right after the arbiter was last asked.
            let gap = now - self.asked;
            self.slots.iter_mut().for_each(|slot| slot.forgive(gap, now));
            self.helper.forgive(gap);
        }
    }

    fn end_the_overdue(&mut self, now: Instant, orders: &mut Vec<Order>) {
        for at in 0..self.slots.len() {
            let slot = self.slots[at];
            if slot.deadline(self.policy_of(&slot)).is_none_or(|deadline| now < deadline) {
                continue;
            }
            let id = at as u32;
            let (ended, order) = match slot.state {
                State::Vacant | State::Waiting { .. } | State::KilledInBoot | State::Killed => continue,
                State::Serving { heard, .. } => {
                    (State::Aborting { since: now }, Order::Abort { slot: id, silent: now - heard })
                }
                State::Booting { .. } => (State::KilledInBoot, Order::Kill { slot: id, why: Overdue::Boot }),
                State::Draining { .. } => (State::Killed, Order::Kill { slot: id, why: Overdue::Drain }),
                State::Quitting { .. } => (State::Killed, Order::Kill { slot: id, why: Overdue::Quit }),
                State::Aborting { .. } => (State::Killed, Order::Kill { slot: id, why: Overdue::Abort }),
            };
            self.slots[at].state = ended;
            orders.push(order);
            self.fail_trial_of(at, Rejection::NotReadyInTime);
        }
        if let Helper::Running { tries, .. } = self.helper
            && self.helper.deadline(&self.policy).is_some_and(|deadline| now >= deadline)
        {
            self.helper = Helper::Killed { tries };
            orders.push(Order::KillSetup);
        }
    }

    /// Everybody leaves; when all have left, the server has ended.
    fn wind_up(&mut self, stop: Stop, now: Instant, orders: &mut Vec<Order>) {
        if !std::mem::replace(&mut self.listeners_closed, true) {
            orders.push(Order::CloseListeners);
        }
        if let Some(trial) = self.trial.take() {
            orders.push(Order::Reject(trial.generation, trial.failed.unwrap_or(Rejection::Stopping)));
        }
        match self.helper {
            Helper::Running { tries, .. } => {
                self.helper = Helper::Killed { tries };
                orders.push(Order::KillSetup);
            }
            Helper::Due { .. } => self.helper = Helper::Idle,
            Helper::Idle | Helper::Killed { .. } => {}
        }
        for at in 0..self.slots.len() {
            self.dismiss(at, stop, now, orders);
        }
        let all_left = !self.helper.is_alive() && !self.slots.iter().any(Slot::has_worker);
        if all_left && !std::mem::replace(&mut self.finished, true) {
            orders.push(Order::Finish(match stop {
                Stop::Drain => Ending::Stopped,
                Stop::Quit(ending) => ending,
            }));
        }
    }

    fn dismiss(&mut self, at: usize, stop: Stop, now: Instant, orders: &mut Vec<Order>) {
        match (self.slots[at].state, stop) {
            (State::Vacant | State::Quitting { .. } | State::Aborting { .. }, _)
            | (State::KilledInBoot | State::Killed, _)
            | (State::Draining { .. }, Stop::Drain) => {}
            (State::Waiting { .. }, _) => self.slots[at].vacate(),
            (State::Booting { .. } | State::Serving { .. }, Stop::Drain) => {
                self.drain(at, Why::Stopping, now, orders);
            }
            (State::Booting { .. } | State::Serving { .. } | State::Draining { .. }, Stop::Quit(_)) => {
                self.slots[at].state = State::Quitting { since: now };
                orders.push(Order::Quit(at as u32));
            }
        }
    }

    fn judge_the_trial(&mut self, orders: &mut Vec<Order>) {
        if let Some(trial) = &self.trial {
            let canary = trial.canary.map(|at| self.slots[at]);
            if let Some(rejection) = trial.failed {
                orders.push(Order::Reject(trial.generation, rejection));
                self.trial = None;
            } else if canary.is_some_and(|slot| slot.is_serving()) {
                self.adopt(orders);
            }
        }
        if self.trial.is_none() && self.reload.wished && !self.reload.being_read {
            self.reload = Reload { wished: false, being_read: true };
            orders.push(Order::Reread);
        }
    }

    fn adopt(&mut self, orders: &mut Vec<Order>) {
        let Some(trial) = self.trial.take() else { return };
        if trial.policy.workers != self.policy.workers {
            self.wanted = trial.policy.workers.min(self.max_workers);
        }
        self.policy = trial.policy;
        self.generation = trial.generation;
        self.rolling = true;
        orders.push(Order::Adopt(trial.generation));
        // What waits to be started again was of the generation before.
        for slot in &mut self.slots {
            if slot.is_waiting() {
                slot.vacate();
            }
        }
    }

    fn help_the_database(&mut self, now: Instant, orders: &mut Vec<Order>) {
        if let Helper::Due { at, tries } = self.helper
            && now >= at
        {
            self.helper = Helper::Running { since: now, tries };
            orders.push(Order::StartSetup);
        }
    }

    /// Starts what is missing, drops what is too much and does not serve yet.
    fn staff(&mut self, now: Instant, orders: &mut Vec<Order>) {
        if self.helper.holds_workers() {
            return;
        }
        for at in 0..self.slots.len() {
            if self.slots[at].is_booting() && self.slots[at].generation < self.generation {
                self.drain(at, Why::Outdated, now, orders);
            }
        }
        let wanted = self.wanted as usize;
        while self.staffed() > wanted {
            if let Some(at) = self.slots.iter().rposition(Slot::is_waiting) {
                self.slots[at].vacate();
            } else if let Some(at) = self.youngest_booting() {
                self.drain(at, Why::Surplus, now, orders);
            } else {
                break;
            }
        }
        for at in 0..self.slots.len() {
            if matches!(self.slots[at].state, State::Waiting { until } if until <= now) {
                self.spawn(at, self.generation, now, orders);
            }
        }
        while self.staffed() < wanted {
            let Some(at) = self.slots.iter().position(|slot| slot.state == State::Vacant) else { break };
            self.spawn(at, self.generation, now, orders);
        }
    }

    /// While more serve than wanted, the stalest drains.
    fn drain_the_stale(&mut self, now: Instant, orders: &mut Vec<Order>) {
        let serving = |slot: &&Slot| slot.is_serving() && slot.generation <= self.generation;
        let mut count = self.slots.iter().filter(serving).count();
        while count > self.wanted as usize {
            let Some((at, why)) = self.stalest() else { break };
            self.drain(at, why, now, orders);
            count -= 1;
        }
        let outdated = self.slots.iter().any(|slot| slot.is_serving() && slot.generation < self.generation);
        let fresh =
            self.slots.iter().filter(|slot| slot.is_serving() && slot.generation == self.generation).count();
        if self.rolling && !outdated && fresh >= self.wanted as usize {
            self.rolling = false;
            orders.push(Order::Say(Notice::ReloadDone(self.generation)));
        }
    }

    /// Which serving worker goes first: one that asked to, one of an earlier generation, the oldest.
    fn stalest(&self) -> Option<(usize, Why)> {
        let rank = |slot: &Slot| {
            let why = if slot.is_retiring() {
                Why::Retiring
            } else if slot.generation < self.generation {
                Why::Outdated
            } else {
                Why::Surplus
            };
            (why != Why::Retiring, why != Why::Outdated, slot.ready_at, why)
        };
        let serving = self.slots.iter().enumerate();
        let serving = serving.filter(|(_, slot)| slot.is_serving() && slot.generation <= self.generation);
        serving
            .map(|(at, slot)| (rank(slot), at))
            .min_by_key(|((retired, outdated, ready_at, _), at)| (*retired, *outdated, *ready_at, *at))
            .map(|((_, _, _, why), at)| (at, why))
    }

    /// How many of the current generation stand or are on their way. Of those that retire, one at a time does not count.
    fn staffed(&self) -> usize {
        let of_now = |slot: &&Slot| slot.generation == self.generation;
        let standing = self.slots.iter().filter(of_now).filter(|slot| slot.is_staffed()).count();
        let retiring = self.slots.iter().filter(of_now).any(Slot::is_retiring);
        standing - usize::from(retiring)
    }

    /// Last of all: the slot that it needs may only just have become vacant.
    fn start_the_canary(&mut self, now: Instant, orders: &mut Vec<Order>) {
        if self.helper.holds_workers() {
            return;
        }
        if let Some(trial) = self.trial.as_mut().filter(|trial| trial.canary.is_none())
            && let Some(at) = self.slots.iter().position(|slot| slot.state == State::Vacant)
        {
            trial.canary = Some(at);
            let generation = trial.generation;
            self.spawn(at, generation, now, orders);
        }
    }

    fn youngest_booting(&self) -> Option<usize> {
        let booting = self.slots.iter().enumerate();
        let booting = booting.filter(|(_, slot)| slot.is_booting() && slot.generation == self.generation);
        booting.max_by_key(|(at, slot)| (slot.since(), *at)).map(|(at, _)| at)
    }

    fn spawn(&mut self, at: usize, generation: Generation, now: Instant, orders: &mut Vec<Order>) {
        self.slots[at].start(generation, now);
        orders.push(Order::Spawn { slot: at as u32, generation });
    }

    fn drain(&mut self, at: usize, why: Why, now: Instant, orders: &mut Vec<Order>) {
        self.slots[at].state = State::Draining { since: now };
        orders.push(Order::Drain { slot: at as u32, why });
    }
}

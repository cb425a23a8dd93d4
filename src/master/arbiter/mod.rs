//! The core: every decision of the master, as a function of what was observed. It knows slots, never pids; it is told
//! the time, and asks nobody. Not here: anything that could fail.
//!
//! One rule carries resizes, reloads and successions: *while fewer are fresh than wanted, start one; while more serve
//! than wanted, the stalest drains*. Nothing drains before its successor is ready.

#[cfg(feature = "guards")]
mod guard;
mod slot;
mod staffing;
mod vocabulary;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

#[cfg(feature = "guards")]
pub(crate) use guard::calm;
pub(crate) use vocabulary::Setup;
pub(super) use vocabulary::*;

use slot::{Helper, Slot, State, Successor};
use std::time::{Duration, Instant};

/// When nothing has ever served, a slot's death before ready of this number ends the server.
const DEATHS_TO_GIVE_UP: u32 = 4;
/// So many deaths before ready in a row in one slot, and the server counts as degraded.
const DEATHS_TO_DEGRADE: u32 = 3;
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
    successor: Successor,
    /// Beside a successor, without workers.
    resting: bool,
    /// Since when a drain has been put off.
    lame: Option<Instant>,
    stop: Option<Stop>,
    listeners_closed: bool,
    finished: bool,
    ever_ready: bool,
    /// As many served as were wanted, once.
    staffed: bool,
    degraded: bool,
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
            successor: Successor::None,
            resting: false,
            lame: None,
            stop: None,
            listeners_closed: false,
            finished: false,
            ever_ready: false,
            staffed: false,
            degraded: false,
            rolling: false,
            notices: Vec::new(),
            asked: now,
        }
    }

    /// Records a fact, and decides nothing.
    pub(super) fn observe(&mut self, event: Event, now: Instant) {
        match event {
            Event::Reload if self.resting => self.wake(),
            Event::Reload => {
                self.reload.wished = true;
                if self.successor.is_there() {
                    self.notices.push(Notice::ReloadPutOff);
                }
            }
            Event::Grow if self.wanted < self.max_workers => self.resize(self.wanted + 1),
            Event::Grow => self.notices.push(Notice::AtMaximum { workers: self.wanted }),
            Event::Shrink if self.wanted > 1 => self.resize(self.wanted - 1),
            Event::Shrink => self.notices.push(Notice::AtMinimum),
            Event::Resize(0) => self.notices.push(Notice::AtMinimum),
            Event::Resize(workers) if workers <= self.max_workers => self.resize(workers),
            Event::Resize(_) => self.notices.push(Notice::AtMaximum { workers: self.wanted }),
            Event::Drain => self.drain_soon(now),
            Event::Halt => {
                if matches!(self.stop, None | Some(Stop::Drain)) {
                    self.stop = Some(Stop::Quit(Ending::Stopped));
                }
            }
            Event::Upgrade if self.successor == Successor::None && self.lame.is_none() => {
                self.successor = Successor::Wished;
            }
            Event::Upgrade => self.notices.push(Notice::UpgradeIgnored),
            Event::Rest if self.successor == Successor::Beside && !self.resting && self.stop.is_none() => {
                self.resting = true;
                self.notices.push(Notice::Resting);
            }
            Event::Rest => self.notices.push(Notice::RestIgnored),
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
            Event::Exited { slot, .. } => self.exited(slot as usize, now),
            Event::SetUp(outcome) => self.set_up(outcome, now),
            Event::SuccessorReady => self.succeeded(),
            Event::SuccessorGone => {
                self.notices.push(match self.successor {
                    Successor::Beside => Notice::SuccessorLeft,
                    Successor::None | Successor::Wished | Successor::Starting { .. } | Successor::Killed => {
                        Notice::UpgradeFailed
                    }
                });
                self.successor = Successor::None;
                if self.resting {
                    self.wake();
                }
            }
        }
    }

    /// Compares what is with what should be. Asked twice without news, it orders nothing the second time.
    #[must_use]
    pub(super) fn decide(&mut self, now: Instant) -> Vec<Order> {
        self.forgive_a_freeze(now);
        let mut orders: Vec<Order> = self.notices.drain(..).map(Order::Say).collect();
        self.end_the_overdue(now, &mut orders);
        if self.lame.is_some_and(|since| now >= since + self.policy.lame_duck) {
            self.stop = self.stop.or(Some(Stop::Drain));
        }
        match self.stop {
            Some(stop) => self.wind_up(stop, now, &mut orders),
            None => {
                self.judge_the_trial(&mut orders);
                self.help_the_database(now, &mut orders);
                self.drain_the_stale(now, &mut orders);
                self.staff(now, &mut orders);
                self.start_the_canary(now, &mut orders);
                self.start_the_successor(now, &mut orders);
                self.tell_how_many_serve(&mut orders);
            }
        }
        self.asked = now;
        orders
    }

    /// Why this wish would come to nothing now; `None` also for what is no wish.
    pub(super) fn objection(&self, event: Event) -> Option<Objection> {
        let is_leaving = self.stop.is_some() || self.lame.is_some();
        match event {
            Event::Reload | Event::Grow | Event::Shrink | Event::Resize(_) | Event::Upgrade if is_leaving => {
                Some(Objection::Stopping)
            }
            Event::Retiring(_) if is_leaving => Some(Objection::Stopping),
            Event::Grow if self.wanted >= self.max_workers => {
                Some(Objection::AboveMaximum { max: self.max_workers })
            }
            Event::Resize(workers) if workers > self.max_workers => {
                Some(Objection::AboveMaximum { max: self.max_workers })
            }
            Event::Shrink if self.wanted <= 1 => Some(Objection::BelowMinimum),
            Event::Resize(0) => Some(Objection::BelowMinimum),
            Event::Upgrade if self.successor != Successor::None => Some(Objection::UpgradeUnderWay),
            // The number is an operator's word, who may err.
            Event::Retiring(slot) if !self.slots.get(slot as usize).is_some_and(Slot::is_serving) => {
                Some(Objection::NotServing)
            }
            Event::Reload | Event::Grow | Event::Shrink | Event::Resize(_) | Event::Upgrade => None,
            Event::Drain | Event::Halt | Event::Rest | Event::Retiring(_) | Event::Leaving(_) => None,
            Event::Reread(_) | Event::SpawnFailed(_) | Event::Ready(_) | Event::Beat(_) => None,
            Event::Exited { .. } | Event::SetUp(_) | Event::SuccessorReady | Event::SuccessorGone => None,
        }
    }

    /// How many workers of the generation that serves do.
    pub(super) fn fresh(&self) -> u32 {
        self.slots.iter().filter(|slot| slot.is_serving() && slot.generation == self.generation).count()
            as u32
    }

    /// How many workers there should be.
    pub(super) fn wanted(&self) -> u32 {
        self.wanted
    }

    /// When to ask again if nothing happens; `None`: never.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let deadlines = self.slots.iter().filter_map(|slot| slot.deadline(self.policy_of(slot)));
        let lame = self.lame.filter(|_| self.stop.is_none()).map(|since| since + self.policy.lame_duck);
        let others = [self.helper.deadline(&self.policy), self.successor.deadline(&self.policy), lame];
        deadlines.chain(others.into_iter().flatten()).chain(self.next_look()).min()
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

    fn drain_soon(&mut self, now: Instant) {
        let is_put_off = self.lame.is_none() && self.stop.is_none() && !self.policy.lame_duck.is_zero();
        if is_put_off && self.successor != Successor::Beside {
            self.lame = Some(now);
            self.notices.push(Notice::LameDuck { time: self.policy.lame_duck });
        } else {
            self.stop = self.stop.or(Some(Stop::Drain));
        }
    }

    fn succeeded(&mut self) {
        // One that becomes ready after the wish to stop comes too late: it is to end too.
        let is_awaited = matches!(self.successor, Successor::Starting { .. });
        if !is_awaited || self.stop.is_some() || self.lame.is_some() {
            return;
        }
        self.successor = Successor::Beside;
        if self.policy.upgrade_is_manual {
            self.notices.push(Notice::Beside);
        } else {
            self.stop = self.stop.or(Some(Stop::Drain));
        }
    }

    fn wake(&mut self) {
        self.resting = false;
        self.notices.push(Notice::Rested);
    }

    /// How many workers there should be now.
    fn target(&self) -> usize {
        if self.resting { 0 } else { self.wanted as usize }
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
            slot.boot_deaths = 0;
            self.ever_ready = true;
        }
    }

    fn spawn_failed(&mut self, at: usize, now: Instant) {
        if self.slots[at].is_booting() && !self.fails_trial(at, Rejection::SpawnFailed) {
            self.wait_for_next_start(at, now);
        }
    }

    fn exited(&mut self, at: usize, now: Instant) {
        let slot = self.slots[at];
        if !slot.has_worker() || self.fails_trial(at, Rejection::Died) {
            return;
        }
        // A successor of one that was retiring or outdated stands or is coming: nothing is started in its place.
        let counts = slot.is_death() && slot.generation == self.generation;
        if !counts || self.stop.is_some() {
            self.slots[at].vacate();
            return;
        }
        self.wait_for_next_start(at, now);
        if self.slots[at].ready_at.is_none() {
            self.slots[at].boot_deaths += 1;
        }
        let gives_up = !self.ever_ready && self.slots[at].boot_deaths >= DEATHS_TO_GIVE_UP;
        if gives_up && self.trial.is_none() {
            self.stop = Some(Stop::Quit(Ending::NeverReady));
        }
    }

    fn wait_for_next_start(&mut self, at: usize, now: Instant) {
        let delay = self.slots[at].back_off(now);
        if !delay.is_zero() && !self.slots[at].quiet {
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
            self.successor.forgive(gap);
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
        if self.successor.deadline(&self.policy).is_some_and(|deadline| now >= deadline) {
            self.successor = Successor::Killed;
            orders.push(Order::KillSuccessor(Unwanted::NotReadyInTime));
        }
    }

    /// Everybody leaves; when all have left, the server has ended.
    fn wind_up(&mut self, stop: Stop, now: Instant, orders: &mut Vec<Order>) {
        if !std::mem::replace(&mut self.listeners_closed, true) {
            if self.successor == Successor::Beside {
                orders.push(Order::HandOver);
            }
            self.drop_the_successor(orders);
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
        let others = self.helper.is_alive() || self.successor.holds_the_end();
        let all_left = !others && !self.slots.iter().any(Slot::has_worker);
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
        // A successor reads the settings itself, and what was handed to it must not change meanwhile.
        let is_free = self.trial.is_none() && self.lame.is_none() && !self.successor.is_there();
        if is_free && self.reload.wished && !self.reload.being_read {
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

    /// An upgrade waits for a reload under way, and for the first workers; a server that is about to leave has none.
    fn start_the_successor(&mut self, now: Instant, orders: &mut Vec<Order>) {
        if self.lame.is_some() {
            return self.drop_the_successor(orders);
        }
        let is_busy = self.trial.is_some() || self.reload.being_read || self.rolling || !self.ever_ready;
        if self.successor == Successor::Wished && !is_busy {
            self.successor = Successor::Starting { since: now };
            orders.push(Order::StartSuccessor);
        }
    }

    /// Unless it serves already.
    fn drop_the_successor(&mut self, orders: &mut Vec<Order>) {
        match self.successor {
            Successor::Wished => {
                self.successor = Successor::None;
                orders.push(Order::Say(Notice::UpgradeIgnored));
            }
            Successor::Starting { .. } => {
                self.successor = Successor::Killed;
                orders.push(Order::KillSuccessor(Unwanted::Stopping));
            }
            Successor::None | Successor::Beside | Successor::Killed => {}
        }
    }

    /// What changed in whether as many serve as are wanted.
    fn tell_how_many_serve(&mut self, orders: &mut Vec<Order>) {
        let serving = self.slots.iter().filter(|slot| slot.is_serving()).count();
        if serving >= self.wanted as usize {
            if !std::mem::replace(&mut self.staffed, true) {
                orders.push(Order::Say(Notice::Staffed));
            }
            if std::mem::replace(&mut self.degraded, false) {
                orders.push(Order::Say(Notice::Whole { workers: self.wanted }));
            }
        } else if self.ever_ready
            && !self.resting
            && self.slots.iter().any(|slot| slot.boot_deaths >= DEATHS_TO_DEGRADE)
            && !std::mem::replace(&mut self.degraded, true)
        {
            orders.push(Order::Say(Notice::Degraded { serving: serving as u32, wanted: self.wanted }));
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
}

//! How many workers there are: what is missing is started, what is too much drains. Not here: why a number is wanted.

use super::slot::{Slot, State};
use super::{Arbiter, Generation, Notice, Order, Why};
use std::time::Instant;

impl Arbiter {
    /// Starts what is missing, drops what is too much and does not serve yet.
    pub(super) fn staff(&mut self, now: Instant, orders: &mut Vec<Order>) {
        if self.helper.holds_workers() {
            return;
        }
        for at in 0..self.slots.len() {
            if self.slots[at].is_booting() && self.slots[at].generation < self.generation {
                self.drain(at, Why::Outdated, now, orders);
            }
        }
        let wanted = self.target();
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
    pub(super) fn drain_the_stale(&mut self, now: Instant, orders: &mut Vec<Order>) {
        let serving = |slot: &&Slot| slot.is_serving() && slot.generation <= self.generation;
        let mut count = self.slots.iter().filter(serving).count();
        while count > self.target() {
            let Some((at, why)) = self.stalest() else { break };
            self.drain(at, why, now, orders);
            count -= 1;
        }
        // As no more serve than are wanted, none of an earlier generation is left then.
        if self.rolling && self.fresh() >= self.wanted {
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
    pub(super) fn start_the_canary(&mut self, now: Instant, orders: &mut Vec<Order>) {
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
        let quiet = self.slots[at].quiet;
        self.slots[at].start(generation, now);
        orders.push(Order::Spawn { slot: at as u32, generation, quiet });
    }

    pub(super) fn drain(&mut self, at: usize, why: Why, now: Instant, orders: &mut Vec<Order>) {
        self.slots[at].state = State::Draining { since: now };
        orders.push(Order::Drain { slot: at as u32, why });
    }
}

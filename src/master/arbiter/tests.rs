//! The rules as stories on a pretend clock: at a time, these facts, and exactly these orders.

mod death;
mod reload;
mod setup;
mod staffing;
mod stop;
mod upgrade;

use super::*;
use Event::*;

/// No story has so many moments.
const MAX_STEPS: u32 = 10_000;

/// Stories use timeouts that are easy to tell apart.
fn policy(workers: u32) -> Policy {
    Policy {
        workers,
        timeout: secs(30),
        graceful_timeout: secs(20),
        boot_timeout: secs(10),
        lame_duck: Duration::ZERO,
        upgrade_is_manual: false,
    }
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

struct Story {
    arbiter: Arbiter,
    start: Instant,
}

impl Story {
    fn with(policy: Policy, max_workers: u32, setup: bool) -> Story {
        let start = Instant::now();
        Story { arbiter: Arbiter::new(policy, max_workers, 2 * max_workers, setup, start), start }
    }

    fn new(workers: u32) -> Story {
        Story::with(policy(workers), 4, false)
    }

    /// A server whose workers became ready at 0 ms.
    fn serving(workers: u32) -> Story {
        let mut story = Story::new(workers);
        let spawns: Vec<String> = (0..workers).map(|slot| format!("spawn {slot} g1")).collect();
        story.at(0, &[], &spawns.join(", "));
        let ready: Vec<Event> = (0..workers).map(Ready).collect();
        story.at(0, &ready, "");
        story
    }

    /// At `ms`, the facts are observed and the orders must be exactly `wanted`.
    #[track_caller]
    fn at(&mut self, ms: u64, facts: &[Event], wanted: &str) {
        let now = self.start + Duration::from_millis(ms);
        for fact in facts {
            self.arbiter.observe(*fact, now);
        }
        let mut orders: Vec<String> = self.arbiter.decide(now).iter().map(word).collect();
        // It comes once in every story, and is told in the one that is about it.
        orders.retain(|order| order != "staffed" || wanted.contains("staffed"));
        assert_eq!(orders.join(", "), wanted, "at {ms} ms");
        assert_eq!(self.arbiter.decide(now), [], "asked twice at {ms} ms");
        if let Some(deadline) = self.arbiter.next_deadline() {
            assert!(deadline > now, "a deadline in the past at {ms} ms");
        }
    }

    /// Time passes as it does for a master that wakes at each deadline, its serving workers beating.
    #[track_caller]
    fn calm_until(&mut self, ms: u64, beating: &[u32], wanted: &str) {
        let end = self.start + Duration::from_millis(ms);
        let mut orders = Vec::new();
        let mut steps = 0..MAX_STEPS;
        while let Some(now) = self.arbiter.next_deadline().filter(|deadline| *deadline <= end) {
            steps.next().expect("the master would never come to rest");
            for slot in beating {
                self.arbiter.observe(Beat(*slot), now);
            }
            orders.extend(
                self.arbiter
                    .decide(now)
                    .iter()
                    .filter(|order| **order != Order::Say(Notice::Staffed))
                    .map(|order| format!("{} @{}", word(order), now.duration_since(self.start).as_millis())),
            );
        }
        assert_eq!(orders.join(", "), wanted, "until {ms} ms");
    }
}

fn word(order: &Order) -> String {
    match order {
        Order::Spawn { slot, generation, quiet: false } => format!("spawn {slot} g{generation}"),
        Order::Spawn { slot, generation, quiet: true } => format!("spawn {slot} g{generation} quietly"),
        Order::StartSuccessor => "upgrade".into(),
        Order::KillSuccessor(why) => format!("kill successor {why:?}"),
        Order::HandOver => "hand over".into(),
        Order::StartSetup => "setup".into(),
        Order::KillSetup => "kill setup".into(),
        Order::Drain { slot, why } => format!("drain {slot} {why:?}").to_lowercase(),
        Order::Quit(slot) => format!("quit {slot}"),
        Order::Abort { slot, .. } => format!("abort {slot}"),
        Order::Kill { slot, why } => format!("kill {slot} {why:?}").to_lowercase(),
        Order::Reread => "reread".into(),
        Order::Adopt(generation) => format!("adopt g{generation}"),
        Order::Reject(generation, why) => format!("reject g{generation} {why:?}"),
        Order::CloseListeners => "close".into(),
        Order::Say(Notice::BackOff { slot, deaths, delay }) => {
            format!("back-off {slot} #{deaths} {}ms", delay.as_millis())
        }
        Order::Say(Notice::Resized { workers }) => format!("wanted {workers}"),
        Order::Say(Notice::AtMaximum { .. }) => "at maximum".into(),
        Order::Say(Notice::AtMinimum) => "at minimum".into(),
        Order::Say(Notice::ReloadDone(generation)) => format!("done g{generation}"),
        Order::Say(Notice::SetupRetry { delay }) => format!("retry setup {}ms", delay.as_millis()),
        Order::Say(Notice::Staffed) => "staffed".into(),
        Order::Say(Notice::Degraded { serving, wanted }) => format!("degraded {serving}/{wanted}"),
        Order::Say(Notice::Whole { .. }) => "whole".into(),
        Order::Say(Notice::LameDuck { time }) => format!("lame {}ms", time.as_millis()),
        Order::Say(Notice::UpgradeFailed) => "upgrade failed".into(),
        Order::Say(Notice::SuccessorLeft) => "successor left".into(),
        Order::Say(Notice::UpgradeIgnored) => "no upgrade".into(),
        Order::Say(Notice::ReloadPutOff) => "put off".into(),
        Order::Say(Notice::RestIgnored) => "no rest".into(),
        Order::Say(Notice::Resting) => "resting".into(),
        Order::Say(Notice::Rested) => "rested".into(),
        Order::Say(Notice::Beside) => "beside".into(),
        Order::Finish(ending) => format!("finish {ending:?}"),
    }
}

fn died(slot: u32) -> Event {
    Exited { slot, clean: false }
}

fn left(slot: u32) -> Event {
    Exited { slot, clean: true }
}

//! The rules as stories on a pretend clock: at a time, these facts, and exactly these orders.

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

#[test]
fn a_resize_goes_one_up_or_one_down_within_bounds() {
    let mut story = Story::serving(3);
    story.at(10, &[Grow], "wanted 4, spawn 3 g1");
    story.at(20, &[Ready(3), Grow], "at maximum");
    story.at(30, &[Shrink, Shrink], "wanted 3, wanted 2, drain 0 surplus, drain 1 surplus");
    story.at(40, &[left(0), left(1)], "");
    story.at(50, &[Shrink, Shrink], "wanted 1, at minimum, drain 2 surplus");
    story.at(60, &[Grow], "wanted 2, spawn 0 g1");
}

#[test]
fn a_shrink_drops_what_does_not_serve_before_what_does() {
    let mut story = Story::serving(1);
    story.at(10, &[Grow, Grow], "wanted 2, wanted 3, spawn 1 g1, spawn 2 g1");
    story.at(20, &[died(2)], "back-off 2 #1 100ms");
    story.at(30, &[Shrink], "wanted 2");
    story.at(40, &[Shrink], "wanted 1, drain 1 surplus");
    story.at(50, &[left(1)], "");
}

#[test]
fn a_reload_shows_one_canary_then_rolls() {
    let mut story = Story::serving(2);
    story.at(10, &[Reload], "reread");
    story.at(20, &[Reread(Some(policy(2)))], "spawn 2 g2");
    story.at(30, &[Ready(2)], "adopt g2, drain 0 outdated, spawn 3 g2");
    story.at(40, &[left(0)], "");
    story.at(50, &[Ready(3)], "drain 1 outdated, done g2");
    story.at(60, &[left(1)], "");
}

#[test]
fn a_reload_that_cannot_be_read_or_never_stands_changes_nothing() {
    let mut story = Story::serving(2);
    story.at(10, &[Reload], "reread");
    story.at(20, &[Reread(None)], "");
    story.at(30, &[Reload], "reread");
    story.at(40, &[Reread(Some(policy(2)))], "spawn 2 g2");
    story.at(50, &[died(2)], "reject g2 Died");
    story.at(60, &[Reload], "reread");
    story.at(70, &[Reread(Some(Policy { boot_timeout: secs(5), ..policy(2) }))], "spawn 2 g3");
    story.calm_until(5070, &[0, 1], "kill 2 boot @5070, reject g3 NotReadyInTime @5070");
    story.at(5080, &[died(2), Reload], "reread");
    story.at(5090, &[Reread(Some(policy(2)))], "spawn 2 g4");
    story.at(5100, &[SpawnFailed(2)], "reject g4 SpawnFailed");
    story.at(5110, &[Reload], "reread");
    story.at(5120, &[Reread(Some(policy(2)))], "spawn 2 g5");
    story.at(5130, &[Leaving(2)], "reject g5 Died");
    story.at(5140, &[left(2)], "");
}

#[test]
fn what_is_adopted_rules_from_then_on() {
    let mut story = Story::serving(1);
    story.at(10, &[Reload], "reread");
    story.at(20, &[Reread(Some(Policy { timeout: secs(5), ..policy(1) }))], "spawn 1 g2");
    story.at(30, &[Ready(1)], "adopt g2, drain 0 outdated, done g2");
    story.at(40, &[left(0)], "");
    story.calm_until(5030, &[], "abort 1 @5030, spawn 0 g2 @5030");
}

#[test]
fn wishes_to_reload_become_one_more() {
    let mut story = Story::serving(1);
    story.at(10, &[Reload, Reload], "reread");
    story.at(20, &[Reload], "");
    story.at(30, &[Reread(Some(policy(1))), Reload, Reload], "spawn 1 g2");
    story.at(40, &[Ready(1)], "adopt g2, reread, drain 0 outdated, done g2");
    story.at(50, &[Reread(None)], "");
}

#[test]
fn a_resized_count_survives_a_reload_that_does_not_change_it() {
    for (workers, wanted) in [(1, 2), (3, 3), (9, 4)] {
        let mut story = Story::serving(1);
        story.at(10, &[Grow], "wanted 2, spawn 1 g1");
        story.at(20, &[Ready(1), Reload], "reread");
        story.at(30, &[Reread(Some(policy(workers)))], "spawn 2 g2");
        story.arbiter.observe(Ready(2), story.start + Duration::from_millis(40));
        let _ = story.arbiter.decide(story.start + Duration::from_millis(40));
        assert_eq!(story.arbiter.wanted, wanted);
    }
}

#[test]
fn the_old_generation_holds_the_fort_during_a_trial() {
    let mut story = Story::serving(2);
    story.at(20_000, &[Beat(0), Beat(1), Reload], "reread");
    story.at(20_010, &[Reread(Some(policy(2)))], "spawn 2 g2");
    story.at(20_020, &[died(0)], "spawn 0 g1");
    story.at(20_030, &[Grow], "wanted 3, spawn 3 g1");
    story.at(20_040, &[Ready(2)], "adopt g2, drain 0 outdated, drain 3 outdated, spawn 4 g2, spawn 5 g2");
    story.at(20_050, &[left(0), left(3), Ready(4)], "");
    story.at(20_060, &[Ready(5)], "drain 1 outdated, done g2");
}

#[test]
fn an_outdated_worker_that_dies_has_its_successor_already() {
    let mut story = Story::serving(2);
    story.at(10, &[Reload], "reread");
    story.at(20, &[Reread(Some(policy(2)))], "spawn 2 g2");
    story.at(30, &[Ready(2)], "adopt g2, drain 0 outdated, spawn 3 g2");
    story.at(40, &[died(1)], "");
    story.at(50, &[left(0), Ready(3)], "done g2");
}

#[test]
fn a_death_after_ready_is_made_good_at_once_or_soon() {
    let mut story = Story::serving(1);
    story.at(10_000, &[Beat(0), died(0)], "spawn 0 g1");
    for (number, delay) in [(1, 100), (2, 200), (3, 400), (4, 500), (5, 500)] {
        let now = 20_000 + number * 2000;
        story.at(now, &[Ready(0)], "");
        let is_step = number < 5;
        let told = format!("back-off 0 #{number} {delay}ms");
        story.at(now + 1000, &[died(0)], if is_step { &told } else { "" });
        story.at(now + 1000 + delay - 1, &[], "");
        story.at(now + 1000 + delay, &[], if is_step { "spawn 0 g1" } else { "spawn 0 g1 quietly" });
    }
    story.at(40_000, &[Ready(0)], "");
    story.at(50_000, &[died(0)], "spawn 0 g1");
    story.at(50_010, &[Ready(0)], "");
    story.at(50_020, &[died(0)], "back-off 0 #1 100ms");
}

#[test]
fn deaths_before_ready_back_off_per_slot_up_to_half_a_minute() {
    let mut story = Story::serving(2);
    story.at(10, &[died(0)], "back-off 0 #1 100ms");
    story.at(110, &[], "spawn 0 g1");
    let mut now = 110;
    for (number, delay) in [
        (2, 200),
        (3, 400),
        (4, 800),
        (5, 1600),
        (6, 3200),
        (7, 6400),
        (8, 12_800),
        (9, 25_600),
        (10, 30_000),
    ] {
        let degraded = if number == 4 { ", degraded 1/2" } else { "" };
        story.at(now, &[died(0)], &format!("back-off 0 #{number} {delay}ms{degraded}"));
        story.calm_until(now + delay, &[1], &format!("spawn 0 g1 @{}", now + delay));
        now += delay;
    }
    story.at(now + 1, &[died(1)], "spawn 1 g1");
}

#[test]
fn a_server_that_never_served_gives_up() {
    let mut story = Story::new(2);
    story.at(0, &[], "spawn 0 g1, spawn 1 g1");
    story.at(0, &[died(0)], "back-off 0 #1 100ms");
    story.at(100, &[], "spawn 0 g1");
    story.at(100, &[died(0)], "back-off 0 #2 200ms");
    story.at(300, &[], "spawn 0 g1");
    story.at(300, &[died(0)], "back-off 0 #3 400ms");
    story.at(700, &[], "spawn 0 g1");
    story.at(700, &[died(0)], "back-off 0 #4 800ms, close, quit 1");
    story.at(710, &[Drain, Halt], "");
    story.at(800, &[died(1)], "finish NeverReady");
}

#[test]
fn a_server_that_served_once_never_gives_up() {
    let mut story = Story::serving(1);
    story.at(10, &[died(0)], "back-off 0 #1 100ms");
    for (at, number, delay) in [(110, 2, 200), (310, 3, 400), (710, 4, 800), (1510, 5, 1600)] {
        story.at(at, &[], "spawn 0 g1");
        let degraded = if number == 4 { ", degraded 0/1" } else { "" };
        story.at(at, &[died(0)], &format!("back-off 0 #{number} {delay}ms{degraded}"));
    }
}

#[test]
fn a_fork_that_fails_is_tried_again_and_never_ends_the_server() {
    let mut story = Story::new(1);
    story.at(0, &[], "spawn 0 g1");
    for (at, number, delay) in [(0, 1, 100), (100, 2, 200), (300, 3, 400), (700, 4, 800), (1500, 5, 1600)] {
        story.at(at, &[SpawnFailed(0)], &format!("back-off 0 #{number} {delay}ms"));
        story.at(at + delay, &[], "spawn 0 g1");
    }
    story.at(3100, &[died(0)], "back-off 0 #6 3200ms");
}

#[test]
fn a_worker_hung_in_boot_is_killed_and_its_place_kept() {
    let mut story = Story::serving(1);
    story.at(10, &[Grow], "wanted 2, spawn 1 g1");
    story.calm_until(10_010, &[0], "kill 1 boot @10010");
    story.at(10_020, &[died(1)], "back-off 1 #1 100ms");
}

#[test]
fn a_silent_worker_is_aborted_replaced_and_killed() {
    let mut story = Story::serving(2);
    story.calm_until(30_000, &[0], "abort 1 @30000, spawn 2 g1 @30000");
    story.calm_until(32_000, &[0], "kill 1 abort @32000");
    story.at(32_010, &[died(1), Ready(2)], "");
}

#[test]
fn a_timeout_of_zero_is_off() {
    let off = Policy { timeout: secs(0), graceful_timeout: secs(0), boot_timeout: secs(0), ..policy(1) };
    let mut story = Story::with(off, 4, false);
    story.at(0, &[], "spawn 0 g1");
    story.at(3_600_000, &[Ready(0)], "");
    story.at(7_200_000, &[Drain], "close, drain 0 stopping");
    story.at(9_000_000, &[], "");
    assert_eq!(story.arbiter.next_deadline(), None);
}

#[test]
fn nobody_is_late_for_a_time_that_the_master_slept_through() {
    let mut story = Story::serving(2);
    story.at(1000, &[Grow, Leaving(0)], "wanted 3, spawn 2 g1, spawn 3 g1");
    story.at(100_000, &[], "");
    story.at(101_000, &[Ready(2), Ready(3), Beat(1)], "");
    story.calm_until(128_000, &[1, 2, 3], "kill 0 drain @120000");
}

#[test]
fn a_worker_told_to_leave_by_somebody_else_is_replaced_at_once() {
    let mut story = Story::serving(1);
    story.at(10, &[Leaving(0)], "spawn 1 g1");
    story.at(20, &[left(0), Ready(1)], "");
    story.at(30, &[Leaving(1)], "spawn 0 g1");
    story.at(40, &[died(1), Leaving(0)], "spawn 1 g1");
}

#[test]
fn a_drain_that_takes_too_long_is_ended() {
    let mut story = Story::serving(2);
    story.at(10, &[Shrink], "wanted 1, drain 0 surplus");
    story.calm_until(20_010, &[1], "kill 0 drain @20010");
    story.at(20_020, &[died(0)], "");
}

#[test]
fn those_that_retire_are_succeeded_one_at_a_time() {
    let mut story = Story::serving(2);
    story.at(10, &[Retiring(0), Retiring(1)], "spawn 2 g1");
    story.at(20, &[Ready(2)], "drain 0 retiring, spawn 3 g1");
    story.at(30, &[Ready(3)], "drain 1 retiring");
    story.at(40, &[left(0), left(1)], "");
}

#[test]
fn one_that_retires_and_dies_is_not_started_twice() {
    for end in [died(0), left(0)] {
        let mut story = Story::serving(1);
        story.at(10, &[Retiring(0)], "spawn 1 g1");
        story.at(20, &[end], "");
        story.at(30, &[Ready(1)], "");
    }
}

#[test]
fn a_stop_drains_once_and_ends_when_all_have_left() {
    let mut story = Story::serving(2);
    story.at(10, &[Grow], "wanted 3, spawn 2 g1");
    story.at(20, &[died(1)], "back-off 1 #1 100ms");
    story.at(30, &[Drain], "close, drain 0 stopping, drain 2 stopping");
    story.at(40, &[Drain, Reload], "");
    story.at(50, &[left(2)], "");
    story.calm_until(20_030, &[0], "kill 0 drain @20030");
    story.at(20_040, &[died(0)], "finish Stopped");
}

#[test]
fn a_halt_is_quick_and_makes_a_slow_stop_quick() {
    let mut story = Story::serving(1);
    story.at(10, &[Halt], "close, quit 0");
    story.calm_until(1010, &[0], "kill 0 quit @1010");
    story.at(1020, &[died(0)], "finish Stopped");

    let mut story = Story::serving(1);
    story.at(10, &[Drain], "close, drain 0 stopping");
    story.at(20, &[Halt], "quit 0");
    story.at(30, &[Halt, Drain], "");
    story.at(40, &[left(0)], "finish Stopped");
}

#[test]
fn a_stop_ends_a_trial_and_a_boot() {
    let mut story = Story::serving(1);
    story.at(10, &[Reload], "reread");
    story.at(20, &[Reread(Some(policy(1)))], "spawn 1 g2");
    story.at(30, &[Drain], "close, reject g2 Stopping, drain 0 stopping, drain 1 stopping");
    story.at(40, &[left(0), died(1)], "finish Stopped");

    let mut story = Story::serving(1);
    story.at(10, &[Reload], "reread");
    story.at(20, &[Reread(Some(policy(1)))], "spawn 1 g2");
    story.at(30, &[died(1), Drain], "close, reject g2 Died, drain 0 stopping");
}

#[test]
fn a_canary_waits_for_a_slot_and_for_the_setup() {
    let mut story = Story::with(policy(2), 2, false);
    story.at(0, &[], "spawn 0 g1, spawn 1 g1");
    story.at(10, &[Ready(0), Ready(1), Reload], "reread");
    story.at(20, &[Reread(Some(policy(2)))], "spawn 2 g2");
    story.at(30, &[Ready(2)], "adopt g2, drain 0 outdated, spawn 3 g2");
    story.at(40, &[died(3), Reload], "back-off 3 #1 100ms, reread");
    story.at(50, &[Reread(Some(policy(2)))], "");
    story.at(60, &[Shrink], "wanted 1, drain 1 outdated, done g2, spawn 3 g3");

    let mut story = Story::with(policy(1), 4, true);
    story.at(0, &[Reload], "reread, setup");
    story.at(10, &[Reread(Some(policy(1)))], "");
    story.at(20, &[SetUp(Setup::Done)], "spawn 0 g1, spawn 1 g2");
}

#[test]
fn workers_wait_for_the_first_try_at_the_setup_and_no_other() {
    let mut story = Story::with(policy(1), 4, true);
    story.at(0, &[], "setup");
    story.at(10, &[SetUp(Setup::Away)], "retry setup 100ms, spawn 0 g1");
    story.at(20, &[Ready(0)], "");
    story.at(110, &[], "setup");
    story.at(120, &[SetUp(Setup::Away)], "retry setup 200ms");
    story.at(320, &[], "setup");
    story.at(330, &[SetUp(Setup::Done)], "");

    let mut story = Story::with(policy(1), 4, true);
    story.at(0, &[], "setup");
    story.at(10, &[SetUp(Setup::Done)], "spawn 0 g1");
}

#[test]
fn a_setup_that_is_wrong_or_hangs_is_ended() {
    let mut story = Story::with(policy(1), 4, true);
    story.at(0, &[], "setup");
    story.calm_until(10_000, &[], "kill setup @10000");
    story.at(10_010, &[SetUp(Setup::Away)], "retry setup 100ms, spawn 0 g1");
    story.at(10_110, &[], "setup");
    story.at(10_120, &[SetUp(Setup::Wrong)], "close, quit 0");
    story.at(10_130, &[died(0)], "finish SetupWrong");

    let mut story = Story::with(policy(1), 4, true);
    story.at(0, &[], "setup");
    story.at(10, &[Drain], "close, kill setup");
    story.at(20, &[SetUp(Setup::Away)], "retry setup 100ms, finish Stopped");

    let mut story = Story::with(policy(1), 4, true);
    story.at(0, &[], "setup");
    story.at(10, &[Halt], "close, kill setup");
    story.at(20, &[SetUp(Setup::Wrong)], "finish Stopped");
}

#[test]
fn news_of_a_vacant_slot_is_no_news() {
    let mut story = Story::serving(1);
    for (fact, ms) in
        [Ready(3), Beat(3), Retiring(3), Leaving(3), died(3), SpawnFailed(3)].into_iter().zip(1..)
    {
        story.at(ms, &[fact], "");
        assert_eq!(story.arbiter.slots[3].state, State::Vacant, "{fact:?}");
    }
    story.at(10, &[Drain], "close, drain 0 stopping");
    for (fact, ms) in [Ready(0), Retiring(0), Leaving(0), SpawnFailed(0)].into_iter().zip(11..) {
        story.at(ms, &[fact], "");
    }
}

#[test]
fn a_second_is_no_freeze_and_more_is_one() {
    for (late, killed) in [(1000, true), (1001, false)] {
        let mut story = Story::serving(1);
        story.at(10, &[Beat(0), Grow], "wanted 2, spawn 1 g1");
        story.at(7000, &[Beat(0)], "");
        // The boot ends at 10 010, and is the next thing to look at.
        let now = 10_010 + late;
        story.at(now, &[Beat(0)], if killed { "kill 1 boot" } else { "" });
    }
}

#[test]
fn the_helper_is_forgiven_a_freeze_too() {
    let mut story = Story::with(policy(1), 4, true);
    story.at(0, &[], "setup");
    story.at(5000, &[], "");
    story.at(60_000, &[], "");
    story.at(60_010, &[SetUp(Setup::Done)], "spawn 0 g1");
}

#[test]
fn a_place_of_one_killed_while_draining_is_not_kept() {
    let mut story = Story::serving(2);
    story.at(10, &[Leaving(0)], "spawn 2 g1");
    story.at(20, &[Ready(2), died(1)], "back-off 1 #1 100ms");
    story.at(120, &[], "spawn 1 g1");
    story.at(130, &[Ready(1)], "");
    story.calm_until(20_010, &[1, 2], "kill 0 drain @20010");
    story.at(20_020, &[died(0)], "");
    story.at(20_030, &[Shrink], "wanted 1, drain 2 surplus");
}

#[test]
fn steps_of_a_crash_loop_are_told_and_not_each_fork() {
    let mut story = Story::serving(2);
    story.at(0, &[died(1)], "back-off 1 #1 100ms");
    story.at(100, &[], "spawn 1 g1");
    story.at(110, &[Ready(1), died(1)], "back-off 1 #2 200ms");
    story.at(310, &[], "spawn 1 g1");
    story.at(320, &[Ready(1), died(1)], "back-off 1 #3 400ms");
    story.at(720, &[], "spawn 1 g1");
    story.at(730, &[Ready(1), died(1)], "back-off 1 #4 500ms");
    story.at(1230, &[], "spawn 1 g1");
    let mut told = Vec::new();
    for death in 5..=40_u64 {
        let now = story.start + Duration::from_millis(1000 * death);
        story.arbiter.observe(Ready(1), now);
        story.arbiter.observe(died(1), now);
        for later in [0, 500] {
            let now = now + Duration::from_millis(later);
            story.arbiter.observe(Beat(0), now);
            told.extend(story.arbiter.decide(now).iter().map(word));
        }
    }
    let loud: Vec<&String> = told.iter().filter(|order| !order.ends_with("quietly")).collect();
    let steps =
        ["back-off 1 #8 500ms", "spawn 1 g1", "back-off 1 #16 500ms", "spawn 1 g1", "back-off 1 #32 500ms"];
    assert_eq!(loud, [&steps[..], &["spawn 1 g1"]].concat());
    assert_eq!(told.len() - loud.len(), 36 - 3, "each fork is ordered");
}

#[test]
fn a_server_is_degraded_while_a_slot_cannot_boot_and_whole_when_it_can() {
    let mut story = Story::serving(2);
    story.at(0, &[died(1)], "back-off 1 #1 100ms");
    story.at(100, &[], "spawn 1 g1");
    story.at(100, &[died(1)], "back-off 1 #2 200ms");
    story.at(300, &[], "spawn 1 g1");
    story.at(300, &[died(1)], "back-off 1 #3 400ms");
    story.at(700, &[], "spawn 1 g1");
    story.at(700, &[died(1)], "back-off 1 #4 800ms, degraded 1/2");
    story.at(1500, &[Beat(0)], "spawn 1 g1");
    story.at(1600, &[Ready(1)], "whole");
    story.at(1700, &[Drain], "close, drain 0 stopping, drain 1 stopping");
}

#[test]
fn a_lame_duck_serves_on_and_then_drains() {
    let policy = Policy { lame_duck: secs(5), ..policy(1) };
    let start = |policy| {
        let mut story = Story::with(policy, 4, false);
        story.at(0, &[], "spawn 0 g1");
        story.at(0, &[Ready(0)], "staffed");
        story.at(1000, &[Beat(0), Drain], "lame 5000ms");
        story
    };
    let mut story = start(policy);
    // It is a server still: who dies is replaced, but nothing new is begun.
    story.at(2000, &[died(0), Reload, Upgrade], "back-off 0 #1 100ms, no upgrade");
    story.at(2100, &[], "spawn 0 g1");
    story.at(2200, &[Ready(0)], "");
    story.calm_until(6000, &[0], "close @6000, drain 0 stopping @6000");
    let mut story = start(policy);
    story.at(2000, &[Beat(0), Drain], "close, drain 0 stopping");
    let mut story = start(policy);
    story.at(2000, &[Beat(0), Halt], "close, quit 0");
}

#[test]
fn an_upgrade_hands_over_when_the_successor_is_ready() {
    let mut story = Story::serving(1);
    story.at(0, &[Upgrade], "upgrade");
    story.at(10, &[Upgrade, Rest, Reload], "no upgrade, no rest, put off");
    story.at(20, &[SuccessorReady], "hand over, close, drain 0 stopping");
    story.at(30, &[left(0)], "finish Stopped");
}

#[test]
fn an_upgrade_that_fails_changes_nothing() {
    let mut story = Story::serving(1);
    story.at(0, &[Upgrade], "upgrade");
    story.at(10, &[SuccessorGone], "upgrade failed");
    story.at(20, &[Upgrade], "upgrade");
    story.calm_until(10_020, &[0], "kill successor NotReadyInTime @10020");
    // It says that it is ready just before the signal reaches it.
    story.at(10_021, &[SuccessorReady], "");
    story.at(10_022, &[SuccessorGone], "upgrade failed");
    story.at(10_030, &[Upgrade], "upgrade");
    story.at(10_040, &[Drain], "kill successor Stopping, close, drain 0 stopping");
    story.at(10_050, &[left(0)], "");
    story.at(10_060, &[SuccessorGone], "upgrade failed, finish Stopped");
}

#[test]
fn an_upgrade_waits_for_a_reload_and_a_reload_for_an_upgrade() {
    let mut story = Story::serving(1);
    story.at(0, &[Reload, Upgrade], "reread");
    story.at(10, &[Reread(Some(policy(1)))], "spawn 1 g2");
    story.at(20, &[Ready(1)], "adopt g2, drain 0 outdated, done g2, upgrade");
    story.at(30, &[left(0), Reload], "put off");
    story.at(40, &[SuccessorGone], "upgrade failed, reread");
}

#[test]
fn with_a_manual_upgrade_both_serve_until_somebody_decides() {
    let manual = Policy { upgrade_is_manual: true, ..policy(2) };
    let beside = || {
        let mut story = Story::with(manual, 4, false);
        story.at(0, &[], "spawn 0 g1, spawn 1 g1");
        story.at(0, &[Ready(0), Ready(1)], "staffed");
        story.at(0, &[Upgrade], "upgrade");
        story.at(10, &[SuccessorReady], "beside");
        story
    };
    let mut old_leaves = beside();
    old_leaves.at(20, &[Drain], "hand over, close, drain 0 stopping, drain 1 stopping");
    let mut rests = beside();
    rests.at(20, &[Rest], "resting, drain 0 surplus, drain 1 surplus");
    rests.at(30, &[left(0), left(1), Rest], "no rest");
    rests.at(40, &[Reload], "rested, spawn 0 g1, spawn 1 g1");
    rests.at(50, &[Ready(0), Ready(1), Rest], "resting, drain 0 surplus, drain 1 surplus");
    rests.at(60, &[left(0), left(1)], "");
    rests.at(70, &[SuccessorGone], "successor left, rested, spawn 0 g1, spawn 1 g1");
    let mut new_leaves = beside();
    new_leaves.at(20, &[SuccessorGone], "successor left");
    new_leaves.at(30, &[Upgrade], "upgrade");
}

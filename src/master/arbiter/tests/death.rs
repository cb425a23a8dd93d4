//! Deaths, silence and back-off.

use super::*;

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
    // However many there are. The log tells of twice as many only.
    for number in 11_u32..=40 {
        let (told, quietly) = match number.is_power_of_two() {
            true => (format!("back-off 0 #{number} 30000ms"), ""),
            false => (String::new(), " quietly"),
        };
        story.at(now, &[died(0)], &told);
        now += 30_000;
        story.calm_until(now, &[1], &format!("spawn 0 g1{quietly} @{now}"));
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

    let mut story = Story::with(off, 4, true);
    story.at(0, &[], "setup");
    story.at(3_600_000, &[SetUp(Setup::Done)], "spawn 0 g1");
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
fn who_leaves_unasked_counts_as_dead_and_the_dead_die_once() {
    let mut story = Story::serving(1);
    story.at(10, &[left(0)], "back-off 0 #1 100ms");
    story.at(20, &[died(0)], "");
    story.at(110, &[], "spawn 0 g1");
}

//! A new generation, from its reading to the last of the old.

use super::*;

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
fn the_limits_on_trial_hold_for_the_canary_alone() {
    let mut story = Story::serving(1);
    story.at(10, &[Reload], "reread");
    story.at(
        20,
        &[Reread(Some(Policy { timeout: secs(2), boot_timeout: secs(20), ..policy(1) }))],
        "spawn 1 g2",
    );
    story.calm_until(20_019, &[], "");
    story.calm_until(20_020, &[], "kill 1 boot @20020, reject g2 NotReadyInTime @20020");
}

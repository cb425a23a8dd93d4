//! Another master beside this one.

use super::*;

#[test]
fn an_upgrade_hands_over_when_the_successor_is_ready() {
    let mut story = Story::serving(1);
    story.at(0, &[Upgrade], "upgrade");
    story.at(10, &[Upgrade, Rest, Reload], "no upgrade, no rest, put off");
    story.at(20, &[SuccessorReady], "hand over, close, drain 0 stopping");
    story.at(25, &[Rest], "no rest");
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

#[test]
fn an_upgrade_waits_for_the_first_worker_and_for_the_last_old_one() {
    let mut story = Story::new(1);
    story.at(0, &[Upgrade], "spawn 0 g1");
    story.at(10, &[Ready(0)], "upgrade, staffed");

    let mut story = Story::serving(2);
    story.at(10, &[Reload], "reread");
    story.at(20, &[Reread(Some(policy(2)))], "spawn 2 g2");
    story.at(30, &[Ready(2), Upgrade], "adopt g2, drain 0 outdated, spawn 3 g2");
    story.at(40, &[Ready(3)], "drain 1 outdated, done g2, upgrade");
}

#[test]
fn a_successor_is_forgiven_a_freeze() {
    let mut story = Story::serving(1);
    story.at(0, &[Upgrade], "upgrade");
    story.at(60_000, &[], "");
    story.at(60_010, &[SuccessorReady], "hand over, close, drain 0 stopping");
}

#[test]
fn a_stop_waits_for_the_end_of_a_successor_whatever_it_says() {
    let mut story = Story::serving(1);
    story.at(0, &[Upgrade], "upgrade");
    story.at(10, &[Drain], "kill successor Stopping, close, drain 0 stopping");
    story.at(20, &[left(0), SuccessorReady], "");
    story.calm_until(30_000, &[], "");
    story.at(30_010, &[SuccessorGone], "upgrade failed, finish Stopped");
}

#[test]
fn a_wish_to_stop_ends_an_upgrade_also_where_it_is_put_off() {
    let lame = |workers| Policy { lame_duck: secs(5), ..policy(workers) };
    let serving = || {
        let mut story = Story::with(lame(1), 4, false);
        story.at(0, &[], "spawn 0 g1");
        story.at(0, &[Ready(0)], "staffed");
        story
    };
    let mut starting = serving();
    starting.at(0, &[Upgrade], "upgrade");
    starting.at(10, &[Drain], "lame 5000ms, kill successor Stopping");
    // It says that it is ready just before the signal reaches it.
    starting.at(20, &[SuccessorReady], "");
    starting.at(30, &[SuccessorGone], "upgrade failed");
    starting.calm_until(5010, &[0], "close @5010, drain 0 stopping @5010");

    let mut at_once = serving();
    at_once.at(0, &[Upgrade], "upgrade");
    at_once.at(10, &[Drain, SuccessorReady], "lame 5000ms, kill successor Stopping");
    let mut at_once = Story::serving(1);
    at_once.at(0, &[Upgrade], "upgrade");
    at_once.at(10, &[Drain, SuccessorReady], "kill successor Stopping, close, drain 0 stopping");

    let mut wished = serving();
    wished.at(0, &[Reload, Upgrade], "reread");
    wished.at(10, &[Reread(Some(lame(1)))], "spawn 1 g2");
    wished.at(20, &[Drain], "lame 5000ms, no upgrade");
    wished.at(30, &[Ready(1)], "adopt g2, drain 0 outdated, done g2");
}

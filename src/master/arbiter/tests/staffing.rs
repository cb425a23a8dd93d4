//! How many workers there are: changes of size, and successions.

use super::*;

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
    // What is forgotten with that: the next death is only one.
    story.at(1610, &[died(0)], "back-off 0 #1 100ms");
    story.at(1710, &[], "spawn 0 g1");
    story.at(1720, &[Ready(0)], "");
    story.at(1730, &[Drain], "close, drain 0 stopping, drain 1 stopping");
}

#[test]
fn a_shrink_drops_the_last_of_those_that_wait_and_the_youngest_that_boots() {
    let mut story = Story::serving(3);
    story.at(10, &[died(1), died(2)], "back-off 1 #1 100ms, back-off 2 #1 100ms");
    story.at(20, &[Shrink], "wanted 2");
    story.at(110, &[], "spawn 1 g1");
    story.at(200, &[], "");

    let mut story = Story::serving(1);
    story.at(10, &[Grow], "wanted 2, spawn 1 g1");
    story.at(20, &[Grow], "wanted 3, spawn 2 g1");
    story.at(30, &[Shrink], "wanted 2, drain 2 surplus");
}

#[test]
fn a_shrink_spares_the_canary_and_who_serves_beside_one_killed_in_boot() {
    let mut story = Story::serving(1);
    story.at(10, &[Grow], "wanted 2, spawn 1 g1");
    story.at(20, &[Reload], "reread");
    story.at(30, &[Reread(Some(policy(1)))], "spawn 2 g2");
    story.at(40, &[Shrink], "wanted 1, drain 1 surplus");

    let mut story = Story::serving(1);
    story.at(10, &[Grow], "wanted 2, spawn 1 g1");
    story.calm_until(10_010, &[0], "kill 1 boot @10010");
    story.at(10_020, &[Shrink], "wanted 1");
    story.at(10_030, &[died(1)], "back-off 1 #1 100ms");
    story.at(10_200, &[], "");
}

#[test]
fn an_outdated_worker_that_retires_needs_no_successor_of_its_own() {
    let mut story = Story::serving(2);
    story.at(10, &[Reload], "reread");
    story.at(20, &[Reread(Some(policy(2)))], "spawn 2 g2");
    story.at(30, &[Ready(2)], "adopt g2, drain 0 outdated, spawn 3 g2");
    story.at(40, &[Retiring(1)], "");
    story.at(50, &[Ready(3)], "drain 1 retiring, done g2");
}

#[test]
fn a_number_is_wanted_within_bounds_at_once() {
    let mut story = Story::serving(2);
    story.at(10, &[Resize(4)], "wanted 4, spawn 2 g1, spawn 3 g1");
    story.at(20, &[Ready(2), Ready(3)], "");
    story.at(30, &[Resize(5), Resize(0)], "at maximum, at minimum");
    story.at(40, &[Resize(1)], "wanted 1, drain 0 surplus, drain 1 surplus, drain 2 surplus");
}

#[test]
fn what_speaks_against_a_wish_is_told_before_it_is_wished() {
    let mut story = Story::serving(2);
    for (event, wanted) in [
        (Reload, None),
        (Upgrade, None),
        (Grow, None),
        (Resize(4), None),
        (Resize(5), Some(Objection::AboveMaximum { max: 4 })),
        (Resize(0), Some(Objection::BelowMinimum)),
        (Retiring(1), None),
        (Retiring(2), Some(Objection::NotServing)),
        (Retiring(u32::MAX), Some(Objection::NotServing)),
        (Drain, None),
    ] {
        assert_eq!(story.arbiter.objection(event), wanted, "{event:?}");
    }
    story.at(10, &[Resize(1)], "wanted 1, drain 0 surplus");
    assert_eq!(story.arbiter.objection(Shrink), Some(Objection::BelowMinimum));
    assert_eq!(story.arbiter.objection(Retiring(0)), Some(Objection::NotServing), "it drains");
    story.at(20, &[left(0), Upgrade], "upgrade");
    assert_eq!(story.arbiter.objection(Upgrade), Some(Objection::UpgradeUnderWay));
    story.at(30, &[Drain], "kill successor Stopping, close, drain 1 stopping");
    for event in [Reload, Upgrade, Grow, Shrink, Resize(2), Retiring(1)] {
        assert_eq!(story.arbiter.objection(event), Some(Objection::Stopping), "{event:?}");
    }
    assert_eq!(story.arbiter.objection(Halt), None);
}

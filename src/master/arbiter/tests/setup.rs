//! The database's script.

use super::*;

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
fn the_helper_is_forgiven_a_freeze_too() {
    let mut story = Story::with(policy(1), 4, true);
    story.at(0, &[], "setup");
    story.at(5000, &[], "");
    story.at(60_000, &[], "");
    story.at(60_010, &[SetUp(Setup::Done)], "spawn 0 g1");
}

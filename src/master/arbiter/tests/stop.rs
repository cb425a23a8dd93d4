//! How the server ends.

use super::*;

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

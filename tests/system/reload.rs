//! HUP: settings read again, the new generation ready before the old one drains, no request lost.

use crate::support::server::End;
use crate::support::{DEADLINE, Load, Program, Said, alone, eventually};
use nix::sys::signal::Signal::{SIGHUP, SIGTERM};
use std::fs;

/// How many requests each kind of load sends.
const REQUESTS: u64 = 20_000;
const RELOADS: u64 = 10;

#[test]
fn ten_reloads_lose_none_of_20_000_requests_on_kept_connections() {
    reload_under("", |load| load);
}

#[test]
fn ten_reloads_lose_none_of_20_000_requests_on_connections_of_their_own() {
    reload_under("", Load::without_keep_alive);
}

#[test]
fn ten_reloads_with_queues_lose_none_of_20_000_requests_on_kept_connections() {
    reload_under("--reuse-port", |load| load);
}

#[test]
fn ten_reloads_with_queues_lose_none_of_20_000_requests_on_connections_of_their_own() {
    reload_under("--reuse-port", Load::without_keep_alive);
}

fn reload_under(args: &str, kind: impl FnOnce(Load) -> Load) {
    let _alone = alone();
    let mut server = Program::probe().workers(2).args(args).start();
    let load = kind(Load::on(server.target())).at_least(REQUESTS).start();
    for done in 1..=RELOADS {
        server.signal(SIGHUP);
        server.wait_count(Said::ReloadDone, usize::try_from(done).unwrap());
        // Each generation gets its share of the requests.
        load.wait_more(REQUESTS / RELOADS / 4);
        load.wait_answered(done * REQUESTS / RELOADS);
    }
    let report = load.finish();
    report.assert_none_failed();
    assert!(report.sent >= REQUESTS, "{report}");
    assert!(report.workers.len() > usize::try_from(RELOADS).unwrap(), "every generation answered: {report}");
    eventually(DEADLINE, "the old ones have left", || server.workers().len() == 2);
    server.stop();
}

#[test]
fn the_new_generation_has_the_new_settings() {
    let text = |workers: u32, hello: &str| {
        format!("workers = {workers}\n[[route]]\npath = \"/\"\nmethods = [\"GET\"]\ntext = \"{hello}\"\n")
    };
    let mut server = Program::stock().config(&text(1, "old")).start();
    let mut kept = server.connect();
    assert_eq!(kept.get("/").unwrap().text(), "old");
    fs::write(server.dir().join("server.toml"), text(3, "new")).unwrap();
    server.signal(SIGHUP);
    let done = server.wait(Said::ReloadDone);
    assert_eq!(done.number("generation"), 2);
    server.wait_count(Said::Exited, 1);
    assert_eq!(server.workers().len(), 3);
    assert_eq!(server.get("/").text(), "new");
    server.stop();
}

#[test]
fn a_bad_file_leaves_the_old_generation_serving() {
    let mut server = Program::stock().config("workers = 2\n").expect_workers(2).start();
    let old = server.workers();
    for (count, bad) in ["workers = 0\n", "wrokers = 2\n", "workers = \n"].iter().enumerate() {
        fs::write(server.dir().join("server.toml"), bad).unwrap();
        server.signal(SIGHUP);
        let refused = server.wait_count(Said::ReloadRefused, count + 1);
        assert!(refused.raw.contains("server.toml:1"), "{}", refused.raw);
        assert_eq!(server.workers(), old);
        assert_eq!(server.get("/").status, 200);
    }
    fs::write(server.dir().join("server.toml"), "workers = 1\n").unwrap();
    server.signal(SIGHUP);
    server.wait(Said::ReloadDone);
    eventually(DEADLINE, "the file is good again", || server.workers().len() == 1);
    server.stop();
}

#[test]
fn a_generation_that_does_not_become_ready_leaves_the_old_one_serving() {
    let mut server = Program::example("misuse").workers(2).args("--boot-timeout 1s").start();
    let old = server.workers();
    for (count, fault) in ["die", "hang"].into_iter().enumerate() {
        let fault = server.dir().join(fault);
        fs::write(&fault, "").unwrap();
        server.signal(SIGHUP);
        server.wait_count(Said::ReloadRefused, count + 1);
        eventually(DEADLINE, "only the old ones are there", || server.workers() == old);
        assert_eq!(server.get("/").status, 404);
        fs::remove_file(fault).unwrap();
    }
    server.signal(SIGHUP);
    server.wait(Said::ReloadDone);
    server.stop();
}

#[test]
fn a_stop_during_a_reload_stops() {
    let mut server = Program::probe().workers(2).start();
    server.signal(SIGHUP);
    server.wait(Said::ReloadRequested);
    server.signal(SIGTERM);
    assert_eq!(server.wait_exit(), End::Code(0));
}

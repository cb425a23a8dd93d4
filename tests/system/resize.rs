//! TTIN and TTOU under load, and at the ends of the range.

use crate::support::{DEADLINE, Load, Program, Said, alone, eventually};
use nix::sys::signal::Signal::{SIGTTIN, SIGTTOU};

const REQUESTS: u64 = 20_000;
const SIGNALS: u64 = 20;
const BURSTS: u64 = 10;

#[test]
fn twenty_changes_of_size_lose_none_of_20_000_requests_on_kept_connections() {
    resize_under(Program::probe(), |load| load);
}

#[test]
fn twenty_changes_of_size_lose_none_of_20_000_requests_on_connections_of_their_own() {
    resize_under(Program::probe(), Load::without_keep_alive);
}

#[test]
fn twenty_changes_of_size_with_queues_lose_none_of_20_000_requests_on_kept_connections() {
    resize_under(Program::probe().args("--reuse-port"), |load| load);
}

#[test]
fn twenty_changes_of_size_with_queues_lose_none_of_20_000_requests_on_connections_of_their_own() {
    resize_under(Program::probe().args("--reuse-port"), Load::without_keep_alive);
}

#[test]
fn twenty_changes_of_size_lose_none_of_20_000_requests_over_a_unix_socket() {
    for keep_alive in [true, false] {
        resize_under(Program::probe().bind("unix:s.sock"), |load| load.keeping(keep_alive));
    }
}

fn resize_under(program: Program, kind: impl FnOnce(Load) -> Load) {
    let _alone = alone();
    let mut server = program.workers(2).start();
    let load = kind(Load::on(server.target())).at_least(REQUESTS).start();
    let (mut ready, mut exited) = (2, 0);
    for sent in 1..=SIGNALS {
        // Equal signals that come close together count once, so each is awaited: two up, two down.
        if sent % 4 == 1 || sent % 4 == 2 {
            ready += 1;
            server.signal(SIGTTIN);
            server.wait_count(Said::Ready, ready);
        } else {
            exited += 1;
            server.signal(SIGTTOU);
            server.wait_count(Said::Exited, exited);
        }
        load.wait_answered(sent * REQUESTS / SIGNALS);
    }
    let report = load.finish();
    report.assert_none_failed();
    assert!(report.sent >= REQUESTS, "{report}");
    assert_eq!(server.workers().len(), 2);
    server.stop();
}

#[test]
fn bursts_lose_none_of_20_000_requests_on_kept_connections() {
    bursts_under("", |load| load);
}

#[test]
fn bursts_lose_none_of_20_000_requests_on_connections_of_their_own() {
    bursts_under("", Load::without_keep_alive);
}

#[test]
fn bursts_with_queues_lose_none_of_20_000_requests_on_kept_connections() {
    bursts_under("--reuse-port", |load| load);
}

#[test]
fn bursts_with_queues_lose_none_of_20_000_requests_on_connections_of_their_own() {
    bursts_under("--reuse-port", Load::without_keep_alive);
}

/// Changes of size that overtake each other: workers are told to go while others boot, drain, or are about to start.
fn bursts_under(args: &str, kind: impl FnOnce(Load) -> Load) {
    let _alone = alone();
    let mut server = Program::probe().workers(2).args(args).start();
    let load = kind(Load::on(server.target())).at_least(REQUESTS).start();
    for burst in 1..=BURSTS {
        for signal in [SIGTTIN, SIGTTIN, SIGTTIN, SIGTTOU, SIGTTIN, SIGTTOU, SIGTTOU, SIGTTOU] {
            let wanted = server.count(Said::Wanted) + server.count(Said::AtMinimum);
            server.signal(signal);
            eventually(DEADLINE, "the signal is heard", || {
                server.count(Said::Wanted) + server.count(Said::AtMinimum) > wanted
            });
        }
        load.wait_answered(burst * REQUESTS / BURSTS);
    }
    let report = load.finish();
    report.assert_none_failed();
    assert!(report.sent >= REQUESTS, "{report}");
    eventually(DEADLINE, "as many are there as are wanted", || {
        let wanted = server.wait_count(Said::Wanted, server.count(Said::Wanted)).number("workers");
        server.workers().len() == usize::try_from(wanted).unwrap()
    });
    server.stop();
}

#[test]
fn the_last_worker_stays() {
    let mut server = Program::probe().workers(2).start();
    server.signal(SIGTTOU);
    server.wait_count(Said::Exited, 1);
    let last = server.worker();
    server.signal(SIGTTOU);
    server.wait(Said::AtMinimum);
    assert_eq!(server.worker(), last);
    assert_eq!(server.get("/pid").worker(), last);
    server.stop();
}

#[test]
fn there_are_never_more_than_max_workers() {
    let mut server = Program::probe().workers(1).args("--max-workers 2").start();
    server.signal(SIGTTIN);
    server.wait_count(Said::Ready, 2);
    server.signal(SIGTTIN);
    server.wait(Said::AtMaximum);
    assert_eq!(server.workers().len(), 2);
    server.signal(SIGTTOU);
    server.wait(Said::Exited);
    eventually(DEADLINE, "one is left", || server.workers().len() == 1);
    server.stop();
}

#[test]
fn a_change_of_size_outlives_a_crash_and_a_reload() {
    use nix::sys::signal::Signal::{SIGHUP, SIGKILL};
    let mut server = Program::probe().workers(1).start();
    server.signal(SIGTTIN);
    server.wait_count(Said::Ready, 2);
    server.signal_to(server.workers()[0], SIGKILL);
    server.wait_count(Said::Ready, 3);
    assert_eq!(server.workers().len(), 2);
    server.signal(SIGHUP);
    server.wait(Said::ReloadDone);
    eventually(DEADLINE, "the old ones have left", || server.workers().len() == 2);
    assert_eq!(server.get("/").status, 200);
    server.stop();
}

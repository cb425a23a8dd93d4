//! Workers that are replaced for their age, their requests or their memory: the successor first, one at a time, and
//! nobody notices.

use crate::support::http::UPLOAD;
use crate::support::load::{Load, Report};
use crate::support::said::Line;
use crate::support::{DEADLINE, Program, Said, Server, alone, eventually, millis, proc};
use nix::unistd::Uid;
use std::time::Instant;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

const REQUESTS: u64 = 20_000;
const WORKERS: usize = 2;
const BY_REQUESTS: &str = "--max-requests 800 --max-requests-jitter 200";

/// What must hold whenever workers follow one another.
#[track_caller]
fn check_the_order(server: &Server) {
    let (mut booting, mut serving, mut successions) = (0, 0, 0);
    for line in server.log() {
        if line.is(Said::Spawned) {
            booting += 1;
            let boots_at_most = if serving + booting <= WORKERS { WORKERS } else { 1 };
            assert!(booting <= boots_at_most, "two successors at a time: {}", line.raw);
        } else if line.is(Said::Ready) {
            (booting, serving) = (booting - 1, serving + 1);
        } else if line.raw.contains("why=retiring") {
            serving -= 1;
            successions += 1;
            assert!(serving >= WORKERS, "drained before its successor was ready: {}", line.raw);
        }
    }
    assert!(successions > 0, "nobody was replaced");
}

/// Sends `REQUESTS`, and more until `successions` workers were replaced.
fn recycle(program: Program, successions: usize, kind: impl FnOnce(Load) -> Load) -> Report {
    let _alone = alone();
    let mut server = program.workers(WORKERS).start();
    let load = kind(Load::on(server.target()).at_least(REQUESTS)).start();
    server.wait_each(Said::Ready, WORKERS + successions);
    load.wait_answered(REQUESTS);
    let report = load.finish();
    report.assert_none_failed();
    assert!(report.sent >= REQUESTS, "{report}");
    assert!(report.workers.len() > WORKERS, "{report}");
    check_the_order(&server);
    server.stop();
    report
}

#[test]
fn replacing_by_requests_loses_none_of_20_000_on_kept_connections() {
    recycle(Program::probe().args(BY_REQUESTS), 15, |load| load);
}

#[test]
fn replacing_by_requests_loses_none_of_20_000_on_connections_of_their_own() {
    recycle(Program::probe().args(BY_REQUESTS), 15, Load::without_keep_alive);
}

#[test]
fn replacing_by_requests_loses_none_of_20_000_over_a_unix_socket() {
    for keep_alive in [true, false] {
        let program = Program::probe().bind("unix:s.sock").args(BY_REQUESTS);
        recycle(program, 15, |load| load.keeping(keep_alive));
    }
}

#[test]
fn replacing_by_age_loses_none_of_20_000() {
    recycle(Program::probe().args("--max-worker-age 1s"), 4, |load| load);
}

#[test]
fn replacing_by_memory_loses_none_of_20_000_and_spares_the_small() {
    let _alone = alone();
    let mut server = Program::probe().workers(WORKERS).args("--max-worker-memory 64MiB").start();
    let load = Load::on(server.target()).without_keep_alive().at_least(REQUESTS).start();
    for round in 1..=2 {
        let leaking = server.get("/leak?bytes=134217728").worker();
        server.wait_count(Said::Ready, WORKERS + round);
        // Until it has left it may still be given what waits.
        server.wait_about(Said::Exited, leaking);
    }
    load.wait_answered(REQUESTS);
    let report = load.finish();
    report.assert_none_failed();
    assert!(report.workers.len() > WORKERS, "{report}");
    check_the_order(&server);
    assert_eq!(server.count(Said::Retiring), 2, "only those that leaked");
    server.stop();
}

/// A process that gave up its privileges is hidden from its equals, but not from itself.
#[test]
fn the_memory_of_another_user_is_watched_too() {
    if !Uid::effective().is_root() {
        return eprintln!("skipped: workers of another user, as this is not root");
    }
    let args = "--max-worker-memory 64MiB -u 54321 -g 54322";
    let mut server = Program::probe().workers(1).args(args).start();
    let leaking = server.get("/leak?bytes=134217728").worker();
    server.wait_count(Said::Ready, 2);
    server.wait_about(Said::Draining, leaking);
    server.stop();
}

#[test]
fn a_moment_of_much_memory_is_no_leak() {
    let mut server = Program::probe().workers(1).args("--max-worker-memory 64MiB").start();
    let worker = server.worker();
    for _ in 0..2 {
        let begin = Instant::now();
        // Time for two looks to find it, and then for one that finds it gone.
        assert_eq!(server.get("/hold?bytes=134217728&ms=1500").worker(), worker);
        if begin.elapsed() >= millis(1900) {
            return eprintln!("given up: the machine stood still long enough for a third look");
        }
        assert_eq!(server.get("/sleep?ms=1500").worker(), worker);
    }
    assert_eq!(server.count(Said::Retiring), 0);
    server.stop();
}

#[test]
fn a_long_drain_holds_nobody_up() {
    let args = "--max-worker-age 2s --graceful-timeout 120s --body-timeout 120s";
    let mut server = Program::probe().workers(WORKERS).args(args).start();
    let mut slow = server.connections_to_all(WORKERS);
    slow.iter_mut().for_each(|(_, client)| client.begin_upload());
    // The successors of the successors are ready while the first two still drain.
    server.wait_count(Said::Ready, WORKERS * 3);
    assert!(slow.iter().all(|(worker, _)| proc::is_alive(*worker)));
    for (worker, client) in &mut slow {
        client.send(UPLOAD).unwrap();
        let answer = client.read().unwrap();
        assert_eq!((answer.status, answer.worker(), answer.text().as_str()), (200, *worker, "6"));
    }
    check_the_order(&server);
    server.stop();
}

/// When the line was written, on a clock of its own.
fn milliseconds(line: &Line) -> i64 {
    let written = OffsetDateTime::parse(line.raw.split(' ').next().unwrap(), &Rfc3339);
    let written = written.unwrap_or_else(|error| panic!("{error}: {}", line.raw));
    (written.unix_timestamp_nanos() / 1_000_000) as i64
}

#[test]
fn a_worker_serves_for_its_age() {
    let mut server = Program::probe().workers(WORKERS).args("--max-worker-age 4s").start();
    server.wait_count(Said::Retiring, WORKERS);
    let log = server.log();
    for retiring in log.iter().filter(|line| line.is(Said::Retiring)) {
        let worker = retiring.raw.split(']').next().and_then(|who| who.rsplit(' ').next());
        let spawned = log.iter().find(|line| line.is(Said::Spawned) && line.value("pid") == worker);
        let age = milliseconds(retiring) - milliseconds(spawned.expect("each is told of"));
        assert!((3500..15_000).contains(&age), "{age} ms");
    }
    eventually(DEADLINE, "both were replaced", || server.count(Said::Ready) >= 2 * WORKERS);
    server.stop();
}

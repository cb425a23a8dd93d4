//! Workers that die: what is lost, how fast they are back, and when the master waits or gives up.

use crate::support::load::WAYS;
use crate::support::server::End;
use crate::support::{DEADLINE, Load, Program, Said, Server, alone, eventually, proc};
use nix::sys::signal::Signal::{SIGABRT, SIGILL, SIGKILL, SIGTERM};
use std::fs;
use std::time::{Duration, Instant};

const KILLS: usize = 50;
/// The longest that the master waits before it starts a worker anew that was ready.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// A killed worker is back within this, where the machine is slow, too.
const BACK_WITHIN: Duration = Duration::from_secs(10);
const CONNECTIONS: usize = 8;

#[test]
fn fifty_kills_lose_only_what_the_killed_worker_had_open() {
    let _alone = alone();
    let mut server = Program::probe().workers(3).args("--log-level debug").start();
    let load = Load::on(server.target()).connections(CONNECTIONS).start();
    let mut delays = Vec::new();
    for kill in 1..=KILLS {
        let workers = server.workers();
        let victim = workers[kill % workers.len()];
        load.wait_more(50);
        let begin = Instant::now();
        server.signal_to(victim, SIGKILL);
        server.wait_count(Said::Ready, 3 + kill);
        delays.push(begin.elapsed());
        assert_eq!(server.wait_count(Said::Exited, kill).number("pid"), victim);
    }
    let report = load.finish();
    // One request at a time is open on a connection; nobody can lose more than all of them at each kill.
    let lost_at_most = u64::try_from(KILLS * CONNECTIONS).unwrap();
    assert_eq!(
        report.failed(),
        report.closed + report.reset + report.cut,
        "nothing but the open ones: {report}"
    );
    assert!(report.failed() <= lost_at_most, "{report}");
    assert_eq!((report.refused, report.timed_out, report.wrong_body), (0, 0, 0), "{report}");
    delays.sort_unstable();
    eprintln!("back at the median after {:?}, at worst {:?}", delays[KILLS / 2], delays[KILLS - 1]);
    assert!(delays[KILLS / 2] < BACK_WITHIN, "at the median: {delays:?}");
    let pauses = pauses(&server);
    assert!(pauses.iter().all(|pause| *pause <= LONGEST_PAUSE), "{pauses:?}");
    server.stop();
}

/// How long the master said it would wait before the next start of a worker, each time that it did.
fn pauses(server: &Server) -> Vec<Duration> {
    let lines = server.log().into_iter().filter(|line| line.is(Said::BackOff));
    lines.map(|line| duration(line.value("next_start").expect("it says when"))).collect()
}

/// As the log has one: `400.0ms` or `1.6s`.
fn duration(text: &str) -> Duration {
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, 0.001),
        None => (text.strip_suffix('s').expect("seconds"), 1.0),
    };
    Duration::from_secs_f64(number.parse::<f64>().expect("a number") * unit)
}

/// What becomes of a worker whose event loop is occupied, so that it has none of the load's connections, whichever way they
/// come.
#[test]
fn a_crash_costs_none_of_20_000_requests_at_the_other_workers() {
    const REQUESTS: u64 = 20_000;
    let _alone = alone();
    for (bind, keep_alive) in WAYS {
        // Nobody but this test ends the one that spins.
        let patient = Program::probe().args("--timeout 10m --graceful-timeout 10m");
        let mut server = patient.bind(bind).workers(3).start();
        let ends = [SIGKILL, SIGABRT, SIGILL, SIGTERM];
        for (round, end) in (1..).zip(ends) {
            let (victim, mut client) = server.connections_to_all(3).swap_remove(round % 3);
            client.send("GET /spin?ms=600000 HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
            let before = proc::cpu_time(victim);
            eventually(DEADLINE, "it spins", || proc::cpu_time(victim) > before + Duration::from_millis(10));
            let share = REQUESTS / ends.len() as u64;
            let load = Load::on(server.target()).keeping(keep_alive).at_least(share).start();
            load.wait_answered(share / 3);
            // The last of them is asked to leave, and killed while it should.
            server.signal_to(victim, end);
            if end == SIGTERM {
                load.wait_more(share / 3);
                server.signal_to(victim, SIGKILL);
            }
            server.wait_about(Said::Exited, victim);
            server.wait_count(Said::Ready, 3 + round);
            load.wait_answered(share);
            load.finish().assert_none_failed();
        }
        server.stop();
    }
}

#[test]
fn the_others_answer_what_they_have_open_while_one_is_killed() {
    let mut server = Program::probe().workers(2).start();
    let mut connections = server.connections_to_all(2);
    let (victim, mut lost) = connections.remove(0);
    let (witness, mut kept) = connections.remove(0);
    lost.send("GET /sleep?ms=60000 HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
    kept.send("GET /sleep?ms=1000 HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
    server.signal_to(victim, SIGKILL);
    assert!(lost.read().is_err());
    assert_eq!(kept.read().unwrap().worker(), witness);
    let exited = server.wait_about(Said::Exited, victim);
    assert!(exited.raw.contains("SIGKILL") && exited.raw.contains("age="), "{}", exited.raw);
    server.stop();
}

#[test]
fn the_end_of_a_worker_is_explained() {
    let mut server = Program::probe().workers(1).start();
    let pid = server.worker();
    assert!(server.try_get("/crash").is_err());
    let exited = server.wait_about(Said::Exited, pid);
    assert!(exited.raw.contains("SIGABRT"), "{}", exited.raw);
    assert_eq!(server.wait_count(Said::Ready, 2).number("slot"), exited.number("slot"));
    server.stop();
}

#[test]
fn deaths_before_ready_are_tried_again_ever_later() {
    let mut server = Program::example("misuse").workers(1).start();
    fs::write(server.dir().join("die"), "").unwrap();
    let begin = Instant::now();
    server.signal_to(server.worker(), SIGKILL);
    server.wait_count(Said::Exited, 6);
    // 100 ms doubling, before each of the five starts.
    let elapsed = begin.elapsed();
    assert!(elapsed >= Duration::from_millis(100 + 200 + 400 + 800 + 1600), "{elapsed:?}");
    let told: Vec<u128> = pauses(&server).iter().map(Duration::as_millis).collect();
    assert_eq!(told[..5], [100, 200, 400, 800, 1600]);
    assert!(!server.has_ended(), "a server that once served never gives up");
    fs::remove_file(server.dir().join("die")).unwrap();
    server.wait_count(Said::Ready, 2);
    assert_eq!(server.get("/").status, 404);
    server.stop();
}

#[test]
fn a_server_is_degraded_and_not_dead_as_long_as_one_worker_serves() {
    let mut server = Program::example("misuse").workers(2).start();
    fs::write(server.dir().join("die"), "").unwrap();
    let (killed, other) = (server.workers()[0], server.workers()[1]);
    server.signal_to(killed, SIGKILL);
    let degraded = server.wait(Said::Degraded);
    assert_eq!((degraded.number("serving"), degraded.number("wanted")), (1, 2));
    assert_eq!(server.get("/").status, 404);
    // More of the same is not said again, and no worker that serves suffers.
    server.wait_count(Said::Exited, 6);
    assert_eq!(server.count(Said::Degraded), 1);
    assert!(proc::is_alive(other));
    fs::remove_file(server.dir().join("die")).unwrap();
    server.wait(Said::Whole);
    assert_eq!(server.workers().len(), 2);
    server.stop();
}

#[test]
fn quick_deaths_after_ready_hold_nobody_up_for_long() {
    // At info the log tells only the steps.
    let mut server = Program::probe().workers(1).args("--log-level debug").start();
    for round in 1..=6 {
        server.signal_to(server.wait_count(Said::Ready, round).number("pid"), SIGKILL);
        server.wait_count(Said::Exited, round);
        server.wait_count(Said::Ready, round + 1);
    }
    // 100 ms doubling to 500 ms at most; more of the same is not said again.
    let told: Vec<u128> = pauses(&server).iter().map(Duration::as_millis).collect();
    assert_eq!(told, [100, 200, 400, 500]);
    server.stop();
}

#[test]
fn a_server_that_is_never_ready_gives_up_with_exit_code_3() {
    // (the file, further arguments)
    for (fault, args) in [("die", ""), ("hang", "--boot-timeout 1s")] {
        let program = Program::example("misuse").file(fault, "").args("-w 2 -p server.pid").args(args);
        let mut server = program.spawn();
        assert_eq!(server.wait_exit(), End::Code(3), "{fault}");
        nothing_is_left(&server);
        assert!(server.log().iter().any(|line| line.level() == "ERROR"), "it says why");
    }
}

fn nothing_is_left(server: &Server) {
    eventually(DEADLINE, "no worker is left", || server.workers().is_empty());
    assert!(!server.dir().join("server.pid").exists());
}

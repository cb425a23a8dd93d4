//! Workers that die: what is lost, how fast they are back, and when the master waits or gives up.

use crate::support::load::WAYS;
use crate::support::server::End;
use crate::support::{DEADLINE, Load, Program, Said, Server, alone, busy, eventually, proc, seconds};
use nix::sys::signal::Signal::{SIGABRT, SIGILL, SIGKILL, SIGTERM};
use std::fs;
use std::time::{Duration, Instant};

const KILLS: usize = 50;
/// A killed worker is back within this.
const BACK_WITHIN: Duration = Duration::from_secs(1);
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
    assert!(delays[KILLS / 2] < BACK_WITHIN, "at the median: {delays:?}");
    assert!(delays[KILLS - 1] < busy(BACK_WITHIN), "at worst: {delays:?}");
    server.stop();
}

/// What becomes of a worker whose event loop is occupied, so that it has none of the load's connections, whichever way they
/// come.
#[test]
fn a_crash_costs_none_of_20_000_requests_at_the_other_workers() {
    const REQUESTS: u64 = 20_000;
    let _alone = alone();
    for (bind, keep_alive) in WAYS {
        let mut server = Program::probe().bind(bind).workers(3).start();
        let ends = [SIGKILL, SIGABRT, SIGILL, SIGTERM];
        for (round, end) in (1..).zip(ends) {
            let (victim, mut client) = server.connections_to_all(3).swap_remove(round % 3);
            client.send("GET /spin?ms=60000 HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
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
    for (_, connection) in &mut connections {
        connection.send("GET /sleep?ms=1000 HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
    }
    let (victim, mut lost) = connections.remove(0);
    let (witness, mut kept) = connections.remove(0);
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
    server.signal_to(server.worker(), SIGKILL);
    // 100 ms doubling: five deaths take at least 100 + 200 + 400 + 800 ms.
    server.wait_count(Said::Exited, 2);
    let begin = Instant::now();
    server.wait_count(Said::Exited, 6);
    let elapsed = begin.elapsed();
    assert!(elapsed >= Duration::from_millis(1400), "{elapsed:?}");
    assert!(elapsed < busy(seconds(3)), "{elapsed:?}");
    server.wait(Said::BackOff);
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
        let begin = Instant::now();
        server.wait_count(Said::Ready, round + 1);
        // 100 ms doubling to 500 ms at most.
        assert!(begin.elapsed() < busy(seconds(1)), "round {round}: {:?}", begin.elapsed());
    }
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

//! Signals without measure: whatever comes, and however fast, the server ends up as it was told to be, has lost no
//! request, and has nothing left over. Not here: what each signal does (signals.rs).

use crate::support::server::End;
use crate::support::{DEADLINE, Dice, Load, Program, Said, Server, Target, alone, eventually, millis, proc};
use nix::sys::signal::Signal::{self, *};
use std::thread;
use std::time::{Duration, Instant};

const SIGNALS: usize = 500;
const WORKERS: usize = 3;
const MAX_WORKERS: usize = 6;
/// A log that has not grown for so long tells that nothing is under way.
const CALM: Duration = Duration::from_millis(500);
const STARTS: u64 = 20;

#[test]
fn five_hundred_signals_lose_nothing_and_leave_nothing() {
    let others = [SIGHUP, SIGTTIN, SIGTTOU, SIGUSR1, SIGWINCH, SIGCHLD];
    storm(&others, |dice| millis(dice.within(0..6)));
}

/// Each upgrade is a new master, so what one of them leaks shows above all without them.
#[test]
fn five_hundred_signals_with_upgrades_among_them_lose_nothing_and_leave_nothing() {
    let all = [SIGHUP, SIGTTIN, SIGTTOU, SIGUSR1, SIGUSR2, SIGWINCH, SIGCHLD];
    storm(&all, |dice| millis(dice.within(0..12)));
}

fn storm(signals: &[Signal], pause: impl Fn(&mut Dice) -> Duration) {
    let _alone = alone();
    let mut dice = Dice::new();
    let mut server = start();
    let loads = loads(&server);
    for _ in 0..SIGNALS {
        // A master that has just left to its successor hears nothing any more.
        server.follow_upgrades();
        server.try_signal(dice.one_of(signals));
        thread::sleep(pause(&mut dice));
    }
    calm_down(&mut server);
    for load in loads {
        load.wait_more(200);
        load.finish().assert_none_failed();
    }
    assert_eq!(server.count(Said::ReloadRefused) + server.count(Said::UpgradeFailed), 0);
    assert!(server.count(Said::ReloadDone) > 0 && server.count(Said::Wanted) > 0);
    assert_eq!(server.count(Said::UpgradeDone) > 0, signals.contains(&SIGUSR2));
    assert_nothing_is_left(&server);
    server.stop();
}

#[test]
fn a_hundred_reloads_within_a_second_lose_nothing_and_leave_nothing() {
    let _alone = alone();
    let mut server = start();
    let loads = loads(&server);
    let begin = Instant::now();
    for sent in 1..=100 {
        server.signal(SIGHUP);
        thread::sleep((begin + sent * millis(10)).saturating_duration_since(Instant::now()));
    }
    calm_down(&mut server);
    for load in loads {
        load.finish().assert_none_failed();
    }
    assert_eq!(server.count(Said::ReloadRefused), 0);
    assert_nothing_is_left(&server);
    server.stop();
}

/// What comes before the master listens to signals ends or, TTIN and TTOU, stops it, as any program (signal(7)); from then
/// on each is obeyed.
#[test]
fn signals_from_the_first_moment_on_end_the_start_or_are_obeyed() {
    let mut dice = Dice::new();
    for start in 0..STARTS {
        let stops = start % 4 == 3;
        let last = if stops { [SIGTERM, SIGINT] } else { [SIGUSR2, SIGUSR2] };
        let signals = [&[SIGHUP, SIGTTIN, SIGTTOU, SIGUSR1, SIGWINCH, SIGCHLD][..], &last].concat();
        let mut server = program().spawn();
        let first = dice.within(0..15_000);
        thread::sleep(Duration::from_micros(if start == 0 { 0 } else { first }));
        let until = Instant::now() + DEADLINE;
        while !server.has_ended() && server.count(Said::Ready) < WORKERS {
            assert!(Instant::now() < until, "it neither ended nor became ready");
            server.try_signal(dice.one_of(&signals));
            if proc::is_stopped(server.pid()) {
                assert_eq!(server.count(Said::Listening), 0, "stopped though it listened");
                server.try_signal(SIGCONT);
            }
            thread::sleep(Duration::from_micros(dice.within(0..2000)));
        }
        if !stops && (!server.has_ended() || server.count(Said::UpgradeStarted) > 0) {
            calm_down(&mut server);
            assert_eq!(server.get("/").status, 200);
            assert_nothing_is_left(&server);
        }
        if !server.has_ended() {
            server.try_signal(SIGTERM);
        }
        match server.wait_exit() {
            End::Signal(_) => assert_eq!(server.count(Said::Listening), 0, "killed though it listened"),
            end => assert!(matches!(end, End::Code(0) | End::Unknown), "{end:?}"),
        }
        eventually(DEADLINE, "nobody is left", || server.everybody().0.is_empty());
    }
}

fn program() -> Program {
    Program::probe().workers(WORKERS).args(&format!("--max-workers {MAX_WORKERS} -b unix:s.sock"))
}

fn start() -> Server {
    program().start()
}

/// Kept connections over TCP, and connections of their own over the Unix socket.
fn loads(server: &Server) -> [crate::support::load::Running; 2] {
    let unix = Target::Unix(server.dir().join("s.sock"));
    [
        Load::on(server.target()).connections(4).start(),
        Load::on(unix).connections(4).without_keep_alive().start(),
    ]
}

/// Waits until nothing is under way any more, and exactly those live who should.
#[track_caller]
fn calm_down(server: &mut Server) {
    let (mut lines, mut since) = (0, Instant::now());
    eventually(
        DEADLINE * 2,
        "the log is silent, and one master and as many workers live as TTIN and TTOU say",
        || {
            let now = server.log().len();
            if now != lines {
                (lines, since) = (now, Instant::now());
            }
            server.follow_upgrades();
            let (living, _) = server.everybody();
            let wanted = wanted(server);
            since.elapsed() > CALM && server.workers().len() == wanted && living.len() == 1 + wanted
        },
    );
}

/// What the master last said that it wants. Equal signals that come close together count once, so only it knows.
fn wanted(server: &Server) -> usize {
    let by_this_master = format!("[master {}]", server.pid());
    let said =
        server.log().into_iter().rfind(|line| line.is(Said::Wanted) && line.raw.contains(&by_this_master));
    said.map_or(WORKERS, |line| usize::try_from(line.number("workers")).unwrap())
}

/// No zombie, and no descriptor more than a server has that nothing ever happened to.
#[track_caller]
fn assert_nothing_is_left(server: &Server) {
    eventually(DEADLINE, "every dead process is reaped", || server.everybody().1.is_empty());
    let mut fresh = start();
    if server.count(Said::UpgradeDone) > 0 {
        // It gets rid of what the tests left open.
        fresh.signal(SIGUSR2);
        fresh.follow_upgrade(1);
    }
    proc::assert_same_files("the master", server.pid(), fresh.pid(), DEADLINE);
    for worker in server.workers() {
        proc::assert_same_files("a worker", worker, fresh.workers()[0], DEADLINE);
    }
    fresh.stop();
}

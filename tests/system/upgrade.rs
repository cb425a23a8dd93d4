//! USR2: another binary takes the server over, and what it cannot take over goes on.

use crate::support::load::WAYS;
use crate::support::server::End;
use crate::support::{
    Connection, DEADLINE, Load, Program, Said, Server, Target, alone, eventually, proc, seconds,
};
use nix::sys::signal::Signal::{SIGHUP, SIGKILL, SIGTERM, SIGUSR2, SIGWINCH};
use std::fs;

const REQUESTS: u64 = 20_000;
const UPGRADES: u64 = 5;

#[test]
fn upgrades_lose_none_of_20_000_requests_on_kept_connections() {
    upgrade_under(Program::probe(), |load| load);
}

#[test]
fn upgrades_lose_none_of_20_000_requests_on_unix_connections_of_their_own() {
    upgrade_under(Program::probe().bind("unix:s.sock"), Load::without_keep_alive);
}

#[test]
fn upgrades_lose_none_of_20_000_requests_on_kept_unix_connections() {
    upgrade_under(Program::probe().bind("unix:s.sock"), |load| load);
}

#[test]
fn upgrades_lose_none_of_20_000_requests_on_connections_of_their_own() {
    upgrade_under(Program::probe(), Load::without_keep_alive);
}

#[test]
fn upgrades_with_queues_lose_none_of_20_000_requests_on_connections_of_their_own() {
    upgrade_under(Program::probe().args("--reuse-port"), Load::without_keep_alive);
}

fn upgrade_under(program: Program, kind: impl FnOnce(Load) -> Load) {
    let _alone = alone();
    let mut server = program.workers(2).args("-p pid").start();
    let load = kind(Load::on(server.target())).at_least(REQUESTS).start();
    let mut files = None;
    for done in 1..=UPGRADES {
        server.signal(SIGUSR2);
        server.follow_upgrade(usize::try_from(done).unwrap());
        assert_eq!(pid_in(&server, "pid"), Some(server.pid()));
        // The first of them got rid of what the tests left open.
        let open = || proc::open_files(server.pid());
        let first = *files.get_or_insert_with(open);
        // What the end of a worker or the start of one takes is given back.
        eventually(DEADLINE, &format!("it holds no more than {first}"), || open() <= first);
        load.wait_more(REQUESTS / UPGRADES / 4);
        load.wait_answered(done * REQUESTS / UPGRADES);
    }
    let report = load.finish();
    report.assert_none_failed();
    assert!(report.sent >= REQUESTS, "{report}");
    assert!(
        report.workers.len() > usize::try_from(UPGRADES).unwrap(),
        "every master's workers answered: {report}"
    );
    server.stop();
    assert!(!server.dir().join("s.sock").exists() && !server.dir().join("pid").exists());
}

fn pid_in(server: &Server, file: &str) -> Option<i32> {
    fs::read_to_string(server.dir().join(file)).ok()?.trim().parse().ok()
}

#[test]
fn the_binary_that_now_has_the_name_takes_over() {
    let mut server = Program::replaceable().workers(1).start();
    // A script in front of the new version tells that it was started, and with what.
    fs::rename(server.dir().join("server"), server.dir().join("new")).unwrap();
    server.put_script("#!/bin/sh\necho \"$*\" > arguments; exec ./new \"$@\"");
    server.signal(SIGUSR2);
    server.follow_upgrade(1);
    let arguments = fs::read_to_string(server.dir().join("arguments")).unwrap();
    assert_eq!(arguments.trim(), "-b 127.0.0.1:0 -w 1");
    assert_eq!(server.get("/").status, 200, "the port that the kernel chose is the same");
    server.stop();
}

#[test]
fn upgrades_that_fail_cost_none_of_20_000_requests() {
    for (bind, keep_alive) in WAYS {
        fail_to_upgrade_under(bind, keep_alive);
    }
}

fn fail_to_upgrade_under(bind: &str, keep_alive: bool) {
    let _alone = alone();
    let program = Program::replaceable().bind(bind).workers(2).args("-p pid --boot-timeout 2s");
    let mut server = program.start();
    let old = server.workers();
    let load = Load::on(server.target()).keeping(keep_alive).at_least(REQUESTS).start();
    let cases = [
        ("exit 3", "exit code 3"),
        ("kill -SEGV $$", "SIGSEGV"),
        ("exec sleep 600", "not ready within boot_timeout"),
        ("exec ./probe-that-is-not-there", "exit code 127"),
    ];
    for (count, (script, why)) in cases.iter().enumerate() {
        server.put_script(&format!("#!/bin/sh\n{script}\n"));
        server.signal(SIGUSR2);
        server.wait_count(Said::UpgradeFailed, count + 1);
        server.wait_text(why);
        eventually(DEADLINE, "only the old ones are there", || server.workers() == old);
        assert_eq!(pid_in(&server, "pid"), Some(server.pid()));
        assert!(!server.dir().join("pid.2").exists());
        load.wait_more(REQUESTS / 10);
    }
    fs::remove_file(server.dir().join("server")).unwrap();
    server.signal(SIGUSR2);
    server.wait_count(Said::UpgradeFailed, cases.len() + 1);
    load.wait_answered(REQUESTS);
    load.finish().assert_none_failed();
    server.stop();
}

/// It would be ready while the old master serves on, and stay.
#[test]
fn a_stop_that_is_put_off_ends_an_upgrade_under_way() {
    let mut server = Program::replaceable().workers(1).args("--lame-duck 1h").start();
    fs::rename(server.dir().join("server"), server.dir().join("new")).unwrap();
    server.put_script("#!/bin/sh\nsleep 0.5; exec ./new \"$@\"");
    server.signal(SIGUSR2);
    server.wait(Said::UpgradeStarted);
    server.signal(SIGTERM);
    server.wait(Said::UpgradeFailed);
    assert_eq!(server.get("/").status, 200);
    server.signal(SIGTERM);
    assert_eq!(server.wait_exit(), End::Code(0));
    eventually(DEADLINE, "nobody is left", || server.everybody().0.is_empty());
}

#[test]
fn settings_that_are_wrong_by_then_refuse_the_upgrade() {
    let mut server = Program::probe().config("workers = 1\n").start();
    fs::write(server.dir().join("server.toml"), "workers = 0\n").unwrap();
    server.signal(SIGUSR2);
    server.wait(Said::UpgradeFailed);
    server.wait_text("exit code 2");
    assert_eq!(server.get("/").status, 200);
    fs::write(server.dir().join("server.toml"), "workers = 2\n").unwrap();
    server.signal(SIGUSR2);
    server.follow_upgrade(1);
    assert_eq!(server.workers().len(), 2);
    server.stop();
}

#[test]
fn an_address_that_the_new_settings_do_not_have_is_given_up() {
    let mut server =
        Program::probe().unbound().config("bind = [\"unix:a.sock\", \"unix:b.sock\"]\nworkers = 1\n").start();
    fs::write(server.dir().join("server.toml"), "bind = [\"unix:b.sock\", \"unix:c.sock\"]\nworkers = 1\n")
        .unwrap();
    server.signal(SIGUSR2);
    server.follow_upgrade(1);
    for (name, is_there) in [("a.sock", false), ("b.sock", true), ("c.sock", true)] {
        let answer =
            Connection::open(&Target::Unix(server.dir().join(name))).and_then(|mut open| open.get("/"));
        assert_eq!(answer.is_ok(), is_there, "{name}: {answer:?}");
    }
    server.stop();
}

/// Two masters, and their pids.
fn beside() -> (Server, i32, i32) {
    let program = Program::probe().bind("unix:s.sock").workers(2).args("-p pid --upgrade manual");
    let server = program.start();
    let old = server.pid();
    server.signal(SIGUSR2);
    let new = server.wait(Said::UpgradeStarted).number("pid");
    server.wait(Said::Beside);
    assert_eq!(pid_in(&server, "pid"), Some(old));
    assert_eq!(pid_in(&server, "pid.2"), Some(new));
    (server, old, new)
}

/// Asks until both of these masters' workers have answered, or only those of one.
fn answered_by(server: &Server, masters: &[i32]) {
    let workers: Vec<i32> = masters.iter().flat_map(|&master| proc::children(master)).collect();
    let mut seen = Vec::new();
    eventually(DEADLINE, "all of them have answered", || {
        let worker = server.get("/").worker();
        assert!(workers.contains(&worker), "{worker} of {workers:?}");
        seen.push(worker);
        masters.iter().all(|&master| proc::children(master).iter().any(|worker| seen.contains(worker)))
    });
}

#[test]
fn a_manual_upgrade_ends_with_the_old_master() {
    let (mut server, old, new) = beside();
    server.signal_to(old, SIGTERM);
    server.follow_upgrade(1);
    assert_eq!((server.pid(), pid_in(&server, "pid"), pid_in(&server, "pid.2")), (new, Some(new), None));
    answered_by(&server, &[new]);
    server.stop();
    assert!(!server.dir().join("s.sock").exists());
}

#[test]
fn a_manual_upgrade_ends_with_the_new_master() {
    let (mut server, old, new) = beside();
    server.signal_to(new, SIGTERM);
    server.wait(Said::SuccessorLeft);
    assert_eq!((pid_in(&server, "pid"), pid_in(&server, "pid.2")), (Some(old), None));
    assert!(server.dir().join("s.sock").exists(), "it is not the new one's");
    assert_eq!(server.get("/").status, 200);
    server.stop();
}

#[test]
fn the_old_master_rests_and_comes_back() {
    let (mut server, old, new) = beside();
    server.signal_to(old, SIGWINCH);
    server.wait(Said::Resting);
    eventually(DEADLINE, "the old workers have left", || proc::children(old) == [new]);
    answered_by(&server, &[new]);
    server.signal_to(old, SIGHUP);
    server.wait(Said::Rested);
    eventually(DEADLINE, "the old workers are back", || proc::children(old).len() == 3);
    // Nobody has to call it back when the new one dies.
    server.signal_to(old, SIGWINCH);
    server.wait_count(Said::Resting, 2);
    eventually(DEADLINE, "the old workers have left", || proc::children(old) == [new]);
    server.signal_to(new, SIGKILL);
    server.wait_count(Said::Rested, 2);
    assert_eq!(server.get("/").status, 200);
    server.stop();
}

#[test]
fn a_new_master_survives_the_death_of_the_old_one_and_takes_over() {
    let (mut server, old, new) = beside();
    server.signal_to(old, SIGKILL);
    server.wait(Said::UpgradeDone);
    server.wait_exit();
    server.follow(new);
    assert_eq!((pid_in(&server, "pid"), pid_in(&server, "pid.2")), (Some(new), None));
    assert_eq!(server.get("/").status, 200);
    server.stop();
    assert!(!server.dir().join("s.sock").exists());
}

#[test]
fn winch_means_nothing_where_no_other_master_serves() {
    let mut server = Program::probe().workers(1).start();
    let worker = server.worker();
    server.signal(SIGWINCH);
    server.wait_text("signal ignored signal=WINCH");
    assert_eq!(server.worker(), worker);
    server.stop();
}

#[test]
fn an_upgrade_waits_for_requests_under_way() {
    let mut server = Program::probe().workers(1).start();
    let mut slow = server.connect();
    slow.send("GET /sleep?ms=1500 HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    server.wait(Said::Ready);
    server.signal(SIGUSR2);
    server.wait(Said::UpgradeDone);
    assert_eq!(slow.read().map(|answer| answer.status), Ok(200));
    server.follow_upgrade(1);
    server.stop();
    assert!(server.wait_nobody_left(&[], seconds(1)) < DEADLINE);
}

#[test]
fn a_new_master_whose_workers_never_boot_takes_nothing_over() {
    let mut server = Program::example("misuse").workers(2).args("--boot-timeout 3s").start();
    let old = server.workers();
    for (count, fault) in ["hang", "die"].into_iter().enumerate() {
        fs::write(server.dir().join(fault), "").unwrap();
        server.signal(SIGUSR2);
        server.wait_count(Said::UpgradeFailed, count + 1);
        eventually(DEADLINE, "only the old ones are there", || server.workers() == old);
        assert_eq!(server.get("/echo?msg=a").text(), "a");
        fs::remove_file(server.dir().join(fault)).unwrap();
    }
    server.signal(SIGUSR2);
    server.follow_upgrade(1);
    assert_eq!(server.workers().len(), 2);
    server.stop();
}

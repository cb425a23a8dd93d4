//! A system that has no process to give: what serves goes on, what is missing comes when there is one again.
//! The limit is RLIMIT_NPROC, which does not hold for root, so the server is another user's.

use crate::support::{DEADLINE, Load, Program, Said, Server, eventually, proc};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::Signal::{SIGHUP, SIGKILL, SIGUSR2};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

/// Numbers that no account has, and no other test: the limit counts all processes of a user.
const UID: &str = "54331";
const BECOME: [&str; 6] = ["setpriv", "--reuid", UID, "--regid", UID, "--clear-groups"];

/// The probe as that user, through `more`; `None`, and said, where this machine does not let it run.
fn as_other(more: &[&str]) -> Option<Program> {
    let program = Program::probe().workers(2);
    fs::set_permissions(program.dir(), Permissions::from_mode(0o755)).unwrap();
    let may_run = Command::new(BECOME[0])
        .args(&BECOME[1..])
        .args([env!("CARGO_BIN_EXE_ferricorn"), "--version"])
        .output();
    if !may_run.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: a server of another user, whom this machine does not let run it");
        return None;
    }
    Some(program.through(&[&BECOME, more].concat()))
}

/// Sets how many processes its user may have for the master to fork one more; `None`: as many as there may be.
fn limit_processes(server: &Server, soft: Option<u32>) {
    let (_, hard) = getrlimit(Resource::RLIMIT_NPROC).unwrap();
    let soft = soft.map_or(hard, u64::from);
    let (pid, limit) = (server.pid().to_string(), format!("--nproc={soft}:"));
    let status =
        Command::new(BECOME[0]).args(&BECOME[1..]).args(["prlimit", "--pid", &pid, &limit]).status().unwrap();
    assert!(status.success(), "prlimit: {status}");
}

#[test]
fn a_respawn_that_finds_no_process_waits_and_what_serves_goes_on() {
    let Some(program) = as_other(&[]) else { return };
    let mut server = program.start();
    limit_processes(&server, Some(1));
    let workers = server.workers();
    server.signal_to(workers[0], SIGKILL);
    server.wait_about(Said::Exited, workers[0]);
    let load = Load::on(server.target()).connections(2).start();
    let failed = server.wait_count(Said::ForkFailed, 3);
    assert!(failed.raw.contains("Resource temporarily unavailable"), "{}", failed.raw);
    let delays: Vec<_> = server.log().into_iter().filter(|line| line.is(Said::BackOff)).collect();
    let delays: Vec<_> = delays.iter().filter_map(|line| line.value("next_start")).collect();
    // The first is the death's, which came soon after ready; a fork that fails counts on.
    assert!(delays.starts_with(&["100.0ms", "200.0ms", "400.0ms"]), "{delays:?}");

    server.signal(SIGHUP);
    let refused = server.wait(Said::ReloadRefused);
    assert!(refused.raw.contains("could not be forked"), "{}", refused.raw);
    server.signal(SIGUSR2);
    server.wait(Said::UpgradeFailed);
    let why = server.log_with("upgrade could not be started");
    assert!(why[0].contains("Resource temporarily unavailable"), "{why:?}");
    load.wait_more(500);
    assert_eq!(server.workers(), [workers[1]], "who served, serves");

    limit_processes(&server, None);
    server.wait_count(Said::Ready, 3);
    assert_eq!(server.workers().len(), 2);
    server.signal(SIGHUP);
    server.wait(Said::ReloadDone);
    server.signal(SIGUSR2);
    server.follow_upgrade(1);
    load.finish().assert_none_failed();
    eventually(DEADLINE, "nobody is left unburied", || proc::zombies(server.pid()).is_empty());
    server.stop();
}

#[test]
fn a_start_that_finds_no_process_waits_for_one() {
    let Some(program) = as_other(&["prlimit", "--nproc=1:"]) else { return };
    let mut server = program.spawn();
    // More often than deaths before ready would be allowed.
    server.wait_count(Said::ForkFailed, 10);
    assert!(!server.has_ended());
    limit_processes(&server, None);
    server.wait_count(Said::Ready, 2);
    eventually(DEADLINE, "both serve", || server.workers().len() == 2);
    assert_eq!(server.get("/").status, 200);
    server.stop();
}

//! What workers share is loaded once a generation, by a process that the workers come from and the master is not harmed by.

use crate::support::server::End;
use crate::support::{DEADLINE, Load, Program, Said, Server, alone, eventually, proc};
use nix::sys::signal::Signal::{SIGHUP, SIGKILL, SIGTERM, SIGTTIN, SIGTTOU};
use std::collections::BTreeSet;
use std::fs;

const REQUESTS: u64 = 20_000;
const RELOADS: u64 = 5;

fn program(workers: usize) -> Program {
    Program::example("misuse").variable("MISUSE", "preload").file("value", "one").workers(workers)
}

/// The processes of the server with this role, which all are the master's children.
fn those(server: &Server, role: &str) -> Vec<i32> {
    proc::children(server.pid()).into_iter().filter(|&pid| proc::comm(pid).contains(role)).collect()
}

/// What was loaded, and the process that did it.
fn loaded(server: &Server) -> (String, i32) {
    let text = server.get("/").text();
    let (value, pid) = text.split_once(' ').unwrap();
    (value.to_owned(), pid.parse().unwrap())
}

#[test]
fn workers_have_one_copy_of_200_mb() {
    let mut server = Program::example("offline_model").workers(4).start();
    for (_, connection) in &mut worker_connections(&server, 4) {
        assert_eq!(connection.get("/nearest/7").unwrap().text(), "[6]");
    }
    let (workers, nursery) = (those(&server, "-w"), those(&server, "-nursery"));
    assert_eq!((workers.len(), nursery.len()), (4, 1));
    let mut proportional = proc::memory_kib(nursery[0], "Pss");
    for worker in workers {
        assert!(proc::memory_kib(worker, "Rss") > 190_000, "the model is there");
        let private = proc::memory_kib(worker, "Private_Dirty");
        assert!(private < 10_000, "and not its own: {private} KiB");
        proportional += proc::memory_kib(worker, "Pss");
    }
    assert!(proportional < 300_000, "all of them together: {proportional} KiB");
    server.stop();
}

fn worker_connections(server: &Server, count: usize) -> Vec<(usize, crate::support::Connection)> {
    (0..count).map(|number| (number, server.connect())).collect()
}

#[test]
fn a_generation_loads_once_and_a_reload_loads_anew() {
    let mut server = program(2).start();
    let (value, nursery) = loaded(&server);
    assert_eq!((value.as_str(), those(&server, "-nursery")), ("one", vec![nursery]));
    // A worker that dies comes back from the same nursery, and so does one more.
    server.signal_to(those(&server, "-w")[0], SIGKILL);
    server.wait_count(Said::Ready, 3);
    server.signal(SIGTTIN);
    server.wait_count(Said::Ready, 4);
    let mut asked = BTreeSet::new();
    eventually(DEADLINE, "all three have answered", || {
        let answer = server.get("/");
        assert_eq!(answer.text(), format!("one {nursery}"));
        asked.insert(answer.worker());
        asked.len() == 3
    });
    fs::write(server.dir().join("value"), "two").unwrap();
    assert_eq!(loaded(&server).0, "one");
    server.signal(SIGHUP);
    server.wait(Said::ReloadDone);
    eventually(DEADLINE, "the old generation has left", || proc::children(server.pid()).len() == 4);
    let (value, successor) = loaded(&server);
    assert_eq!((value.as_str(), those(&server, "-nursery")), ("two", vec![successor]));
    assert_ne!(successor, nursery);
    eventually(DEADLINE, "they are reaped", || proc::zombies(server.pid()).is_empty());
    server.stop();
}

#[test]
fn a_preload_that_fails_refuses_the_reload() {
    let mut server = program(2).args("--boot-timeout 3s").start();
    let old = proc::children(server.pid());
    for (count, fault) in ["panic", "thread", "hang"].into_iter().enumerate() {
        let fault = server.dir().join(fault);
        fs::write(&fault, "").unwrap();
        refused(&server, count + 1, &old);
        fs::remove_file(fault).unwrap();
    }
    fs::remove_file(server.dir().join("value")).unwrap();
    refused(&server, 4, &old);
    fs::write(server.dir().join("value"), "two").unwrap();
    server.signal(SIGHUP);
    server.wait(Said::ReloadDone);
    // The last old worker has been told to drain, and may still take one connection.
    eventually(DEADLINE, "the new generation answers", || loaded(&server).0 == "two");
    server.stop();
}

#[track_caller]
fn refused(server: &Server, count: usize, old: &[i32]) {
    server.signal(SIGHUP);
    server.wait_count(Said::ReloadRefused, count);
    eventually(DEADLINE, "only the old ones are there", || proc::children(server.pid()) == old);
    assert_eq!(loaded(server).0, "one");
}

#[test]
fn a_server_whose_preload_fails_gives_up() {
    let server = program(1).file("panic", "");
    let outcome = server.run();
    assert_eq!(outcome.code, Some(3), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("told to panic in the preload"), "{}", outcome.stderr);
}

#[test]
fn a_nursery_that_dies_disturbs_nobody_and_is_started_again_when_it_is_needed() {
    let mut server = program(2).start();
    let (workers, (_, nursery)) = (those(&server, "-w"), loaded(&server));
    server.signal_to(nursery, SIGKILL);
    server.wait_text("nursery exited");
    assert_eq!(those(&server, "-w"), workers);
    server.signal_to(workers[0], SIGKILL);
    server.wait_count(Said::Ready, 3);
    let mut found = BTreeSet::new();
    eventually(DEADLINE, "the old worker and the new one have answered", || {
        found.insert(loaded(&server).1);
        found.len() == 2
    });
    assert_eq!(those(&server, "-nursery"), Vec::from_iter(found.into_iter().filter(|&pid| pid != nursery)));
    server.stop();
}

#[test]
fn reloads_and_resizes_lose_none_of_20_000_requests() {
    let _alone = alone();
    let mut server = program(2).start();
    let load = Load::on(server.target()).without_keep_alive().at_least(REQUESTS).start();
    for done in 1..=RELOADS {
        let done_before = 2 * usize::try_from(done - 1).unwrap();
        server.signal(SIGTTIN);
        server.signal(SIGHUP);
        server.wait_count(Said::ReloadDone, usize::try_from(done).unwrap());
        // Either would make up for the other if they were heard together.
        server.wait_count(Said::Wanted, done_before + 1);
        server.signal(SIGTTOU);
        server.wait_count(Said::Wanted, done_before + 2);
        load.wait_answered(done * REQUESTS / RELOADS);
    }
    load.finish().assert_none_failed();
    eventually(DEADLINE, "two workers and a nursery are there", || proc::children(server.pid()).len() == 3);
    server.stop();
}

#[test]
fn nobody_is_left_when_the_server_stops_or_its_master_is_killed() {
    for signal in [SIGTERM, SIGKILL] {
        let mut server = program(2).start();
        let known = proc::descendants(server.pid());
        assert_eq!(known.len(), 3);
        server.signal(signal);
        let end = server.wait_exit();
        assert!(matches!(end, End::Code(0) | End::Signal(9)), "{end:?}");
        server.wait_nobody_left(&known, DEADLINE);
    }
}

#[test]
fn workers_hold_what_they_need_and_no_line_to_the_nursery() {
    let mut shared = program(1).start();
    let mut plain = Program::probe().workers(1).start();
    let (worker, other) = (those(&shared, "-w")[0], plain.worker());
    eventually(DEADLINE, "a worker has as many files as one that the master forked", || {
        proc::open_files(worker) == proc::open_files(other)
    });
    shared.stop();
    plain.stop();
}

//! What the crate offers to the tests of apps: the real program, started by it.

use crate::support::{DEADLINE, eventually, proc};
use ferricorn::testing::{Server, example};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;

fn hooked(args: &[&str]) -> Command {
    let mut command = example("hooked");
    command.args(["-w", "1"]).args(args);
    command
}

#[test]
fn it_is_started_asked_reloaded_and_stopped() {
    let server = Server::start(hooked(&[]));
    assert_eq!(server.get("/").header("x-worker-slot"), "0");
    assert_eq!(server.get("/bad").status, 502);
    server.reload();
    server.wait_for("reload done");
    let request = axum::http::Request::post("/").header("x-a", "b").body(vec![b'x'; 70_000]).unwrap();
    assert_eq!(server.send(request).status, 405);
    assert!(server.stop().success());
}

#[test]
fn nobody_is_left_when_it_is_dropped() {
    let server = Server::start(hooked(&[]));
    let log = server.log();
    let master =
        log.iter().find_map(|line| line.split("master started pid=").nth(1)?.split(' ').next()?.parse().ok());
    let master: i32 = master.expect("the log names the master");
    let known = proc::descendants(master);
    assert!(!known.is_empty());
    drop(server);
    eventually(DEADLINE, "nobody is left", || !known.iter().chain([&master]).any(|&pid| proc::is_alive(pid)));
}

#[test]
fn one_that_cannot_start_fails_the_test() {
    let failed = catch_unwind(AssertUnwindSafe(|| Server::start(hooked(&["--warm-up", "/bad"]))));
    let message = failed.err().and_then(|panic| panic.downcast_ref::<String>().cloned()).unwrap();
    assert_eq!(message, "the server ended, and its log has no \"worker ready\"");
}

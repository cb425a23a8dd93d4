//! What the server is started with: sockets that are passed in, and descriptors that mean nothing to it.

use crate::support::{Connection, DEADLINE, Program, Said, Server, Target, eventually, proc};
use nix::sys::signal::Signal::SIGHUP;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::path::Path;

/// Everybody of a server with two workers.
fn everybody(server: &Server) -> Vec<i32> {
    let workers = server.workers();
    assert_eq!(workers.len(), 2);
    [vec![server.pid()], workers].concat()
}

#[test]
fn a_foreign_descriptor_ends_at_the_master_and_all_are_closed_on_exec() {
    let foreign = Path::new("/etc/passwd");
    let hand_down = r#"exec 7</etc/passwd && exec "$0" "$@""#;
    let mut server = Program::probe().through(&["sh", "-c", hand_down]).workers(2).start();
    let holds = |pid: i32| proc::file_targets(pid).iter().any(|target| target == foreign);
    // A lock that a wrapper took, or a pipe whose end it watches, lasts as long as the master.
    assert!(holds(server.pid()));
    for round in 1..=2 {
        for worker in server.workers() {
            assert!(!holds(worker), "worker {worker} in round {round}");
        }
        for pid in everybody(&server) {
            assert_eq!(proc::kept_on_exec(pid), Vec::<String>::new());
        }
        server.signal(SIGHUP);
        server.wait_count(Said::ReloadDone, round);
        eventually(DEADLINE, "the old ones have left", || server.workers().len() == 2);
    }
    server.stop();
}

#[test]
fn sockets_that_are_passed_in_are_used_in_place_of_bind() {
    let passed = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = passed.local_addr().unwrap();
    // It waits from before the start on.
    let early = TcpStream::connect(addr).unwrap();
    let program = Program::probe().bind("unix:never.sock").workers(2).passing(passed, &["web", "more"]);
    let mut server = program.start();
    let listening = server.wait_count(Said::Listening, 2);
    assert_eq!(listening.value("on"), Some(addr.to_string().as_str()));
    assert_eq!(listening.value("name"), Some("more"));
    assert_eq!(server.wait(Said::PassedIn).number("count"), 2);
    assert!(!server.dir().join("never.sock").exists());
    let mut early = Connection::over(early);
    assert_eq!(early.get("/").unwrap().status, 200);
    drop(early);
    for pid in everybody(&server) {
        assert_eq!(proc::kept_on_exec(pid), Vec::<String>::new());
    }
    let seen = server.get("/env?name=LISTEN_FDS");
    assert_eq!(seen.status, 404, "an app does not take the sockets for its own: {}", seen.text());
    server.signal(SIGHUP);
    server.wait(Said::ReloadDone);
    assert_eq!(server.get("/").status, 200);
    server.stop();
    assert!(TcpStream::connect(addr).is_err(), "nobody holds the socket any more");
}

#[test]
fn the_file_of_a_socket_that_is_passed_in_stays() {
    let program = Program::probe().unbound();
    let path = program.dir().join("passed.sock");
    let passed = UnixListener::bind(&path).unwrap();
    let kept = passed.try_clone().unwrap();
    let mut server = program.workers(1).passing(passed, &["web"]).start();
    let mut client = Connection::open(&Target::Unix(path.clone())).unwrap();
    assert_eq!(client.get("/").unwrap().status, 200);
    drop(client);
    server.stop();
    assert!(fs::symlink_metadata(&path).is_ok());
    // Whoever passed it in may start the server again on it.
    let mut next = Program::probe().unbound().workers(1).passing(kept, &["web"]).start();
    let mut client = Connection::open(&Target::Unix(path)).unwrap();
    assert_eq!(client.get("/").unwrap().status, 200);
    drop(client);
    next.stop();
}

#[test]
fn sockets_for_another_process_are_none_of_ours_and_wrong_ones_are_refused() {
    let mut server =
        Program::probe().workers(1).variable("LISTEN_PID", "1").variable("LISTEN_FDS", "1").start();
    assert_eq!(server.count(Said::PassedIn), 0);
    assert_eq!(server.get("/").status, 200);
    server.stop();

    // (what is 3, how many are promised, what the message names)
    for (third, count, named) in [
        ("3<&-", "1", "descriptor 3"),
        ("3<&-", "many", "LISTEN_FDS"),
        ("3</dev/null", "1", "no stream socket"),
    ] {
        let script = format!(r#"exec {third} && LISTEN_PID=$$ LISTEN_FDS={count} exec "$0" "$@""#);
        let outcome = Program::probe().through(&["sh", "-c", &script]).args("-w 1").run();
        assert_eq!(outcome.code, Some(1), "{outcome:?}");
        assert!(outcome.stderr.contains(named), "{named}: {outcome:?}");
    }
}

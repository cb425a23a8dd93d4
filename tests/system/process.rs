//! The server among processes: its names, its files, its addresses, and a life as process 1.

use crate::support::ports::free_port;
use crate::support::server::End;
use crate::support::{Connection, DEADLINE, Load, Program, Said, Target, alone, eventually, proc, seconds};
use nix::sys::signal::Signal::{SIGHUP, SIGKILL, SIGTERM, SIGUSR2};
use std::fs;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::process::Command;

#[test]
fn each_process_says_in_its_name_what_it_is() {
    // (name, master, worker)
    let cases = [
        ("", "ferricor-master", "ferricorn-w0"),
        ("--name shop", "shop-master", "shop-w0"),
        ("--name a-very-long-name", "a-very-l-master", "a-very-long--w0"),
    ];
    for (args, master, worker) in cases {
        let mut server = Program::probe().workers(1).args(args).start();
        assert_eq!(proc::comm(server.pid()), master);
        assert_eq!(proc::comm(server.worker()), worker);
        server.stop();
    }
}

#[test]
fn the_pidfile_names_the_master_while_it_runs() {
    let mut server = Program::probe().workers(1).args("-p server.pid").start();
    let path = server.dir().join("server.pid");
    assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", server.pid()));
    server.stop();
    assert!(!path.exists());
}

#[test]
fn the_pidfile_of_another_process_stays() {
    let mut server = Program::probe().workers(1).args("-p server.pid").start();
    let path = server.dir().join("server.pid");
    fs::write(&path, "1\n").unwrap();
    server.stop();
    assert_eq!(fs::read_to_string(&path).unwrap(), "1\n");
}

#[test]
fn a_pidfile_left_by_a_killed_master_is_replaced() {
    let mut first = Program::probe().workers(1).args("-p server.pid").start();
    let path = first.dir().join("server.pid");
    first.signal(SIGKILL);
    first.wait_exit();
    assert!(path.exists());
    let mut second = Program::probe().workers(1).arg("-p").arg(&path).start();
    assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", second.pid()));
    second.stop();
}

#[test]
fn a_pidfile_that_a_running_server_holds_is_refused_whatever_it_says() {
    let mut first = Program::probe().workers(1).args("-p server.pid").start();
    let path = first.dir().join("server.pid");
    for pid in first.workers() {
        // The kernel may call it by the name that it had before.
        let held = |path: &std::path::PathBuf| path.to_string_lossy().contains("server.pid");
        assert!(!proc::file_targets(pid).iter().any(held), "a worker would hold the lock beyond the master");
    }
    for text in [format!("{}\n", first.pid()), "4194304\n".to_owned(), String::new()] {
        fs::write(&path, &text).unwrap();
        let second = Program::probe().args("-w 1").arg("-p").arg(&path).run();
        assert_eq!(second.code, Some(1), "{second:?}");
        assert!(second.stderr.contains("server.pid") && second.stderr.contains("holds it"), "{second:?}");
        assert!(!second.stderr.contains("worker spawned"), "{second:?}");
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
    first.stop();
}

#[test]
fn a_pidfile_is_no_way_to_another_file() {
    let precious = Program::probe().file("precious", "4194304\n").args("-w 1 -p server.pid");
    let (target, link) = (precious.dir().join("precious"), precious.dir().join("server.pid"));
    std::os::unix::fs::symlink(&target, &link).unwrap();
    let mut server = precious.spawn();
    assert_eq!(server.wait_exit(), End::Code(1));
    server.wait_text("symbolic link");
    assert_eq!(fs::read_to_string(target).unwrap(), "4194304\n");

    let notes = Program::probe().file("notes.txt", "keep me").args("-w 1 -p notes.txt");
    let path = notes.dir().join("notes.txt");
    let mut server = notes.spawn();
    assert_eq!(server.wait_exit(), End::Code(1));
    assert_eq!(fs::read_to_string(path).unwrap(), "keep me");
}

#[test]
fn an_address_in_use_is_exit_code_1() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let outcome = Program::probe().bind(&addr).args("-w 1 -p server.pid").run();
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.stderr.contains(&addr), "{outcome:?}");
    assert!(outcome.elapsed < seconds(10), "{outcome:?}");
    assert!(!outcome.stderr.contains("worker spawned"), "{outcome:?}");
}

#[test]
fn an_address_that_becomes_free_is_taken() {
    // None that the kernel gives to somebody else as soon as it is free.
    let taken = TcpListener::bind(("127.0.0.1", free_port())).unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let mut server = Program::probe().bind(&addr).args("-w 1").spawn();
    server.wait_text(&addr);
    drop(taken);
    server.wait(Said::Ready);
    assert_eq!(server.get("/").status, 200);
    server.stop();
}

#[test]
fn a_unix_socket_serves_and_is_removed() {
    let _alone = alone();
    let mut server = Program::probe().bind("unix:server.sock").workers(2).start();
    let path = server.dir().join("server.sock");
    assert!(path.exists());
    for load in [Load::on(server.target()), Load::on(server.target()).without_keep_alive()] {
        load.at_least(1000).start().finish().assert_none_failed();
    }
    server.stop();
    assert!(!path.exists());
}

#[test]
fn a_socket_file_in_the_way_is_replaced_only_when_stale() {
    let stale = Program::probe().bind("unix:server.sock").workers(1);
    drop(UnixListener::bind(stale.dir().join("server.sock")).unwrap());
    let mut server = stale.start();
    assert_eq!(server.get("/").status, 200);
    let path = server.dir().join("server.sock");
    let second = Program::probe().bind(&format!("unix:{}", path.display())).args("-w 1").run();
    assert_eq!(second.code, Some(1), "{second:?}");
    assert_eq!(server.get("/").status, 200, "the first one still has its socket");
    server.stop();

    let plain = Program::probe().bind("unix:notes.txt").file("notes.txt", "keep me");
    let notes = plain.dir().join("notes.txt");
    let mut server = plain.spawn();
    assert_eq!(server.wait_exit(), End::Code(1));
    assert_eq!(fs::read_to_string(notes).unwrap(), "keep me");
}

#[test]
fn several_addresses_are_served_at_once() {
    let mut server = Program::probe().bind("127.0.0.1:0,unix:server.sock").workers(1).start();
    server.wait_count(Said::Listening, 2);
    for line in server.log().iter().filter(|line| line.is(Said::Listening)) {
        let target = Target::named(line.value("on").unwrap(), server.dir());
        let mut client = Connection::open(&target).unwrap();
        assert_eq!(client.get("/").unwrap().status, 200, "{target:?}");
    }
    server.stop();
}

#[test]
fn workers_hold_nothing_that_is_the_masters() {
    let mut server = Program::probe().workers(2).start();
    server.signal(SIGHUP);
    server.wait(Said::ReloadDone);
    eventually(DEADLINE, "the old ones have left", || server.workers().len() == 2);
    // A second generation has no more open files than the first: nothing leaks from fork to fork.
    let second: Vec<usize> = server.workers().iter().map(|&pid| proc::open_files(pid)).collect();
    for _ in 0..5 {
        let done = server.count(Said::ReloadDone);
        server.signal(SIGHUP);
        server.wait_count(Said::ReloadDone, done + 1);
        eventually(DEADLINE, "the old ones have left", || server.workers().len() == 2);
    }
    eventually(DEADLINE, "they hold no more than those did", || {
        let last: Vec<usize> = server.workers().iter().map(|&pid| proc::open_files(pid)).collect();
        last.iter().max() <= second.iter().max()
    });
    eventually(DEADLINE, "all are reaped", || proc::zombies(server.pid()).is_empty());
    server.stop();
}

#[test]
fn as_process_1_it_reaps_strangers_and_counts_only_its_own() {
    let namespace = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"];
    if !Command::new(namespace[0])
        .args(&namespace[1..])
        .arg("true")
        .status()
        .is_ok_and(|status| status.success())
    {
        eprintln!("skipped: this machine does not let us make a pid namespace");
        return;
    }
    // The shell leaves a stranger behind and becomes the server, which is process 1 from then on.
    let leave_a_stranger = r#"(sleep 1 & sleep 1 &) ; exec "$0" "$@""#;
    let wrapper: Vec<&str> = namespace.into_iter().chain(["sh", "-c", leave_a_stranger]).collect();
    let mut server = Program::probe().through(&wrapper).workers(2).start();
    let master = proc::children(server.pid())[0];
    assert_eq!(
        server.wait(Said::Listening).raw.split("[master ").nth(1).unwrap().split(']').next(),
        Some("1")
    );
    let strangers = || {
        let children = proc::children(master);
        children.into_iter().filter(|&pid| proc::comm(pid) == "sleep").count() + proc::zombies(master).len()
    };
    eventually(DEADLINE, "the strangers are reaped", || strangers() == 0);
    assert_eq!(server.count(Said::Exited), 0, "they are none of its own");
    assert_eq!(proc::children(master).len(), 2);
    assert_eq!(server.get("/").status, 200);
    server.signal_to(master, SIGUSR2);
    assert!(server.wait(Said::Refused).raw.contains("as process 1"), "its end would end the namespace");
    assert_eq!(proc::children(master).len(), 2);
    server.signal_to(master, SIGTERM);
    assert_eq!(server.wait_exit(), End::Code(0));
}

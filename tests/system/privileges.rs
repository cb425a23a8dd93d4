//! Who the workers are, and whose their files: these tests need root, and say so where they are not.

use crate::support::said::Line;
use crate::support::server::End;
use crate::support::{DEADLINE, Program, Said, Server, eventually, proc};
use nix::sys::signal::Signal::{SIGHUP, SIGKILL, SIGUSR1};
use nix::unistd::{Uid, User};
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;

/// Numbers that no account has.
const UID: u32 = 54_321;
const GID: u32 = 54_322;

/// True, and said, where a test cannot run.
fn is_not_root(what: &str) -> bool {
    let skipped = !Uid::effective().is_root();
    if skipped {
        eprintln!("skipped: {what}, as this is not root");
    }
    skipped
}

/// A program whose directory anybody may enter, as /var/log, and only root may write.
fn open_to_all(program: Program) -> Program {
    fs::set_permissions(program.dir(), Permissions::from_mode(0o755)).unwrap();
    program
}

/// Real, effective, saved and file system id, as /proc has them.
fn four_times(id: u32) -> String {
    vec![id.to_string(); 4].join(" ")
}

#[track_caller]
fn assert_is(pid: i32, uid: u32, gid: u32, groups: &str) {
    assert_eq!(proc::status(pid, "Uid"), four_times(uid));
    assert_eq!(proc::status(pid, "Gid"), four_times(gid));
    assert_eq!(proc::status(pid, "Groups"), groups);
    for set in ["CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(proc::status(pid, set), "0000000000000000", "{set}");
    }
}

#[test]
fn every_worker_is_the_user_and_nothing_of_root_is_left() {
    if is_not_root("workers of another user") {
        return;
    }
    let nobody = User::from_name("nobody").unwrap().expect("Debian has nobody");
    let primary = nobody.gid.to_string();
    // (flags, uid, gid, groups)
    let cases = [
        ("-u nobody".to_owned(), nobody.uid.as_raw(), nobody.gid.as_raw(), primary.clone()),
        (format!("-u nobody -g {GID}"), nobody.uid.as_raw(), GID, GID.to_string()),
        (format!("--user {UID} --group {GID}"), UID, GID, GID.to_string()),
    ];
    for (flags, uid, gid, groups) in cases {
        let mut server = Program::probe().workers(2).args(&flags).start();
        let check = |server: &Server| {
            server.workers().into_iter().for_each(|worker| assert_is(worker, uid, gid, &groups));
        };
        check(&server);
        assert_eq!(proc::status(server.pid(), "Uid"), "0 0 0 0", "the master stays root");
        // A respawned worker, and those of a new generation.
        server.signal_to(server.workers()[0], SIGKILL);
        server.wait_count(Said::Ready, 3);
        check(&server);
        server.signal(SIGHUP);
        server.wait(Said::ReloadDone);
        eventually(DEADLINE, "the old ones have left", || server.workers().len() == 2);
        check(&server);
        assert_eq!(server.get("/").status, 200);
        server.stop();
    }
}

#[test]
fn a_stuck_worker_of_another_user_dies_with_the_master() {
    if is_not_root("workers of another user") {
        return;
    }
    let mut server = Program::probe().workers(1).args(&format!("-u {UID} -g {GID}")).start();
    let worker = server.worker();
    let mut client = server.connect();
    // It reads nothing meanwhile, so that only the kernel can tell it.
    client.send("GET /spin?ms=60000 HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
    let before = proc::cpu_time(worker);
    eventually(DEADLINE, "the worker spins", || proc::cpu_time(worker) > before + Duration::from_millis(50));
    server.signal(SIGKILL);
    assert_eq!(server.wait_exit(), End::Signal(SIGKILL as i32));
    server.wait_nobody_left(&[worker], DEADLINE);
}

#[test]
fn the_setup_helper_is_the_user_too() {
    if is_not_root("the setup helper of another user") {
        return;
    }
    let file = "[database]\nurl = 'sqlite:data/shop.db'\nsetup = 'setup.sql'\n";
    let program = Program::probe().config(file).file("setup.sql", "create table a (b);").file("data/x", "");
    let data = program.dir().join("data");
    std::os::unix::fs::chown(&data, Some(UID), Some(GID)).unwrap();
    let program = open_to_all(program);
    let mut server = program.workers(1).args(&format!("-u {UID} -g {GID}")).start();
    server.wait(Said::SetupDone);
    assert_eq!(fs::metadata(data.join("shop.db")).unwrap().uid(), UID);
    server.stop();
}

#[test]
fn accounts_that_do_not_exist_are_refused_before_anything_starts() {
    for (flags, named) in [
        ("-u no-such-user", "--user: got \"no-such-user\""),
        ("-g no-such-group", "--group: got \"no-such-group\""),
        ("--socket-user no-such-user", "--socket-user: got \"no-such-user\""),
        ("-m 999", "--umask: got \"999\""),
        ("--socket-mode rw", "--socket-mode: got \"rw\""),
    ] {
        for check in ["", " --check-config"] {
            let outcome = Program::probe().args(&format!("{flags}{check}")).run();
            assert_eq!(outcome.code, Some(2), "{outcome:?}");
            assert!(outcome.stderr.contains(named), "{named}: {outcome:?}");
        }
    }
}

#[test]
fn only_root_can_give_another_user() {
    let (uid, gid) = (UID.to_string(), GID.to_string());
    let become_other = ["setpriv", "--reuid", &uid, "--regid", &gid, "--clear-groups"];
    let can = std::process::Command::new(become_other[0])
        .args(&become_other[1..])
        .args([env!("CARGO_BIN_EXE_ferricorn"), "--version"])
        .output();
    if !can.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: a server that is started by another user, whom this machine does not let run it");
        return;
    }
    for flags in ["-u nobody", "-u 0", "-g 0", "--socket-user 0"] {
        let outcome = open_to_all(Program::stock()).through(&become_other).args(flags).run();
        assert_eq!(outcome.code, Some(2), "{flags}: {outcome:?}");
        assert!(outcome.stderr.contains("only root can give another"), "{flags}: {outcome:?}");
    }
    // What one is already may be said.
    let program = open_to_all(Program::stock()).through(&become_other).workers(1);
    let mut server = program.args(&format!("-u {UID} -g {GID}")).start();
    assert_eq!(proc::status(server.worker(), "Uid"), four_times(UID));
    server.stop();
}

#[test]
fn logs_are_made_for_the_user_and_rotated_in_a_folder_that_only_root_writes() {
    if is_not_root("logs of another user") {
        return;
    }
    let program =
        open_to_all(Program::probe()).args("-w 1 --access-logfile access.log --error-logfile error.log");
    let mut server = program.args(&format!("-u {UID} -g {GID} -m 000")).spawn();
    let dir = server.dir().to_owned();
    let read = |name: &str| fs::read_to_string(dir.join(name)).unwrap_or_default();
    let said = |said: Said| read("error.log").lines().filter(|raw| line(raw).is(said)).count();
    eventually(DEADLINE, "the worker is ready", || said(Said::Ready) == 1);
    let assert_theirs = || {
        for name in ["access.log", "error.log"] {
            let data = fs::metadata(dir.join(name)).unwrap();
            assert_eq!((data.uid(), data.gid(), data.mode() & 0o777), (UID, GID, 0o640), "{name}");
        }
    };
    assert_theirs();
    let rotate = |to: &str| {
        for name in ["access", "error"] {
            fs::rename(dir.join(format!("{name}.log")), dir.join(format!("{name}.{to}"))).unwrap();
        }
    };
    let reopened = |suffix: &str| {
        server.signal(SIGUSR1);
        let holds_old = |pid: i32| {
            proc::file_targets(pid).iter().any(|path| path.extension().is_some_and(|end| end == suffix))
        };
        eventually(DEADLINE, "nobody holds the old files", || {
            dir.join("error.log").exists() && !holds_old(server.pid()) && !holds_old(server.worker())
        });
        assert_theirs();
    };
    rotate("old");
    // A worker that dies between the rotation and USR1 comes back.
    server.signal_to(server.worker(), SIGKILL);
    eventually(DEADLINE, "another worker is ready", || {
        read("error.old").matches("worker ready").count() == 2
    });
    reopened("old");
    rotate("older");
    reopened("older");
    assert!(!read("error.log").contains("could not be"), "{}", read("error.log"));
    server.stop();
}

fn line(raw: &str) -> Line {
    Line { raw: raw.to_owned() }
}

#[test]
fn root_does_not_follow_a_link_that_stands_for_the_users_log() {
    if is_not_root("logs of another user") {
        return;
    }
    let program =
        open_to_all(Program::probe()).file("precious", "untouched").args("-w 1 --error-logfile error.log");
    symlink(program.dir().join("precious"), program.dir().join("error.log")).unwrap();
    let precious = program.dir().join("precious");
    let mut server = program.args(&format!("-u {UID} -g {GID}")).spawn();
    assert_eq!(server.wait_exit(), End::Code(2));
    server.wait_text("symbolic link");
    assert_eq!(fs::read_to_string(&precious).unwrap(), "untouched");
    assert_eq!(fs::metadata(&precious).unwrap().uid(), 0);
}

#[test]
fn a_unix_socket_gets_its_owner_and_its_permissions() {
    if is_not_root("sockets of another user") {
        return;
    }
    // (flags, owner, group, permissions)
    let cases = [
        ("-m 027", 0, 0, 0o750),
        ("-m 077 --socket-mode 666", 0, 0, 0o666),
        ("--socket-mode 0o660 -u 54321 -g 54322", UID, GID, 0o660),
        ("--socket-mode 660 -u 54321 -g 54322 --socket-user 7 --socket-group 8", 7, 8, 0o660),
        ("--socket-mode 600 --socket-user 7", 7, 0, 0o600),
    ];
    for (flags, uid, gid, mode) in cases {
        let mut server = Program::probe().bind("unix:server.sock").workers(1).args(flags).start();
        let path = server.dir().join("server.sock");
        let data = fs::metadata(&path).unwrap();
        assert_eq!((data.uid(), data.gid(), data.mode() & 0o777), (uid, gid, mode), "{flags}");
        assert_eq!(server.get("/").status, 200);
        server.stop();
        assert!(!Path::new(&path).exists(), "{flags}");
    }
}

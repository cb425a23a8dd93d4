//! `ferricorn ctl`: each command for real, what it answers, its exit code, and that no client holds anybody up.

use crate::support::ctl::{self, FLAG, SOCKET, command, ctl, finish, json};
use crate::support::{DEADLINE, Load, Program, Said, Server, alone, eventually, holds_for, millis, proc};
use nix::sys::signal::Signal::{SIGCONT, SIGHUP, SIGKILL, SIGTERM};
use nix::unistd::Uid;
use serde_json::{Value, json};
use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::Command;

const REQUESTS: u64 = 20_000;

fn probe(workers: usize) -> Program {
    Program::probe().workers(workers).args(FLAG)
}

/// Runs a command that must succeed, and gives the last line of its answer.
#[track_caller]
fn done(server: &Server, arguments: &str) -> Value {
    let outcome = ctl(server, &format!("{arguments} --json"));
    assert_eq!(outcome.code, Some(0), "{arguments}: {outcome:?}");
    json(&outcome).pop().expect("it has an answer")
}

fn raw(server: &Server) -> UnixStream {
    let stream = UnixStream::connect(server.dir().join(SOCKET)).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

fn answer_to(mut stream: UnixStream, bytes: &[u8]) -> Value {
    stream.write_all(bytes).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
}

#[test]
fn what_runs_is_told_to_people_and_to_scripts() {
    let file = "workers = 2\n[database]\nurl = \"sqlite:secret.db\"\n[admin]\ncontrol = \"unix:c.sock\"\n";
    let server = Program::probe().expect_workers(2).config(file).start();
    let status = &done(&server, "status")["status"];
    assert_eq!(status["server"]["master_pid"], server.pid());
    assert_eq!(status["workers"].as_array().unwrap().len(), 2);
    let text = ctl(&server, "status").stdout;
    assert!(
        text.contains("SLOT") && server.workers().iter().all(|pid| text.contains(&pid.to_string())),
        "{text}"
    );
    let settings = &done(&server, "config")["settings"];
    assert_eq!(settings["workers"]["value"], "2");
    assert!(settings["workers"]["origin"].as_str().unwrap().ends_with("server.toml:1"), "{settings}");
    assert!(ctl(&server, "config").stdout.contains("workers = 2"));
    // Found by the config file alone, as the server was started.
    let mut by_file = Command::new(env!("CARGO_BIN_EXE_ferricorn"));
    by_file.args(["ctl", "-c", "server.toml", "status"]).current_dir(server.dir());
    assert_eq!(finish(&mut by_file).code, Some(0));
    let top = ctl(&server, "top --once --interval 0.2");
    assert!(top.code == Some(0) && top.stdout.contains("requests/s"), "{top:?}");
    let rates = done(&server, "top --once --interval 0.2");
    assert_eq!(rates["workers"].as_array().unwrap().len(), 2, "{rates}");
}

#[test]
fn a_program_of_ones_own_has_the_client_too() {
    let server = probe(1).start();
    let mut own = Command::new(fs::read_link(format!("/proc/{}/exe", server.pid())).unwrap());
    own.arg("ctl").args(FLAG.split(' ')).arg("status").current_dir(server.dir());
    let outcome = finish(&mut own);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
}

#[test]
fn the_socket_is_found_by_the_servers_name_and_address() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let mut server = Program::probe().workers(1).args("-n shop").variable("XDG_RUNTIME_DIR", path).start();
    let other = Program::probe().workers(1).args("-n shop").variable("XDG_RUNTIME_DIR", path).start();
    let socket = server.wait_text("control listening on=").value("on").unwrap().to_owned();
    let socket = socket.strip_prefix("unix:").unwrap();
    assert_eq!(socket, format!("{path}/ferricorn/shop-{}.ctl", server.addr()));
    assert_eq!(fs::metadata(socket).unwrap().permissions().mode() & 0o777, 0o600);
    let master = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ferricorn"));
        command.arg("ctl").args(arguments).args(["status", "--json"]).env("XDG_RUNTIME_DIR", path);
        let outcome = finish(command.env_remove("RUNTIME_DIRECTORY"));
        (outcome.code, json(&outcome)[0]["status"]["server"]["master_pid"].as_i64())
    };
    for server in [&server, &other] {
        let bind = server.addr().to_string();
        assert_eq!(master(&["-n", "shop", "-b", &bind]), (Some(0), Some(server.pid().into())));
    }
    assert_eq!(master(&["-n", "shop"]), (Some(3), None), "which of the two?");
    assert_eq!(master(&["-n", "other"]), (Some(3), None));
    server.stop();
    assert!(!fs::exists(socket).unwrap());
    assert_eq!(master(&["-n", "shop"]), (Some(0), Some(other.pid().into())), "the only one");
}

#[test]
fn a_reload_is_waited_for_or_refused_with_its_reason() {
    let file = |workers: &str| format!("workers = {workers}\n[admin]\ncontrol = \"unix:c.sock\"\n");
    let server = Program::probe().expect_workers(1).config(&file("1")).start();
    let write = |workers: &str| fs::write(server.dir().join("server.toml"), file(workers)).unwrap();
    write("3");
    let reload = ctl(&server, "reload --wait --json");
    let lines = json(&reload);
    let told: Vec<&str> = lines.iter().filter_map(|line| line["progress"].as_str()).collect();
    assert_eq!(told[..3], ["reading", "trial", "adopted"], "{lines:?}");
    assert_eq!(lines.last().unwrap()["text"], "generation 2 serves");
    assert_eq!(reload.code, Some(0));
    server.wait_count(Said::ReloadDone, 1);
    write("\"none\"");
    let refused = ctl(&server, "reload --wait");
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("server.toml:1: workers: got \"none\""), "{refused:?}");
    let refused = ctl(&server, "reload --wait --json");
    assert_eq!(json(&refused).last().unwrap()["outcome"], "refused");
    write("2");
    // Without waiting, it is only begun.
    let begun = done(&server, "reload");
    assert_eq!(begun["outcome"], "accepted");
    server.wait_count(Said::ReloadDone, 2);
}

#[test]
fn a_worker_that_cannot_start_is_a_reason_too() {
    let server = Program::example("misuse").workers(1).args(FLAG).start();
    fs::write(server.dir().join("die"), "").unwrap();
    let refused = ctl(&server, "reload --wait");
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("its first worker died before it was ready"), "{refused:?}");
    assert_eq!(server.workers().len(), 1);
}

#[test]
fn two_wait_at_once_and_each_hears_of_the_reload_that_it_asked_for() {
    let server = probe(2).start();
    for _ in 0..5 {
        let waiting: Vec<_> = (0..2).map(|_| ctl::start(&server, "reload --wait")).collect();
        let outcomes: Vec<_> = waiting.into_iter().map(ctl::Running::finish).collect();
        for (lines, code) in &outcomes {
            assert_eq!(*code, Some(0), "{outcomes:?}");
            assert_eq!(lines.last().unwrap()["outcome"], "done");
        }
    }
    server.wait_count(Said::ReloadDone, 5);
}

#[test]
fn a_client_that_is_killed_or_stopped_holds_nobody_up() {
    let server = Program::example("misuse").workers(1).args(FLAG).args("--boot-timeout 5m").start();
    fs::write(server.dir().join("hang"), "").unwrap();
    let mut killed = ctl::start(&server, "reload --wait");
    assert_eq!(killed.next()["progress"], "reading");
    assert_eq!(killed.next()["progress"], "trial");
    killed.kill();
    // One that is connected and says nothing, one that says half, and one that never reads.
    let silent = raw(&server);
    let mut half = raw(&server);
    half.write_all(b"{\"wish\":").unwrap();
    let mut deaf = raw(&server);
    deaf.write_all(b"{\"wish\":\"reload\",\"wait\":true}\n").unwrap();
    assert_eq!(done(&server, "status")["status"]["server"]["master_pid"], server.pid());
    assert_eq!(ctl(&server, "scale 2").code, Some(0));
    fs::remove_file(server.dir().join("hang")).unwrap();
    for worker in server.workers() {
        server.signal_to(worker, SIGKILL);
    }
    let waited = ctl(&server, "reload --wait");
    assert_eq!(waited.code, Some(0), "{waited:?}");
    drop((silent, half, deaf));
}

#[test]
fn the_number_of_clients_is_bounded_and_those_who_are_let_in_are_served() {
    let server = probe(1).start();
    let mut held: Vec<UnixStream> = Vec::new();
    // Those who say nothing are sent away in the end, and on a slow machine before all of them are there.
    eventually(DEADLINE, "one is too many and one of the others is served", || {
        held = (0..32).map(|_| raw(&server)).collect();
        let too_many = answer_to(raw(&server), b"");
        let served = answer_to(held.pop().unwrap(), b"{\"wish\":\"status\"}\n");
        too_many["outcome"] == "refused"
            && too_many["reason"] == "too many clients at a time"
            && served["outcome"] == "done"
    });
    let late = answer_to(held.pop().unwrap(), b"");
    assert_eq!(late["reason"], "no wish came in time");
    eventually(DEADLINE, "there is room again", || ctl(&server, "status").code == Some(0));
}

#[test]
fn nonsense_is_refused_and_does_no_harm() {
    let server = probe(1).start();
    for (bytes, named) in [
        (&b"\xff\xfe\n"[..], "no JSON"),
        (b"{}\n", "wish: is missing"),
        (b"{\"wish\":\"fly\"}\n", "is unknown"),
        (b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", "no JSON"),
        (&[b'x'; 5000], "at most 4096 bytes"),
    ] {
        let mut stream = raw(&server);
        // The server may have heard enough before all is written.
        let _ = stream.write_all(bytes);
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        assert!(answer.contains("\"invalid\"") && answer.contains(named), "{bytes:?}: {answer}");
    }
    assert_eq!(server.log_with("wish").len(), 0, "and the log is not filled by it");
    assert_eq!(ctl(&server, "status").code, Some(0));
}

#[test]
fn scaling_keeps_within_bounds_and_says_when_it_is_done() {
    let server = probe(2).args("--max-workers 4").start();
    for (arguments, workers) in
        [("scale 4 --wait", 4), ("scale -2 --wait", 2), ("scale +1 --wait", 3), ("scale 1 --wait", 1)]
    {
        assert_eq!(done(&server, arguments)["text"], format!("{workers} workers serve"), "{arguments}");
        let status = done(&server, "status");
        assert_eq!(status["status"]["server"]["workers_wanted"], workers);
        let serving = |status: &Value| {
            let workers = status["status"]["workers"].as_array().unwrap().clone();
            workers.iter().filter(|worker| worker["state"] == "serving").count()
        };
        assert_eq!(serving(&status), workers, "{status}");
    }
    for (arguments, reason) in [
        ("scale 5", "at most max_workers, which is 4"),
        ("scale +4 --wait", "at most max_workers, which is 4"),
        ("scale +4294967295", "at most max_workers, which is 4"),
        ("scale 0", "at least one worker stays"),
        ("scale -1", "at least one worker stays"),
    ] {
        let outcome = ctl(&server, arguments);
        assert_eq!(outcome.code, Some(1), "{arguments}: {outcome:?}");
        assert!(outcome.stderr.contains(reason), "{arguments}: {outcome:?}");
    }
    for arguments in ["scale", "scale x", "scale +0", "scale -x", "scale 1.5", "fly", ""] {
        assert_eq!(ctl(&server, arguments).code, Some(2), "{arguments}");
    }
    eventually(DEADLINE, "the others have left", || server.workers().len() == 1);
}

#[test]
fn workers_are_recycled_one_by_one_or_one_alone() {
    let server = probe(2).start();
    let before = server.workers();
    assert_eq!(done(&server, "recycle 0 --wait")["text"], "1 workers were replaced");
    eventually(DEADLINE, "one was replaced", || {
        let now = server.workers();
        now.len() == 2 && now.iter().filter(|pid| before.contains(pid)).count() == 1
    });
    let before = server.workers();
    assert_eq!(done(&server, "recycle --wait")["text"], "2 workers were replaced");
    eventually(DEADLINE, "both were replaced", || {
        let now = server.workers();
        now.len() == 2 && !now.iter().any(|pid| before.contains(pid))
    });
    let refused = ctl(&server, "recycle 77");
    assert!(
        refused.code == Some(1) && refused.stderr.contains("no worker serves in this slot"),
        "{refused:?}"
    );
    assert_eq!(ctl(&server, "recycle x").code, Some(2));
}

#[test]
fn an_upgrade_is_waited_for_or_refused_with_its_reason() {
    let mut server = Program::replaceable().workers(1).args(FLAG).start();
    let old = server.pid();
    let upgraded = done(&server, "upgrade --wait");
    server.follow_upgrade(1);
    assert_eq!(upgraded["text"], format!("the new master has the server pid={}", server.pid()));
    assert_ne!(server.pid(), old);
    assert_eq!(
        done(&server, "status")["status"]["server"]["master_pid"],
        server.pid(),
        "it takes wishes at once"
    );
    for (script, reason) in [
        ("#!/bin/sh\nexit 7\n", "the new master ended before it was ready, by exit code 7"),
        ("#!/no/such/interpreter\n", "could not be started"),
    ] {
        server.put_script(script);
        let failed = ctl(&server, "upgrade --wait");
        assert_eq!(failed.code, Some(1), "{failed:?}");
        assert!(failed.stderr.contains(reason), "{failed:?}");
    }
    server.put_script("#!/bin/sh\nexec sleep 60\n");
    let waiting = ctl::start(&server, "upgrade --wait");
    server.wait_count(Said::UpgradeStarted, 3);
    let second = ctl(&server, "upgrade");
    assert!(second.code == Some(1) && second.stderr.contains("another upgrade is under way"), "{second:?}");
    let stopping = ctl::start(&server, "stop --wait");
    let (lines, code) = waiting.finish();
    assert_eq!((code, &lines.last().unwrap()["reason"]), (Some(1), &json!("the server stops")));
    assert_eq!(stopping.finish().1, Some(0));
}

#[test]
fn a_stop_finishes_what_is_open_and_a_stop_now_does_not() {
    let mut server = probe(1).start();
    let mut open = server.connect();
    open.send("POST /upload HTTP/1.1\r\nhost: test\r\ncontent-length: 4\r\n\r\nha").unwrap();
    eventually(DEADLINE, "the request is under way", || {
        done(&server, "status")["status"]["workers"][0]["in_flight"] == 1
    });
    let stopping = ctl::start(&server, "stop --wait");
    server.wait(Said::Draining);
    open.send("lf").unwrap();
    assert_eq!(open.read().unwrap().text(), "4");
    let (lines, code) = stopping.finish();
    assert_eq!((code, &lines.last().unwrap()["text"]), (Some(0), &json!("the server has stopped")));
    assert!(server.has_ended() && !server.dir().join(SOCKET).exists());

    let mut server = probe(1).start();
    let mut open = server.connect();
    open.send("GET /sleep?ms=60000 HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
    eventually(DEADLINE, "the request is under way", || {
        done(&server, "status")["status"]["workers"][0]["in_flight"] == 1
    });
    assert_eq!(done(&server, "stop --now --wait")["outcome"], "done");
    assert!(open.read().is_err());
    server.wait_exit();
    let nobody = ctl(&server, "status");
    assert_eq!(nobody.code, Some(3), "{nobody:?}");
}

#[test]
fn crashes_are_told_with_what_they_cost() {
    let server = probe(1).start();
    done(&server, "reload --wait");
    assert_eq!(ctl(&server, "crashes").stdout, "no worker has crashed\n", "one has left, as it was told to");
    assert!(server.try_get("/segv").is_err());
    eventually(DEADLINE, "it is told", || {
        done(&server, "crashes")["deaths"][0]["requests_in_flight"][0]["path"] == "/segv"
    });
    let text = ctl(&server, "crashes").stdout;
    assert!(text.contains("SIGSEGV") && text.contains("lost GET /segv"), "{text}");
}

#[test]
fn a_flushed_tag_is_served_by_no_worker() {
    let server = probe(2).start();
    let link = |value: &str| {
        let new = server.dir().join("new");
        std::os::unix::fs::symlink(value, &new).unwrap();
        fs::rename(new, server.dir().join("value")).unwrap();
    };
    let mut workers = server.connections_to_all(2);
    let mut values = || -> Vec<String> {
        workers.iter_mut().map(|(_, connection)| connection.get("/value").unwrap().text()).collect()
    };
    link("1");
    assert_eq!(values(), ["1", "1"]);
    // The file changes behind the server's back.
    link("2");
    assert_eq!(values(), ["1", "1"], "it is cached");
    assert_eq!(ctl(&server, "flush others").code, Some(0));
    assert_eq!(values(), ["1", "1"], "another tag");
    assert_eq!(ctl(&server, "flush values").code, Some(0));
    assert_eq!(values(), ["2", "2"]);
    link("3");
    assert_eq!(ctl(&server, "flush --all").code, Some(0));
    assert_eq!(values(), ["3", "3"]);
    assert_eq!(ctl(&server, "flush").code, Some(2));
}

#[test]
fn logs_are_reopened_and_their_level_is_changed_until_a_reload() {
    let program = Program::probe().workers(1).args(FLAG).args("--access-logfile access.log");
    let server = program.start();
    assert_eq!(server.get("/").status, 200);
    let log = |name: &str| fs::read_to_string(server.dir().join(name)).unwrap_or_default();
    eventually(DEADLINE, "it is logged", || !log("access.log").is_empty());
    fs::rename(server.dir().join("access.log"), server.dir().join("access.old")).unwrap();
    assert_eq!(ctl(&server, "reopen").code, Some(0));
    server.wait_text("logs reopened");
    eventually(DEADLINE, "requests are logged in the new file", || {
        assert_eq!(server.get("/").status, 200);
        !log("access.log").is_empty()
    });
    let levels = |level: &str| server.log().iter().filter(|line| line.level() == level).count();
    assert_eq!(levels("DEBUG"), 0);
    assert_eq!(done(&server, "loglevel debug")["text"], "the level is debug until the next reload");
    // The master's own, and a worker's.
    done(&server, "reload --wait");
    assert_eq!(ctl(&server, "loglevel loud").code, Some(2));
    assert_eq!(done(&server, "loglevel error")["outcome"], "done");
    assert_eq!(done(&server, "scale +1 --wait")["outcome"], "done");
    assert_eq!(server.count(Said::Wanted), 0, "what is below error is not logged");
    done(&server, "reload --wait");
    server.wait_text("reload done generation=3");
}

#[test]
fn a_workers_level_follows_too() {
    let file = |level: &str| {
        format!(
            "workers = 1\nloglevel = \"{level}\"\nmax_requests = 20\n[admin]\ncontrol = \"unix:c.sock\"\n"
        )
    };
    let server = Program::probe().expect_workers(1).config(&file("info")).start();
    fs::write(server.dir().join("server.toml"), file("error")).unwrap();
    done(&server, "reload --wait");
    // The one before may still be on its way out.
    let worker = server.get("/pid").worker();
    eventually(DEADLINE, "it retires, and says nothing of it", || server.get("/pid").worker() != worker);
    assert_eq!(server.count(Said::Retiring), 0);
    done(&server, "loglevel info");
    eventually(DEADLINE, "another retires, and says so", || {
        server.get("/pid");
        server.count(Said::Retiring) > 0
    });
}

#[test]
fn another_user_is_refused_whatever_the_sockets_permissions() {
    if !Uid::effective().is_root() {
        eprintln!("skipped: another user, as this is not root");
        return;
    }
    let server = probe(1).start();
    let as_other = |arguments: &str| {
        let inner = command(&server, arguments);
        let mut outer = Command::new("setpriv");
        outer.args(["--reuid", "54321", "--regid", "54321", "--clear-groups"]).arg(inner.get_program());
        finish(outer.args(inner.get_args()).current_dir(server.dir()))
    };
    let enter = |mode| fs::set_permissions(server.dir(), Permissions::from_mode(mode)).unwrap();
    enter(0o755);
    if as_other("--version").code != Some(0) && as_other("--help").code != Some(0) {
        eprintln!("skipped: another user, whom this machine does not let run the client");
        return;
    }
    // By the permissions.
    let refused = as_other("status --json");
    assert_eq!((refused.code, &json(&refused)[0]["outcome"]), (Some(5), &json!("forbidden")));
    // And by who it is.
    fs::set_permissions(server.dir().join(SOCKET), Permissions::from_mode(0o666)).unwrap();
    for arguments in ["status --json", "stop --json"] {
        let refused = as_other(arguments);
        assert_eq!(
            (refused.code, &json(&refused)[0]["outcome"]),
            (Some(5), &json!("forbidden")),
            "{refused:?}"
        );
        assert!(refused.stderr.contains("only root and the server's own user"), "{refused:?}");
    }
    server.wait_text("control refused uid=54321");
    assert_eq!(ctl(&server, "status").code, Some(0), "it serves on");
}

#[test]
fn the_servers_own_user_may_control_it() {
    if !Uid::effective().is_root() {
        eprintln!("skipped: a server of another user, as this is not root");
        return;
    }
    let program = probe(1).args("-u 54321 -g 54322");
    fs::set_permissions(program.dir(), Permissions::from_mode(0o755)).unwrap();
    let server = program.start();
    let inner = command(&server, "scale 2 --wait");
    let mut outer = Command::new("setpriv");
    outer.args(["--reuid", "54321", "--regid", "54322", "--clear-groups"]).arg(inner.get_program());
    let outcome = finish(outer.args(inner.get_args()).current_dir(server.dir()));
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    server.wait_lines("wish received wish=\"scale to=2\" uid=54321", 1);
    assert_eq!(ctl(&server, "scale 1 --wait").code, Some(0), "and so may root");
}

#[test]
fn a_wait_has_an_end_and_the_server_goes_on() {
    let server = Program::example("misuse").workers(1).args(FLAG).args("--boot-timeout 5m").start();
    fs::write(server.dir().join("hang"), "").unwrap();
    let over = ctl(&server, "reload --wait --timeout 2");
    assert_eq!(over.code, Some(4), "{over:?}");
    assert!(over.stderr.contains("the time is over"), "{over:?}");
    server.halt(server.pid());
    let silent = ctl(&server, "scale 2 --timeout 2");
    assert_eq!(silent.code, Some(4), "a master that hangs: {silent:?}");
    assert_eq!(ctl(&server, "status").code, Some(0), "what the master need not be asked for is answered");
    server.signal(SIGCONT);
    eventually(DEADLINE, "it does what was wished", || {
        done(&server, "status")["status"]["server"]["workers_wanted"] == 2
    });
}

#[test]
fn the_death_of_the_process_between_costs_the_wait_and_nothing_else() {
    let server = Program::example("misuse").workers(1).args(FLAG).args("--boot-timeout 5m").start();
    fs::write(server.dir().join("hang"), "").unwrap();
    let mut waiting = ctl::start(&server, "reload --wait");
    assert_eq!(waiting.next()["progress"], "reading");
    assert_eq!(waiting.next()["progress"], "trial");
    server.signal_to(server.admins()[0], SIGKILL);
    let (lines, code) = waiting.finish();
    assert_eq!((code, &lines[0]["outcome"]), (Some(4), &json!("lost")));
    assert_eq!(ctl(&server, "status").code, Some(0), "another is there");
    assert_eq!(ctl(&server, "scale 2").code, Some(0), "and takes wishes");
    let before = proc::cpu_time(server.pid());
    holds_for(millis(600), "the master does not spin over the dead line", || {
        proc::cpu_time(server.pid()) < before + millis(300)
    });
}

#[test]
fn signals_and_wishes_mix() {
    let server = probe(2).start();
    let waiting = ctl::start(&server, "reload --wait");
    server.signal(SIGHUP);
    assert_eq!(waiting.finish().1, Some(0));
    server.signal(SIGTERM);
    let late = ctl(&server, "reload");
    assert!(matches!(late.code, Some(1 | 3 | 4)), "{late:?}");
}

#[test]
fn a_lame_duck_takes_a_stop_and_nothing_else() {
    let mut server = probe(1).args("--lame-duck 5m").start();
    assert_eq!(ctl(&server, "stop").code, Some(0));
    server.wait(Said::LameDuck);
    for arguments in ["reload", "upgrade --wait", "scale 2", "recycle"] {
        let refused = ctl(&server, arguments);
        assert_eq!(refused.code, Some(1), "{arguments}: {refused:?}");
        assert!(refused.stderr.contains("the server is about to stop"), "{arguments}: {refused:?}");
    }
    assert_eq!(ctl(&server, "stop --wait").code, Some(0), "again: at once");
    server.wait_exit();
}

#[test]
fn under_load_no_command_costs_a_request() {
    let _alone = alone();
    let mut server = Program::probe().workers(2).args(FLAG).start();
    let load = Load::on(server.target()).at_least(REQUESTS).start();
    let commands = [
        "reload --wait",
        "scale 4 --wait",
        "recycle --wait",
        "scale 2 --wait",
        "loglevel debug",
        "reload --wait",
        "reopen",
    ];
    for (done_by_now, arguments) in commands.iter().enumerate() {
        let outcome = ctl(&server, arguments);
        assert_eq!(outcome.code, Some(0), "{arguments}: {outcome:?}");
        load.wait_answered((done_by_now as u64 + 1) * REQUESTS / commands.len() as u64);
    }
    let outcome = ctl(&server, "upgrade --wait");
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    server.follow_upgrade(1);
    load.wait_answered(REQUESTS);
    load.finish().assert_none_failed();
    assert_eq!(ctl(&server, "stop --wait").code, Some(0));
}

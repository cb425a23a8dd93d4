//! The hooks of an app: when they run, and what becomes of one that fails. And the settings of its own.

use crate::support::server::End;
use crate::support::{DEADLINE, Program, Said, Server, eventually};
use nix::sys::signal::Signal::{SIGHUP, SIGINT, SIGTERM};
use std::fs;

fn program(config: &str) -> Program {
    Program::example("hooked").config(config).workers(1)
}

/// The hooks that ran until the server stopped, in order.
fn hooks(server: &Server) -> Vec<String> {
    server.wait(Said::Stopped);
    let lines = server.log_with("hook ");
    lines.iter().filter_map(|line| Some(line.split_once("] hook ")?.1.to_owned())).collect()
}

#[track_caller]
fn reload(server: &Server, config: &str) {
    fs::write(server.dir().join("server.toml"), config).unwrap();
    server.signal(SIGHUP);
}

#[test]
fn each_runs_at_its_time() {
    let mut server = program("warm_up = ['/?a', '/nothing']\n[app]\ngreeting = 'hi'\n").start();
    let answer = server.get("/");
    assert_eq!(answer.text(), "hi \"0\"");
    assert_eq!(answer.field("x-worker-slot"), Some("0"));
    assert_eq!(server.get("/nothing").field("x-worker-slot"), Some("0"), "a 404 is an answer too");
    server.stop();
    let before = ["starting", "warm_up", "pre_request", "pre_request", "ready"];
    let after = ["pre_request", "pre_request", "draining", "exit"];
    assert_eq!(hooks(&server), [&before[..], &after].concat());
    for answered in ["GET /?a 200", "GET /nothing 404", "GET / 200"] {
        server.wait_text(&format!("answered {answered} took="));
    }
}

#[test]
fn a_quick_stop_is_told_also_in_a_drain() {
    for signals in [&[SIGINT][..], &[SIGTERM, SIGINT]] {
        let mut server = program("").start();
        let mut open = server.connect();
        open.send("GET /slow HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
        server.wait_text("hook pre_request");
        for signal in signals {
            server.signal(*signal);
            server.wait_text(if *signal == SIGTERM { "hook draining" } else { "hook aborting" });
        }
        assert_eq!(server.wait_exit(), End::Code(0));
        let wanted: &[&str] =
            if signals.len() > 1 { &["draining", "aborting", "exit"] } else { &["aborting", "exit"] };
        assert_eq!(hooks(&server)[4..], *wanted);
    }
}

#[test]
fn a_worker_that_cannot_warm_up_never_serves() {
    let mut server = program("").start();
    let old = server.workers();
    let faults = [
        ("[app]\nwarm_up = 'fail'", "warm-up: told to fail"),
        ("[app]\npanic = 'warm_up'", "told to panic in warm_up"),
        ("[app]\npanic = 'starting'", "told to panic in starting"),
        ("boot_timeout = '1s'\n[app]\nwarm_up = 'hang'", "boot_timeout"),
        ("warm_up = ['/', '/bad']", "warm-up GET /bad: status 502"),
        ("warm_up = '/panic'", "asked to"),
    ];
    for (count, (fault, said)) in faults.into_iter().enumerate() {
        reload(&server, fault);
        server.wait_count(Said::ReloadRefused, count + 1);
        eventually(DEADLINE, "only the old worker is there", || server.workers() == old);
        server.wait_text(said);
        assert_eq!(server.get("/").status, 200);
    }
    reload(&server, "warm_up = ['/', '/nothing']");
    server.wait(Said::ReloadDone);
    server.stop();
    let (fault, said) = faults[0];
    let outcome = program(fault).run();
    assert_eq!(outcome.code, Some(3));
    assert!(outcome.stderr.contains(said), "{}", outcome.stderr);
}

#[test]
fn a_hook_that_panics_later_ends_nothing() {
    for (hook, said) in [("ready", "ready"), ("draining", "draining"), ("exit", "exit")] {
        let mut server = program(&format!("[app]\npanic = '{hook}'")).start();
        assert_eq!(server.get("/").status, 200);
        server.stop();
        server.wait(Said::Stopped);
        assert_eq!(server.log_with(&format!("hook panicked moment={said}")).len(), 1);
    }
    let mut server = program("[app]\npanic = 'pre_request'").start();
    assert_eq!(server.get("/").status, 500, "and the request is not let by");
    server.stop();
}

#[test]
fn settings_of_the_app_are_checked_before_anything_is_done() {
    let bad = "\n[app]\ngreeting = 5\n";
    let said = "server.toml:3: app.greeting: invalid type: integer `5`, expected a string";
    for check in [true, false] {
        let program = program(bad);
        let program = if check { program.args("--check-config") } else { program };
        let outcome = program.run();
        assert_eq!(outcome.code, Some(2));
        assert!(outcome.stderr.contains(said), "{}", outcome.stderr);
        assert!(!outcome.stderr.contains("worker spawned"), "{}", outcome.stderr);
    }
    let mut server = program("[app]\ngreeting = 'one'").start();
    let spawned = server.count(Said::Spawned);
    reload(&server, bad);
    assert!(server.wait(Said::ReloadRefused).raw.contains(said));
    assert_eq!(server.count(Said::Spawned), spawned, "nobody was started for it");
    assert_eq!(server.get("/").text(), "one \"0\"");
    reload(&server, "[app]\ngreeting = 'two'");
    server.wait(Said::ReloadDone);
    assert!(server.wait(Said::SettingsRead).raw.contains("app.greeting changed"));
    eventually(DEADLINE, "the new one answers", || server.get("/").text().starts_with("two"));
    server.stop();
}

#[test]
fn settings_of_the_app_are_printed_without_secrets_and_refused_where_none_are_declared() {
    let config = "[app]\ngreeting = '${SECRET}'\n";
    let outcome = program(config).variable("SECRET", "hush").args("--print-config").run();
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let line = outcome.stdout.lines().find(|line| line.starts_with("greeting")).expect("it is printed");
    assert!(line.starts_with("greeting = \"${SECRET}\"") && line.ends_with("# server.toml:2"), "{line}");
    assert!(!outcome.stdout.contains("hush"));
    let mut server = program(config).variable("SECRET", "hush").start();
    assert_eq!(server.get("/").text(), "hush \"0\"");
    server.stop();
    let outcome = Program::example("hello").config(config).run();
    assert_eq!(outcome.code, Some(2));
    assert!(outcome.stderr.contains("server.toml:1: app: unknown setting"), "{}", outcome.stderr);
}

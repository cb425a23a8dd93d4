//! HUP: settings read again, the new generation ready before the old one drains, no request lost.

use crate::support::http::UPLOAD;
use crate::support::load::WAYS;
use crate::support::server::End;
use crate::support::{Connection, DEADLINE, Failure, Load, Program, Said, Server, Target, alone, eventually};
use nix::sys::signal::Signal::{SIGHUP, SIGTERM};
use std::fs;
use std::net::TcpListener;

/// How many requests each kind of load sends.
const REQUESTS: u64 = 20_000;
const RELOADS: u64 = 10;

#[test]
fn ten_reloads_lose_none_of_20_000_requests_on_kept_connections() {
    reload_under(Program::probe(), |load| load);
}

#[test]
fn ten_reloads_lose_none_of_20_000_requests_on_connections_of_their_own() {
    reload_under(Program::probe(), Load::without_keep_alive);
}

#[test]
fn ten_reloads_with_queues_lose_none_of_20_000_requests_on_kept_connections() {
    reload_under(Program::probe().args("--reuse-port"), |load| load);
}

#[test]
fn ten_reloads_with_queues_lose_none_of_20_000_requests_on_connections_of_their_own() {
    reload_under(Program::probe().args("--reuse-port"), Load::without_keep_alive);
}

#[test]
fn ten_reloads_lose_none_of_20_000_requests_over_a_unix_socket() {
    for keep_alive in [true, false] {
        reload_under(Program::probe().bind("unix:s.sock"), |load| load.keeping(keep_alive));
    }
}

fn reload_under(program: Program, kind: impl FnOnce(Load) -> Load) {
    let _alone = alone();
    let mut server = program.workers(2).start();
    let load = kind(Load::on(server.target())).at_least(REQUESTS).start();
    for done in 1..=RELOADS {
        server.signal(SIGHUP);
        server.wait_count(Said::ReloadDone, usize::try_from(done).unwrap());
        // Each generation gets its share of the requests.
        load.wait_more(REQUESTS / RELOADS / 4);
        load.wait_answered(done * REQUESTS / RELOADS);
    }
    let report = load.finish();
    report.assert_none_failed();
    assert!(report.sent >= REQUESTS, "{report}");
    assert!(report.workers.len() > usize::try_from(RELOADS).unwrap(), "every generation answered: {report}");
    eventually(DEADLINE, "the old ones have left", || server.workers().len() == 2);
    server.stop();
}

#[test]
fn refused_reloads_cost_none_of_20_000_requests() {
    let _alone = alone();
    let good = "workers = 2\n";
    // Only what hangs need be given up soon.
    let hasty = "workers = 2\nboot_timeout = '500ms'\n";
    // (the settings, the file that makes it so)
    let refused = [("workers = 0\n", "unused"), ("", "unused"), (good, "die"), (hasty, "hang")];
    for (bind, keep_alive) in WAYS {
        let program = Program::example("misuse").bind(bind).config(good).expect_workers(2);
        let mut server = program.start();
        let old = server.workers();
        let load = Load::on(server.target()).keeping(keep_alive).at_least(REQUESTS).start();
        for (count, (text, file)) in refused.iter().enumerate() {
            let file = server.dir().join(file);
            fs::write(&file, "").unwrap();
            fs::write(server.dir().join("server.toml"), text).unwrap();
            server.signal(SIGHUP);
            server.wait_count(Said::ReloadRefused, count + 1);
            load.wait_more(REQUESTS / 10);
            fs::remove_file(file).unwrap();
            fs::write(server.dir().join("server.toml"), good).unwrap();
        }
        load.wait_answered(REQUESTS);
        load.finish().assert_none_failed();
        eventually(DEADLINE, "only the old ones are there", || server.workers() == old);
        server.stop();
    }
}

#[test]
fn the_new_generation_has_the_new_settings() {
    let text = |workers: u32, hello: &str| {
        format!("workers = {workers}\n[[route]]\npath = \"/\"\nmethods = [\"GET\"]\ntext = \"{hello}\"\n")
    };
    let mut server = Program::stock().config(&text(1, "old")).start();
    let mut kept = server.connect();
    assert_eq!(kept.get("/").unwrap().text(), "old");
    fs::write(server.dir().join("server.toml"), text(3, "new")).unwrap();
    server.signal(SIGHUP);
    let done = server.wait(Said::ReloadDone);
    assert_eq!(done.number("generation"), 2);
    server.wait_count(Said::Exited, 1);
    assert_eq!(server.workers().len(), 3);
    assert_eq!(server.get("/").text(), "new");
    server.stop();
}

#[test]
fn a_bad_file_leaves_the_old_generation_serving() {
    let mut server = Program::stock().config("workers = 2\n").expect_workers(2).start();
    let old = server.workers();
    for (count, bad) in ["workers = 0\n", "wrokers = 2\n", "workers = \n"].iter().enumerate() {
        fs::write(server.dir().join("server.toml"), bad).unwrap();
        server.signal(SIGHUP);
        let refused = server.wait_count(Said::ReloadRefused, count + 1);
        assert!(refused.raw.contains("server.toml:1"), "{}", refused.raw);
        assert_eq!(server.workers(), old);
        assert_eq!(server.get("/").status, 200);
    }
    fs::write(server.dir().join("server.toml"), "workers = 1\n").unwrap();
    server.signal(SIGHUP);
    server.wait(Said::ReloadDone);
    eventually(DEADLINE, "the file is good again", || server.workers().len() == 1);
    server.stop();
}

#[test]
fn a_generation_that_does_not_become_ready_leaves_the_old_one_serving() {
    let mut server = Program::example("misuse").workers(2).args("--boot-timeout 3s").start();
    let old = server.workers();
    for (count, fault) in ["die", "hang"].into_iter().enumerate() {
        let fault = server.dir().join(fault);
        fs::write(&fault, "").unwrap();
        server.signal(SIGHUP);
        server.wait_count(Said::ReloadRefused, count + 1);
        eventually(DEADLINE, "only the old ones are there", || server.workers() == old);
        assert_eq!(server.get("/").status, 404);
        fs::remove_file(fault).unwrap();
    }
    server.signal(SIGHUP);
    server.wait(Said::ReloadDone);
    server.stop();
}

#[test]
fn an_app_can_ask_how_a_reload_came_out() {
    let mut server = Program::probe().config("workers = 1\n").start();
    assert_eq!(server.get("/reloads").text(), "0 ");
    fs::write(server.dir().join("server.toml"), "workers = 0\n").unwrap();
    server.signal(SIGHUP);
    server.wait(Said::ReloadRefused);
    let refused = server.get("/reloads").text();
    assert!(refused.starts_with("1 reload refused") && refused.contains("server.toml:1"), "{refused}");
    fs::write(server.dir().join("server.toml"), "workers = 1\n").unwrap();
    server.signal(SIGHUP);
    server.wait(Said::ReloadDone);
    assert_eq!(server.get("/reloads").text(), "2 reload adopted generation=2");
    server.stop();
}

#[test]
fn a_stop_during_a_reload_stops() {
    let mut server = Program::probe().workers(2).start();
    server.signal(SIGHUP);
    server.wait(Said::ReloadRequested);
    server.signal(SIGTERM);
    assert_eq!(server.wait_exit(), End::Code(0));
}

/// The program that a test of addresses runs, with its own file in place of `-b`.
fn listening(text: &str) -> Program {
    Program::stock().unbound().config(text).expect_workers(2)
}

fn rewrite(server: &Server, text: &str) {
    fs::write(server.dir().join("server.toml"), text).unwrap();
    server.signal(SIGHUP);
}

#[test]
fn a_reload_moves_to_another_address_and_the_old_one_drains() {
    let first = "bind = \"unix:old.sock\"\nworkers = 2\n";
    let mut server = Program::probe().unbound().config(first).expect_workers(2).start();
    let old = Target::Unix(server.dir().join("old.sock"));
    let mut open = server.connect();
    open.begin_upload();
    rewrite(&server, "bind = [\"unix:new.sock\", \"127.0.0.1:0\"]\nworkers = 2\n");
    server.wait(Said::ReloadDone);
    eventually(DEADLINE, "the old file is gone", || !server.dir().join("old.sock").exists());
    assert_eq!(Connection::open(&old).err(), Some(Failure::Refused));
    open.send(UPLOAD).unwrap();
    assert_eq!(
        open.read().map(|answer| answer.text()),
        Ok("6".to_owned()),
        "what was open is served to its end"
    );
    let new: Vec<Target> = server
        .log_with("listening on=")
        .iter()
        .skip(1)
        .map(|line| Target::named(on(line), server.dir()))
        .collect();
    assert_eq!(new.len(), 2);
    for target in &new {
        assert_eq!(Connection::open(target).unwrap().get("/").unwrap().status, 200, "{target:?}");
    }
    // Again, with nothing changed: nothing is opened, nothing is lost.
    rewrite(&server, "bind = [\"unix:new.sock\", \"127.0.0.1:0\"]\nworkers = 2\n");
    server.wait_count(Said::ReloadDone, 2);
    assert_eq!(server.count(Said::Listening), 3);
    assert_eq!(Connection::open(&new[1]).unwrap().get("/").unwrap().status, 200);
    server.stop();
    assert!(!server.dir().join("new.sock").exists());
}

fn on(line: &str) -> &str {
    line.split_once("on=").unwrap().1
}

#[test]
fn a_reload_to_another_address_under_load_loses_nothing_at_one_that_stays() {
    let _alone = alone();
    let stays = "bind = [\"unix:stays.sock\"";
    let text = format!("{stays}]\nworkers = 2\n");
    let mut server = Program::probe().unbound().config(&text).expect_workers(2).start();
    let target = Target::Unix(server.dir().join("stays.sock"));
    let load = Load::on(target).without_keep_alive().at_least(REQUESTS / 4).start();
    for done in 1..=4 {
        let more = if done % 2 == 1 { ", \"127.0.0.1:0\"" } else { "" };
        rewrite(&server, &format!("{stays}{more}]\nworkers = 2\n"));
        server.wait_count(Said::ReloadDone, done);
        load.wait_more(REQUESTS / 40);
    }
    load.finish().assert_none_failed();
    server.stop();
}

#[test]
fn what_a_reload_cannot_have_is_refused_and_nothing_changes() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap();
    let good = "bind = \"unix:s.sock\"\nworkers = 2\n";
    let mut server = listening(good).start();
    let old = server.workers();
    let refused = [
        (format!("bind = [\"unix:s.sock\", \"unix:more.sock\", \"{taken}\"]\n"), taken.to_string()),
        (String::new(), "empty".to_owned()),
        ("# bind = \"unix:s.sock\"\n".to_owned(), "empty".to_owned()),
        ("workers = 2\n".to_owned(), "bind is gone".to_owned()),
    ];
    for (count, (text, why)) in refused.iter().enumerate() {
        rewrite(&server, text);
        let line = server.wait_count(Said::ReloadRefused, count + 1);
        assert!(line.raw.contains(why), "{}", line.raw);
        assert_eq!((server.workers(), server.get("/").status), (old.clone(), 200));
        let is_closed = || !server.dir().join("more.sock").exists();
        eventually(DEADLINE, "what was opened for it is closed again", is_closed);
    }
    rewrite(&server, good);
    server.wait(Said::ReloadDone);
    server.stop();
}

#[test]
fn the_log_says_what_a_reload_changes_and_what_it_cannot() {
    let mut server = Program::stock().config("workers = 1\nbacklog = 64\n").start();
    rewrite(&server, "workers = 1\nbacklog = 32\ntimeout = \"9s\"\nmax_workers = 8\n");
    let changes = server.wait(Said::SettingsRead);
    assert_eq!(changes.value("changes"), Some("backlog 64 → 32, timeout '30s' → '9s'"));
    let fixed = server.wait(Said::SettingsFixed);
    assert_eq!(fixed.value("changes"), Some("max_workers 256 → 8"));
    server.wait(Said::ReloadDone);
    rewrite(&server, "workers = 1\n");
    let changes = server.wait_count(Said::SettingsRead, 2);
    assert_eq!(changes.value("changes"), Some("backlog 32 → 2048, timeout '9s' → '30s'"));
    server.wait_count(Said::ReloadDone, 2);
    assert_eq!(server.count(Said::SettingsFixed), 1, "the file is back to what serves");
    server.stop();
}

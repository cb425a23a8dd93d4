//! Probes that workers answer on the public addresses: that they say what the admin process says, whoever asks and however.

use crate::support::http2::{Ended, Http2};
use crate::support::{Connection, DEADLINE, Program, Response, Said, Server, Target, eventually};
use nix::sys::signal::Signal::{SIGCONT, SIGHUP, SIGSTOP, SIGTERM, SIGUSR2};
use serde_json::Value;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

const PATHS: &str = "--health-path /-/healthz --ready-path /-/readyz";

/// What is said of the server, without when.
fn said(body: &[u8]) -> Value {
    let mut said: Value = serde_json::from_slice(body).unwrap();
    assert!(said.as_object_mut().unwrap().remove("master_silent_seconds").is_some(), "{said}");
    said
}

/// Both probes over HTTP/1, HTTP/2 and at the admin process; all must be of one mind. Where the machine has just stood still for
/// two seconds, they need not be at once.
#[track_caller]
fn check_all_say(server: &Server, connection: &mut Connection, status: u16) {
    for name in ["healthz", "readyz"] {
        let public = format!("/-/{name}");
        eventually(DEADLINE, "all are of one mind", || {
            let asked = server.ask_admin(&format!("/{name}"));
            let one = connection.get(&public).unwrap();
            let Ended::Answered(two, body) = Http2::open(&server.target()).get(&public) else {
                panic!("no answer")
            };
            let head = connection.request("HEAD", &public, &[], b"").unwrap();
            assert_eq!(one.field("cache-control"), Some("no-store"));
            assert_eq!(one.field("content-type"), Some("application/json"));
            // How long that is varies with how long the master was silent.
            let length: usize = head.field("content-length").unwrap().parse().unwrap();
            assert!(length > 60 && head.body.is_empty(), "{length}");
            [asked.status, one.status, two, head.status] == [status; 4]
                && [said(&one.body), said(&body)] == [said(&asked.body), said(&asked.body)]
        });
    }
}

fn access_lines(server: &Server) -> Vec<String> {
    let text = fs::read_to_string(server.dir().join("access.log")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn workers_say_what_the_admin_process_says() {
    let program = Program::probe().workers(3).args("--admin-bind 127.0.0.1:0 --http-protocols h1,h2c");
    let mut server = program.args(PATHS).args("--compress gzip --timeout 0").start();
    let mut clients = server.connections_to_all(3);
    let (_, mut client) = clients.pop().unwrap();
    check_all_say(&server, &mut client, 200);
    for (worker, _) in &clients {
        server.signal_to(*worker, SIGSTOP);
    }
    eventually(DEADLINE, "one of three is not enough", || client.get("/-/readyz").unwrap().status == 503);
    eventually(DEADLINE, "both are silent", || {
        client.get("/-/readyz").unwrap().json()["workers"]["silent"] == 2
    });
    eventually(DEADLINE, "the admin process says so, too", || {
        said(&client.get("/-/readyz").unwrap().body) == said(&server.ask_admin("/readyz").body)
    });
    eventually(DEADLINE, "the server lives", || client.get("/-/healthz").unwrap().status == 200);
    for (worker, _) in &clients {
        server.signal_to(*worker, SIGCONT);
    }
    eventually(DEADLINE, "all are", || client.get("/-/readyz").unwrap().json()["workers"]["ready"] == 3);
    check_all_say(&server, &mut client, 200);
    // Other paths, other methods.
    assert_eq!(client.get("/-/readyz/").unwrap().status, 404);
    assert_eq!(client.get("/readyz").unwrap().status, 404);
    let refused = client.request("POST", "/-/readyz", &[], b"x").unwrap();
    assert_eq!((refused.status, refused.field("allow")), (405, Some("GET, HEAD")));
    server.stop();
}

#[test]
fn one_that_is_about_to_stop_or_hangs_says_so_also_without_an_admin_process() {
    let program = Program::probe().workers(1).args("--lame-duck 60s --admin-bind off").args(PATHS);
    let server = program.config("accesslog = 'access.log'\naccess_log_format = '%(s)s %(U)s'").start();
    assert_eq!(server.admins().len(), 0);
    let mut client = server.connect();
    // Its loop turns though nothing happens: what it was silent for falls again and again.
    let (mut falls, mut last) = (0, 0.0);
    eventually(DEADLINE, "the master says that it lives", || {
        let answer = client.get("/-/healthz").unwrap();
        let silent = answer.json()["master_silent_seconds"].as_f64().unwrap();
        falls += u32::from(silent < last);
        last = silent;
        falls == 5
    });
    eventually(DEADLINE, "it is ready", || client.get("/-/readyz").unwrap().status == 200);
    server.signal(SIGSTOP);
    eventually(DEADLINE, "the master hangs", || client.get("/-/healthz").unwrap().status == 503);
    server.signal(SIGCONT);
    eventually(DEADLINE, "it does no more", || client.get("/-/readyz").unwrap().status == 200);
    assert_eq!(client.get("/").unwrap().status, 200);
    // Those that found nothing wrong are not in the log.
    eventually(DEADLINE, "the request is logged", || {
        access_lines(&server).last().is_some_and(|line| line == "200 /")
    });
    let lines = access_lines(&server);
    assert!(lines.iter().all(|line| line == "200 /" || line.starts_with("503 /-/")), "{lines:?}");
    assert!(lines.iter().any(|line| line == "503 /-/healthz"), "{lines:?}");
    server.signal(SIGTERM);
    server.wait(Said::LameDuck);
    eventually(DEADLINE, "it leaves", || client.get("/-/readyz").unwrap().status == 503);
    eventually(DEADLINE, "and says why", || {
        client.get("/-/readyz").unwrap().json()["reasons"][0] == "the server is about to stop"
    });
    eventually(DEADLINE, "it lives", || client.get("/-/healthz").unwrap().status == 200);
}

/// Everybody was silent for two seconds, who asks among them: that is no word on the server.
fn machine_stood_still(answer: &Response) -> bool {
    let reasons = answer.json()["reasons"].to_string();
    reasons.contains("master has been silent")
        || reasons.contains("are silent") && !reasons.contains(" 0 are silent")
}

/// Asks for readiness over kept connections until told to stop; how many answers were 200, and the others.
fn ask_until(target: &Target, stop: &AtomicBool) -> (u32, Vec<String>) {
    let (mut good, mut bad) = (0, Vec::new());
    while !stop.load(Ordering::Relaxed) {
        let mut connection = Connection::open(target).unwrap();
        // One that was not asked for a second may be closed, which costs nobody an answer.
        while !stop.load(Ordering::Relaxed) && !connection.is_closing() && !connection.is_closed() {
            match connection.get("/-/readyz") {
                Ok(answer) if answer.status == 200 => good += 1,
                Ok(answer) if machine_stood_still(&answer) => {}
                Ok(answer) => bad.push(answer.text()),
                Err(failure) => {
                    bad.push(failure.to_string());
                    break;
                }
            }
        }
    }
    (good, bad)
}

#[test]
fn neither_a_reload_nor_an_upgrade_takes_it_out_of_rotation() {
    let mut server = Program::probe().workers(2).args(PATHS).start();
    let (target, stop) = (server.target(), AtomicBool::new(false));
    thread::scope(|scope| {
        let asking: Vec<_> = (0..4).map(|_| scope.spawn(|| ask_until(&target, &stop))).collect();
        for number in 1..=2 {
            server.signal(SIGHUP);
            server.wait_count(Said::ReloadDone, number);
        }
        server.signal(SIGUSR2);
        server.follow_upgrade(1);
        stop.store(true, Ordering::Relaxed);
        for (good, bad) in asking.into_iter().map(|asking| asking.join().unwrap()) {
            assert!(bad.is_empty() && good > 0, "{good} good ones, and {bad:?}");
        }
    });
    server.stop();
}

#[test]
fn their_paths_are_nobody_elses() {
    let refused = |program: Program, word: &str| {
        let outcome = program.arg("--check-config").run();
        assert!(outcome.code == Some(2) && outcome.stderr.contains(word), "{outcome:?}");
    };
    refused(Program::stock().args("--health-path /a --ready-path /a"), "another path than health_path");
    refused(Program::stock().args("--health-path a"), "a path such as /healthz");
    refused(Program::stock().args("--ready-path /a?b"), "a path such as /healthz");
    let route = "ready_path = '/r'\n[[route]]\npath = '/r'\ntext = 'r'";
    refused(Program::stock().config(route), "server.toml:2: the path \"/r\" is that of ready_path");
    // Below root_path, as the app's own.
    let server = Program::stock().workers(1).args("--ready-path /r --root-path /shop").start();
    for (path, status) in [("/shop/r", 200), ("/r", 200), ("/shop/r?x", 200), ("/shopr", 404)] {
        assert_eq!(server.get(path).status, status, "{path}");
    }
}

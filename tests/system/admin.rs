//! The process that answers for the server: what it says, and that it says so whatever the workers and the master do.

use crate::support::ports::free_port;
use crate::support::{
    Connection, DEADLINE, Failure, Load, Program, Response, Said, Server, Target, alone, eventually, millis,
    proc, seconds,
};
use nix::sys::signal::Signal::{SIGCONT, SIGHUP, SIGKILL, SIGSTOP, SIGTERM, SIGUSR2};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The promise for the median of its answers is a tenth of this. Here the workers, other tests and whatever else runs want the
/// processors as much; whoever waited for what befalls the workers would take seconds.
const AT_ONCE: Duration = Duration::from_millis(100);
const PROBES: usize = 41;
const REQUESTS: u64 = 20_000;

fn with_admin(workers: usize) -> Program {
    Program::probe().workers(workers).args("--admin-bind 127.0.0.1:0")
}

fn ask(target: &Target, path: &str) -> Result<Response, Failure> {
    Connection::open(target)?.get(path)
}

/// Asks both probes again and again; the answers must come in time.
#[track_caller]
fn check_promptness(server: &Server, while_: &str) {
    let (median, most) = middle_and_most(ask_again_and_again(server, while_));
    eprintln!("{while_}: median {median:.1?}, most {most:.1?}");
    assert!(median < AT_ONCE, "{while_}: {median:?}");
}

/// How long each answer took.
#[track_caller]
fn ask_again_and_again(server: &Server, while_: &str) -> Vec<Duration> {
    (0..PROBES)
        .flat_map(|_| ["/healthz", "/readyz"])
        .map(|path| {
            let begin = Instant::now();
            let answer = server.ask_admin(path);
            let elapsed = begin.elapsed();
            assert!(
                path != "/healthz" || answer.status == 200 || is_starved(&answer),
                "{while_}: {}",
                answer.text()
            );
            elapsed
        })
        .collect()
}

/// The master was not let run for so long that it may be taken for hung.
fn is_starved(answer: &Response) -> bool {
    answer.json()["master_silent_seconds"].as_f64().unwrap() >= 2.0
}

fn middle_and_most(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort_unstable();
    (times[times.len() / 2], times[times.len() - 1])
}

#[test]
fn probes_are_answered_at_once_while_all_workers_spin() {
    let _alone = alone();
    let mut server = with_admin(2).start();
    is_soon_ready(&server, "it begins well");
    let mut spinning = server.connections_to_all(2);
    for (_, client) in &mut spinning {
        client.send("GET /spin?ms=6000 HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
    }
    eventually(DEADLINE, "silent workers are not ready", || {
        let answer = server.ask_admin("/readyz");
        let workers = &answer.json()["workers"];
        answer.status == 503 && workers["ready"] == 0 && workers["silent"] == 2
    });
    check_promptness(&server, "all workers hang");
    for (_, client) in &mut spinning {
        assert_eq!(client.read().unwrap().status, 200);
    }
    eventually(DEADLINE, "they are ready again", || server.ask_admin("/readyz").status == 200);
    server.stop();
}

#[test]
fn probes_are_answered_at_once_while_all_workers_are_stopped() {
    let _alone = alone();
    let server = with_admin(2).start();
    server.workers().iter().for_each(|worker| server.signal_to(*worker, SIGSTOP));
    check_promptness(&server, "all workers are stopped");
    eventually(DEADLINE, "stopped workers are not ready", || server.ask_admin("/readyz").status == 503);
    server.workers().iter().for_each(|worker| server.signal_to(*worker, SIGCONT));
    eventually(DEADLINE, "they are ready again", || server.ask_admin("/readyz").status == 200);
}

#[test]
fn probes_are_answered_at_once_while_workers_crash() {
    let _alone = alone();
    let server = with_admin(2).start();
    let crashing = std::thread::scope(|scope| {
        let crashing = scope.spawn(|| (0..30).filter(|_| server.try_get("/segv").is_err()).count());
        check_promptness(&server, "workers crash");
        crashing.join().unwrap()
    });
    assert!(crashing > 0);
    eventually(DEADLINE, "they are ready again", || server.ask_admin("/readyz").status == 200);
}

#[test]
fn probes_are_answered_at_once_while_settings_are_on_trial() {
    let _alone = alone();
    let program = Program::example("misuse").workers(2).args("--admin-bind 127.0.0.1:0 --boot-timeout 5m");
    let mut server = program.start();
    let old = server.workers();
    fs::write(server.dir().join("hang"), "").unwrap();
    server.signal(SIGHUP);
    let is_on_trial = || server.ask_admin("/status").json()["server"]["is_reloading"] == true;
    eventually(DEADLINE, "the first worker starts", || is_on_trial() && server.workers().len() == 3);
    let (median, most) = middle_and_most(ask_again_and_again(&server, "settings are on trial"));
    eprintln!("settings are on trial: median {median:.1?}, most {most:.1?}");
    assert!(median < AT_ONCE, "{median:?}");
    is_soon_ready(&server, "those before serve on");
    assert!(is_on_trial(), "all this was asked meanwhile");
    let on_trial = server.workers().into_iter().find(|worker| !old.contains(worker)).unwrap();
    server.signal_to(on_trial, SIGKILL);
    server.wait(Said::ReloadRefused);
    eventually(DEADLINE, "it is over", || !is_on_trial() && server.workers() == old);
    is_soon_ready(&server, "those before serve on");
    server.stop();
}

/// One trouble after the other, none of which costs more than one of three workers.
#[test]
fn probes_are_answered_at_once_and_well_under_load_through_reloads_kills_and_hangs() {
    let _alone = alone();
    let mut server = with_admin(3).args("--timeout 5s").start();
    let load = Load::on(server.target()).start();
    let (times, bad) = std::thread::scope(|scope| {
        let server = &server;
        let trouble = scope.spawn(|| {
            // A reload starts three, and each of the two troubles after it one.
            for round in 0..3 {
                server.signal(SIGHUP);
                server.wait_count(Said::ReloadDone, round + 1);
                load.wait_more(500);
                for (trouble, started) in [(SIGKILL, 7), (SIGSTOP, 8)] {
                    // What was before the reload, or was hung, is gone: else there would be two troubles at a time.
                    eventually(DEADLINE, "all serve", || server.workers().len() == 3 && is_whole(server));
                    let victim = server.workers()[0];
                    server.signal_to(victim, trouble);
                    server.wait_about(Said::Exited, victim);
                    server.wait_count(Said::Ready, started + 5 * round);
                }
                load.wait_more(500);
            }
        });
        let (mut times, mut bad) = (Vec::new(), Vec::new());
        while !trouble.is_finished() {
            times.extend(ask_again_and_again(server, "there is all kind of trouble"));
            bad.extend(
                Some(server.ask_admin("/readyz"))
                    .filter(|answer| answer.status != 200 && !is_by_sleep(answer)),
            );
        }
        trouble.join().unwrap();
        (times, bad)
    });
    let bad: Vec<String> = bad.iter().map(Response::text).collect();
    assert!(bad.is_empty(), "{bad:?}");
    let (answers, (median, most)) = (times.len(), middle_and_most(times));
    eprintln!("{answers} answers beside {} requests: median {median:.1?}, most {most:.1?}", load.answered());
    assert!(median < AT_ONCE, "{median:?}");
    load.finish();
    server.stop();
}

fn is_whole(server: &Server) -> bool {
    server.ask_admin("/readyz").json()["workers"]["ready"] == 3
}

/// Two of three workers are there, and all that is wrong is that somebody was not let run for two seconds.
fn is_by_sleep(answer: &Response) -> bool {
    let told = answer.json();
    let count = |what: &str| told["workers"][what].as_u64().unwrap();
    let reasons = told["reasons"].as_array().unwrap();
    count("ready") + count("silent") >= 2
        && reasons.iter().all(|reason| reason.as_str().unwrap().contains("silent"))
}

/// For a moment, a machine that sleeps makes whoever it lets run last silent.
#[track_caller]
fn is_soon_ready(server: &Server, why: &str) {
    eventually(DEADLINE, why, || server.ask_admin("/readyz").status == 200);
}

#[test]
fn a_master_that_hangs_is_seen() {
    let server = with_admin(1).start();
    let target = server.admin_target();
    eventually(DEADLINE, "it is alive", || ask(&target, "/healthz").unwrap().status == 200);
    server.signal(SIGSTOP);
    eventually(DEADLINE, "a stopped master is not alive", || ask(&target, "/healthz").unwrap().status == 503);
    assert_eq!(ask(&target, "/readyz").unwrap().status, 503);
    server.signal(SIGCONT);
    eventually(DEADLINE, "it is alive again", || ask(&target, "/healthz").unwrap().status == 200);
}

#[test]
fn a_server_without_ready_workers_is_alive_and_not_ready() {
    let program = Program::example("misuse").args("-w 1 --admin-bind 127.0.0.1:0");
    let server = program.file("hang", "").spawn();
    let target = server.admin_target();
    eventually(DEADLINE, "its worker hangs", || server.workers().len() == 1);
    eventually(DEADLINE, "it is alive", || ask(&target, "/healthz").unwrap().status == 200);
    let answer = ask(&target, "/readyz").unwrap();
    assert_eq!((answer.status, &answer.json()["workers"]["wanted"]), (503, &1.into()));
    fs::remove_file(server.dir().join("hang")).unwrap();
    server.signal_to(server.worker(), SIGKILL);
    eventually(DEADLINE, "it is ready", || ask(&target, "/readyz").unwrap().status == 200);
}

#[test]
fn a_lame_duck_is_alive_and_not_ready() {
    let server = with_admin(1).args("--lame-duck 5m").start();
    server.signal(SIGTERM);
    server.wait(Said::LameDuck);
    eventually(DEADLINE, "it says so", || {
        let answer = server.ask_admin("/readyz");
        answer.status == 503 && answer.json()["reasons"] == serde_json::json!(["the server is about to stop"])
    });
    eventually(DEADLINE, "it is alive", || server.ask_admin("/healthz").status == 200);
    assert_eq!(server.get("/").status, 200);
}

#[test]
fn its_death_disturbs_nobody_and_another_takes_its_place() {
    let _alone = alone();
    let mut server = with_admin(2).start();
    let workers = server.workers();
    let target = server.admin_target();
    let load = Load::on(server.target()).at_least(REQUESTS).start();
    for death in 1..=3 {
        eventually(DEADLINE, "it is there", || server.admins().len() == 1);
        server.signal_to(server.admins()[0], SIGKILL);
        server.wait_count(Said::AdminExited, death);
        // The socket is the master's: who asks meanwhile waits, and is not refused.
        let answer = ask(&target, "/healthz").unwrap();
        assert!(answer.status == 200 || is_starved(&answer), "{}", answer.text());
    }
    load.wait_answered(REQUESTS);
    load.finish().assert_none_failed();
    assert_eq!(server.workers(), workers);
    server.stop();
}

#[test]
fn a_reload_moves_it_and_leaves_no_socket_behind() {
    let file = |socket: &str| format!("workers = 1\n[admin]\nbind = \"{socket}\"\n");
    let server = Program::probe().config(&file("unix:a.sock")).start();
    is_soon_ready(&server, "it begins well");
    let reload = |socket: &str, number| {
        fs::write(server.dir().join("server.toml"), file(socket)).unwrap();
        server.signal(SIGHUP);
        server.wait_count(Said::ReloadDone, number);
    };
    reload("unix:b.sock", 1);
    server.wait_count(Said::AdminListening, 2);
    is_soon_ready(&server, "it answers at the new one");
    assert!(!server.dir().join("a.sock").exists());
    eventually(DEADLINE, "the one before has left", || server.admins().len() == 1);
    // The same address again: never refused.
    let target = server.admin_target();
    reload("unix:b.sock", 2);
    ask(&target, "/healthz").unwrap();
    reload("off", 3);
    eventually(DEADLINE, "it is off", || server.admins().is_empty());
    assert!(!server.dir().join("b.sock").exists());
    assert_eq!(server.count(Said::AdminExited), 0, "it left as it was told");
}

#[test]
fn after_an_upgrade_the_new_master_answers_at_the_same_socket() {
    let mut server = Program::probe().workers(1).args("--admin-bind unix:a.sock").start();
    for number in 1..=3 {
        server.signal(SIGUSR2);
        server.follow_upgrade(number);
        eventually(DEADLINE, "the new one listens", || server.count(Said::AdminListening) == number + 1);
        is_soon_ready(&server, "the new master answers");
        eventually(DEADLINE, "the old one has left", || server.admins().len() == 1);
    }
    server.stop();
    assert!(!server.dir().join("a.sock").exists());
}

#[test]
fn an_upgrade_takes_the_tcp_address_over() {
    let bind = format!("--admin-bind 127.0.0.1:{}", free_port());
    let mut server = Program::probe().workers(1).args(&bind).start();
    server.signal(SIGUSR2);
    server.follow_upgrade(1);
    eventually(DEADLINE, "the new one listens", || server.count(Said::AdminListening) == 2);
    is_soon_ready(&server, "the new master answers");
    server.stop();
}

#[test]
fn by_default_it_has_a_private_socket_where_the_environment_says() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    for (variable, below) in [("RUNTIME_DIRECTORY", ""), ("XDG_RUNTIME_DIR", "ferricorn/")] {
        let mut server = Program::probe().workers(1).args("-n shop").variable(variable, path).start();
        let socket = PathBuf::from(format!("{path}/{below}shop-{}.sock", server.addr()));
        let told = server.wait(Said::AdminListening);
        eventually(DEADLINE, "it is ready", || {
            ask(&Target::Unix(socket.clone()), "/readyz").unwrap().status == 200
        });
        assert_eq!(told.value("on").unwrap(), format!("unix:{}", socket.display()));
        assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
        server.stop();
        assert!(!socket.exists());
    }
    let server = Program::probe().workers(1).start();
    assert_eq!((server.admins(), server.count(Said::AdminListening)), (vec![], 0));
}

#[test]
fn an_address_that_is_taken_costs_a_warning_and_nothing_else() {
    let taken = std::net::TcpListener::bind(("127.0.0.1", free_port())).unwrap();
    let bind = format!("--admin-bind {}", taken.local_addr().unwrap());
    let mut server = Program::probe().workers(1).args(&bind).start();
    assert_eq!(server.wait_text("admin could not listen").level(), "WARN");
    assert_eq!(server.get("/").status, 200);
    drop(taken);
    is_soon_ready(&server, "the address was free again");
    server.stop();
}

#[test]
fn it_is_read_only_and_bounded() {
    let server = with_admin(1).start();
    let target = server.admin_target();
    let request = |method: &str, path: &str| {
        Connection::open(&target).unwrap().request(method, path, &[], b"").unwrap()
    };
    assert_eq!(request("POST", "/healthz").status, 405);
    assert_eq!(request("GET", "/nothing").status, 404);
    let head = request("HEAD", "/healthz");
    assert_eq!((head.status, head.body.len()), (200, 0));
    let mut large = Connection::open(&target).unwrap();
    large.send(format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(32_000))).unwrap();
    assert_eq!(large.read().unwrap().status, 431);
    // Those who say nothing hold all places, for two seconds.
    let mut silent: Vec<Connection> = (0..80).map(|_| Connection::open(&target).unwrap()).collect();
    for client in &mut silent {
        client.set_patience(millis(100)).unwrap();
        let _ = client.send("GET /healthz HT");
    }
    let begin = Instant::now();
    ask(&target, "/healthz").unwrap();
    assert!(begin.elapsed() < seconds(20), "{:?}", begin.elapsed());
    let files = proc::open_files(server.admins()[0]);
    assert!(files < 120, "{files}");
}

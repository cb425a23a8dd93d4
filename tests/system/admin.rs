//! The process that answers for the server: what it says, and that it says so whatever the workers and the master do.

use crate::support::{
    Connection, DEADLINE, Failure, Load, Program, Response, Said, Server, Target, alone, busy, eventually,
    millis, proc, seconds,
};
use nix::sys::signal::Signal::{SIGCONT, SIGHUP, SIGKILL, SIGSTOP, SIGTERM, SIGUSR2};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The promise for the median of its answers.
const PROMISED: Duration = Duration::from_millis(10);
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
    assert!(median < PROMISED, "{while_}: {median:?}");
}

/// How long each answer took.
#[track_caller]
fn ask_again_and_again(server: &Server, while_: &str) -> Vec<Duration> {
    (0..PROBES)
        .flat_map(|_| ["/healthz", "/readyz"])
        .map(|path| {
            let begin = Instant::now();
            let answer = server.ask_admin(path);
            assert!(path != "/healthz" || answer.status == 200, "{while_}: {}", answer.text());
            begin.elapsed()
        })
        .collect()
}

fn middle_and_most(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort_unstable();
    (times[times.len() / 2], times[times.len() - 1])
}

#[test]
fn probes_are_answered_at_once_while_all_workers_spin() {
    let _alone = alone();
    let mut server = with_admin(2).start();
    assert_eq!(server.ask_admin("/readyz").status, 200);
    let mut spinning = server.connections_to_all(2);
    for (_, client) in &mut spinning {
        client.send("GET /spin?ms=6000 HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
    }
    check_promptness(&server, "all workers spin");
    eventually(DEADLINE, "silent workers are not ready", || server.ask_admin("/readyz").status == 503);
    let answer = server.ask_admin("/readyz").json();
    assert_eq!(
        (&answer["workers"]["ready"], &answer["workers"]["silent"]),
        (&0.into(), &2.into()),
        "{answer}"
    );
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
    let program = Program::example("misuse").workers(2).args("--admin-bind 127.0.0.1:0 --boot-timeout 3s");
    let mut server = program.start();
    let old = server.workers();
    fs::write(server.dir().join("hang"), "").unwrap();
    server.signal(SIGHUP);
    let is_on_trial = || server.ask_admin("/status").json()["server"]["is_reloading"] == true;
    eventually(DEADLINE, "the first worker starts", is_on_trial);
    let (median, most) = middle_and_most(ask_again_and_again(&server, "settings are on trial"));
    eprintln!("settings are on trial: median {median:.1?}, most {most:.1?}");
    assert!(median < busy(PROMISED), "{median:?}");
    assert_eq!(server.ask_admin("/readyz").status, 200, "those before serve on");
    server.wait(Said::ReloadRefused);
    eventually(DEADLINE, "it is over", || !is_on_trial() && server.workers() == old);
    assert_eq!(server.ask_admin("/readyz").status, 200);
    server.stop();
}

/// One trouble after the other, none of which costs more than one of three workers.
#[test]
fn probes_are_answered_at_once_and_well_under_load_through_reloads_kills_and_hangs() {
    let _alone = alone();
    let mut server = with_admin(3).args("--timeout 3s").start();
    let load = Load::on(server.target()).start();
    let (times, bad) = std::thread::scope(|scope| {
        let server = &server;
        let trouble = scope.spawn(|| {
            for round in 1..=3 {
                server.signal(SIGHUP);
                server.wait_count(Said::ReloadDone, round);
                load.wait_more(500);
                let killed = server.workers()[0];
                server.signal_to(killed, SIGKILL);
                server.wait_about(Said::Exited, killed);
                eventually(DEADLINE, "another serves", || is_whole(server));
                let hung = server.workers()[0];
                server.signal_to(hung, SIGSTOP);
                server.wait_about(Said::Exited, hung);
                eventually(DEADLINE, "another serves", || is_whole(server));
                load.wait_more(500);
            }
        });
        let (mut times, mut bad) = (Vec::new(), Vec::new());
        while !trouble.is_finished() {
            times.extend(ask_again_and_again(server, "there is all kind of trouble"));
            bad.extend(Some(server.ask_admin("/readyz")).filter(|answer| answer.status != 200));
        }
        trouble.join().unwrap();
        (times, bad)
    });
    let bad: Vec<String> = bad.iter().map(Response::text).collect();
    assert!(bad.is_empty(), "{bad:?}");
    let (answers, (median, most)) = (times.len(), middle_and_most(times));
    eprintln!("{answers} answers beside {} requests: median {median:.1?}, most {most:.1?}", load.answered());
    // The load and whatever else runs here want the processors as much.
    assert!(median < busy(PROMISED), "{median:?}");
    load.finish();
    server.stop();
}

fn is_whole(server: &Server) -> bool {
    server.ask_admin("/readyz").json()["workers"]["ready"] == 3
}

#[test]
fn a_master_that_hangs_is_seen() {
    let server = with_admin(1).start();
    let target = server.admin_target();
    assert_eq!(ask(&target, "/healthz").unwrap().status, 200);
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
    assert_eq!(ask(&target, "/healthz").unwrap().status, 200);
    let answer = ask(&target, "/readyz").unwrap();
    assert_eq!((answer.status, &answer.json()["workers"]["wanted"]), (503, &1.into()));
    fs::remove_file(server.dir().join("hang")).unwrap();
    server.workers().iter().for_each(|worker| server.signal_to(*worker, SIGKILL));
    eventually(DEADLINE, "it is ready", || ask(&target, "/readyz").unwrap().status == 200);
}

#[test]
fn a_lame_duck_is_alive_and_not_ready() {
    let server = with_admin(1).args("--lame-duck 3s").start();
    server.signal(SIGTERM);
    server.wait(Said::LameDuck);
    eventually(DEADLINE, "it says so", || server.ask_admin("/readyz").status == 503);
    assert_eq!(server.ask_admin("/healthz").status, 200);
    assert_eq!(server.ask_admin("/readyz").json()["reasons"][0], "the server is about to stop");
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
        assert_eq!(ask(&target, "/healthz").unwrap().status, 200);
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
    assert_eq!(server.ask_admin("/healthz").status, 200);
    let reload = |socket: &str, number| {
        fs::write(server.dir().join("server.toml"), file(socket)).unwrap();
        server.signal(SIGHUP);
        server.wait_count(Said::ReloadDone, number);
    };
    reload("unix:b.sock", 1);
    server.wait_count(Said::AdminListening, 2);
    assert_eq!(server.ask_admin("/healthz").status, 200);
    assert!(!server.dir().join("a.sock").exists());
    eventually(DEADLINE, "the one before has left", || server.admins().len() == 1);
    // The same address again: never refused.
    let target = server.admin_target();
    reload("unix:b.sock", 2);
    assert_eq!(ask(&target, "/healthz").unwrap().status, 200);
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
        assert_eq!(server.ask_admin("/readyz").status, 200);
        eventually(DEADLINE, "the old one has left", || server.admins().len() == 1);
    }
    server.stop();
    assert!(!server.dir().join("a.sock").exists());
}

#[test]
fn an_upgrade_takes_the_tcp_address_over() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let bind = format!("--admin-bind 127.0.0.1:{port}");
    let mut server = Program::probe().workers(1).args(&bind).start();
    server.signal(SIGUSR2);
    server.follow_upgrade(1);
    eventually(DEADLINE, "the new one listens", || server.count(Said::AdminListening) == 2);
    assert_eq!(server.ask_admin("/readyz").status, 200);
    server.stop();
}

#[test]
fn by_default_it_has_a_private_socket_where_the_environment_says() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    for (variable, below) in [("RUNTIME_DIRECTORY", ""), ("XDG_RUNTIME_DIR", "ferricorn/")] {
        let mut server = Program::probe().workers(1).args("-n shop").variable(variable, path).start();
        let socket = PathBuf::from(format!("{path}/{below}shop-{}.sock", server.addr()));
        assert_eq!(ask(&Target::Unix(socket.clone()), "/readyz").unwrap().status, 200);
        let told = server.wait(Said::AdminListening);
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
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let bind = format!("--admin-bind {}", taken.local_addr().unwrap());
    let mut server = Program::probe().workers(1).args(&bind).start();
    assert_eq!(server.wait_text("admin could not listen").level(), "WARN");
    assert_eq!(server.get("/").status, 200);
    drop(taken);
    assert_eq!(server.ask_admin("/healthz").status, 200);
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
    assert_eq!(ask(&target, "/healthz").unwrap().status, 200);
    assert!(begin.elapsed() < seconds(8), "{:?}", begin.elapsed());
    let files = proc::open_files(server.admins()[0]);
    assert!(files < 120, "{files}");
}

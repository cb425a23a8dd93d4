//! The dashboard in a real browser, and the history that it draws: under load, over a reload and deaths of workers.
//! Not here: the figures themselves (metrics.rs).

use crate::support::{Connection, DEADLINE, Program, Said, Server, Target, eventually};
use nix::sys::signal::Signal::{SIGCONT, SIGHUP, SIGKILL, SIGSTOP};
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Instant;

fn start() -> Server {
    let program = Program::probe().config("workers = 2\nproc_name = 'shop'\n").expect_workers(2);
    program.args("--admin-bind 127.0.0.1:0 --keep-alive 10m").start()
}

/// The last value of each column, by name; and how many rows there are.
struct History {
    told: Value,
}

impl History {
    fn of(server: &Server) -> History {
        let answer = server.ask_admin("/history");
        assert_eq!(answer.status, 200);
        History { told: answer.json() }
    }

    fn rows(&self) -> &Vec<Value> {
        self.told["rows"].as_array().unwrap()
    }

    fn at(&self) -> Vec<u64> {
        self.rows().iter().map(|row| row[0].as_u64().unwrap()).collect()
    }

    #[track_caller]
    fn last(&self, column: &str) -> u64 {
        let at = self.column(column);
        self.rows().last().map_or(0, |row| row[at].as_u64().unwrap())
    }

    #[track_caller]
    fn column(&self, column: &str) -> usize {
        let columns = self.told["columns"].as_array().unwrap();
        columns.iter().position(|name| name == column).unwrap_or_else(|| panic!("no {column}"))
    }

    /// The times of day, a little earlier and a little later, of the first row in which this column is not 0: the two clocks
    /// are not read at the same moment.
    fn times(&self, column: &str) -> [String; 5] {
        let at = self.column(column);
        let first = self.rows().iter().find(|row| row[at] != 0).expect("it was counted")[0].as_u64().unwrap();
        let [clock, now] = ["clock", "now"].map(|name| self.told[name].as_u64().unwrap());
        [-2000, -1000, 0, 1000, 2000].map(|some| {
            let seconds = (clock - now + first).saturating_add_signed(some) / 1000;
            format!("{:02}:{:02}:{:02}", seconds / 3600 % 24, seconds / 60 % 60, seconds % 60)
        })
    }
}

/// The page as a browser has it after the time that its clock ran on, which costs less than that in truth.
fn browse(server: &Server, width: u32) -> String {
    let Target::Tcp(addr) = server.admin_target() else { panic!("it listens on TCP") };
    browse_at(addr, width, 5000)
}

fn browse_at(addr: SocketAddr, width: u32, milliseconds: u32) -> String {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new("chromium");
    command
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .args(["--dump-dom"])
        .arg(format!("--virtual-time-budget={milliseconds}"))
        .env("TZ", "UTC")
        .arg(format!("--window-size={width},900"))
        .arg(format!("--user-data-dir={}", folder.path().display()))
        .arg(format!("http://{addr}/"))
        .env("HOME", folder.path())
        .stdin(Stdio::null());
    let output = command.output().expect("chromium is installed; tests/run sees to it");
    let page = String::from_utf8(output.stdout).unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!said.contains("Content Security Policy") && !said.contains("Uncaught"), "{said}");
    page
}

/// On a busy machine another worker, or the page's own look, may be late for a moment.
#[track_caller]
fn shows_soon(server: &Server, width: u32, wanted: &[&str]) -> String {
    let begin = Instant::now();
    loop {
        let page = browse(server, width);
        if wanted.iter().all(|wanted| page.contains(wanted)) {
            return page;
        }
        if begin.elapsed() > DEADLINE {
            shows(&page, wanted);
        }
    }
}

#[track_caller]
fn shows(page: &str, wanted: &[&str]) {
    for wanted in wanted {
        assert!(page.contains(wanted), "{wanted:?} is not in the page:\n{page}");
    }
}

#[test]
fn the_dashboard_shows_workers_charts_reloads_deaths_and_settings() {
    let mut server = start();
    for path in ["/", "/", "/nothing-here"] {
        server.get(path);
    }
    // One that is under way while the page is looked at.
    let mut slow = server.connect();
    slow.send("GET /sleep?ms=60000 HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
    eventually(DEADLINE, "the first row is kept", || !History::of(&server).rows().is_empty());
    let busy = |server: &Server| -> Vec<i32> {
        let told = server.ask_admin("/status").json();
        let workers = told["workers"].as_array().unwrap().clone();
        let idle = workers.iter().filter(|one| one["in_flight"] == 0);
        idle.map(|one| one["pid"].as_i64().unwrap() as i32).collect()
    };
    eventually(DEADLINE, "one of two is busy", || busy(&server).len() == 1);
    server.signal_to(busy(&server)[0], SIGKILL);
    server.wait_count(Said::Ready, 3);
    std::fs::write(server.dir().join("server.toml"), "workers = 0\n").unwrap();
    server.signal(SIGHUP);
    server.wait(Said::ReloadRefused);
    eventually(DEADLINE, "both are kept", || {
        let history = History::of(&server);
        history.last("ended_killed") == 1 && history.last("reloads_refused") == 1
    });
    let page = shows_soon(
        &server,
        1280,
        &[
            "<title>shop – 2 workers</title>",
            ">serving</span>",
            "GET /sleep, ",
            "worker died: killed",
            " reload refused</li>",
            "killed by SIGKILL",
            "class=\"series s1\"",
            "class=\"m-death\"",
            "class=\"m-refused\"",
            "server.toml:2",
            "role=\"columnheader\"",
            "Requests, last 15 minutes; now ",
            // All was answered.
            "role=\"alert\" hidden",
        ],
    );
    // By the server's clock, however the browser's goes.
    let times = History::of(&server).times("ended_killed");
    assert!(
        times.iter().any(|time| page.contains(&format!(" {time} worker died: killed"))),
        "{times:?}: {page}"
    );
    // So near to each other that one would hide the other.
    let [death, refused] = ["<tspan class=\"m-death\">×</tspan>", "<tspan class=\"m-refused\">R</tspan>"];
    let beside = [[death, refused].concat(), [refused, death].concat()];
    assert!(beside.iter().any(|signs| page.contains(&format!("{signs}</text>"))), "{page}");
    // It has no database.
    shows(&page, &["Database pool, last 15 minutes; now in use –, open –, waiting –"]);
    shows_soon(&server, 400, &["data-of=\"connections\"", ">serving</span>"]);
    // Or the drain would wait for it.
    drop(slow);
    server.stop();
}

#[test]
fn the_dashboard_shows_who_hangs_and_what_is_on_trial() {
    let program = Program::example("misuse")
        .config("workers = 2\ntimeout = '5m'\nboot_timeout = '5m'\n")
        .expect_workers(2);
    let preload = program.variable("MISUSE", "preload").file("value", "one");
    let mut server = preload.args("--admin-bind 127.0.0.1:0").start();
    let told = server.ask_admin("/status").json();
    let hung = told["workers"][0]["pid"].as_i64().unwrap() as i32;
    server.signal_to(hung, SIGSTOP);
    eventually(DEADLINE, "it is seen", || History::of(&server).last("workers_serving") == 1);
    shows_soon(
        &server,
        1280,
        &[">1 of 2 serve</span>", "<b>1 of 2</b><span>workers serve", "serving, silent for "],
    );
    server.signal_to(hung, SIGCONT);
    let is_on_trial = |wanted: bool| {
        eventually(DEADLINE, "the master says it", || {
            server.ask_admin("/status").json()["server"]["is_reloading"] == wanted
        });
    };
    is_on_trial(false);
    std::fs::write(server.dir().join("hang"), "").unwrap();
    server.signal(SIGHUP);
    is_on_trial(true);
    shows_soon(&server, 1280, &[", generation 2 on trial</p>", "A reload is on trial; "]);
    server.stop();
}

/// Each answer is given once; then there is none.
fn answer_once(stream: TcpStream, answers: &Mutex<Vec<(&str, &str, String)>>) {
    let mut reader = BufReader::new(&stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).unwrap_or(0) == 0 {
            return;
        }
    }
    let mut answers = answers.lock().unwrap();
    let asked = |(path, ..): &(&str, &str, String)| head.starts_with(&format!("GET {path}"));
    let Some(at) = answers.iter().position(asked) else { return };
    let (_, kind, body) = answers.remove(at);
    let length = body.len();
    let fields = format!("content-type: {kind}\r\ncontent-length: {length}\r\nconnection: close");
    let _ = write!(&stream, "HTTP/1.1 200 OK\r\n{fields}\r\n\r\n{body}");
}

#[test]
fn a_page_that_gets_no_answer_does_not_go_on_saying_that_all_is_well() {
    let mut server = start();
    eventually(DEADLINE, "the first row is kept", || !History::of(&server).rows().is_empty());
    let (html, json) = ("text/html; charset=utf-8", "application/json");
    let told = [("/ ", html, "/"), ("/history", json, "/history"), ("/status ", json, "/status")];
    let answers = told.map(|(path, kind, ask)| (path, kind, server.ask_admin(ask).text()));
    server.stop();
    let answers = Mutex::new(Vec::from(answers));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let is_over = AtomicBool::new(false);
    let page = thread::scope(|scope| {
        scope.spawn(|| {
            while let Ok((stream, _)) = listener.accept()
                && !is_over.load(Relaxed)
            {
                scope.spawn(|| answer_once(stream, &answers));
            }
        });
        let page = scope.spawn(|| browse_at(addr, 1280, 15_000)).join();
        is_over.store(true, Relaxed);
        let _ = TcpStream::connect(addr);
        page
    });
    let page = page.unwrap();
    shows(&page, &["No answer from the server", "class=\"badge bad\" role=\"status\">no answer</span>"]);
}

#[test]
fn the_dashboard_shows_what_an_app_counts_and_not_too_much_of_it() {
    let mut server = start();
    shows_soon(&server, 1280, &["the app counts nothing of its own"]);
    // All at one worker, whose level is that of all.
    let mut client = server.connect();
    let mut measure = |kind: &str, value: f64| {
        let path = format!("/measure?kind={kind}&value={value}&level=1234");
        assert_eq!(client.get(&path).unwrap().status, 200);
    };
    // A label is text, whatever it looks like.
    measure("%3Cb%3Eoak", 0.5);
    measure("elm", 2.0);
    measure("elm", 9.5);
    eventually(DEADLINE, "a row is kept", || History::of(&server).last("2xx") > 0);
    shows_soon(
        &server,
        1280,
        &[
            "<code>probe_level</code><span class=\"quiet help\">The last level.</span>",
            "<code>probe_measured_total{kind=\"&lt;b&gt;oak\"}</code>",
            "<code>probe_measured_total{kind=\"elm\"}</code>",
            "data-of=\"now\">1,234</td>",
            "data-of=\"kind\">histogram</td>",
            // Of 0.5, 2.0 and 9.5, with bounds at 1 and 2.5.
            "mean 4, median 1.75, 95 % &gt; 2.5, of all so far",
            "data-of=\"a second\">0/s</td>",
        ],
    );
    // Four series there are already.
    (0..38).for_each(|number| measure(&format!("kind-{number:02}"), 1.0));
    let page = shows_soon(&server, 400, &["and 2 more: find", "{kind=\"kind-36\"}"]);
    assert!(!page.contains("{kind=\"kind-37\"}") && !page.contains("<code>probe_values"), "{page}");
    server.stop();
}

#[test]
fn a_reload_leaves_no_gap_in_the_history() {
    let mut server = start();
    server.get("/");
    eventually(DEADLINE, "a request is kept", || History::of(&server).last("2xx") == 1);
    let before = History::of(&server).at();
    server.signal(SIGHUP);
    server.wait(Said::ReloadDone);
    eventually(DEADLINE, "the reload is kept", || History::of(&server).last("reloads_adopted") == 1);
    let after = History::of(&server);
    assert_eq!(after.at()[..before.len()], before, "what was kept before is still told");
    // As many milliseconds apart as it says, with time for a machine that is busy.
    let every = after.told["every_ms"].as_u64().unwrap();
    let gaps = after.at().windows(2).map(|pair| pair[1] - pair[0]).max();
    assert!(gaps.unwrap() < every * 5, "{:?}", after.at());
    let since = after.at()[after.at().len() - 2];
    let rest = server.ask_admin(&format!("/history?since={since}")).json();
    assert!(!rest["rows"].as_array().unwrap().is_empty());
    assert!(rest["rows"].as_array().unwrap().iter().all(|row| row[0].as_u64().unwrap() > since), "{rest}");
    server.stop();
}

#[test]
fn the_page_may_run_its_own_script_and_no_other_and_nobody_may_frame_it() {
    let mut server = start();
    let mut client = Connection::open(&server.admin_target()).unwrap();
    let page = client.get("/").unwrap();
    assert_eq!((page.status, page.field("content-type")), (200, Some("text/html; charset=utf-8")));
    assert!(page.text().len() < 100_000);
    let policy = page.field("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; script-src 'sha256-"), "{policy}");
    assert!(policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"), "{policy}");
    assert_eq!(page.field("cross-origin-resource-policy"), Some("same-origin"));
    server.stop();
}

/// What the process costs that is asked by one open page, in processor time for each second.
#[test]
fn an_open_page_costs_less_than_a_hundredth_of_a_core() {
    let mut server = start();
    // It is known by its name, which it gives itself.
    eventually(DEADLINE, "there is one", || server.admins().len() == 1);
    let admin = server.admins()[0];
    let used = || {
        let stat = std::fs::read_to_string(format!("/proc/{admin}/stat")).unwrap();
        let fields: Vec<u64> = stat
            .rsplit_once(')')
            .unwrap()
            .1
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(|field| field.parse().unwrap())
            .collect();
        // In hundredths of a second.
        fields.iter().sum::<u64>()
    };
    let look = || {
        for path in ["/status", "/history?since=1"] {
            assert_eq!(server.ask_admin(path).status, 200);
        }
    };
    look();
    let before = used();
    // As often as a page asks in 100 s, which may cost one second.
    (0..50).for_each(|_| look());
    let spent = used() - before;
    eprintln!("50 looks took {spent} hundredths of a second");
    assert!(spent < 100, "{spent} hundredths of a second");
    server.stop();
}

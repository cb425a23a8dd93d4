//! A server under everything that it is made to bear, for some minutes, and what it cost: run by tests/soak. Four loads
//! that account for every request (TCP and a Unix socket, kept connections and connections of their own) go on while
//! chance has it reloaded, resized, upgraded, refused, stopped and killed. Not here: any one of these by itself
//! (tests/system), and nothing that is part of tests/run.
//!
//! It fails when a request is lost that no killed worker had open, when memory or descriptors grow, or when a process is
//! left over. In the second half nothing is upgraded, so that the master grows old too.

#![allow(unreachable_pub, reason = "`pub` marks what the support modules offer")]

#[path = "support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the tests use the rest of it")]
mod support;

use nix::sys::signal::Signal::{self, *};
use nix::sys::signal::kill;
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::{Duration, Instant};
use support::load::{Load, Lost, Report, Running, WAYS};
use support::{DEADLINE, Dice, Program, Said, Server, Target, eventually, millis, proc, seconds};

const MINUTES: u64 = 10;
const WORKERS: usize = 3;
const MAX_WORKERS: usize = 6;
/// Of each load; they rest for a moment after each answer, so that the server has some time to spare.
const CONNECTIONS: usize = 3;
const REST: Duration = Duration::from_millis(2);
const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// The first samples and the last, which are compared.
const WINDOW: Duration = Duration::from_secs(60);
/// What may come on top of the first window's median: this part of it, and 1 MiB.
const GROWTH: u64 = 4;
const GROWTH_KIB: u64 = 1024;
/// Connections come and go while descriptors are counted.
const MORE_FILES: u64 = 2 * CONNECTIONS as u64;

/// What chance chooses from, upgrades last.
const EVENTS: [Event; 11] = [
    Event::Reload,
    Event::RefusedReload,
    Event::Grow,
    Event::Shrink,
    Event::Leave,
    Event::Kill,
    Event::Kill,
    Event::StopWorker,
    Event::StopMaster,
    Event::RefusedUpgrade,
    Event::Upgrade,
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Reload,
    RefusedReload,
    Grow,
    Shrink,
    /// A worker is asked to leave.
    Leave,
    /// A worker is killed with all that it has open.
    Kill,
    StopWorker,
    StopMaster,
    RefusedUpgrade,
    Upgrade,
}

struct Killed {
    pid: i32,
    sent: Instant,
    seen: Instant,
}

/// What was measured at a time: of workers, the largest.
struct Sample {
    at: Instant,
    figures: [u64; FIGURES.len()],
}

const FIGURES: [&str; 6] = [
    "master private KiB",
    "master share KiB",
    "master descriptors",
    "worker private KiB",
    "worker share KiB",
    "worker descriptors",
];

struct Soak {
    server: Server,
    dice: Dice,
    happened: BTreeMap<Event, usize>,
    killed: Vec<Killed>,
    samples: Vec<Sample>,
}

fn main() {
    let given = std::env::args().nth(1).and_then(|minutes| minutes.parse().ok());
    let time = seconds(60 * given.unwrap_or(MINUTES));
    let dice = Dice::new();
    // Taken now, as the sources may be worked on meanwhile.
    let fresh = program();
    let server = program().start();
    let loads: Vec<Running> = WAYS.iter().map(|&(bind, kept)| load(&server, bind, kept)).collect();
    let (happened, killed, samples) = (BTreeMap::new(), Vec::new(), Vec::new());
    let mut soak = Soak { server, dice, happened, killed, samples };
    soak.go_on_for(time);
    let reports: Vec<Report> = loads.into_iter().map(Running::finish).collect();
    println!("{time:?} of {:?}", soak.happened);
    let lost = soak.account(&reports);
    let grown = soak.compare();
    soak.nothing_is_left(fresh);
    soak.server.stop();
    assert!(lost == 0, "{lost} requests were lost that no killed worker had open");
    assert!(grown.is_empty(), "grown: {grown:?}");
    println!("good");
}

fn settings(timeout: u64) -> String {
    format!(
        "workers = {WORKERS}\nmax_workers = {MAX_WORKERS}\ntimeout = \"{timeout}s\"\nboot_timeout = \"10s\"\n\
         max_requests = 4000\nmax_requests_jitter = 2000\npidfile = \"pid\"\n"
    )
}

fn program() -> Program {
    // At info the log would leave out the ends of those who are killed again and again.
    let args = "-b unix:s.sock --log-level debug";
    Program::replaceable().config(&settings(10)).args(args).expect_workers(WORKERS)
}

fn load(server: &Server, bind: &str, kept: bool) -> Running {
    let unix = Target::Unix(server.dir().join("s.sock"));
    let target = if bind.starts_with("unix:") { unix } else { server.target() };
    Load::on(target).connections(CONNECTIONS).keeping(kept).pausing(REST).start()
}

impl Soak {
    fn go_on_for(&mut self, time: Duration) {
        let begin = Instant::now();
        while begin.elapsed() < time {
            let events = if begin.elapsed() < time / 2 { &EVENTS[..] } else { &EVENTS[..EVENTS.len() - 1] };
            let event = self.dice.one_of(events);
            self.happen(event);
            *self.happened.entry(event).or_default() += 1;
            let rest = self.dice.within(0..600);
            self.sample_for(millis(rest));
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Reload => self.reload(),
            Event::RefusedReload => self.be_refused_a_reload(),
            Event::Grow => self.server.signal(SIGTTIN),
            Event::Shrink => self.server.signal(SIGTTOU),
            Event::Leave => drop(self.signal_a_worker(SIGTERM)),
            Event::Kill => self.kill(),
            Event::StopWorker => {
                if let Some(worker) = self.signal_a_worker(SIGSTOP) {
                    self.go_on_after(worker, 1500);
                }
            }
            Event::StopMaster => {
                self.server.signal(SIGSTOP);
                self.go_on_after(self.server.pid(), 2500);
            }
            Event::RefusedUpgrade => self.be_refused_an_upgrade(),
            Event::Upgrade => {
                let done = self.server.count(Said::UpgradeDone);
                self.server.signal(SIGUSR2);
                self.server.follow_upgrade(done + 1);
            }
        }
    }

    fn reload(&mut self) {
        let timeout = self.dice.within(10..20);
        fs::write(self.server.dir().join("server.toml"), settings(timeout)).expect("our own file");
        let done = self.server.count(Said::ReloadDone);
        self.server.signal(SIGHUP);
        self.server.wait_count(Said::ReloadDone, done + 1);
    }

    fn be_refused_a_reload(&mut self) {
        let file = self.server.dir().join("server.toml");
        let good = fs::read_to_string(&file).expect("our own file");
        fs::write(&file, self.dice.one_of(&["", "workers = 0\n", "wrokers = 3\n", "[["]))
            .expect("our own file");
        let refused = self.server.count(Said::ReloadRefused);
        self.server.signal(SIGHUP);
        self.server.wait_count(Said::ReloadRefused, refused + 1);
        fs::write(&file, good).expect("our own file");
    }

    /// A script stands in the program's place for a while.
    fn be_refused_an_upgrade(&mut self) {
        let (program, aside) = (self.server.dir().join("server"), self.server.dir().join("aside"));
        fs::rename(&program, &aside).expect("our own file");
        fs::write(&program, "#!/bin/sh\nexit 3\n").expect("our own file");
        fs::set_permissions(&program, Permissions::from_mode(0o755)).expect("our own file");
        let failed = self.server.count(Said::UpgradeFailed);
        self.server.signal(SIGUSR2);
        self.server.wait_count(Said::UpgradeFailed, failed + 1);
        fs::rename(&aside, &program).expect("our own file");
    }

    fn kill(&mut self) {
        let sent = Instant::now();
        if let Some(pid) = self.signal_a_worker(SIGKILL) {
            self.server.wait_about(Said::Exited, pid);
            self.killed.push(Killed { pid, sent, seen: Instant::now() });
        }
    }

    /// To any of them; nobody, where the one that was chosen has just left.
    fn signal_a_worker(&mut self, signal: Signal) -> Option<i32> {
        let workers = self.server.workers();
        let worker = if workers.is_empty() { return None } else { self.dice.one_of(&workers) };
        kill(Pid::from_raw(worker), signal).is_ok().then_some(worker)
    }

    fn go_on_after(&mut self, pid: i32, at_most_ms: u64) {
        thread::sleep(millis(self.dice.within(10..at_most_ms)));
        // It may have been killed meanwhile; its master has it replaced then.
        let _ = kill(Pid::from_raw(pid), SIGCONT);
    }

    // What it cost

    fn sample_for(&mut self, time: Duration) {
        if self.samples.last().is_none_or(|last| last.at.elapsed() >= SAMPLE_EVERY) {
            self.samples.extend(self.sample());
        }
        thread::sleep(time);
    }

    fn sample(&self) -> Option<Sample> {
        let master = memory(self.server.pid())?;
        let workers = self.server.workers();
        let theirs: Vec<Memory> = workers.iter().filter_map(|&pid| memory(pid)).collect();
        let files = |pid: i32| proc::open_files(pid) as u64;
        let figures = [
            master.private,
            master.share,
            files(self.server.pid()),
            theirs.iter().map(|memory| memory.private).max()?,
            theirs.iter().map(|memory| memory.share).max()?,
            workers.iter().map(|&pid| files(pid)).max()?,
        ];
        Some(Sample { at: Instant::now(), figures })
    }

    /// Prints what became of the requests; returns how many were lost without excuse.
    fn account(&self, reports: &[Report]) -> u64 {
        let mut lost = 0;
        for ((bind, kept), report) in WAYS.iter().zip(reports) {
            let excused = report.lost.iter().filter(|lost| self.is_excused(lost)).count() as u64;
            lost += report.failed() - excused;
            println!(
                "{bind}, {}: {excused} of these were open at a killed worker",
                if *kept { "kept" } else { "own" }
            );
            let text = report.to_string();
            // Workers by the hundred tell nothing here.
            text.lines().filter(|line| !line.contains("by worker")).for_each(|line| println!("  {line}"));
        }
        let count = |said| self.server.count(said);
        println!("{} workers killed, {} recycled", self.killed.len(), count(Said::Retiring));
        println!("{} workers were silent for timeout", count(Said::Silent));
        lost
    }

    /// Whether a killed worker may have had the request open: it was under way at that time, and, on a connection that had
    /// an answer before, that worker gave it.
    fn is_excused(&self, lost: &Lost) -> bool {
        let by = |killed: &Killed| lost.worker.is_none_or(|worker| worker == killed.pid);
        let during = |killed: &Killed| lost.begin <= killed.seen && lost.end >= killed.sent;
        lost.by_end_of_connection && self.killed.iter().any(|killed| by(killed) && during(killed))
    }

    /// Prints first and last medians; returns what has grown.
    fn compare(&self) -> Vec<&'static str> {
        let (Some(first), Some(last)) = (self.samples.first(), self.samples.last()) else {
            return FIGURES.to_vec();
        };
        let (first_end, last_begin) = (first.at + WINDOW, last.at - WINDOW);
        let mut grown = Vec::new();
        for (figure, name) in FIGURES.into_iter().enumerate() {
            let median = |within: &dyn Fn(&Sample) -> bool| {
                let samples = self.samples.iter().filter(|sample| within(sample));
                let mut values: Vec<u64> = samples.map(|sample| sample.figures[figure]).collect();
                values.sort_unstable();
                values[values.len() / 2]
            };
            let before = median(&|sample| sample.at <= first_end);
            let after = median(&|sample| sample.at >= last_begin);
            let is_memory = name.ends_with("KiB");
            let room = if is_memory { before / GROWTH + GROWTH_KIB } else { MORE_FILES };
            println!("{name}: {before} in the first minute, {after} in the last");
            if after > before + room {
                grown.push(name);
            }
        }
        grown
    }

    /// One master and its workers, no zombie, and no file more than in a server that nothing happened to.
    fn nothing_is_left(&self, fresh: Program) {
        let server = &self.server;
        let is_clean = || {
            let (living, zombies) = server.everybody();
            zombies.is_empty() && living.len() == 1 + server.workers().len()
        };
        eventually(DEADLINE, "nobody is left but the master and its workers", is_clean);
        let mut fresh = fresh.start();
        fresh.signal(SIGUSR2);
        fresh.follow_upgrade(1);
        proc::assert_same_files("the master", server.pid(), fresh.pid(), seconds(10));
        for worker in server.workers() {
            proc::assert_same_files("a worker", worker, fresh.workers()[0], seconds(10));
        }
        fresh.stop();
        println!("0 zombies, 0 descriptors more than in a fresh server");
    }
}

/// What a process needs of memory, in KiB (/proc/PID/smaps_rollup).
#[derive(Clone, Copy, Debug, Default)]
struct Memory {
    /// Pages that no other process has mapped.
    private: u64,
    /// The same, and its share of the others.
    share: u64,
}

fn memory(pid: i32) -> Option<Memory> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let sum = |field: &str| -> u64 {
        let lines = text.lines().filter(|line| line.starts_with(field));
        let lines = lines.filter_map(|line| line.split_whitespace().nth(1));
        lines.filter_map(|number| number.parse::<u64>().ok()).sum()
    };
    Some(Memory { private: sum("Private_"), share: sum("Pss:") })
}

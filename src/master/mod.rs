//! The master's shell: it watches signals, children and the board, tells the arbiter what it saw, carries out what the
//! arbiter orders, and waits. One thread; no HTTP, no app. Not here: decisions.

mod arbiter;
mod crew;
mod ears;
mod group;
mod inherited;
mod listener;
mod pidfile;
mod privileges;
mod process;
mod queues;
mod words;

pub(crate) use arbiter::Setup;
pub(crate) use inherited::Inherited;
pub(crate) use listener::receive;
pub(crate) use privileges::Accounts;
pub(crate) use process::unblock_signals;

use crate::config::{Bind, Settings};
use crate::logging;
use crate::scoreboard::{Board, Seat};
use arbiter::{Arbiter, Ending, Event, Generation, Order, Policy, SlotId};
use crew::{Crew, Role};
use ears::{Ears, Meaning};
use group::Group;
use listener::{AtStop, Listener};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use pidfile::Pidfile;
use queues::Queues;
use std::io::{self, ErrorKind};
use std::mem;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How often a busy address is tried at start, and how long apart: a server that is just leaving may still hold it.
const BIND_TRIES: u32 = 5;
const BIND_PAUSE: Duration = Duration::from_millis(200);

/// The exit code of a child that could not become who it should.
const STILL_PRIVILEGED: i32 = 77; // EX_NOPERM, sysexits.h

/// What the master has others do. It runs `work` and `set_up` only in children.
pub(crate) struct Roles<'a> {
    /// Reads the settings again; the error is the whole message.
    pub(crate) reload: &'a dyn Fn() -> Result<Settings, String>,
    /// A worker's life; returns its exit code.
    pub(crate) work: &'a dyn Fn(Post) -> i32,
    /// One try at the database's setup script.
    pub(crate) set_up: &'a dyn Fn(&Settings) -> Setup,
}

/// What a new worker finds at its place.
pub(crate) struct Post {
    pub(crate) slot: u32,
    pub(crate) settings: Settings,
    pub(crate) seat: &'static Seat,
    pub(crate) listeners: Vec<OwnedFd>,
    /// With `reuse_port`, where queues are offered in which something waits and that nobody serves.
    pub(crate) offers: Option<UnixDatagram>,
    /// A byte written here makes the master look at the board; its end says that the master is gone.
    pub(crate) bell: UnixStream,
}

/// Why the server could not do its work.
#[derive(Debug)]
pub(crate) enum Failure {
    Bind {
        bind: Bind,
        error: io::Error,
    },
    /// A socket that was passed in, by its name.
    Adopt {
        name: String,
        error: io::Error,
    },
    Pidfile {
        path: PathBuf,
        error: io::Error,
    },
    System {
        doing: &'static str,
        error: io::Error,
    },
    NeverReady,
    SetupWrong,
}

/// Listens, forks and watches until the server has stopped.
///
/// # Errors
/// When it could not start, or never served.
pub(crate) fn run(
    settings: Settings,
    accounts: Accounts,
    inherited: Inherited,
    roles: &Roles<'_>,
) -> Result<(), Failure> {
    let Inherited { passed, foreign } = inherited;
    process::set_comm(&settings.proc_name, "master");
    logging::sign_as("master");
    let mut ears = Ears::open().map_err(|error| Failure::System { doing: "listen to signals", error })?;
    let (listeners, queues) = if passed.is_empty() {
        let Some(bound) = bind_all(&settings, &accounts, &mut ears)? else { return Ok(()) };
        bound
    } else {
        (adopt_all(passed)?, no_queues()?)
    };
    let pidfile = settings
        .pidfile
        .as_deref()
        .map(Pidfile::write)
        .transpose()
        .map_err(|error| Failure::Pidfile { path: settings.pidfile.clone().unwrap_or_default(), error });
    // The sockets' files go whichever way this ends; the sockets themselves close with the process.
    let ended = pidfile
        .and_then(|_pidfile| Master::new(settings, accounts, listeners, queues, foreign, ears, roles)?.run());
    log::info!("stopped");
    ended
}

struct Master<'a> {
    roles: &'a Roles<'a>,
    accounts: Accounts,
    ears: Ears,
    listeners: Vec<Listener>,
    queues: Queues,
    foreign: Vec<RawFd>,
    board: Board,
    arbiter: Arbiter,
    crew: Crew,
    /// The settings that serve, and those on trial.
    current: (Generation, Settings),
    trial: Option<Settings>,
    /// What was learnt since the arbiter was last told.
    learnt: Vec<Event>,
}

impl<'a> Master<'a> {
    fn new(
        settings: Settings,
        accounts: Accounts,
        listeners: Vec<Listener>,
        queues: Queues,
        foreign: Vec<RawFd>,
        ears: Ears,
        roles: &'a Roles<'a>,
    ) -> Result<Master<'a>, Failure> {
        // A new generation boots while the old one drains, so the board has two seats for each worker.
        let seats = 2 * settings.max_workers;
        let board =
            Board::new(seats).map_err(|error| Failure::System { doing: "map the scoreboard", error })?;
        let has_setup = settings.database.setup.is_some();
        let arbiter = Arbiter::new(policy(&settings), settings.max_workers, seats, has_setup, Instant::now());
        let crew = Crew::default();
        Ok(Master {
            roles,
            accounts,
            ears,
            listeners,
            queues,
            foreign,
            board,
            arbiter,
            crew,
            current: (arbiter::FIRST_GENERATION, settings),
            trial: None,
            learnt: Vec::new(),
        })
    }

    fn run(&mut self) -> Result<(), Failure> {
        log::info!("master started pid={} workers={}", std::process::id(), self.current.1.workers);
        loop {
            self.watch();
            let now = Instant::now();
            for event in mem::take(&mut self.learnt) {
                self.queues.observe(event);
                self.arbiter.observe(event, now);
            }
            for order in self.arbiter.decide(now) {
                if let Order::Finish(ending) = order {
                    return finish(ending);
                }
                self.carry_out(order);
            }
            self.queues.tend(self.arbiter.wanted(), now);
            if self.learnt.is_empty() {
                let deadlines =
                    [self.arbiter.next_deadline(), self.queues.next_deadline(self.arbiter.wanted(), now)];
                self.ears.wait(deadlines.into_iter().flatten().min(), self.queues.unserved(now));
            }
        }
    }

    /// Signals, what the workers show on the board, and dead children.
    fn watch(&mut self) {
        for signal in self.ears.signals() {
            match signal {
                Meaning::Wish(event, name) => {
                    log::info!("signal received signal={name}");
                    self.learnt.push(event);
                }
                Meaning::ReopenLogs => {
                    logging::reopen();
                    self.make_logs(&self.current.1);
                    log::info!("logs reopened");
                    self.crew.send_to_workers(Signal::SIGUSR1);
                }
                Meaning::Reap => {}
                Meaning::Unused(name) => log::info!("signal ignored signal={name}"),
            }
        }
        // The board before the dead: a worker that was ready and died at once was ready.
        self.crew.look_at_board(&mut self.learnt);
        self.crew.reap(&mut self.learnt);
    }

    fn carry_out(&mut self, order: Order) {
        match order {
            Order::Spawn { slot, generation } => self.spawn(slot, generation),
            Order::StartSetup => self.start_setup(),
            Order::KillSetup => self.crew.send(Role::Setup, Signal::SIGKILL),
            Order::Drain { slot, why } => {
                log::info!("worker told to drain slot={slot} why={why}");
                self.queues.leave(slot);
                self.crew.send(Role::Worker(slot), Signal::SIGTERM);
            }
            Order::Quit(slot) => {
                self.queues.leave(slot);
                self.crew.send(Role::Worker(slot), Signal::SIGQUIT);
            }
            Order::Abort { slot, silent } => {
                log::error!("worker timed out slot={slot} silent={silent:.1?} sent=SIGABRT");
                self.queues.leave(slot);
                self.crew.send(Role::Worker(slot), Signal::SIGABRT);
            }
            Order::Kill { slot, why } => {
                log::warn!("worker killed slot={slot} overdue={why} sent=SIGKILL");
                self.queues.leave(slot);
                self.crew.send(Role::Worker(slot), Signal::SIGKILL);
            }
            Order::Reread => self.reread(),
            Order::Adopt(generation) => self.adopt(generation),
            Order::Reject(generation, rejection) => {
                self.trial = None;
                log::error!("reload refused generation={generation} reason={rejection}");
            }
            Order::CloseListeners => {
                log::info!("stopping");
                self.queues.stop();
                self.listeners.clear();
            }
            Order::Say(notice) => words::say(notice),
            Order::Finish(_) => unreachable!("the loop returns on it"),
        }
    }

    fn spawn(&mut self, slot: SlotId, generation: Generation) {
        let (current, serving) = &self.current;
        let settings = self.trial.as_ref().filter(|_| generation > *current).unwrap_or(serving).clone();
        // Somebody may be about to rotate them.
        self.make_logs(&settings);
        let seat = self.board.seat(slot);
        seat.clear();
        let since = Instant::now();
        match self.fork_worker(slot, generation, settings, seat) {
            Ok(pid) => {
                log::info!("worker spawned slot={slot} pid={pid} generation={generation}");
                self.crew.add(Role::Worker(slot), pid, since, Some(seat));
            }
            Err(error) => {
                log::error!("worker could not be forked slot={slot} error=\"{error}\"");
                self.learnt.push(Event::SpawnFailed(slot));
            }
        }
    }

    fn fork_worker(
        &mut self,
        slot: SlotId,
        generation: Generation,
        settings: Settings,
        seat: &'static Seat,
    ) -> io::Result<Pid> {
        let mut listeners = self.listeners.iter().map(Listener::share).collect::<io::Result<Vec<_>>>()?;
        listeners.extend(self.queues.assign(slot, generation, self.arbiter.wanted())?);
        let (offers, bell) = (self.queues.workers_end()?, self.ears.workers_bell()?);
        let post = Post { slot, settings, seat, listeners, offers, bell };
        let name = format!("w{slot}");
        self.fork(&name, |roles| (roles.work)(post))
    }

    /// The database's script, in a process of its own: the master never waits for a server.
    fn start_setup(&mut self) {
        let settings = self.current.1.clone();
        match self.fork("help", |roles| crew::exit_code((roles.set_up)(&settings))) {
            Ok(pid) => self.crew.add(Role::Setup, pid, Instant::now(), None),
            Err(error) => {
                log::error!("setup helper could not be forked error=\"{error}\"");
                self.learnt.push(Event::SetUp(Setup::Away));
            }
        }
    }

    /// Makes the files that a child of another user might not be allowed to make.
    fn make_logs(&self, settings: &Settings) {
        let Some(owner) = self.accounts.log_owner() else { return };
        for (name, target) in [("error", &settings.errorlog), ("access", &settings.accesslog)] {
            if let Err(error) = logging::make(target, owner) {
                log::error!("{name} log could not be made error=\"{error}\"");
            }
        }
    }

    /// The one way to a child; it starts without what is the master's alone, its privileges among that.
    fn fork(&mut self, role: &str, work: impl FnOnce(&Roles<'a>) -> i32) -> io::Result<Pid> {
        let master = Pid::this();
        process::fork(|| {
            self.ears.close();
            self.listeners.iter_mut().for_each(Listener::keep_file);
            self.listeners.clear();
            self.queues.clear();
            process::close_all(&self.foreign);
            process::set_comm(&self.current.1.proc_name, role);
            logging::sign_as(role);
            if let Err(still) = self.accounts.step_down() {
                log::error!("privileges could not be dropped {still}");
                return STILL_PRIVILEGED;
            }
            if process::die_with(master).is_err() {
                return 0;
            }
            work(self.roles)
        })
    }

    /// Puts the settings, read again, to trial, or refuses them.
    fn reread(&mut self) {
        let policy = match (self.roles.reload)() {
            Ok(settings) => {
                let fixed = fixed_until_restart(&self.current.1, &settings);
                if !fixed.is_empty() {
                    log::warn!("settings changed that need a restart settings={}", fixed.join(","));
                }
                let policy = policy(&settings);
                self.trial = Some(settings);
                Some(policy)
            }
            Err(message) => {
                log::error!("reload refused reason=\"{message}\"");
                None
            }
        };
        self.learnt.push(Event::Reread(policy));
    }

    fn adopt(&mut self, generation: Generation) {
        if let Some(settings) = self.trial.take() {
            if let Err(error) =
                logging::open(&settings.errorlog, settings.loglevel, self.accounts.log_owner())
            {
                log::error!("error log could not be opened error=\"{error}\"");
            }
            self.current = (generation, settings);
            log::info!("reload adopted generation={generation}");
        }
    }
}

fn policy(settings: &Settings) -> Policy {
    Policy {
        workers: settings.workers,
        timeout: settings.timeout,
        graceful_timeout: settings.graceful_timeout,
        boot_timeout: settings.boot_timeout,
    }
}

/// What a reload cannot change, because it was put to use once, at start.
fn fixed_until_restart(old: &Settings, new: &Settings) -> Vec<&'static str> {
    [
        ("bind", old.bind != new.bind),
        ("backlog", old.backlog != new.backlog),
        ("reuse_port", old.reuse_port != new.reuse_port),
        ("max_workers", old.max_workers != new.max_workers),
        ("pidfile", old.pidfile != new.pidfile),
        ("chdir", old.chdir != new.chdir),
        ("umask", old.umask != new.umask),
        ("user", old.user != new.user),
        ("group", old.group != new.group),
        ("socket_mode", old.socket_mode != new.socket_mode),
        ("socket_user", old.socket_user != new.socket_user),
        ("socket_group", old.socket_group != new.socket_group),
        ("database.setup", old.database.setup != new.database.setup),
    ]
    .into_iter()
    .filter_map(|(key, changed)| changed.then_some(key))
    .collect()
}

/// Takes the sockets that were passed in, in place of `bind`.
fn adopt_all(passed: Vec<(OwnedFd, String)>) -> Result<Vec<Listener>, Failure> {
    log::info!("sockets were passed in and used in place of bind count={}", passed.len());
    let adopt = |(fd, name): (OwnedFd, String)| {
        let listener = Listener::adopt(fd, AtStop::KeepFile)
            .map_err(|error| Failure::Adopt { name: name.clone(), error })?;
        log::info!("listening on={listener} name=\"{name}\"");
        Ok(listener)
    };
    passed.into_iter().map(adopt).collect()
}

fn no_queues() -> Result<Queues, Failure> {
    Queues::new().map_err(|error| Failure::System { doing: "make a socket pair", error })
}

/// Binds every address; `None` where a signal asked to stop meanwhile.
fn bind_all(
    settings: &Settings,
    accounts: &Accounts,
    ears: &mut Ears,
) -> Result<Option<(Vec<Listener>, Queues)>, Failure> {
    let mut listeners = Vec::new();
    let mut queues = no_queues()?;
    for bind in &settings.bind {
        let mut tries = 1;
        loop {
            let bound = match bind {
                Bind::Tcp { host, port } if settings.reuse_port => Group::open(host, *port, settings.backlog)
                    .map(|group| {
                        log::info!("listening on={group}");
                        queues.add(group);
                    }),
                Bind::Tcp { .. } | Bind::Unix(_) => {
                    Listener::bind(bind, settings.backlog, settings.socket_mode, accounts.socket).map(
                        |listener| {
                            log::info!("listening on={listener}");
                            listeners.push(listener);
                        },
                    )
                }
            };
            match bound {
                Ok(()) => break,
                Err(error) if error.kind() == ErrorKind::AddrInUse && tries < BIND_TRIES => {
                    log::warn!("address in use bind={bind} try={tries} of={BIND_TRIES}");
                    tries += 1;
                    if pause(ears) {
                        return Ok(None);
                    }
                }
                Err(error) => return Err(Failure::Bind { bind: bind.clone(), error }),
            }
        }
    }
    Ok(Some((listeners, queues)))
}

/// Waits a moment; true when a signal asked to stop.
fn pause(ears: &mut Ears) -> bool {
    let deadline = Instant::now() + BIND_PAUSE;
    while Instant::now() < deadline {
        ears.wait(Some(deadline), Vec::new());
        if ears.signals().iter().any(|signal| matches!(signal, Meaning::Wish(Event::Drain | Event::Halt, _)))
        {
            return true;
        }
    }
    false
}

fn finish(ending: Ending) -> Result<(), Failure> {
    match ending {
        Ending::Stopped => Ok(()),
        Ending::NeverReady => Err(Failure::NeverReady),
        Ending::SetupWrong => Err(Failure::SetupWrong),
    }
}

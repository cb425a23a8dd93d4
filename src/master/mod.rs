//! The master's shell: it watches signals, children and the board, tells the arbiter what it saw, carries out what the
//! arbiter orders, and waits. One thread; no HTTP, no app. Not here: decisions.

mod admin;
mod arbiter;
mod births;
mod crew;
mod daemon;
mod door;
mod ears;
mod group;
mod inherited;
mod listener;
mod notify;
mod nursery;
mod obituary;
mod pidfile;
mod privileges;
mod process;
mod queues;
mod reloading;
mod sockets;
mod succession;
mod systemd;
mod upgrade;
mod waits;
mod wishes;
mod words;

pub(crate) use arbiter::Setup;
#[cfg(feature = "guards")]
pub(crate) use arbiter::calm;
pub(crate) use daemon::{Starter, daemonize};
pub(crate) use inherited::Inherited;
pub(crate) use listener::receive;
pub(crate) use privileges::Accounts;
pub(crate) use process::{be_patient, be_prompt, give_way, more_threads, tie, unblock_signals};
pub(crate) use upgrade::Start;

use crate::config::{Bind, Changes, Settings, Upgrade};
use crate::logging;
use crate::scoreboard::{Board, Generations, Standing, now_millis};
use admin::Keeper;
use arbiter::{Arbiter, Ending, Event, Generation, Notice, Objection, Order, Policy};
use crew::{Crew, Role};
use ears::{Ears, Meaning};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use nursery::Nursery;
use pidfile::Pidfile;
use queues::Queues;
use sockets::Sockets;
use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use succession::write_pidfile;
use systemd::{Notifier, Status};
use upgrade::{Handed, Predecessor, Successor};
use waits::Waits;
use wishes::Asker;

/// The exit code of a child that could not become who it should.
/// How long the master stays for its last answers, if there are any.
const LAST_ANSWERS: Duration = Duration::from_millis(500);
const STILL_PRIVILEGED: i32 = 77; // EX_NOPERM, sysexits.h

/// Loads what workers share; the error is the whole message.
pub(crate) type Preload<'a> = &'a dyn Fn(&Settings) -> Result<(), String>;

/// What the master has others do. It runs all but `reload` only in children.
pub(crate) struct Roles<'a> {
    /// Reads the settings again; the error is the whole message.
    pub(crate) reload: &'a dyn Fn() -> Result<Settings, String>,
    /// In a process of its own.
    pub(crate) preload: Option<Preload<'a>>,
    /// A worker's life; returns its exit code.
    pub(crate) work: &'a dyn Fn(Post) -> i32,
    /// The life of the process that answers for the server; returns its exit code.
    pub(crate) admin: &'a dyn Fn(AdminPost) -> i32,
    /// The life of the process that hears what other servers invalidate; returns its exit code.
    pub(crate) notify: &'a dyn Fn(NotifyPost) -> i32,
    /// One try at the database's setup script.
    pub(crate) set_up: &'a dyn Fn(&Settings, Board) -> Setup,
    /// Asks the database whether it has room for the budget of connections; `Wrong`: it has not.
    pub(crate) check_limit: &'a dyn Fn(&Settings, Board) -> Setup,
}

/// What a new worker finds at its place.
pub(crate) struct Post {
    pub(crate) slot: u32,
    pub(crate) settings: Settings,
    pub(crate) board: Board,
    pub(crate) listeners: Vec<OwnedFd>,
    /// With `reuse_port`, where queues are offered in which something waits and that nobody serves.
    pub(crate) offers: Option<UnixDatagram>,
    /// A byte written here makes the master look at the board; its end says that the master is gone.
    pub(crate) bell: UnixStream,
    /// It is the one on which a reload is tried.
    pub(crate) is_on_trial: bool,
}

/// What the admin process starts with.
pub(crate) struct AdminPost {
    pub(crate) settings: Settings,
    pub(crate) board: Board,
    /// The addresses of the server, as the log has them.
    pub(crate) addresses: Vec<String>,
    /// Where it is asked over HTTP, and where it is told what is wished.
    pub(crate) http: Option<OwnedFd>,
    pub(crate) control: Option<OwnedFd>,
    /// In packets: wishes to the master, words from it; the end asks to leave.
    pub(crate) line: UnixDatagram,
}

/// What the process starts with that hears what other servers invalidate.
pub(crate) struct NotifyPost {
    pub(crate) settings: Settings,
    pub(crate) board: Board,
    /// A byte asks to open the log anew; the end asks to leave.
    pub(crate) line: UnixStream,
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
    mut settings: Settings,
    accounts: Accounts,
    inherited: Inherited,
    start: Start,
    roles: &Roles<'_>,
) -> Result<(), Failure> {
    let Inherited { mut passed, foreign, mut predecessor, notifier, starter } = inherited;
    process::set_comm(&settings.proc_name, "master");
    logging::sign_as("master");
    let mut ears = Ears::open().map_err(|error| Failure::System { doing: "listen to signals", error })?;
    let mut queues = Queues::new().map_err(|error| Failure::System { doing: "make a socket pair", error })?;
    let mut handed = predecessor.as_mut().map_or_else(Handed::default, Predecessor::take_handed);
    let generations = handed
        .take_generations(predecessor.is_some())
        .map_err(|error| Failure::System { doing: "make the cache generations", error })?;
    passed.extend(handed.take_passed());
    let sockets = if passed.is_empty() {
        let opened = Sockets::open(&settings, accounts.socket, &mut queues, &mut handed, &mut ears)?;
        let Some(sockets) = opened else { return Ok(()) };
        sockets
    } else {
        Sockets::adopt(passed)?
    };
    drop(handed);
    settings.plain_places = sockets.plain_places(&settings, &queues);
    let pidfile = settings.pidfile.as_deref().map(|path| write_pidfile(path, predecessor.is_some()));
    let pidfile = pidfile.transpose()?;
    // The sockets' files go whichever way this ends; the sockets themselves close with the process.
    let era = Era { settings, sockets, nursery: None, changes: Changes::default() };
    let around =
        Surroundings { accounts, foreign, pidfile, start, predecessor, successor: None, notifier, starter };
    let ended = Master::new(era, queues, ears, generations, roles, around)?.run();
    log::info!("stopped");
    ended
}

/// What a generation has of its own.
struct Era {
    settings: Settings,
    sockets: Sockets,
    /// With a preload, from its first worker on.
    nursery: Option<Nursery>,
    /// How its settings differed from those that served when they were read.
    changes: Changes,
}

/// What the master has to do with besides its workers.
struct Surroundings {
    accounts: Accounts,
    foreign: Vec<RawFd>,
    pidfile: Option<Pidfile>,
    /// How a successor is started.
    start: Start,
    /// The other master, while an upgrade is under way.
    predecessor: Option<Predecessor>,
    successor: Option<Successor>,
    notifier: Notifier,
    starter: Starter,
}

struct Master<'a> {
    roles: &'a Roles<'a>,
    around: Surroundings,
    ears: Ears,
    queues: Queues,
    board: Board,
    /// What the board's generations are in, for a successor; no child has it.
    generations: Option<OwnedFd>,
    arbiter: Arbiter,
    crew: Crew,
    admin: Keeper,
    notify: notify::Keeper,
    /// Who waits for the outcome of a wish.
    waits: Waits,
    /// When it began, and whether it is on its way out; for the board.
    started: u64,
    is_stopping: bool,
    /// What serves, and what is on trial.
    current: (Generation, Era),
    trial: Option<Era>,
    /// What a reload has read, while the database is asked whether it has room for it.
    read: Option<Era>,
    /// Sockets of earlier generations, kept until the last of their workers has been told to drain.
    leaving: Vec<Sockets>,
    /// What was learnt since the arbiter was last told.
    learnt: Vec<Event>,
}

impl<'a> Master<'a> {
    fn new(
        era: Era,
        queues: Queues,
        ears: Ears,
        (generations, file): (Generations, OwnedFd),
        roles: &'a Roles<'a>,
        around: Surroundings,
    ) -> Result<Master<'a>, Failure> {
        let settings = &era.settings;
        // A new generation boots while the old one drains, so the board has two seats for each worker.
        let seats = 2 * settings.max_workers;
        let board = Board::new(seats, generations)
            .map_err(|error| Failure::System { doing: "map the scoreboard", error })?;
        if roles.preload.is_some() {
            process::adopt_orphans()
                .map_err(|error| Failure::System { doing: "become a subreaper", error: error.into() })?;
        }
        let has_setup = settings.database.setup.is_some() || settings.database.max_connections > 0;
        let arbiter = Arbiter::new(policy(settings), settings.max_workers, seats, has_setup, Instant::now());
        Ok(Master {
            roles,
            around,
            ears,
            queues,
            board,
            generations: Some(file),
            arbiter,
            crew: Crew::new(board),
            admin: Keeper::new(),
            notify: notify::Keeper::new(),
            waits: Waits::default(),
            started: now_millis(),
            is_stopping: false,
            current: (arbiter::FIRST_GENERATION, era),
            trial: None,
            read: None,
            leaving: Vec::new(),
            learnt: Vec::new(),
        })
    }

    /// The settings that serve.
    fn settings(&self) -> &Settings {
        &self.current.1.settings
    }

    fn run(&mut self) -> Result<(), Failure> {
        words::say_start(self.settings());
        loop {
            self.watch();
            self.tell_arbiter();
            let now = Instant::now();
            for order in self.arbiter.decide(now) {
                if let Order::Finish(ending) = order {
                    self.let_answers_out(now);
                    return finish(ending);
                }
                self.carry_out(order);
            }
            self.queues.tend(self.arbiter.wanted(), now);
            self.tell_systemd(now);
            self.stand();
            self.tend_admin(now);
            self.tend_notify(now);
            self.tell_who_waits();
            if self.learnt.is_empty() {
                let deadlines = [
                    self.arbiter.next_deadline(),
                    self.queues.next_deadline(self.arbiter.wanted(), now),
                    self.around.notifier.next_deadline(),
                    self.admin.next_deadline(self.has_admin(), now),
                    self.settings().answers_probes().then(|| now + admin::BEAT),
                    self.notify.next_deadline(self.settings(), self.has_notify(), now),
                ];
                let mut others = self.queues.unserved(now);
                others.extend(self.admin.lines());
                others.extend(self.around.predecessor.as_ref().map(AsFd::as_fd));
                others.extend(self.around.successor.as_ref().map(AsFd::as_fd));
                others.extend(self.eras().filter_map(|era| era.nursery.as_ref()).map(AsFd::as_fd));
                self.ears.wait(deadlines.into_iter().flatten().min(), others);
            }
        }
    }

    /// Signals, what the workers show on the board, and dead children.
    fn watch(&mut self) {
        for signal in self.ears.signals() {
            match signal {
                Meaning::Wish(wish, name) => {
                    // Nobody waits; the log has said it.
                    let _ = self.hear(wish, Asker::Signal(name));
                }
                Meaning::Rest => {
                    log::info!("signal received signal=WINCH");
                    self.learnt.push(Event::Rest);
                }
                Meaning::Reap => {}
            }
        }
        self.hear_wishes();
        if self.around.successor.as_mut().is_some_and(Successor::is_ready) {
            self.learnt.push(Event::SuccessorReady);
        }
        if self.around.predecessor.as_mut().is_some_and(Predecessor::has_left) {
            self.take_over();
        }
        // The board before the dead: a worker that was ready and died at once was ready.
        self.crew.look_at_board(&mut self.learnt);
        self.hear_nurseries();
        self.crew.reap(&mut self.learnt);
        if let Some(cause) = self.crew.successor_end.take() {
            self.waits.upgrade_will_fail(&format!(
                "the new master ended before it was ready, by {cause}; the log says why"
            ));
        }
        if let Some(has_room) = self.crew.room.take() {
            self.try_what_was_read(has_room);
        }
        if self.learnt.iter().any(|event| matches!(event, Event::Exited { clean: false, .. })) {
            // It may have died between a change and telling the others' caches of it.
            self.board.generations.bump_all();
        }
        self.bury_nurseries();
        let is_first = |event: &Event| matches!(event, Event::Ready(_));
        if !self.around.notifier.is_ready() && self.learnt.iter().any(is_first) {
            self.around.notifier.ready();
            self.around.starter.report(0, "");
        }
    }

    fn tell_systemd(&mut self, now: Instant) {
        let status = Status {
            serving: self.crew.serving(),
            wanted: self.arbiter.wanted(),
            generation: self.current.0,
        };
        self.around.notifier.tend(status, now);
    }

    /// How it came out may be on its way to who asked for it, and the process that hands it on would die with this one.
    fn let_answers_out(&mut self, now: Instant) {
        self.tell_who_waits();
        let until = now + LAST_ANSWERS;
        if self.admin.hands_on(now) {
            self.admin.leave();
            while self.crew.has_any_admin() && Instant::now() < until {
                self.ears.wait(Some(until), Vec::new());
                self.ears.signals();
                self.crew.reap(&mut self.learnt);
            }
        }
    }

    fn has_admin(&self) -> bool {
        self.crew.pid(Role::Admin(self.admin.serial())).is_some()
    }

    /// Says on the board how things stand. Workers whose probes are judged by it must not hear of an end before it is there.
    fn stand(&self) {
        self.board.stand(&Standing {
            generation: self.current.0,
            workers_wanted: self.arbiter.wanted(),
            is_stopping: self.is_stopping,
            is_reloading: self.trial.is_some(),
            is_succeeded: self.admin.has_left(),
            started: self.started,
            said: now_millis(),
        });
    }

    /// Sees to it that somebody is there who reads the board.
    fn tend_admin(&mut self, now: Instant) {
        if self.around.predecessor.is_some() {
            return; // The address is the old master's until it leaves.
        }
        let is_alive = self.has_admin();
        let Master { admin, current: (_, era), queues, around, .. } = self;
        let server = era.sockets.handed().chain(queues.handed()).next().map(|(socket, _)| socket);
        let house = door::House { owner: around.accounts.socket, proc_name: &era.settings.proc_name, server };
        if let Some(start) = admin.tend(&era.settings, house, is_alive, now) {
            self.start_admin(start);
        }
    }

    fn start_admin(&mut self, start: io::Result<admin::Outfit>) {
        let (settings, board) = (self.settings().clone(), self.board);
        let queues = self.queues.groups().iter().map(ToString::to_string);
        let addresses = self.current.1.sockets.addresses().chain(queues).collect();
        let post = start.map(|admin::Outfit { http, control, line }| AdminPost {
            settings,
            board,
            addresses,
            http,
            control,
            line,
        });
        match post.and_then(|post| self.fork("admin", |roles| (roles.admin)(post))) {
            Ok(pid) => {
                log::debug!("admin started pid={pid}");
                self.crew.add(Role::Admin(self.admin.serial()), pid, Instant::now());
            }
            Err(error) => log::error!("admin could not be forked error=\"{error}\""),
        }
    }

    fn has_notify(&self) -> bool {
        self.crew.pid(Role::Notify(self.current.0)).is_some()
    }

    /// Sees to it that somebody hears what other servers invalidate, also beside another master.
    fn tend_notify(&mut self, now: Instant) {
        let is_alive = self.has_notify();
        let Some(line) = self.notify.tend(&self.current.1.settings, is_alive, now) else { return };
        let (settings, board) = (self.settings().clone(), self.board);
        let post = line.map(|line| NotifyPost { settings, board, line });
        match post.and_then(|post| self.fork("notify", |roles| (roles.notify)(post))) {
            Ok(pid) => {
                log::debug!("notify started pid={pid}");
                self.crew.add(Role::Notify(self.current.0), pid, now);
            }
            Err(error) => log::error!("notify could not be forked error=\"{error}\""),
        }
    }

    fn carry_out(&mut self, order: Order) {
        match order {
            Order::Spawn { slot, generation, quiet } => {
                if generation > self.current.0 {
                    self.waits.reload_is_on_trial(generation);
                }
                self.spawn(slot, generation, quiet);
            }
            Order::StartSetup => self.start_setup(),
            Order::KillSetup => self.crew.send(Role::Setup, Signal::SIGKILL),
            Order::Drain { slot, why } => {
                log::info!("worker told to drain slot={slot} why={why}");
                self.queues.leave(slot);
                self.forget_unborn(slot);
                self.crew.send(Role::Worker(slot), Signal::SIGTERM);
            }
            Order::Quit(slot) => {
                self.queues.leave(slot);
                self.forget_unborn(slot);
                self.crew.send(Role::Worker(slot), Signal::SIGQUIT);
            }
            Order::Abort { slot, silent } => {
                log::error!(
                    "worker timed out slot={slot} silent={silent:.1?} sent=SIGABRT effect=\"its requests are lost\" remedy=\"do not block the event loop, or raise timeout\""
                );
                self.queues.leave(slot);
                self.crew.end(slot, Signal::SIGABRT, "timeout");
            }
            Order::Kill { slot, why } => {
                log::warn!(
                    "worker killed slot={slot} overdue={why} sent=SIGKILL effect=\"what it had under way is lost\""
                );
                self.queues.leave(slot);
                self.forget_unborn(slot);
                self.crew.end(slot, Signal::SIGKILL, words::limit(why));
            }
            Order::Reread => {
                self.around.notifier.rereading();
                self.waits.reload_begins();
                self.reread();
            }
            Order::Adopt(generation) => self.adopt(generation),
            Order::Reject(_, rejection) => {
                let changes = self.trial.take().map(|era| {
                    self.close_nursery(era.nursery);
                    era.changes
                });
                self.refuse_reload(&rejection.to_string(), &changes.unwrap_or_default());
            }
            Order::StartSuccessor => self.start_successor(),
            Order::KillSuccessor(unwanted) => {
                log::error!("upgrade refused reason={unwanted}");
                self.waits.upgrade_will_fail(&unwanted.to_string());
                self.crew.send(Role::Successor, Signal::SIGKILL);
            }
            Order::HandOver => self.hand_over(),
            Order::CloseListeners => {
                log::info!("stopping");
                self.waits.server_stops();
                self.is_stopping = true;
                self.stand();
                self.around.notifier.stopping();
                self.queues.stop();
                self.close_sockets();
                let nursery = self.current.1.nursery.take();
                self.close_nursery(nursery);
            }
            Order::Say(notice) => {
                words::say(notice);
                self.heed(notice);
            }
            Order::Finish(_) => unreachable!("the loop returns on it"),
        }
    }

    /// What goes with a notice besides its line in the log.
    fn heed(&mut self, notice: Notice) {
        match notice {
            Notice::ReloadDone(generation) => {
                self.waits.reload_is_done(generation);
                self.leaving.clear();
                self.around.notifier.reloaded();
            }
            Notice::Staffed => {
                if let Some(predecessor) = &mut self.around.predecessor {
                    predecessor.tell_ready();
                }
            }
            Notice::Beside => {
                self.waits.upgrade_is_beside();
                self.queues.yield_to_successor(true);
            }
            Notice::UpgradeFailed | Notice::SuccessorLeft => {
                self.waits.upgrade_is_refused();
                self.around.successor = None;
                self.queues.yield_to_successor(false);
                // Its workers have died with it, and it may have been another binary.
                self.board.generations.claim();
            }
            Notice::LameDuck { .. } => self.board.set_leaving(),
            Notice::BackOff { .. }
            | Notice::AtMaximum { .. }
            | Notice::AtMinimum
            | Notice::Resized { .. }
            | Notice::SetupRetry { .. }
            | Notice::Degraded { .. }
            | Notice::Whole { .. }
            | Notice::RestIgnored
            | Notice::Resting => {}
            // Also where another one was wished for while one is under way, which goes on.
            Notice::UpgradeIgnored => {
                if self.arbiter.objection(Event::Upgrade) == Some(Objection::Stopping) {
                    self.waits.upgrade_is_refused();
                }
            }
            Notice::ReloadPutOff => self.waits.reload_is_put_off(),
            // It was asked for by HUP, which systemd takes for a reload.
            Notice::Rested => {
                self.waits.rest_is_over();
                self.around.notifier.reloaded();
            }
        }
    }

    /// The database's script, in a process of its own: the master never waits for a server.
    fn start_setup(&mut self) {
        let (settings, board) = (self.settings().clone(), self.board);
        match self.fork("help", |roles| crew::exit_code(prepare(roles, &settings, board))) {
            Ok(pid) => self.crew.add(Role::Setup, pid, Instant::now()),
            Err(error) => {
                log::error!("setup helper could not be forked error=\"{error}\"");
                self.learnt.push(Event::SetUp(Setup::Away));
            }
        }
    }

    /// Makes the files that a child of another user might not be allowed to make.
    fn make_logs(&self, settings: &Settings) {
        let Some(owner) = self.around.accounts.log_owner() else { return };
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
            self.generations = None;
            self.around.pidfile = None;
            self.around.predecessor = None;
            self.around.successor = None;
            self.sockets().for_each(Sockets::keep_files);
            self.close_sockets();
            self.current.1.nursery = None;
            self.trial = None;
            self.read = None;
            self.queues.clear();
            self.admin.close();
            self.notify.close();
            self.around.notifier = Notifier::mute();
            self.around.starter.leave();
            process::close_all(&self.around.foreign);
            process::set_comm(&self.settings().proc_name, role);
            logging::sign_as(role);
            if let Err(still) = self.around.accounts.step_down() {
                log::error!("privileges could not be dropped reason=\"{still}\"");
                return STILL_PRIVILEGED;
            }
            if process::die_with(master).is_err() {
                return 0;
            }
            work(self.roles)
        })
    }

    fn eras(&self) -> impl Iterator<Item = &Era> {
        self.trial.iter().chain(&self.read).chain([&self.current.1])
    }

    /// Of all generations.
    fn sockets(&self) -> impl Iterator<Item = &Sockets> {
        self.eras().map(|era| &era.sockets).chain(&self.leaving)
    }

    fn close_sockets(&mut self) {
        self.leaving.clear();
        self.current.1.sockets = Sockets::default();
        for era in self.trial.iter_mut().chain(&mut self.read) {
            era.sockets = Sockets::default();
        }
    }
}

/// In a process of its own: whether the database has room, and its script.
fn prepare(roles: &Roles<'_>, settings: &Settings, board: Board) -> Setup {
    match (roles.check_limit)(settings, board) {
        Setup::Wrong => Setup::Wrong,
        Setup::Done | Setup::Away => (roles.set_up)(settings, board),
    }
}

fn policy(settings: &Settings) -> Policy {
    Policy {
        workers: settings.workers,
        timeout: settings.timeout,
        graceful_timeout: settings.graceful_timeout,
        boot_timeout: settings.boot_timeout,
        lame_duck: settings.lame_duck,
        upgrade_is_manual: settings.upgrade == Upgrade::Manual,
    }
}

fn finish(ending: Ending) -> Result<(), Failure> {
    match ending {
        Ending::Stopped => Ok(()),
        Ending::NeverReady => Err(Failure::NeverReady),
        Ending::SetupWrong => Err(Failure::SetupWrong),
    }
}

//! The one place where the parts meet: settings in, master and workers out. Not here: what any of them does.

mod builder;

pub use builder::{Alone, App, Shared};

use crate::app::database::limit::{self, Verdict};
use crate::app::database::notify;
use crate::app::database::setup::{Outcome, set_up};
use crate::app::layers::{self, Layered};
use crate::app::{self, HttpService, Worker};
use crate::config::{AppKind, AppType, Mode, Settings, Source, Stop};
use crate::master::{self, Accounts, Failure, Inherited, Preload, Roles, Setup, Start, Starter};
use crate::worker::{self, Hooks, TicketSecret};
use crate::{admin, config, ctl, logging};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::stat::{self, umask};
use std::process::ExitCode;

/// Exit codes: 0 stopped as asked, 1 a run-time failure, 2 settings, 3 never became ready.
const FAILED: u8 = 1;
const SETTINGS: u8 = 2;
const NEVER_READY: u8 = 3;

/// What a worker opens besides its clients' connections: listeners, logs, pipes, and a handful for the app. Its database
/// connections and their handler threads come on top, and the programs of its routes.
const SPARE_DESCRIPTORS: u64 = 64;

/// Runs `app` under the whole server: a master that reads its options from defaults, file, environment and command line,
/// forks workers, and calls `app` in each of them. It returns when the server has stopped; `main` returns its code.
///
/// Call it from a plain `fn main`, before anything starts a thread or a runtime: a process can be forked safely only
/// while it has one thread. Otherwise it does nothing and returns 1, saying so.
///
/// ```no_run
/// use axum::{Router, routing::get};
///
/// fn main() -> std::process::ExitCode {
///     ferricorn::run(|_worker| Router::new().route("/", get(|| async { "hello\n" })))
/// }
/// ```
///
/// # Exit codes
/// 0 stopped as asked; 1 a run-time failure, such as an address in use; 2 settings; 3 no worker ever became ready.
pub fn run<F, S>(app: F) -> ExitCode
where
    F: Fn(Worker) -> S,
    S: HttpService,
{
    App::new().run(app)
}

/// Runs the stock app: what the `[[route]]` tables of the config file declare, or a welcome page.
pub fn run_stock() -> ExitCode {
    let app = |worker| app::routes::build(&worker);
    let mut hooks = Hooks::default();
    hooks.add_warm_up(app::routes::prove_on_trial);
    serve(&Plan { kind: AppKind::Stock, settings: None, preload: None, hooks, app })
}

/// The command lines of a server and of its `ctl`, for examples/manual.rs.
#[doc(hidden)]
pub fn command_lines() -> (clap::Command, clap::Command) {
    let control =
        config::with_settings(ctl::command().name(ctl::WORD).about("Ask a running server, and steer it."));
    (config::command().no_binary_name(false), control.no_binary_name(false))
}

/// What is served, and how.
struct Plan<'a, F> {
    kind: AppKind,
    settings: Option<AppType>,
    preload: Option<Preload<'a>>,
    hooks: Hooks,
    app: F,
}

fn serve<F, S>(plan: &Plan<'_, F>) -> ExitCode
where
    F: Fn(Worker) -> S,
    S: HttpService,
{
    if std::env::args_os().nth(1).is_some_and(|word| word == ctl::WORD) {
        return ctl::run(plan.kind, std::env::args_os().skip(2));
    }
    if let Some(reason) = cannot_fork() {
        eprintln!("ferricorn: {reason}");
        return ExitCode::from(FAILED);
    }
    // Where it takes another one's place, that serves meanwhile.
    master::be_patient();
    // Before the folder is changed.
    let started = match Start::of_this_process() {
        Ok(started) => started,
        Err(error) => {
            eprintln!("ferricorn: this program cannot be found: {error}");
            return ExitCode::from(FAILED);
        }
    };
    // Early, so that nothing opened here is taken for inherited.
    let inherited = match Inherited::take() {
        Ok(inherited) => inherited,
        Err(reason) => {
            eprintln!("ferricorn: {reason}");
            return ExitCode::from(FAILED);
        }
    };
    let (mut source, mode) = match Source::from_env(plan.kind) {
        Ok(started) => started,
        Err(Stop::Help(text)) => {
            print!("{text}");
            return ExitCode::SUCCESS;
        }
        Err(Stop::Error(error)) => return refuse(&error.to_string()),
    };
    source.declare_app(plan.settings);
    if let Err(error) = source.enter_folder() {
        return refuse(&error.to_string());
    }
    let read = read(&source).and_then(|settings| Ok((Accounts::look_up(&settings)?, settings)));
    let (accounts, settings) = match read {
        Ok(read) => read,
        Err(message) => return refuse(&message),
    };
    match mode {
        Mode::CheckConfig => {
            let proof = app::routes::prove(&settings);
            let of_proof = proof.warnings();
            let warnings = settings.warnings().iter().chain(&of_proof);
            warnings.for_each(|warning| eprintln!("ferricorn: {warning}"));
            if !proof.problems.is_empty() {
                let problems: Vec<String> = proof.problems.iter().map(ToString::to_string).collect();
                return refuse(&problems.join("\n"));
            }
            println!("the settings are valid");
        }
        Mode::PrintConfig => print!("{}", settings.print()),
        Mode::Serve => return start(&source, settings, accounts, (inherited, started), plan),
    }
    ExitCode::SUCCESS
}

fn start<F, S>(
    source: &Source,
    settings: Settings,
    accounts: Accounts,
    (mut inherited, started): (Inherited, Start),
    plan: &Plan<'_, F>,
) -> ExitCode
where
    F: Fn(Worker) -> S,
    S: HttpService,
{
    let mut starter = Starter::default();
    // A successor is in the background already, and its predecessor knows it by its pid.
    if settings.daemon && !inherited.is_successor() {
        settings.warnings().iter().for_each(|warning| eprintln!("ferricorn: {warning}"));
        match master::daemonize(&mut inherited) {
            Ok(waiting) => starter = waiting,
            Err(error) => {
                eprintln!("ferricorn: could not become a daemon: {error}");
                return ExitCode::from(FAILED);
            }
        }
    }
    let ended = master_and_workers(source, settings, accounts, (inherited, started), plan);
    master::be_prompt();
    match ended {
        Ok(()) => {
            starter.report(FAILED, "stopped before it was ready");
            ExitCode::SUCCESS
        }
        Err((code, message)) => {
            starter.report(code, &message);
            ExitCode::from(code)
        }
    }
}

/// The error is the exit code and a message, which has been told where this process tells things.
fn master_and_workers<F, S>(
    source: &Source,
    mut settings: Settings,
    accounts: Accounts,
    (inherited, started): (Inherited, Start),
    plan: &Plan<'_, F>,
) -> Result<(), (u8, String)>
where
    F: Fn(Worker) -> S,
    S: HttpService,
{
    if let Some(mask) = settings.umask {
        umask(stat::Mode::from_bits_truncate(mask));
    }
    if let Err(error) = logging::open(&settings, accounts.log_owner()) {
        let message = format!("errorlog: {error}");
        refuse(&message);
        return Err((SETTINGS, message));
    }
    fit(&mut settings);
    let tickets = TicketSecret::new().map_err(|message| {
        refuse(&message);
        (FAILED, message)
    })?;
    let roles = Roles {
        reload: &|| {
            let mut settings = read(source)?;
            fit(&mut settings);
            Ok(settings)
        },
        preload: plan.preload,
        work: &|post| {
            let master::Post { slot, settings, board, listeners, offers, bell, is_on_trial } = post;
            // On trial, a worker logs where its own settings say, and the master still where the old ones say.
            if let Err(error) = logging::open(&settings, None) {
                log::error!("error log could not be opened error=\"{error}\"");
                return FAILED.into();
            }
            let offers = offers.map(|offers| worker::Offers { offers, take: master::receive });
            let tickets = tickets.clone();
            let post = worker::Post { slot, settings, board, tickets, listeners, offers, bell, is_on_trial };
            if layers::wanted(&post.settings) {
                let app = |worker: Worker| {
                    layers::around(worker.settings(), worker.board(), (plan.app)(worker.clone()))
                };
                work_layered(post, &plan.hooks, &app)
            } else {
                worker::work(post, &plan.hooks, &plan.app, POWERS)
            }
        },
        admin: &|post| {
            let master::AdminPost { settings, board, addresses, http, control, line } = post;
            let flush: admin::Flush = |board, tag| match tag {
                Some(tag) => board.generations.bump(app::tag_slot(tag)),
                None => board.generations.bump_all(),
            };
            admin::work(admin::Post { settings, board, addresses, http, control, line, flush })
        },
        notify: &|post| {
            let master::NotifyPost { settings, board, line } = post;
            master::be_prompt();
            notify::work(&settings, board, line, logging::reopen)
        },
        set_up: &|settings, board| match set_up(settings, board) {
            Outcome::Done => {
                if settings.database.setup.is_some() {
                    log::info!("database setup done");
                }
                Setup::Done
            }
            Outcome::Away(reason) => {
                log::warn!("database setup could not reach the database reason=\"{reason}\"");
                Setup::Away
            }
            Outcome::Wrong(reason) => {
                log::error!("database setup failed reason=\"{reason}\"");
                Setup::Wrong
            }
        },
        check_limit: &|settings, board| match limit::check(settings, board) {
            Verdict::Holds => Setup::Done,
            Verdict::TooFew(reason) => {
                log::error!("database limit too low reason=\"{reason}\"");
                Setup::Wrong
            }
            Verdict::Unknown(reason) => {
                log::warn!("database limit could not be asked for reason=\"{reason}\"");
                Setup::Away
            }
        },
    };
    master::run(settings, accounts, inherited, started, &roles).map_err(|failure| {
        log::error!("server failed reason=\"{failure}\"");
        let code = match failure {
            Failure::Bind { .. }
            | Failure::Adopt { .. }
            | Failure::Pidfile { .. }
            | Failure::System { .. } => FAILED,
            Failure::NeverReady | Failure::SetupWrong => NEVER_READY,
        };
        (code, failure.to_string())
    })
}

const POWERS: worker::Powers = worker::Powers {
    unblock: master::unblock_signals,
    tie: master::tie,
    be_patient: master::be_patient,
    be_prompt: master::be_prompt,
    give_way: master::give_way,
};

/// Not generic, so that it is compiled once and not in each program again.
fn work_layered(post: worker::Post, hooks: &Hooks, app: &dyn Fn(Worker) -> Layered) -> i32 {
    worker::work(post, hooks, app, POWERS)
}

/// Reads the settings and checks what only the app can judge.
fn read(source: &Source) -> Result<Settings, String> {
    let mut settings = source.read().map_err(|error: config::Error| error.to_string())?;
    settings.warnings.extend(app::database::check(&settings)?);
    app::routes::check(&settings)?;
    settings.warnings.extend(worker::check_tls(&settings)?);
    Ok(settings)
}

/// Warns of what the settings say, and lowers what this process may not have.
fn fit(settings: &mut Settings) {
    for warning in settings.warnings() {
        log::warn!("odd setting reason=\"{warning}\"");
    }
    let programs = app::routes::program_children(settings) * app::DESCRIPTORS_OF_A_CHILD;
    let needed = SPARE_DESCRIPTORS + 2 * settings.database.pool_size as u64 + programs;
    if let Ok((limit, _)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let room = usize::try_from(limit.saturating_sub(needed)).unwrap_or(usize::MAX).max(1);
        if room < settings.worker_connections {
            log::warn!(
                "worker_connections lowered from={} to={room} cause=\"RLIMIT_NOFILE is {limit}\" remedy=\"raise ulimit -n\"",
                settings.worker_connections
            );
            settings.worker_connections = room;
        }
    }
}

fn refuse(message: &str) -> ExitCode {
    eprintln!("ferricorn: {message}");
    ExitCode::from(SETTINGS)
}

/// Why this process may not be forked, if so.
fn cannot_fork() -> Option<&'static str> {
    if tokio::runtime::Handle::try_current().is_ok() {
        return Some(
            "ferricorn::run was called inside a tokio runtime, which cannot be forked: \
             replace `#[tokio::main] async fn main()` by `fn main() -> std::process::ExitCode`, \
             and move what you await into the app; each worker has a runtime of its own",
        );
    }
    master::more_threads().map(|_| {
        "ferricorn::run was called while other threads run, which are lost in a fork: \
         call it first in `fn main() -> std::process::ExitCode`, and start threads inside the app"
    })
}

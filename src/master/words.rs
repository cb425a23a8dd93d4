//! The arbiter's notices and the master's failures in words. Not here: anything that happens.

use super::Failure;
use super::arbiter::{Notice, Overdue, Rejection, Unwanted, Why};
use crate::config::{Change, Changes, Settings};
use std::fmt;

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Why::Stopping => "stopping",
            Why::Surplus => "surplus",
            Why::Outdated => "outdated",
            Why::Retiring => "retiring",
        })
    }
}

impl fmt::Display for Overdue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Overdue::Boot => "boot_timeout",
            Overdue::Drain => "graceful_timeout",
            Overdue::Abort => "abort",
            Overdue::Quit => "quit",
        })
    }
}

impl fmt::Display for Unwanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unwanted::NotReadyInTime => "\"the new master was not ready within boot_timeout\"",
            Unwanted::Stopping => "stopping",
        })
    }
}

/// The limit that made the master kill a worker.
pub(super) fn limit(overdue: Overdue) -> &'static str {
    match overdue {
        Overdue::Boot => "boot_timeout",
        Overdue::Drain => "graceful_timeout",
        Overdue::Abort => "timeout",
        Overdue::Quit => "quick stop",
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Rejection::Died => "\"its first worker died before it was ready\"",
            Rejection::NotReadyInTime => "\"its first worker was not ready within boot_timeout\"",
            Rejection::Stopping => "stopping",
            Rejection::SpawnFailed => "\"its first worker could not be forked\"",
        })
    }
}

/// Logs what goes with no order of its own.
pub(super) fn say(notice: Notice) {
    match notice {
        Notice::BackOff { slot, deaths, delay } => {
            log::warn!(
                "worker backed off slot={slot} deaths={deaths} next_start={delay:.1?} effect=\"one worker less\" remedy=\"its own last lines say why it died\""
            );
        }
        Notice::AtMaximum { workers } => {
            log::warn!(
                "workers at maximum workers={workers} setting=max_workers effect=\"TTIN is not obeyed\" remedy=\"a larger one, and a restart\""
            )
        }
        Notice::AtMinimum => log::warn!("workers at minimum workers=1 effect=\"TTOU is not obeyed\""),
        Notice::Resized { workers } => log::info!("workers wanted workers={workers}"),
        Notice::ReloadDone(generation) => log::info!("reload done generation={generation}"),
        Notice::Staffed => log::info!("workers complete"),
        Notice::Degraded { serving, wanted } => {
            log::error!(
                "degraded serving={serving} wanted={wanted} cause=\"a worker keeps dying before it is ready\" \
                 effect=\"the others have its load\" remedy=\"its own last lines say why\""
            );
        }
        Notice::Whole { workers } => log::info!("whole again workers={workers}"),
        Notice::LameDuck { time } => log::info!("lame duck serving_on_for={time:.1?}"),
        Notice::UpgradeIgnored => {
            log::warn!("upgrade ignored reason=\"another is under way, or the server stops\"")
        }
        Notice::UpgradeFailed => {
            log::error!("upgrade failed; this master goes on remedy=\"the new one's last lines say why\"")
        }
        Notice::SuccessorLeft => log::warn!("new master left; this one goes on"),
        Notice::ReloadPutOff => log::warn!("reload put off until=\"the other master has left\""),
        Notice::RestIgnored => {
            log::info!("signal ignored signal=WINCH reason=\"no other master serves, or the server stops\"")
        }
        Notice::Resting => log::info!("resting workers=0 until=\"HUP, or the other master leaves\""),
        Notice::Rested => log::info!("rested"),
        Notice::Beside => log::info!("two masters serve until=\"TERM to one of them\""),
        Notice::SetupRetry { delay } => {
            log::warn!("database setup put off next_try={delay:.1?} effect=\"no worker starts before\"")
        }
    }
}

/// Logs who has started, of what, and how to steer it.
pub(super) fn say_start(settings: &Settings) {
    let (pid, version) = (std::process::id(), env!("CARGO_PKG_VERSION"));
    log::info!(
        "master started pid={pid} workers={} workers_by=\"{}\" settings_by=\"{}\" version={version}",
        settings.workers,
        settings.workers_reason(),
        settings.sources(),
    );
    let fixed = settings.fixed().join(", ");
    log::info!(
        "orders taken pid={pid} stop=\"TERM; INT in a hurry; open requests have {:?}\" resize=\"TTIN, TTOU, up to {}\" \
         reload=\"HUP: all settings but {fixed}\" upgrade=\"USR2: those, too, and the program\"",
        settings.graceful_timeout,
        settings.max_workers,
    );
}

/// Logs what a reload is about to change.
pub(super) fn say_changes(changes: &Changes) {
    // The log has its values in double quotes.
    let list = |changes: &[Change]| {
        let told: Vec<String> = changes.iter().map(ToString::to_string).collect();
        told.join(", ").replace('"', "'")
    };
    log::info!("settings read again changes=\"{}\"", list(&changes.taken));
    if !changes.fixed.is_empty() {
        let fixed = list(&changes.fixed);
        log::warn!("settings changed that need an upgrade or a restart changes=\"{fixed}\"");
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Bind { bind, error } => write!(f, "could not listen on {bind}: {error}"),
            Failure::Adopt { name, error } => {
                write!(f, "could not listen on the socket \"{name}\" that was passed in: {error}")
            }
            Failure::Pidfile { path, error } => {
                write!(f, "could not write the pidfile {}: {error}", path.display())
            }
            Failure::System { doing, error } => write!(f, "could not {doing}: {error}"),
            Failure::NeverReady => f.write_str(
                "no worker ever became ready; the lines above say how each ended, and the app's own say why",
            ),
            Failure::SetupWrong => f.write_str("the database setup script failed; the line above says where"),
        }
    }
}

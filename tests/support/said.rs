//! The log lines that the tests wait for: the one place that knows how the server words them.
//! Not here: any waiting.

/// Something that the server says on stderr.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    Listening,
    /// Sockets came from outside.
    PassedIn,
    Spawned,
    Ready,
    Exited,
    /// A request that a dead worker had under way.
    Lost,
    Draining,
    ReloadRequested,
    /// What a reload is about to change.
    SettingsRead,
    /// What it cannot change.
    SettingsFixed,
    ReloadDone,
    ReloadRefused,
    /// How many workers there should be, since TTIN or TTOU.
    Wanted,
    /// TTIN beyond `max_workers`.
    AtMaximum,
    /// TTOU at one worker.
    AtMinimum,
    /// The next start of a worker waits.
    BackOff,
    /// The system had no process to give.
    ForkFailed,
    /// A worker's event loop was silent for `timeout`.
    Silent,
    /// A request was not answered within `request_timeout`.
    Late,
    /// A worker asked for a successor.
    Retiring,
    /// A panicked at=.
    Panicked,
    /// The setup script ran.
    SetupDone,
    /// The setup script found no database and will be tried again.
    SetupRetry,
    /// RLIMIT_NOFILE was too low for `worker_connections`.
    FewFiles,
    UpgradeStarted,
    /// What was, goes on.
    UpgradeFailed,
    /// Said by the new master, when the server is its own.
    UpgradeDone,
    /// A manual upgrade: both masters serve.
    Beside,
    Resting,
    Rested,
    /// The new master of an upgrade is gone, and the old one goes on.
    SuccessorLeft,
    Refused,
    LameDuck,
    Degraded,
    /// No longer degraded.
    Whole,
    Stopping,
    Stopped,
    /// Where the admin process answers.
    AdminListening,
    AdminExited,
    /// The process for `[cache] notify` hears of others.
    NotifyListening,
}

impl Said {
    /// How the text behind `[who pid] ` begins.
    fn opening(self) -> &'static str {
        match self {
            Said::Listening => "listening on=",
            Said::PassedIn => "sockets were passed in",
            Said::Spawned => "worker spawned",
            Said::Ready => "worker ready",
            Said::Exited => "worker exited",
            Said::Lost => "request lost",
            Said::Draining => "worker draining",
            Said::ReloadRequested => "signal received signal=HUP",
            Said::SettingsRead => "settings read again",
            Said::SettingsFixed => "settings changed that need",
            Said::ReloadDone => "reload done",
            Said::ReloadRefused => "reload refused",
            Said::Wanted => "workers wanted",
            Said::AtMaximum => "workers at maximum",
            Said::AtMinimum => "workers at minimum",
            Said::BackOff => "worker backed off",
            Said::ForkFailed => "worker could not be forked",
            Said::Silent => "worker timed out",
            Said::Late => "request timed out",
            Said::Retiring => "worker asked for a successor",
            Said::Panicked => "panicked at=",
            Said::SetupDone => "database setup done",
            Said::SetupRetry => "database setup put off",
            Said::FewFiles => "worker_connections lowered",
            Said::UpgradeStarted => "upgrade started",
            Said::UpgradeFailed => "upgrade failed",
            Said::UpgradeDone => "upgrade done",
            Said::Beside => "two masters serve",
            Said::Resting => "resting",
            Said::Rested => "rested",
            Said::SuccessorLeft => "new master left",
            Said::Refused => "signal refused",
            Said::LameDuck => "lame duck",
            Said::Degraded => "degraded",
            Said::Whole => "whole again",
            Said::Stopping => "stopping",
            Said::Stopped => "stopped",
            Said::AdminListening => "admin listening on=",
            Said::AdminExited => "admin exited",
            Said::NotifyListening => "cache notifications listening",
        }
    }
}

/// One line of the log: `2026-01-31T12:00:00.000Z LEVEL [who pid] text key=value`.
#[derive(Clone, Debug)]
pub struct Line {
    pub raw: String,
}

impl Line {
    pub fn is(&self, said: Said) -> bool {
        self.text().starts_with(said.opening())
    }

    /// Upper case, or empty for a line that is not in the log's form (a panic's backtrace).
    pub fn level(&self) -> &str {
        self.raw.split_whitespace().nth(1).unwrap_or_default()
    }

    /// What stands behind `[who pid] `; the whole line where that is missing.
    pub fn text(&self) -> &str {
        self.raw.split_once("] ").map_or(self.raw.as_str(), |(_, text)| text)
    }

    /// The value of `key=`, which is one word or stands in double quotes.
    pub fn value(&self, key: &str) -> Option<&str> {
        let start = self.raw.find(&format!(" {key}="))? + key.len() + 2;
        let rest = &self.raw[start..];
        match rest.strip_prefix('"') {
            Some(quoted) => quoted.split('"').next(),
            None => rest.split_whitespace().next(),
        }
    }

    /// The value of a key that must be there and be a number.
    pub fn number(&self, key: &str) -> i32 {
        let value = self.value(key).unwrap_or_else(|| panic!("no {key}= in {:?}", self.raw));
        value.parse().unwrap_or_else(|_| panic!("{key}= is no number in {:?}", self.raw))
    }
}

//! What is told of a worker that died: why, and what it had under way. Not here: what follows from it.

use super::arbiter::SlotId;
use super::process::{Cause, PANICKED};
use crate::scoreboard::{Death, Deaths, Reason, Seat, now_millis};
use nix::libc::SIGKILL;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long after the kernel counted a kill a death may still be that one.
const KILL_TO_DEATH: Duration = Duration::from_secs(1);

/// How a worker ended.
pub(super) struct End {
    pub(super) slot: SlotId,
    pub(super) pid: Pid,
    pub(super) age: Duration,
    pub(super) cause: Cause,
    /// The signal by which the master meant to end it, and why.
    pub(super) sent: Option<(Signal, &'static str)>,
    /// The log has told of its like.
    pub(super) quiet: bool,
}

/// Who finds out, writes it on the board and into the log.
pub(super) struct Coroner {
    deaths: &'static Deaths,
    /// Deaths so far that the board was to keep.
    count: u64,
    memory: MemoryKills,
}

impl Coroner {
    pub(super) fn new(deaths: &'static Deaths) -> Coroner {
        Coroner { deaths, count: 0, memory: MemoryKills::of_this_process() }
    }

    /// Reports a death; returns what kind it was. Of one that was not the worker's own will, each request that it cost is told,
    /// and the board keeps it: the many that leave in a reload must not push out the one that crashed.
    pub(super) fn report(&mut self, end: &End, seat: &Seat) -> Reason {
        let mut is_memory = false;
        let mut memory_rose = || {
            let rose = self.memory.rose(Instant::now());
            is_memory = rose == Some(true);
            rose
        };
        let death = Death {
            slot: end.slot,
            pid: end.pid.as_raw() as u32,
            cause: name(end.cause, end.sent, &mut memory_rose),
            age: end.age,
            requests: seat.tally.requests(),
            in_flight: seat.in_flight.count(),
        };
        let left = end.cause == Cause::Code(0);
        let mut lost = Vec::new();
        if !left {
            self.count += 1;
            self.deaths.keep(self.count, &death, &seat.in_flight, now_millis());
            // Read back, escaped: a worker wrote it.
            lost = self.deaths.read(self.count).map(|(_, lost)| lost).unwrap_or_default();
        }
        let level = match (end.quiet, left) {
            (true, _) => log::Level::Debug,
            (false, true) => log::Level::Info,
            (false, false) => log::Level::Warn,
        };
        let Death { slot, pid, cause, age, requests, in_flight } = death;
        log::log!(
            level,
            "worker exited slot={slot} pid={pid} cause=\"{cause}\" age={age:.1?} requests={requests} in_flight={in_flight}"
        );
        for lost in &lost {
            log::warn!(
                "request lost slot={slot} pid={pid} method={} path=\"{}\" phase={} age={:.1?}",
                lost.method,
                lost.path,
                lost.phase,
                lost.age
            );
        }
        if is_memory { Reason::OutOfMemory } else { reason(end.cause, end.sent) }
    }
}

/// What kind of death it was, where memory was not the matter.
fn reason(cause: Cause, sent: Option<(Signal, &'static str)>) -> Reason {
    match (cause, sent) {
        (Cause::Code(0), _) => Reason::Left,
        (Cause::Code(PANICKED), _) => Reason::Panicked,
        (Cause::Code(_), _) => Reason::Failed,
        (Cause::Signal { number, .. }, Some((signal, why))) if signal as i32 == number => match why {
            "boot_timeout" => Reason::BootTimeout,
            "graceful_timeout" => Reason::GracefulTimeout,
            "quick stop" => Reason::QuickStop,
            _ => Reason::Timeout,
        },
        (Cause::Signal { .. }, _) => Reason::Killed,
    }
}

/// The cause in words. `memory_rose` tells whether the kernel killed for lack of memory, if it can be known.
fn name(
    cause: Cause,
    sent: Option<(Signal, &'static str)>,
    memory_rose: impl FnOnce() -> Option<bool>,
) -> String {
    match (cause, sent) {
        (Cause::Signal { number, core }, Some((signal, why))) if signal as i32 == number => {
            let suffix = if core { ", core written" } else { "" };
            format!("{signal} by {why}{suffix}")
        }
        (Cause::Signal { number: SIGKILL, .. }, _) => match memory_rose() {
            Some(true) => "out of memory (SIGKILL, oom_kill rose)".to_owned(),
            Some(false) => cause.to_string(),
            None => format!("{cause}, perhaps out of memory"),
        },
        (Cause::Signal { .. } | Cause::Code(_), _) => cause.to_string(),
    }
}

/// The kernel's count of processes that it killed because this process's cgroup was out of memory.
struct MemoryKills {
    /// `None`: nobody counts here.
    file: Option<PathBuf>,
    counted: u64,
    /// Kills that no death was laid to yet, and when they were noticed.
    unclaimed: u64,
    noticed: Instant,
}

impl MemoryKills {
    fn of_this_process() -> MemoryKills {
        let cgroups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        MemoryKills::of(&cgroups, Path::new("/sys/fs/cgroup"))
    }

    /// Version 2 of the kernel's cgroups, or version 1; where the folders of `cgroups` are not to be seen, as in some
    /// containers, the topmost that is.
    fn of(cgroups: &str, root: &Path) -> MemoryKills {
        let folder = |is_it: &dyn Fn(&str) -> bool| {
            let fields = cgroups.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
            let mut paths = fields.filter(|(controllers, _)| is_it(controllers)).map(|(_, path)| path);
            paths.next().unwrap_or_default().trim_start_matches('/')
        };
        let two = folder(&str::is_empty);
        let one = folder(&|controllers| controllers.split(',').any(|name| name == "memory"));
        let files = [
            root.join(two).join("memory.events"),
            root.join("memory.events"),
            root.join("memory").join(one).join("memory.oom_control"),
            root.join("memory").join("memory.oom_control"),
        ];
        let file = files.into_iter().find(|file| read_kills(file).is_some());
        let counted = file.as_deref().and_then(read_kills).unwrap_or(0);
        MemoryKills { file, counted, unclaimed: 0, noticed: Instant::now() }
    }

    /// Whether the count rose, by a kill that no other death was laid to; `None`: unknown.
    fn rose(&mut self, now: Instant) -> Option<bool> {
        let count = read_kills(self.file.as_deref()?)?;
        if count > self.counted {
            self.unclaimed += count - self.counted;
            self.noticed = now;
        }
        self.counted = count;
        let is_recent = now.saturating_duration_since(self.noticed) < KILL_TO_DEATH;
        self.unclaimed = if is_recent { self.unclaimed } else { 0 };
        let rose = self.unclaimed > 0;
        self.unclaimed -= u64::from(rose);
        Some(rose)
    }
}

fn read_kills(file: &Path) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::libc;

    #[test]
    fn a_cause_is_named() {
        let killed = |number| Cause::Signal { number, core: false };
        let abort = Some((Signal::SIGABRT, "timeout"));
        let kill = Some((Signal::SIGKILL, "graceful_timeout"));
        for (cause, sent, rose, wanted) in [
            (Cause::Code(3), None, None, "exit code 3"),
            (killed(libc::SIGSEGV), abort, None, "killed by SIGSEGV"),
            (killed(libc::SIGABRT), None, None, "killed by SIGABRT"),
            (killed(libc::SIGABRT), abort, None, "SIGABRT by timeout"),
            (
                Cause::Signal { number: libc::SIGABRT, core: true },
                abort,
                None,
                "SIGABRT by timeout, core written",
            ),
            (killed(libc::SIGKILL), kill, Some(true), "SIGKILL by graceful_timeout"),
            (killed(libc::SIGKILL), abort, Some(false), "killed by SIGKILL"),
            (killed(libc::SIGKILL), None, Some(true), "out of memory (SIGKILL, oom_kill rose)"),
            (killed(libc::SIGKILL), None, None, "killed by SIGKILL, perhaps out of memory"),
        ] {
            assert_eq!(name(cause, sent, || rose), wanted);
        }
    }

    #[test]
    fn the_count_is_found_in_either_version_of_cgroups() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let one = "9:name=systemd:/x\n4:memory:/a/b\n0::/\n";
        assert!(MemoryKills::of(one, root).file.is_none());
        assert!(MemoryKills::of("", root).rose(Instant::now()).is_none());
        for (cgroups, file) in [
            (one, "memory/memory.oom_control"),
            (one, "memory/a/b/memory.oom_control"),
            ("0::/../c\n", "memory.events"),
            ("0::/c/d\n", "c/d/memory.events"),
        ] {
            let file = root.join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, "oom 9\noom_kill 1\noom_group_kill 7\n").unwrap();
            let mut kills = MemoryKills::of(cgroups, root);
            assert_eq!(kills.file.as_ref(), Some(&file));
            let now = Instant::now();
            assert_eq!(kills.rose(now), Some(false));
            fs::write(&file, "oom_kill 4\n").unwrap();
            assert_eq!([0, 1].map(|_| kills.rose(now)), [Some(true); 2], "two of three died");
            assert_eq!(kills.rose(now + KILL_TO_DEATH), Some(false), "the third is not for a later death");
            fs::write(&file, "").unwrap();
            assert_eq!(kills.rose(now), None);
        }
    }
}

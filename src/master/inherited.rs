//! What whoever started this process handed down to it: sockets, as systemd passes them (sd_listen_fds(3)), and
//! what an old master hands over, and descriptors that have no meaning here. Not here: listening.

use super::daemon::Starter;
use super::process;
use super::systemd::Notifier;
use super::upgrade::Predecessor;
use std::os::fd::{OwnedFd, RawFd};

/// The first passed socket (SD_LISTEN_FDS_START).
const FIRST_PASSED: RawFd = 3;
/// More sockets than this is a mistake in the environment.
const MAX_PASSED: usize = 128;

/// What was open at start and came through the exec.
pub(crate) struct Inherited {
    /// In systemd's order, with the name that its unit gives each.
    pub(super) passed: Vec<(OwnedFd, String)>,
    /// Not ours to use. The master keeps them open, because whoever started it may watch for their end or hold a lock by
    /// them; workers close them.
    pub(super) foreign: Vec<RawFd>,
    /// Who handed this server over, if somebody did.
    pub(super) predecessor: Option<Predecessor>,
    pub(super) notifier: Notifier,
    pub(super) starter: Starter,
}

impl Inherited {
    /// Whether an old master has started this process in its place.
    pub(crate) fn is_successor(&self) -> bool {
        self.predecessor.is_some()
    }

    /// Takes the passed sockets and their variables, and sets everything to be closed on exec. Descriptors that `main`
    /// opened itself are not touched: they are close-on-exec already, and that tells them from inherited ones.
    ///
    /// # Errors
    /// When sockets were promised that are not there; the message is whole.
    pub(crate) fn take() -> Result<Inherited, String> {
        let mut foreign = process::inherited_descriptors();
        foreign.iter().for_each(|fd| process::close_on_exec(*fd));
        let [pid, count, names] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"].map(process::take_variable);
        process::take_variable("LISTEN_PIDFDID");
        let names = names.unwrap_or_default();
        let mut names = names.split(':').map(str::to_owned);
        let mut passed = Vec::new();
        for fd in FIRST_PASSED..FIRST_PASSED + promised(pid.as_deref(), count.as_deref())? {
            let Some(at) = foreign.iter().position(|open| *open == fd) else {
                return Err(format!("LISTEN_FDS promises the descriptor {fd}, which is not open"));
            };
            passed.push((process::own(foreign.swap_remove(at)), names.next().unwrap_or_default()));
        }
        let predecessor = Predecessor::take(&mut foreign)?;
        let notifier = Notifier::from_env(predecessor.is_some());
        Ok(Inherited { passed, foreign, predecessor, notifier, starter: Starter::default() })
    }
}

/// How many sockets are passed to this process; none where they are meant for another.
fn promised(pid: Option<&str>, count: Option<&str>) -> Result<RawFd, String> {
    if pid.and_then(|pid| pid.parse().ok()) != Some(std::process::id()) {
        return Ok(0);
    }
    let count = count.unwrap_or_default();
    match count.parse::<usize>() {
        Ok(number) if number <= MAX_PASSED => Ok(number as RawFd),
        Ok(_) | Err(_) => Err(format!("LISTEN_FDS: got {count:?}; allowed: a number from 0 to {MAX_PASSED}")),
    }
}

#[cfg(test)]
mod tests {
    use super::promised;

    #[test]
    fn sockets_count_only_when_they_are_meant_for_this_process() {
        let me = std::process::id().to_string();
        for (pid, count, wanted) in [
            (Some(me.as_str()), Some("2"), Some(2)),
            (Some(&me), Some("0"), Some(0)),
            (Some("1"), Some("2"), Some(0)),
            (None, Some("2"), Some(0)),
            (None, None, Some(0)),
            (Some("x"), Some("x"), Some(0)),
            (Some(&me), Some("x"), None),
            (Some(&me), Some("-1"), None),
            (Some(&me), Some("129"), None),
            (Some(&me), None, None),
        ] {
            assert_eq!(promised(pid, count).ok(), wanted, "{pid:?} {count:?}");
        }
    }
}

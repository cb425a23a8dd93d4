//! What the master hears with: its signals, and the pipe on which workers ring. Not here: what is done about it.

use crate::control::{Scale, Wish};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use signal_hook::consts::signal::{
    SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTTIN, SIGTTOU, SIGUSR1, SIGUSR2, SIGWINCH,
};
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::SignalOnly;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

const HEARD: [i32; 10] =
    [SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGTTIN, SIGTTOU, SIGUSR1, SIGCHLD, SIGUSR2, SIGWINCH];

/// What a signal asks of the master.
pub(super) enum Meaning {
    /// What can be wished otherwise, too, and the signal's name.
    Wish(Wish, &'static str),
    /// Beside the new master of an upgrade: no workers.
    Rest,
    /// A child may have died.
    Reap,
}

/// Signals are heard as long as this lives and is not closed.
pub(super) struct Ears {
    signals: Option<SignalDelivery<UnixStream, SignalOnly>>,
    /// Our end of the pipe; when the last copy closes, workers know that the master is gone.
    bell: Option<UnixStream>,
    workers_bell: UnixStream,
}

impl Ears {
    /// # Errors
    /// When there is no descriptor left.
    pub(super) fn open() -> io::Result<Ears> {
        let (bell, workers_bell) = pipe()?;
        let (read, write) = pipe()?;
        let signals = SignalDelivery::with_pipe(read, write, SignalOnly, HEARD)
            .map_err(|error| io::Error::other(error.to_string()))?;
        Ok(Ears { signals: Some(signals), bell: Some(bell), workers_bell })
    }

    /// The signals that arrived since this was last asked. Equal ones that arrived close together may count once
    /// (signal(7)).
    pub(super) fn signals(&mut self) -> Vec<Meaning> {
        if let Some(mut bell) = self.bell.as_ref() {
            while bell.read(&mut [0; 64]).is_ok_and(|bytes| bytes > 0) {}
        }
        self.signals.iter_mut().flat_map(SignalDelivery::pending).map(meaning).collect()
    }

    /// Waits for a signal, a bell, something at one of `others`, or `deadline`.
    pub(super) fn wait(&self, deadline: Option<Instant>, others: Vec<BorrowedFd<'_>>) {
        let timeout = deadline.map_or(PollTimeout::NONE, |deadline| {
            // Rounded up, so as not to wake just before the deadline.
            let left = deadline.saturating_duration_since(Instant::now()) + Duration::from_micros(999);
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        });
        let signals = self.signals.as_ref().map(|signals| signals.get_read().as_fd());
        let bell = self.bell.as_ref().map(AsFd::as_fd);
        let fds = signals.into_iter().chain(bell).chain(others);
        let mut fds: Vec<PollFd<'_>> = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        // An interrupted or failed wait only means that the loop looks early.
        let _ = poll(&mut fds, timeout);
    }

    /// Waits for so long; true when a signal asked to stop meanwhile.
    pub(super) fn pause(&mut self, time: Duration) -> bool {
        let deadline = Instant::now() + time;
        while Instant::now() < deadline {
            self.wait(Some(deadline), Vec::new());
            let asked_to_stop = |signal: &Meaning| matches!(signal, Meaning::Wish(Wish::Stop { .. }, _));
            if self.signals().iter().any(asked_to_stop) {
                return true;
            }
        }
        false
    }

    /// A worker's end of the pipe.
    pub(super) fn workers_bell(&self) -> io::Result<UnixStream> {
        self.workers_bell.try_clone()
    }

    /// For a child: takes the master's handlers away, so that a signal to the child never wakes the master.
    pub(super) fn close(&mut self) {
        self.signals = None;
        self.bell = None;
    }
}

fn pipe() -> io::Result<(UnixStream, UnixStream)> {
    let (one, other) = UnixStream::pair()?;
    one.set_nonblocking(true)?;
    other.set_nonblocking(true)?;
    Ok((one, other))
}

fn meaning(signal: i32) -> Meaning {
    match signal {
        SIGTERM => Meaning::Wish(Wish::Stop { now: false }, "TERM"),
        SIGINT => Meaning::Wish(Wish::Stop { now: true }, "INT"),
        SIGQUIT => Meaning::Wish(Wish::Stop { now: true }, "QUIT"),
        SIGHUP => Meaning::Wish(Wish::Reload, "HUP"),
        SIGTTIN => Meaning::Wish(Wish::Scale(Scale::Up(1)), "TTIN"),
        SIGTTOU => Meaning::Wish(Wish::Scale(Scale::Down(1)), "TTOU"),
        SIGUSR1 => Meaning::Wish(Wish::Reopen, "USR1"),
        SIGCHLD => Meaning::Reap,
        SIGUSR2 => Meaning::Wish(Wish::Upgrade, "USR2"),
        SIGWINCH => Meaning::Rest,
        other => unreachable!("signal {other} is not listened to"),
    }
}

//! A worker's signals: TERM drains, INT and QUIT leave at once, USR1 reopens the logs; the others that the master
//! knows do nothing here. Not here: what draining is.

use signal_hook::consts::signal::{SIGINT, SIGQUIT, SIGTERM, SIGUSR1};
use signal_hook::flag::register_conditional_default;
use signal_hook::low_level::pipe;
use std::io;
use std::os::unix::net::UnixStream as Pipe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Drain,
    Leave,
    ReopenLogs,
}

pub(super) struct Signals {
    drain: UnixStream,
    leave: UnixStream,
    reopen: UnixStream,
    /// Ends when the master does.
    lifeline: UnixStream,
    booting: Arc<AtomicBool>,
    last: Asked,
}

impl Signals {
    /// Puts up the handlers. Until `booted`, a signal that would end the worker ends it at once: the app may be
    /// busy starting and never look.
    pub(super) fn listen(lifeline: Pipe) -> io::Result<Signals> {
        let booting = Arc::new(AtomicBool::new(true));
        for signal in [SIGTERM, SIGINT, SIGQUIT] {
            register_conditional_default(signal, booting.clone())?;
        }
        lifeline.set_nonblocking(true)?;
        Ok(Signals {
            drain: heard(&[SIGTERM])?,
            leave: heard(&[SIGINT, SIGQUIT])?,
            reopen: heard(&[SIGUSR1])?,
            lifeline: UnixStream::from_std(lifeline)?,
            booting,
            last: Asked::ReopenLogs,
        })
    }

    pub(super) fn booted(&self) {
        self.booting.store(false, Ordering::SeqCst);
    }

    /// The next thing that was asked for; the end of the master asks to leave.
    pub(super) async fn next(&mut self) -> Asked {
        let (mut one, mut two, mut three, mut four) = ([0; 64], [0; 64], [0; 64], [0; 1]);
        self.last = tokio::select! {
            biased;
            _ = self.leave.read(&mut one) => Asked::Leave,
            _ = self.lifeline.read(&mut four) => Asked::Leave,
            _ = self.drain.read(&mut two) => Asked::Drain,
            _ = self.reopen.read(&mut three) => Asked::ReopenLogs,
        };
        self.last
    }

    pub(super) fn last(&self) -> Asked {
        self.last
    }
}

fn heard(signals: &[i32]) -> io::Result<UnixStream> {
    let (read, write) = Pipe::pair()?;
    for signal in signals {
        pipe::register(*signal, write.try_clone()?)?;
    }
    read.set_nonblocking(true)?;
    UnixStream::from_std(read)
}

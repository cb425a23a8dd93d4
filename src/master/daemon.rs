//! Leaving the terminal: a daemon that goes on in the background, and a starter that waits until it serves, or says why not.
//! Not here: what the daemon does.

use super::Inherited;
use super::process;
use nix::unistd::{ForkResult, dup2_stderr, dup2_stdin, dup2_stdout, setsid};
use std::cell::Cell;
use std::fs::OpenOptions;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::rc::Rc;

/// A daemon's last word is shorter than this.
const MAX_REPORT: u64 = 64 * 1024;

/// The exit code where the daemon was killed before it said anything.
const NO_REPORT: i32 = 1;

/// The line to the process that started the daemon, which is used once; none where there is no daemon.
#[derive(Clone, Default)]
pub(crate) struct Starter(Rc<Cell<Option<PipeWriter>>>);

impl Starter {
    /// Lets the starter go, with code 0 once the server serves, or with a failure and its message. False where nobody
    /// waits, or no longer.
    pub(crate) fn report(&self, code: u8, message: &str) -> bool {
        let pipe = self.0.take();
        pipe.is_some_and(|mut pipe| pipe.write_all(&[&[code], message.as_bytes()].concat()).is_ok())
    }

    /// For a child: only the master speaks.
    pub(super) fn leave(&self) {
        self.0.take();
    }
}

/// Goes on as a daemon: in a session of its own without a terminal, with /dev/null for the standard streams, and without what
/// was inherited. The process that was started waits for the first report and exits with its code; it never returns.
///
/// # Errors
/// In the process that was started, when it cannot be done.
pub(crate) fn daemonize(inherited: &mut Inherited) -> io::Result<Starter> {
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    let (reader, writer) = io::pipe()?;
    if let ForkResult::Parent { .. } = process::split()? {
        drop(writer);
        std::process::exit(wait(reader));
    }
    drop(reader);
    // The leader of a session may get a terminal by opening one; its child may not.
    setsid()?;
    if let ForkResult::Parent { .. } = process::split()? {
        process::exit_now(0);
    }
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    dup2_stderr(&null)?;
    process::close_all(&std::mem::take(&mut inherited.foreign));
    inherited.starter = Starter(Rc::new(Cell::new(Some(writer))));
    Ok(inherited.starter.clone())
}

/// Waits for the daemon's report, and repeats its message.
fn wait(pipe: PipeReader) -> i32 {
    let mut report = Vec::new();
    // A read that fails has reported nothing.
    let _ = pipe.take(MAX_REPORT).read_to_end(&mut report);
    let Some((code, message)) = report.split_first() else {
        eprintln!("ferricorn: the daemon was killed before it was ready");
        return NO_REPORT;
    };
    if !message.is_empty() {
        eprintln!("ferricorn: {}", String::from_utf8_lossy(message));
    }
    i32::from(*code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_starter_hears_one_report() {
        let (reader, writer) = io::pipe().unwrap();
        let starter = Starter(Rc::new(Cell::new(Some(writer))));
        assert!(starter.report(3, ""));
        assert!(!starter.report(0, ""), "it has gone");
        assert_eq!(wait(reader), 3);
        assert!(!Starter::default().report(1, ""));

        let (reader, writer) = io::pipe().unwrap();
        drop(writer);
        assert_eq!(wait(reader), NO_REPORT);
    }
}

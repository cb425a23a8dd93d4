//! Another binary in this server's place: it is started beside this master, gets the listening sockets, and takes over
//! once it serves. Not here: when, and what follows (the arbiter).
//!
//! What is handed over stands in one variable, a line each, so that it can be read with `ps e`: the version, who hands
//! over, and the numbers of the descriptors. The two masters share a socket pair. The new one says that all its workers
//! are ready; the old one says, or shows by its end, that the server is the new one's.

use super::process;
use crate::config::Bind;
use crate::scoreboard::Generations;
use nix::unistd::{Pid, getppid};
use std::ffi::OsString;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

const VARIABLE: &str = "FERRICORN_HANDOVER";
/// Of the form below. A binary that does not know it starts nothing.
const VERSION: &str = "1";
/// More than the lines of any server.
const MAX_LINES: usize = 4096;

/// How this process was started: its successor is started alike.
pub(crate) struct Start {
    program: PathBuf,
    arguments: Vec<OsString>,
    folder: PathBuf,
}

impl Start {
    /// To be asked before the folder is changed. The program is the path that was given, so that a link that points to
    /// another version by then leads there.
    ///
    /// # Errors
    /// When the folder or the program cannot be named.
    pub(crate) fn of_this_process() -> io::Result<Start> {
        let folder = std::env::current_dir()?;
        let mut arguments = std::env::args_os();
        let called = PathBuf::from(arguments.next().unwrap_or_default());
        let program = if called.components().count() > 1 {
            folder.join(called)
        } else {
            found(&called).map_or_else(std::env::current_exe, Ok)?
        };
        Ok(Start { program, arguments: arguments.collect(), folder })
    }

    pub(super) fn program(&self) -> &Path {
        &self.program
    }
}

/// Where the shell found the program.
fn found(name: &Path) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders).map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// What goes from one master to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// All workers accept from it.
    Shared(Bind),
    /// One of the queues of `reuse_port` at an address; their order counts.
    Queue(Bind),
    /// It was passed in, under this name.
    Passed(String),
    /// The table by which the workers' caches agree.
    Generations,
}

/// Starts the successor, with these variables besides. Its descriptors are these and its end of the link, and no other.
///
/// # Errors
/// When there is no such program, or the system has nothing to start it with.
pub(super) fn start(
    start: &Start,
    handed: &[(BorrowedFd<'_>, Kind)],
    variables: Vec<(&'static str, String)>,
) -> io::Result<(Pid, Successor)> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let mut lines = vec![VERSION.to_owned(), format!("master {}", std::process::id())];
    lines.push(format!("link {}", theirs.as_raw_fd()));
    for (fd, kind) in handed {
        let fd = fd.as_raw_fd();
        lines.push(match kind {
            Kind::Shared(bind) => format!("shared {fd} {bind}"),
            Kind::Queue(bind) => format!("queue {fd} {bind}"),
            Kind::Passed(name) => format!("passed {fd} {name}"),
            Kind::Generations => format!("generations {fd}"),
        });
    }
    let mut command = Command::new(&start.program);
    command.args(&start.arguments).current_dir(&start.folder).env(VARIABLE, lines.join("\n"));
    command.envs(variables);
    let mut keep: Vec<RawFd> = handed.iter().map(|(fd, _)| fd.as_raw_fd()).collect();
    keep.push(theirs.as_raw_fd());
    let pid = process::spawn_with(command, keep)?;
    Ok((pid, Successor { link: ours }))
}

/// The new master, as the old one sees it.
pub(super) struct Successor {
    link: UnixStream,
}

impl Successor {
    /// Whether it has said so since this was last asked.
    pub(super) fn is_ready(&mut self) -> bool {
        self.link.read(&mut [0; 16]).is_ok_and(|bytes| bytes > 0)
    }

    /// The server is its own now.
    pub(super) fn tell(&mut self) {
        // If it is not told, it learns it from our end.
        let _ = self.link.write(b"yours");
    }
}

impl AsFd for Successor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.link.as_fd()
    }
}

/// The old master, as the new one sees it; and what it has handed over.
pub(crate) struct Predecessor {
    link: UnixStream,
    pid: Pid,
    handed: Vec<(OwnedFd, Kind)>,
}

impl Predecessor {
    /// What this process was started with, of the descriptors that came through the exec.
    ///
    /// # Errors
    /// When it was handed over by a version that this one does not understand; the message is whole.
    pub(super) fn take(inherited: &mut Vec<RawFd>) -> Result<Option<Predecessor>, String> {
        let Some(text) = process::take_variable(VARIABLE) else { return Ok(None) };
        let bad = |what: &str| format!("{VARIABLE}: {what}");
        let mut lines = text.lines().take(MAX_LINES);
        if lines.next() != Some(VERSION) {
            return Err(bad("it is of another version; stop the old server and start the new one"));
        }
        let mut link = None;
        let mut handed = Vec::new();
        for line in lines {
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            if word == "master" {
                if rest != getppid().to_string() {
                    return Err(bad("it is not from the process that started this one"));
                }
                continue;
            }
            let (number, name) = rest.split_once(' ').unwrap_or((rest, ""));
            let at = number.parse().ok().and_then(|fd: RawFd| inherited.iter().position(|open| *open == fd));
            let at = at.ok_or_else(|| bad(&format!("the descriptor {number:?} is not there")))?;
            let fd = process::own(inherited.swap_remove(at));
            let bind = || name.parse::<Bind>().map_err(|_| bad(&format!("{name:?} is no address")));
            match word {
                "link" => link = Some(UnixStream::from(fd)),
                "shared" => handed.push((fd, Kind::Shared(bind()?))),
                "queue" => handed.push((fd, Kind::Queue(bind()?))),
                "passed" => handed.push((fd, Kind::Passed(name.to_owned()))),
                "generations" => handed.push((fd, Kind::Generations)),
                other => return Err(bad(&format!("{other:?} is unknown"))),
            }
        }
        let link = link.ok_or_else(|| bad("the link is missing"))?;
        link.set_nonblocking(true).map_err(|error| bad(&error.to_string()))?;
        Ok(Some(Predecessor { link, pid: getppid(), handed }))
    }

    /// What was handed over, once.
    pub(super) fn take_handed(&mut self) -> Handed {
        Handed { left: std::mem::take(&mut self.handed) }
    }

    /// All workers are ready.
    pub(super) fn tell_ready(&mut self) {
        // If the old master has gone meanwhile, that is the answer.
        let _ = self.link.write(b"ready");
    }

    /// Whether the server is this process's own now: the old master has said so, or is gone. A process that is killed closes
    /// its descriptors one by one, the link perhaps before the pidfile, and only then leaves its children to another.
    pub(super) fn has_left(&mut self) -> bool {
        match self.link.read(&mut [0; 16]).map_err(|error| error.kind()) {
            Err(ErrorKind::WouldBlock | ErrorKind::Interrupted) => false,
            Ok(1..) => true,
            Ok(0) | Err(_) => getppid() != self.pid,
        }
    }
}

impl AsFd for Predecessor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.link.as_fd()
    }
}

/// What waits to be used. Sockets that are not close here; the old master's workers serve what is in them.
#[derive(Default)]
pub(super) struct Handed {
    left: Vec<(OwnedFd, Kind)>,
}

impl Handed {
    /// Those of one kind and address, in order.
    pub(super) fn take(&mut self, kind: &Kind) -> Vec<OwnedFd> {
        let (taken, left) = std::mem::take(&mut self.left).into_iter().partition(|(_, of)| of == kind);
        self.left = left;
        let taken: Vec<(OwnedFd, Kind)> = taken;
        taken.into_iter().map(|(fd, _)| fd).collect()
    }

    /// The table by which the workers' caches agree, and the file that it is in: the old master's, so that they agree with
    /// those of its workers; a new one where that cannot be used.
    ///
    /// # Errors
    /// When the kernel has no memory for a new one.
    pub(super) fn take_generations(&mut self, is_second: bool) -> io::Result<(Generations, OwnedFd)> {
        let adopted = match self.take(&Kind::Generations).pop() {
            None => Err("there is none".to_owned()),
            Some(file) => Generations::adopt(&file).map(|generations| (generations, file)),
        };
        match adopted {
            Ok((generations, file)) => {
                // This may be another program than the old master's.
                if generations.of_all().is_none() {
                    generations.claim();
                }
                Ok((generations, file))
            }
            Err(reason) => {
                if is_second {
                    log::warn!(
                        "cache generations could not be taken over reason=\"{reason}\" consequence=\"until the old \
                         workers have left, they and the new ones do not see what the others invalidate\""
                    );
                }
                Generations::make()
            }
        }
    }

    /// Those that were passed in to the first master, with their names.
    pub(super) fn take_passed(&mut self) -> Vec<(OwnedFd, String)> {
        let mut passed = Vec::new();
        for (fd, kind) in std::mem::take(&mut self.left) {
            match kind {
                Kind::Passed(name) => passed.push((fd, name)),
                Kind::Shared(_) | Kind::Queue(_) | Kind::Generations => self.left.push((fd, kind)),
            }
        }
        passed
    }
}

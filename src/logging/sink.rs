//! A descriptor that takes whole lines and never holds its writer up. Not here: what the lines say.

use crate::config::LogTarget;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::PathBuf;

/// What one write to a pipe may hold so that it is neither mixed with others' nor blocks once the pipe is writable
/// (PIPE_BUF, pipe(7)).
const PIPE_WRITE: usize = 4096;

const WRITABLE_BY_ALL: u32 = 0o002;

/// Whose a log file is to be, where that is not whoever opens it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// An open log: a standard stream, or a file that can be reopened by its name.
pub(crate) struct Sink {
    file: File,
    path: Option<PathBuf>,
    owner: Option<Owner>,
    is_pipe: bool,
    /// The last write ended amid a line.
    is_torn: bool,
    lost_lines: u64,
}

impl Sink {
    /// Opens what `target` names; `standard` is the stream that `-` stands for. `None` where the log is off.
    pub(crate) fn open(
        target: &LogTarget,
        standard: BorrowedFd<'_>,
        owner: Option<Owner>,
    ) -> io::Result<Option<Sink>> {
        let (file, path) = match target {
            LogTarget::Off => return Ok(None),
            LogTarget::Standard => (File::from(standard.try_clone_to_owned()?), None),
            LogTarget::File(path) => (append(path, owner)?, Some(path.clone())),
        };
        let is_pipe = needs_room(&file);
        Ok(Some(Sink { file, path, owner, is_pipe, is_torn: false, lost_lines: 0 }))
    }

    /// Opens the file anew by its name, so that a rotated one is let go. On an error the old one stays in use.
    pub(crate) fn reopen(&mut self) -> io::Result<()> {
        if let Some(path) = &self.path {
            self.file = append(path, self.owner)?;
            self.is_pipe = needs_room(&self.file);
            self.is_torn = false;
        }
        Ok(())
    }

    /// Writes complete lines. Where the reader of a pipe does not keep up, or a disk is full, lines are dropped and counted.
    pub(crate) fn write_lines(&mut self, mut lines: &[u8]) {
        while !lines.is_empty() {
            let piece = if self.is_pipe { first_lines(lines) } else { lines };
            if self.is_torn && self.write(b"\n") == 1 {
                self.is_torn = false;
            }
            let written = if self.is_torn { 0 } else { self.write(piece) };
            let whole = piece[..written].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            self.is_torn |= written > whole && written < piece.len();
            self.lost_lines +=
                piece[written.max(whole)..].iter().filter(|byte| **byte == b'\n').count() as u64;
            lines = &lines[piece.len()..];
        }
    }

    /// Returns how many bytes were taken: all, unless something is full or gone.
    fn write(&mut self, bytes: &[u8]) -> usize {
        let mut written = 0;
        while written < bytes.len() && (written > 0 || self.has_room()) {
            match self.file.write(&bytes[written..]) {
                Ok(count) if count > 0 => written += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => break,
            }
        }
        written
    }

    /// How many lines were dropped since this was last asked.
    pub(crate) fn take_lost_lines(&mut self) -> u64 {
        std::mem::take(&mut self.lost_lines)
    }

    fn has_room(&self) -> bool {
        if !self.is_pipe {
            return true;
        }
        let mut fds = [PollFd::new(self.file.as_fd(), PollFlags::POLLOUT)];
        matches!(poll(&mut fds, PollTimeout::ZERO), Ok(1))
            && fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLOUT))
    }
}

fn append(path: &PathBuf, owner: Option<Owner>) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o640);
    // A named pipe that nobody reads must hold nobody up: opened for both, it takes lines until it is full, and whoever comes to
    // read finds them.
    if std::fs::metadata(path).is_ok_and(|data| data.file_type().is_fifo()) {
        options.read(true).custom_flags(libc::O_NONBLOCK);
    }
    match owner {
        Some(owner) => append_for(owner, path, &mut options),
        None => options.open(path),
    }
}

/// Opens the file as root for another user, who may be able to write in its folder: neither a symbolic nor a hard link may
/// lead root's pen elsewhere.
fn append_for(owner: Owner, path: &PathBuf, options: &mut OpenOptions) -> io::Result<File> {
    let unsafe_file = |what| io::Error::new(ErrorKind::InvalidInput, what);
    let file = options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path).map_err(|error| {
        let is_link = error.raw_os_error() == Some(libc::ELOOP);
        if is_link {
            unsafe_file("it is a symbolic link, which is not followed for another user")
        } else {
            error
        }
    })?;
    let data = file.metadata()?;
    if !data.is_file() {
        return Ok(file);
    }
    if data.nlink() != 1 {
        return Err(unsafe_file("it has several names (hard links)"));
    }
    if (data.uid(), data.gid()) != (owner.uid, owner.gid) {
        fchown(&file, Some(owner.uid), Some(owner.gid))?;
    }
    if data.mode() & WRITABLE_BY_ALL != 0 {
        file.set_permissions(Permissions::from_mode(data.mode() & 0o777 & !WRITABLE_BY_ALL))?;
    }
    Ok(file)
}

/// Whether a write can block for want of a reader: pipes, sockets, terminals.
fn needs_room(file: &File) -> bool {
    file.metadata().is_ok_and(|data| {
        let kind = data.file_type();
        kind.is_fifo() || kind.is_socket() || kind.is_char_device()
    })
}

/// The longest run of whole lines that one write to a pipe may hold; a longer line is cut there.
fn first_lines(lines: &[u8]) -> &[u8] {
    if lines.len() <= PIPE_WRITE {
        return lines;
    }
    let end = lines[..PIPE_WRITE].iter().rposition(|byte| *byte == b'\n').map_or(PIPE_WRITE, |at| at + 1);
    &lines[..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::path::Path;

    #[test]
    fn a_full_pipe_drops_lines_and_never_blocks() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut sink = Sink::open(&LogTarget::Standard, writer.as_fd(), None).unwrap().unwrap();
        drop(writer);
        let line = [[b'x'; 99].as_slice(), b"\n"].concat();
        for _ in 0..2000 {
            sink.write_lines(&line);
        }
        let lost = sink.take_lost_lines();
        assert!(lost > 0 && lost < 2000, "lost {lost}");
        drop(sink);
        let mut written = Vec::new();
        reader.read_to_end(&mut written).unwrap();
        assert_eq!(written.len() as u64, (2000 - lost) * 100, "what was not lost was written whole");
    }

    #[test]
    fn a_line_that_was_torn_by_a_full_disk_is_ended_before_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.log");
        let open = |target: &Path| Sink::open(&LogTarget::File(target.into()), io::stderr().as_fd(), None);
        let mut full = open(Path::new("/dev/full")).unwrap().unwrap();
        full.write_lines(b"one\ntwo\n");
        assert_eq!((full.take_lost_lines(), full.is_torn), (2, false), "nothing of them was written");
        let mut sink = open(&path).unwrap().unwrap();
        sink.write_lines(b"one\n");
        // As if the second line had stopped in its middle.
        assert_eq!(sink.write(b"tw"), 2);
        sink.is_torn = true;
        sink.write_lines(b"three\nfour\n");
        assert_eq!(std::fs::read(path).unwrap(), b"one\ntw\nthree\nfour\n");
    }

    #[test]
    fn a_named_pipe_holds_nobody_up_and_keeps_lines_for_a_reader() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let mut sink =
            Sink::open(&LogTarget::File(path.clone()), io::stderr().as_fd(), None).unwrap().unwrap();
        let line = [[b'x'; 99].as_slice(), b"\n"].concat();
        (0..1000).for_each(|_| sink.write_lines(&line));
        let lost = sink.take_lost_lines();
        assert!(lost > 0 && lost < 1000, "lost {lost}");
        let mut reader = File::open(path).unwrap();
        drop(sink);
        let mut written = Vec::new();
        reader.read_to_end(&mut written).unwrap();
        assert_eq!(written.len() as u64, (1000 - lost) * 100);
    }

    #[test]
    fn a_burst_is_cut_between_lines() {
        let lines = [b'a'; 3000].iter().chain(b"\n").copied().collect::<Vec<u8>>().repeat(2);
        assert_eq!(first_lines(&lines).len(), 3001);
        assert_eq!(first_lines(&[b'a'; 5000]).len(), PIPE_WRITE);
        assert_eq!(first_lines(b"one\ntwo\n"), b"one\ntwo\n");
    }

    #[test]
    fn a_rotated_file_is_let_go_at_reopen() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("error.log");
        let mut sink =
            Sink::open(&LogTarget::File(path.clone()), io::stderr().as_fd(), None).unwrap().unwrap();
        sink.write_lines(b"one\n");
        std::fs::rename(&path, folder.path().join("error.log.1")).unwrap();
        sink.write_lines(b"two\n");
        sink.reopen().unwrap();
        sink.write_lines(b"three\n");
        assert_eq!(std::fs::read(folder.path().join("error.log.1")).unwrap(), b"one\ntwo\n");
        assert_eq!(std::fs::read(path).unwrap(), b"three\n");
    }

    #[test]
    fn a_log_of_another_user_is_never_reached_through_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let data = |name: &str| std::fs::metadata(path(name)).unwrap();
        std::fs::write(path("precious"), "").unwrap();
        std::fs::set_permissions(path("precious"), Permissions::from_mode(0o646)).unwrap();
        // Ours, so that the test runs as anybody.
        let owner = Owner { uid: data("precious").uid(), gid: data("precious").gid() };
        std::os::unix::fs::symlink(path("precious"), path("symbolic")).unwrap();
        std::fs::hard_link(path("precious"), path("hard")).unwrap();
        for (name, named) in [("symbolic", "symbolic link"), ("hard", "several names")] {
            let error = append(&path(name), Some(owner)).unwrap_err();
            assert!(error.to_string().contains(named), "{error}");
        }
        std::fs::remove_file(path("hard")).unwrap();
        append(&path("precious"), Some(owner)).unwrap();
        assert_eq!(data("precious").mode() & 0o777, 0o644, "no longer writable by all");
        append(&path("new"), Some(owner)).unwrap();
        assert_eq!(data("new").mode() & WRITABLE_BY_ALL, 0);
    }
}

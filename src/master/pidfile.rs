//! The file that names the master, and the lock on it that says whether that master lives. Not here: what is done about a
//! second server.

use nix::libc;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process;

/// How often a file that others replace at the same moment is looked at again.
const TRIES: u32 = 100;
/// More than any process id and a line end.
const MAX_BYTES: u64 = 32;

/// Holds the lock as long as it lives. On drop the file is removed, if it still is the one that was made here and names
/// this process; so a child drops its copy without harm, and the lock stays with the master.
pub(crate) struct Pidfile {
    path: PathBuf,
    file: File,
}

impl Pidfile {
    /// Writes and locks the file under another name and then gives it its own, so that nobody ever reads half a number or
    /// finds it without its lock. What a dead server left is replaced; nothing else is, and no link is followed.
    ///
    /// # Errors
    /// `AlreadyExists` where a running server holds it; `InvalidInput` where something stands there that is no pidfile;
    /// else what the system says.
    pub(crate) fn write(path: &Path) -> io::Result<Pidfile> {
        let mut new = path.as_os_str().to_owned();
        new.push(format!(".{}", process::id()));
        let new = PathBuf::from(new);
        // Left by a process that had our number and was killed in between.
        let _ = fs::remove_file(&new);
        let mut file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o644).open(&new)?;
        let placed = file
            .try_lock()
            .map_err(io::Error::from)
            .and_then(|()| file.write_all(format!("{}\n", process::id()).as_bytes()))
            .and_then(|()| put(&new, path));
        placed.inspect_err(|_| drop(fs::remove_file(&new)))?;
        Ok(Pidfile { path: path.to_owned(), file })
    }

    /// Gives the file another name, under the rules of [`Pidfile::write`]; the lock goes with it. For a new master that has
    /// written PIDFILE.2 and takes PIDFILE over once the old one is gone.
    ///
    /// # Errors
    /// As [`Pidfile::write`]; the file then keeps its name.
    pub(crate) fn rename_to(&mut self, path: &Path) -> io::Result<()> {
        put(&self.path, path)?;
        path.clone_into(&mut self.path);
        Ok(())
    }

    /// Leaves the file, unlocked, to a successor, which puts its own in place of it.
    pub(crate) fn leave(mut self) {
        let _ = self.file.unlock();
        self.path = PathBuf::new();
    }
}

impl Drop for Pidfile {
    fn drop(&mut self) {
        let is_ours = same_file(&self.file, &self.path).unwrap_or(false);
        if is_ours && fs::read_to_string(&self.path).is_ok_and(|text| named_in(&text) == Some(process::id()))
        {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Moves our locked file `new` to `path`.
fn put(new: &Path, path: &Path) -> io::Result<()> {
    for _ in 0..TRIES {
        match take_stale(path)? {
            // While we hold the stale file's lock, nobody else replaces it.
            Some(stale) => {
                if same_file(&stale, path)? {
                    return fs::rename(new, path);
                }
            }
            None => match fs::hard_link(new, path) {
                Ok(()) => return fs::remove_file(new),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            },
        }
    }
    Err(io::Error::new(ErrorKind::AlreadyExists, "others replaced it all the time"))
}

/// Opens and locks the file of a dead server; `None` where there is no file.
fn take_stale(path: &Path) -> io::Result<Option<File>> {
    let invalid = |what| Err(io::Error::new(ErrorKind::InvalidInput, what));
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let mut file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => return invalid("it is a symbolic link"),
        Err(error) => return Err(error),
    };
    if !file.metadata()?.is_file() {
        return invalid("it is no plain file");
    }
    let mut bytes = Vec::new();
    Read::by_ref(&mut file).take(MAX_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    match file.try_lock() {
        Ok(()) if text.trim().is_empty() || named_in(&text).is_some() => Ok(Some(file)),
        Ok(()) => invalid("it holds something else than a process id"),
        Err(TryLockError::WouldBlock) => {
            let holder = text.trim();
            Err(io::Error::new(ErrorKind::AlreadyExists, format!("the running server {holder} holds it")))
        }
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Whether the open file is the one that now has this name.
fn same_file(file: &File, path: &Path) -> io::Result<bool> {
    let (open, named) = match (file.metadata()?, fs::symlink_metadata(path)) {
        (open, Ok(named)) => (open, named),
        (_, Err(error)) if error.kind() == ErrorKind::NotFound => return Ok(false),
        (_, Err(error)) => return Err(error),
    };
    Ok((open.dev(), open.ino()) == (named.dev(), named.ino()))
}

fn named_in(text: &str) -> Option<u32> {
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(result: io::Result<Pidfile>) -> Option<ErrorKind> {
        result.err().map(|error| error.kind())
    }

    #[test]
    fn the_file_goes_only_while_it_names_us() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pid");
        fs::write(&path, "4194304\n").unwrap();
        let file = Pidfile::write(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", process::id()));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no second name is left");
        drop(file);
        assert!(!path.exists());

        let file = Pidfile::write(&path).unwrap();
        fs::write(&path, "1\n").unwrap();
        drop(file);
        assert_eq!(fs::read_to_string(&path).unwrap(), "1\n", "another's number stays");

        let file = Pidfile::write(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let other = Pidfile::write(&path).unwrap();
        drop(file);
        assert!(path.exists(), "another file of that name stays");
        drop(other);
    }

    #[test]
    fn a_held_file_is_refused_whatever_number_it_holds() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pid");
        let first = Pidfile::write(&path).unwrap();
        fs::write(&path, "4194304\n").unwrap();
        assert_eq!(kind(Pidfile::write(&path)), Some(ErrorKind::AlreadyExists));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "the refused one leaves nothing");
        drop(first);
        assert_eq!(kind(Pidfile::write(&path)), None);
    }

    #[test]
    fn what_is_no_pidfile_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("notes"), "keep me\n").unwrap();
        fs::create_dir(path("folder")).unwrap();
        std::os::unix::fs::symlink(path("stale"), path("link")).unwrap();
        std::os::unix::fs::symlink(path("nowhere"), path("dangling")).unwrap();
        fs::write(path("stale"), "4194304\n").unwrap();
        for name in ["notes", "folder", "link", "dangling"] {
            assert_eq!(kind(Pidfile::write(&path(name))), Some(ErrorKind::InvalidInput), "{name}");
        }
        assert_eq!(fs::read_to_string(path("notes")).unwrap(), "keep me\n");
        assert_eq!(fs::read_to_string(path("stale")).unwrap(), "4194304\n");
        assert!(!path("nowhere").exists());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 5);
    }

    #[test]
    fn a_successor_takes_the_name_once_its_holder_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let (path, second) = (folder.path().join("pid"), folder.path().join("pid.2"));
        let old = Pidfile::write(&path).unwrap();
        let mut new = Pidfile::write(&second).unwrap();
        assert_eq!(new.rename_to(&path).unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert!(second.exists());
        drop(old);
        new.rename_to(&path).unwrap();
        assert!(path.exists() && !second.exists());
        assert_eq!(kind(Pidfile::write(&path)), Some(ErrorKind::AlreadyExists), "the lock went with it");
        drop(new);
        assert!(!path.exists());
    }

    #[test]
    fn of_many_at_once_one_wins() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pid");
        // Threads share a pid and so would share the name before the last: each begins with a file of its own.
        let contenders: Vec<PathBuf> =
            (0..8).map(|number| folder.path().join(format!("own{number}"))).collect();
        for stale in [false, true] {
            if stale {
                fs::write(&path, "4194304\n").unwrap();
            }
            let start = std::sync::Barrier::new(contenders.len());
            let winners = std::thread::scope(|scope| {
                let runs: Vec<_> = contenders
                    .iter()
                    .map(|own| {
                        scope.spawn(|| {
                            let mut mine = Pidfile::write(own).unwrap();
                            start.wait();
                            mine.rename_to(&path).is_ok().then_some(mine)
                        })
                    })
                    .collect();
                runs.into_iter().filter_map(|run| run.join().unwrap()).collect::<Vec<_>>()
            });
            assert_eq!(winners.len(), 1);
            assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", process::id()));
        }
    }
}

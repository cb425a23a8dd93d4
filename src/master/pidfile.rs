//! The file that names the master. Not here: locks, owners.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::process;

/// Removed on drop, if it still names this process.
pub(crate) struct Pidfile {
    path: PathBuf,
}

impl Pidfile {
    /// Writes the file under another name and renames it, so that nobody ever reads half a number.
    ///
    /// # Errors
    /// `AlreadyExists` where the file names a process that runs as a master; else what the system says.
    pub(crate) fn write(path: &Path) -> io::Result<Pidfile> {
        if let Some(pid) = named_in(path).filter(|pid| is_master(*pid)) {
            return Err(io::Error::new(
                ErrorKind::AlreadyExists,
                format!("it names the running master {pid}"),
            ));
        }
        let mut new = path.as_os_str().to_owned();
        new.push(format!(".{}", process::id()));
        fs::write(&new, format!("{}\n", process::id()))?;
        fs::rename(&new, path).inspect_err(|_| drop(fs::remove_file(&new)))?;
        Ok(Pidfile { path: path.to_owned() })
    }
}

impl Drop for Pidfile {
    fn drop(&mut self) {
        if named_in(&self.path) == Some(process::id()) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn named_in(path: &Path) -> Option<u32> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// A number left by a crash may belong to any process by now; only one that calls itself a master counts.
fn is_master(pid: u32) -> bool {
    pid != process::id()
        && fs::read_to_string(format!("/proc/{pid}/comm"))
            .is_ok_and(|comm| comm.trim_end().ends_with("-master"))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(fs::read_to_string(&path).unwrap(), "1\n", "another's file stays");
    }
}

//! A cgroup with a limit on memory, where this process may make one. Not here: what happens at the limit.

use super::{DEADLINE, eventually};
use std::fs;
use std::path::{Path, PathBuf};

/// Goes when dropped; whoever was started in it must have ended by then.
pub struct Cgroup {
    folder: PathBuf,
}

impl Cgroup {
    /// Below the cgroup that this process is in; `None` where that is not allowed, or memory is not limited there.
    pub fn of_memory(bytes: u64) -> Option<Cgroup> {
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        let path = |controllers: &str| {
            let mut paths = own.lines().filter_map(|line| line.split_once(':')?.1.strip_prefix(controllers));
            Some(paths.next()?.strip_prefix(':')?.trim_start_matches('/').to_owned())
        };
        let root = Path::new("/sys/fs/cgroup");
        let one = path("memory").map(|path| (root.join("memory").join(path), "memory.limit_in_bytes"));
        let two = path("").map(|path| (root.join(path), "memory.max"));
        one.into_iter().chain(two).find_map(|(parent, limit)| {
            let folder = parent.join(format!("ferricorn-test-{}", std::process::id()));
            fs::create_dir(&folder).ok()?;
            let cgroup = Cgroup { folder };
            // Opened, not made: where the controller is missing, so is the file.
            let limit = fs::OpenOptions::new().write(true).open(cgroup.folder.join(limit));
            let limited =
                limit.and_then(|mut file| std::io::Write::write_all(&mut file, bytes.to_string().as_bytes()));
            limited.ok().map(|()| cgroup)
        })
    }

    /// A shell's words to start a program in it.
    pub fn wrapper(&self) -> String {
        format!(r#"echo $$ > {}/cgroup.procs && exec "$0" "$@""#, self.folder.display())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            eventually(DEADLINE, "the cgroup is empty", || fs::remove_dir(&self.folder).is_ok());
        } else {
            let _ = fs::remove_dir(&self.folder);
        }
    }
}

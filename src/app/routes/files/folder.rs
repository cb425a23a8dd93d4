//! Which files of a folder are served, and how they are found and opened. Not here: what is told of them, and reading them.
//!
//! There are two ways, with one outcome. Where the kernel knows the whole path, and no link is on it, a file is opened at once. All
//! else is looked for on a blocking thread, which may wait for a disk: to go there and back costs more than to find, open and read
//! what the kernel has in its memory.

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2, statfs};
use rustix::io::Errno;
use std::fs::{File, Metadata};
use std::future::{Ready, ready};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::task::spawn_blocking;
use tower_http::services::fs::{Backend, TokioFile};

/// File systems whose files are opened without asking a server or a program, by the numbers that statfs(2) has for them: ext2 to ext4,
/// XFS, Btrfs, ZFS, bcachefs, F2FS, tmpfs, overlay, EROFS, SquashFS.
const LOCAL: [u64; 10] = [
    0xef53,
    0x5846_5342,
    0x9123_683e,
    0x2fc1_2fc1,
    0xca45_1a4e,
    0xf2f5_2010,
    0x0102_1994,
    0x794c_7630,
    0xe0f5_e1e2,
    0x7371_7368,
];

/// The files below a folder, hidden ones left out, wherever links lead.
pub(super) struct Folder {
    /// Without links.
    root: PathBuf,
    /// The device that it is on, where that is one of the `LOCAL`.
    device: Option<u64>,
    /// There was a file on another device, which may be on any file system.
    is_mixed: AtomicBool,
}

/// A file that is served, or a folder, which is not.
pub(super) struct Found {
    pub(super) metadata: Metadata,
    pub(super) file: Option<File>,
}

impl Folder {
    /// A folder that went away since it was checked serves nothing, until a reload that finds it.
    pub(super) fn new(folder: &Path) -> Folder {
        let root = folder.canonicalize().unwrap_or_else(|_| folder.into());
        let is_local = statfs(&*root).is_ok_and(|told| LOCAL.contains(&(told.f_type as u64)));
        let device = if is_local { root.metadata().ok().map(|metadata| metadata.dev()) } else { None };
        Folder { root, device, is_mixed: AtomicBool::new(false) }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    fn may(&self, path: &Path) -> bool {
        path.strip_prefix(&self.root).is_ok_and(|within| !is_hidden(within))
    }

    /// What `find` finds, if that takes no waiting; `None` where it may, or where only `find` can tell.
    fn find_at_once(&self, path: &Path) -> Option<io::Result<Found>> {
        let device = self.device?;
        if self.is_mixed.load(Ordering::Relaxed) || !self.may(path) {
            return None;
        }
        // What is no file is opened as well, and closed: a pipe that nobody writes to must not be waited for.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        match openat2(CWD, path, flags, Mode::empty(), ResolveFlags::CACHED | ResolveFlags::NO_SYMLINKS) {
            Ok(file) => {
                let file = File::from(file);
                let metadata = file.metadata().ok()?;
                if metadata.dev() != device {
                    self.is_mixed.store(true, Ordering::Relaxed);
                }
                metadata.is_file().then(|| Ok(Found { metadata, file: Some(file) }))
            }
            Err(Errno::NOENT) => Some(Err(none())),
            // A path that is not known to the end, a link, an older kernel, a filter of system calls, anything else.
            Err(_) => None,
        }
    }

    /// As if there were none where it is hidden, outside, or neither file nor folder.
    fn find(&self, path: &Path) -> io::Result<Found> {
        if !self.may(path) {
            return Err(none());
        }
        // A name too long, a file taken for a folder, a link to itself: none of it is there.
        let real = path.canonicalize().map_err(|_| none())?;
        let metadata = real.metadata()?;
        if !self.may(&real) {
            return Err(none());
        }
        if metadata.is_dir() {
            return Ok(Found { metadata, file: None });
        }
        if !metadata.is_file() {
            return Err(none());
        }
        let file = File::options().read(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(real)?;
        let metadata = file.metadata()?;
        // It may have become something else since.
        if metadata.is_file() { Ok(Found { metadata, file: Some(file) }) } else { Err(none()) }
    }
}

fn none() -> io::Error {
    io::ErrorKind::NotFound.into()
}

fn is_hidden(path: &Path) -> bool {
    path.components().any(|part| match part {
        Component::Normal(name) => name.as_encoded_bytes().starts_with(b"."),
        Component::Prefix(_) | Component::RootDir | Component::CurDir | Component::ParentDir => true,
    })
}

/// A folder for one request. `ServeDir` asks about one path after the other, and serves what was found last.
#[derive(Clone)]
pub(super) struct Lookup {
    folder: Arc<Folder>,
    last: Arc<Mutex<Option<(PathBuf, Found)>>>,
}

impl Lookup {
    pub(super) fn new(folder: &Arc<Folder>) -> Lookup {
        Lookup { folder: Arc::clone(folder), last: Arc::default() }
    }

    /// What was found last.
    pub(super) fn take(&self) -> Option<Found> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).take().map(|(_, found)| found)
    }

    async fn find(self, path: PathBuf) -> io::Result<Metadata> {
        let last = || self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, found)) = &*last()
            && *known == path
        {
            return Ok(found.metadata.clone());
        }
        let found = match self.folder.find_at_once(&path) {
            Some(outcome) => outcome?,
            None => {
                let (folder, path) = (Arc::clone(&self.folder), path.clone());
                spawn_blocking(move || folder.find(&path)).await.map_err(io::Error::other)??
            }
        };
        let metadata = found.metadata.clone();
        *last() = Some((path, found));
        Ok(metadata)
    }
}

impl Backend for Lookup {
    type File = TokioFile;
    type Metadata = Metadata;
    type OpenFuture = Ready<io::Result<TokioFile>>;
    type MetadataFuture = Pin<Box<dyn Future<Output = io::Result<Metadata>> + Send>>;

    /// It is asked for heads alone.
    fn open(&self, _path: PathBuf) -> Self::OpenFuture {
        ready(Err(io::ErrorKind::Unsupported.into()))
    }

    fn metadata(&self, path: PathBuf) -> Self::MetadataFuture {
        Box::pin(self.clone().find(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    #[test]
    fn what_is_found_at_once_is_what_a_thread_finds() {
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path().join("public");
        std::fs::create_dir_all(root.join("in")).unwrap();
        std::fs::write(temporary.path().join("outside.txt"), "outside").unwrap();
        for name in ["a.txt", "in/b.txt", ".hidden"] {
            std::fs::write(root.join(name), name).unwrap();
        }
        for (name, to) in [
            ("link", "in/b.txt"),
            ("folder", "in"),
            ("out", "../outside.txt"),
            ("out_folder", ".."),
            ("hidden", ".hidden"),
            ("dangling", "nothing"),
            ("loop", "loop"),
        ] {
            symlink(to, root.join(name)).unwrap();
        }
        nix::unistd::mkfifo(&root.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let _listener = UnixListener::bind(root.join("socket")).unwrap();
        let folder = Folder::new(&root);
        let long = "n".repeat(300);
        // The name, the file's length where there is one to serve, and whether the kernel can tell once it knows the path.
        let table: [(&str, Option<u64>, bool); 18] = [
            ("a.txt", Some(5), true),
            ("in/b.txt", Some(8), true),
            ("link", Some(8), false),
            ("folder/b.txt", Some(8), false),
            ("in", None, false),
            ("", None, false),
            ("out", None, false),
            ("out_folder/outside.txt", None, false),
            ("hidden", None, false),
            (".hidden", None, false),
            ("../outside.txt", None, false),
            ("dangling", None, false),
            ("loop", None, false),
            ("pipe", None, false),
            ("socket", None, false),
            ("a.txt/b", None, false),
            ("a\0.txt", None, false),
            (&long, None, false),
        ];
        let length = |found: io::Result<Found>| found.ok()?.file.map(|file| file.metadata().unwrap().len());
        for (name, expected, is_known) in table {
            let path = folder.root().join(name);
            assert_eq!(length(folder.find(&path)), expected, "{name:?}");
            let at_once = folder.find_at_once(&path);
            assert_eq!(at_once.is_some(), is_known, "{name:?} at once");
            assert!(at_once.is_none_or(|found| length(found) == expected), "{name:?} at once");
        }
        let missing = folder.root().join("missing");
        assert_eq!(folder.find(&missing).err().map(|error| error.kind()), Some(io::ErrorKind::NotFound));
        // Some file systems remember what they have not, and others look again.
        assert!(folder.find_at_once(&missing).is_none_or(|found| found.is_err()));
    }

    #[test]
    fn another_file_system_below_is_left_to_threads() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().canonicalize().unwrap().join("a.txt");
        std::fs::write(&path, "a").unwrap();
        let mut folder = Folder::new(temporary.path());
        assert!(folder.find(&path).is_ok() && folder.find_at_once(&path).is_some());
        folder.device = folder.device.map(|device| device + 1);
        assert!(folder.find_at_once(&path).is_some(), "it is open already");
        assert!(folder.find_at_once(&path).is_none());
        folder.device = None;
        folder.is_mixed.store(false, Ordering::Relaxed);
        assert!(folder.find_at_once(&path).is_none(), "a folder of a file system that may have to ask");
        assert!(folder.find(&path).is_ok());
    }
}

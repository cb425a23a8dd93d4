//! The files of the repository, for tests of what it says and of what it brings. Not here: what they should say.

use std::fs;
use std::path::{Path, PathBuf};

/// What a run of the demo leaves behind.
const LEFT_BEHIND: &str = "demo.db";

/// By its path from the top folder.
pub fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

#[track_caller]
pub fn read(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// `conf/` with all that the demo needs, in another folder.
pub fn copy_demo(to: &Path) {
    copy(&path("conf"), &to.join("conf"));
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else if !entry.file_name().to_str().unwrap().contains(LEFT_BEHIND) {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

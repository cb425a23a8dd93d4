//! Where the sockets go that the settings do not name: what the server chooses and its client looks for. Not here: sockets.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The end of the name of a socket at which the server is asked over HTTP, and of one at which it is told.
pub(crate) const ADMIN_SUFFIX: &str = "sock";
pub(crate) const CONTROL_SUFFIX: &str = "ctl";

/// A socket's file is called after the server by no more than so many bytes: the whole path has 107 (unix(7)).
const NAME_BYTES: usize = 60;

/// The folder for the sockets of the unit in deploy/, whose operator has another environment than the server.
const OF_THE_UNIT: &str = "/run/ferricorn";

/// Where the environment says that sockets go: the first of systemd's RuntimeDirectory=, or the user's own folder.
pub(crate) fn runtime_folder(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let from = |name| variable(name).filter(|value| !value.is_empty());
    if let Some(folders) = from("RUNTIME_DIRECTORY") {
        return std::env::split_paths(&folders).next();
    }
    Some(Path::new(&from("XDG_RUNTIME_DIR")?).join("ferricorn"))
}

/// Where a client looks for them, best first.
pub(crate) fn folders_to_search(variable: impl Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    runtime_folder(variable).into_iter().chain([OF_THE_UNIT.into()]).collect()
}

/// Two servers of one name listen at different addresses.
pub(crate) fn socket_name(proc_name: &str, addr: &str, suffix: &str) -> String {
    let plain = plain(&format!("{proc_name}-{addr}"));
    // The end of a path tells more than its beginning.
    format!("{}.{suffix}", &plain[plain.len().saturating_sub(NAME_BYTES)..])
}

/// In ASCII without anything that means something to a shell.
pub(crate) fn plain(name: &str) -> String {
    let is_plain = |character: char| character.is_ascii_alphanumeric() || ".:_[]".contains(character);
    name.chars().map(|c| if is_plain(c) { c } else { '-' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_called_after_the_server_and_its_address() {
        let name = |proc_name, addr| socket_name(proc_name, addr, ADMIN_SUFFIX);
        assert_eq!(name("shop", "127.0.0.1:8000"), "shop-127.0.0.1:8000.sock");
        assert_eq!(name("a b", ""), "a-b-.sock");
        assert_eq!(name(&"x".repeat(200), "").len(), NAME_BYTES + ".sock".len());
    }

    #[test]
    fn the_folder_is_the_services_or_the_users() {
        let folder = |set: &'static [(&str, &str)]| {
            let found = |name: &str| set.iter().find(|(set, _)| *set == name).map(|(_, value)| value.into());
            runtime_folder(found).map(|folder| folder.display().to_string()).unwrap_or_default()
        };
        assert_eq!(folder(&[("RUNTIME_DIRECTORY", "/run/a:/run/b"), ("XDG_RUNTIME_DIR", "/x")]), "/run/a");
        assert_eq!(folder(&[("RUNTIME_DIRECTORY", ""), ("XDG_RUNTIME_DIR", "/x")]), "/x/ferricorn");
        assert_eq!(folder(&[]), "");
    }
}

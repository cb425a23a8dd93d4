//! Keeps the admin process: its address open, its line held, another one in its place when it is gone. The arbiter knows
//! nothing of it, for it serves nobody. Not here: what it answers.

use super::listener::Listener;
use super::privileges::SocketOwner;
use crate::config::{AdminBind, Bind, Settings};
use nix::sys::socket::{SockaddrStorage, getsockname};
use std::fs::DirBuilder;
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Who may connect to its Unix socket: the server's user, and root.
const SOCKET_MODE: u32 = 0o600;
/// Connections that may wait for it.
const BACKLOG: u32 = 64;
/// The times between two tries to open the address, or to start the process: doubled from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(30);
/// One that lived this long had no trouble at its start.
const SETTLED: Duration = Duration::from_secs(10);
/// How often the master says that its loop turns, while somebody is there to hear it.
const BEAT: Duration = Duration::from_millis(500);
/// A socket's file is called after the server by no more than so many bytes: the whole path has 107 (unix(7)).
const NAME_BYTES: usize = 60;

pub(super) struct Keeper {
    /// What was asked for when the address was last opened, or could not be.
    asked: Option<AdminBind>,
    listener: Option<Listener>,
    /// Our end of the line to the process: a byte has it open its log anew, the end has it leave.
    line: Option<UnixStream>,
    /// Of the last start, or of the last try to open the address.
    tried: Option<Instant>,
    pause: Duration,
    /// The server is the successor's, and its address with it.
    has_left: bool,
}

impl Keeper {
    pub(super) fn new() -> Keeper {
        Keeper { asked: None, listener: None, line: None, tried: None, pause: FIRST_PAUSE, has_left: false }
    }

    /// Opens the address, where that is due, and gives what a new process starts with, if there should be one and none
    /// `is_alive`. `server` is what listens for requests.
    pub(super) fn tend(
        &mut self,
        settings: &Settings,
        owner: SocketOwner,
        server: Option<BorrowedFd<'_>>,
        is_alive: bool,
        now: Instant,
    ) -> Option<io::Result<(OwnedFd, UnixStream)>> {
        if self.has_left {
            return None;
        }
        if self.asked.as_ref() != Some(&settings.admin.bind) {
            self.listener = None;
            self.rest(None);
        }
        if is_alive && self.tried.is_some_and(|since| now >= since + SETTLED) {
            self.pause = FIRST_PAUSE;
        }
        if is_alive || now < self.next_try(now) {
            return None;
        }
        if self.listener.is_none() {
            self.open(settings, owner, server, now);
        }
        let listener = self.listener.as_ref()?;
        let start = listener.share().and_then(|listener| {
            let (line, its_line) = UnixStream::pair()?;
            line.set_nonblocking(true)?;
            self.line = Some(line);
            Ok((listener, its_line))
        });
        self.rest(Some(now));
        Some(start)
    }

    fn open(
        &mut self,
        settings: &Settings,
        owner: SocketOwner,
        server: Option<BorrowedFd<'_>>,
        now: Instant,
    ) {
        let asked = &settings.admin.bind;
        let is_first = self.asked.as_ref() != Some(asked);
        let bind = match asked {
            AdminBind::Off => None,
            AdminBind::At(bind) => Some(bind.clone()),
            AdminBind::Auto => match folder() {
                Some(folder) => Some(Bind::Unix(folder.join(name(&settings.proc_name, server)))),
                None => {
                    if is_first {
                        log::info!("admin off reason=\"no folder for its socket\" setting=admin.bind");
                    }
                    None
                }
            },
        };
        self.asked = Some(asked.clone());
        let Some(bind) = bind else { return };
        match Listener::bind(&bind, BACKLOG, Some(SOCKET_MODE), owner) {
            Ok(listener) => {
                log::info!("admin listening on={listener}");
                if listener.reaches_beyond() {
                    log::warn!(
                        "admin can be reached from other machines and asks nobody who he is on={listener}"
                    );
                }
                self.listener = Some(listener);
            }
            Err(error) => {
                if is_first {
                    log::warn!("admin could not listen on={bind} error=\"{error}\"");
                }
                self.rest(Some(now));
            }
        }
    }

    /// After a try the next one has to wait, longer each time.
    fn rest(&mut self, tried: Option<Instant>) {
        self.pause = if self.tried.is_some() && tried.is_some() { self.pause * 2 } else { FIRST_PAUSE }
            .min(LAST_PAUSE);
        self.tried = tried;
    }

    fn next_try(&self, now: Instant) -> Instant {
        self.tried.map_or(now, |tried| tried + self.pause)
    }

    /// When to tend it again.
    pub(super) fn next_deadline(&self, is_alive: bool, now: Instant) -> Option<Instant> {
        let is_off = self.listener.is_none() && self.tried.is_none();
        if is_off || self.has_left {
            return None;
        }
        let beat = now + BEAT;
        Some(if is_alive { beat } else { self.next_try(now).min(beat) })
    }

    /// Has the process open its log anew.
    pub(super) fn reopen_log(&mut self) {
        if let Some(line) = &mut self.line {
            let _ = line.write(&[1]);
        }
    }

    /// The process has the settings of a generation that is over: it leaves, and another one takes its place at once.
    pub(super) fn replace(&mut self) {
        self.line = None;
        self.tried = None;
    }

    /// The process leaves and the address is free for somebody else, for good.
    pub(super) fn leave(&mut self) {
        self.has_left = true;
        self.replace();
        self.listener = None;
    }

    /// For a child: its copies close, and the socket's file stays.
    pub(super) fn close(&mut self) {
        if let Some(listener) = self.listener.take() {
            listener.keep_file();
        }
        self.line = None;
    }
}

/// Where the environment says that sockets go: the first of systemd's RuntimeDirectory=, or the user's own folder.
fn folder() -> Option<PathBuf> {
    let from = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(folders) = from("RUNTIME_DIRECTORY") {
        return std::env::split_paths(&folders).next();
    }
    let folder = Path::new(&from("XDG_RUNTIME_DIR")?).join("ferricorn");
    match DirBuilder::new().mode(0o700).create(&folder) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => None,
        Ok(()) | Err(_) => Some(folder),
    }
}

/// Two servers of one name listen at different addresses.
fn name(proc_name: &str, server: Option<BorrowedFd<'_>>) -> String {
    let addr = server.and_then(|fd| getsockname::<SockaddrStorage>(fd.as_raw_fd()).ok());
    let addr = addr.map_or_else(String::new, |addr| addr.to_string());
    let is_plain = |character: char| character.is_ascii_alphanumeric() || ".:_[]".contains(character);
    let plain: String =
        format!("{proc_name}-{addr}").chars().map(|c| if is_plain(c) { c } else { '-' }).collect();
    // The end of a path tells more than its beginning.
    format!("{}.sock", &plain[plain.len().saturating_sub(NAME_BYTES)..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_socket_is_called_after_the_server_and_its_address() {
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = tcp.local_addr().unwrap().port();
        assert_eq!(name("shop", Some(tcp.as_fd())), format!("shop-127.0.0.1:{port}.sock"));
        assert_eq!(name("a b", None), "a-b-.sock");
        assert_eq!(name(&"x".repeat(200), None).len(), NAME_BYTES + ".sock".len());
    }
}

//! An address of the admin process, kept open by the master while processes come and go behind it: opened where that is due, tried
//! again where it cannot be had. Not here: who answers.

use super::listener::Listener;
use super::privileges::SocketOwner;
use crate::config::{AdminBind, Bind, runtime_folder, socket_name};
use nix::sys::socket::{SockaddrStorage, getsockname};
use std::fs::DirBuilder;
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Who may connect to its Unix socket: the server's user, and root.
const SOCKET_MODE: u32 = 0o600;
/// Connections that may wait for it.
const BACKLOG: u32 = 64;
/// The times between two tries to open the address: doubled from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(30);

pub(super) struct Door {
    /// What the log calls it, and the setting that says where it is.
    name: &'static str,
    setting: &'static str,
    /// The end of the name of a socket that is made by itself.
    suffix: &'static str,
    /// What was asked for when the address was last opened, or could not be.
    asked: Option<AdminBind>,
    listener: Option<Listener>,
    /// Of the last try that failed.
    tried: Option<Instant>,
    pause: Duration,
}

/// Whose socket it is, and what stands in its name.
#[derive(Clone, Copy)]
pub(super) struct House<'a> {
    pub(super) owner: SocketOwner,
    pub(super) proc_name: &'a str,
    /// What listens for requests.
    pub(super) server: Option<BorrowedFd<'a>>,
}

impl Door {
    pub(super) fn new(name: &'static str, setting: &'static str, suffix: &'static str) -> Door {
        let (asked, listener, tried, pause) = (None, None, None, FIRST_PAUSE);
        Door { name, setting, suffix, asked, listener, tried, pause }
    }

    pub(super) fn is_open(&self) -> bool {
        self.listener.is_some()
    }

    /// Opens the address, where that is due; true when it was opened now, or closed.
    pub(super) fn tend(&mut self, asked: &AdminBind, house: House<'_>, now: Instant) -> bool {
        let was_open = self.is_open();
        let is_new = self.asked.as_ref() != Some(asked);
        if is_new {
            self.listener = None;
            (self.tried, self.pause) = (None, FIRST_PAUSE);
            self.asked = Some(asked.clone());
        }
        let is_due = is_new || self.next_try().is_some_and(|next| now >= next);
        if !self.is_open() && is_due {
            self.open(asked, house, is_new, now);
        }
        self.is_open() != was_open || (is_new && was_open)
    }

    fn open(&mut self, asked: &AdminBind, house: House<'_>, is_first: bool, now: Instant) {
        let Door { name, setting, suffix, .. } = *self;
        let bind = match asked {
            AdminBind::Off => None,
            AdminBind::At(bind) => Some(bind.clone()),
            AdminBind::Auto => match folder() {
                Some(folder) => {
                    let addr =
                        house.server.and_then(|fd| getsockname::<SockaddrStorage>(fd.as_raw_fd()).ok());
                    let addr = addr.map_or_else(String::new, |addr| addr.to_string());
                    Some(Bind::Unix(folder.join(socket_name(house.proc_name, &addr, suffix))))
                }
                None => {
                    log::info!("{name} off reason=\"no folder for its socket\" setting={setting}");
                    None
                }
            },
        };
        let Some(bind) = bind else { return };
        match Listener::bind(&bind, BACKLOG, Some(SOCKET_MODE), house.owner) {
            Ok(listener) => {
                log::info!("{name} listening on={listener}");
                if listener.reaches_beyond() {
                    log::warn!(
                        "{name} can be reached from other machines and asks nobody who he is on={listener} remedy=\"a Unix socket, or 127.0.0.1\""
                    );
                }
                self.listener = Some(listener);
                self.tried = None;
            }
            Err(error) => {
                if is_first {
                    log::warn!("{name} could not listen on={bind} error=\"{error}\"");
                }
                self.pause = if is_first { FIRST_PAUSE } else { (self.pause * 2).min(LAST_PAUSE) };
                self.tried = Some(now);
            }
        }
    }

    /// A descriptor of the same socket for the process; `None` where it is closed.
    pub(super) fn share(&self) -> io::Result<Option<OwnedFd>> {
        self.listener.as_ref().map(Listener::share).transpose()
    }

    /// When it is to be tried again.
    pub(super) fn next_try(&self) -> Option<Instant> {
        self.tried.filter(|_| !self.is_open()).map(|tried| tried + self.pause)
    }

    /// For good.
    pub(super) fn close(&mut self) {
        self.listener = None;
    }

    /// For a child: its copy closes, and the socket's file stays.
    pub(super) fn leave(&mut self) {
        if let Some(listener) = self.listener.take() {
            listener.keep_file();
        }
    }
}

/// The folder that the environment names, made where it is missing.
fn folder() -> Option<PathBuf> {
    let folder = runtime_folder(|name| std::env::var_os(name))?;
    match DirBuilder::new().mode(0o700).create(&folder) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => None,
        Ok(()) | Err(_) => Some(folder),
    }
}

//! The shared listening sockets of one generation: opened from `bind`, or passed in. A reload keeps those whose address
//! stays, and opens the others before anything depends on it. Not here: the queues of `reuse_port`.

use super::Failure;
use super::ears::Ears;
use super::group::Group;
use super::listener::{AtStop, Listener};
use super::privileges::SocketOwner;
use super::queues::Queues;
use crate::config::{Bind, Settings};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

/// How often a busy address is tried at start, and how long apart: a server that is just leaving may still hold it.
const BIND_TRIES: u32 = 5;
const BIND_PAUSE: Duration = Duration::from_millis(200);

/// A socket closes, and its file goes, when no generation has it any more.
#[derive(Clone, Default)]
pub(super) struct Sockets {
    shared: Vec<Shared>,
}

#[derive(Clone)]
struct Shared {
    /// `None` where it was passed in.
    bind: Option<Bind>,
    listener: Rc<Listener>,
}

impl Sockets {
    /// Takes the sockets that were passed in, in place of `bind`.
    ///
    /// # Errors
    /// When one is nothing to listen with.
    pub(super) fn adopt(passed: Vec<(OwnedFd, String)>) -> Result<Sockets, Failure> {
        log::info!("sockets were passed in and used in place of bind count={}", passed.len());
        let adopt = |(fd, name): (OwnedFd, String)| {
            let listener = Listener::adopt(fd, AtStop::KeepFile)
                .map_err(|error| Failure::Adopt { name: name.clone(), error })?;
            log::info!("listening on={listener} name=\"{name}\"");
            Ok(Shared { bind: None, listener: Rc::new(listener) })
        };
        Ok(Sockets { shared: passed.into_iter().map(adopt).collect::<Result<_, _>>()? })
    }

    /// Binds every address, those of `reuse_port` into `queues`; `None` where a signal asked to stop meanwhile.
    ///
    /// # Errors
    /// When an address cannot be had, or stays busy.
    pub(super) fn open(
        settings: &Settings,
        owner: SocketOwner,
        queues: &mut Queues,
        ears: &mut Ears,
    ) -> Result<Option<Sockets>, Failure> {
        let mut sockets = Sockets::default();
        for bind in &settings.bind {
            let mut tries = 1;
            loop {
                let opened = match bind {
                    Bind::Tcp { host, port } if settings.reuse_port => {
                        Group::open(host, *port, settings.backlog).map(|group| {
                            log::info!("listening on={group}");
                            queues.add(group);
                        })
                    }
                    Bind::Tcp { .. } | Bind::Unix(_) => {
                        open(bind, settings, owner).map(|shared| sockets.shared.push(shared))
                    }
                };
                match opened {
                    Ok(()) => break,
                    Err(error) if error.kind() == ErrorKind::AddrInUse && tries < BIND_TRIES => {
                        log::warn!("address in use bind={bind} try={tries} of={BIND_TRIES}");
                        tries += 1;
                        if ears.pause(BIND_PAUSE) {
                            return Ok(None);
                        }
                    }
                    Err(error) => return Err(Failure::Bind { bind: bind.clone(), error }),
                }
            }
        }
        Ok(Some(sockets))
    }

    /// The sockets for a reload: those that are open already, and newly opened ones. With `reuse_port` the addresses
    /// stay, as those that were passed in do.
    ///
    /// # Errors
    /// The first address that cannot be had. Nothing is left open then.
    pub(super) fn succeed(&self, new: &Settings, owner: SocketOwner) -> Result<Sockets, (Bind, io::Error)> {
        if new.reuse_port || self.shared.iter().any(|shared| shared.bind.is_none()) {
            return Ok(self.clone());
        }
        let mut sockets = Sockets::default();
        for bind in &new.bind {
            let is_open = |shared: &&Shared| shared.bind.as_ref() == Some(bind);
            let shared = match self.shared.iter().find(is_open) {
                Some(open) => open.clone(),
                None => open(bind, new, owner).map_err(|error| (bind.clone(), error))?,
            };
            sockets.shared.push(shared);
        }
        Ok(sockets)
    }

    pub(super) fn set_backlog(&self, backlog: u32) {
        for Shared { listener, .. } in &self.shared {
            if let Err(error) = listener.set_backlog(backlog) {
                log::error!("backlog could not be set on={listener} error=\"{error}\"");
            }
        }
    }

    /// A descriptor of each for a worker.
    pub(super) fn share(&self) -> io::Result<Vec<OwnedFd>> {
        self.shared.iter().map(|shared| shared.listener.share()).collect()
    }

    /// For a child: its copies close without taking the files away.
    pub(super) fn keep_files(&self) {
        self.shared.iter().for_each(|shared| shared.listener.keep_file());
    }
}

fn open(bind: &Bind, settings: &Settings, owner: SocketOwner) -> io::Result<Shared> {
    let listener = Listener::bind(bind, settings.backlog, settings.socket_mode, owner)?;
    log::info!("listening on={listener}");
    Ok(Shared { bind: Some(bind.clone()), listener: Rc::new(listener) })
}

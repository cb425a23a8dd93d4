//! The shared listening sockets of one generation: opened from `bind`, or passed in. A reload keeps those whose address
//! stays, and opens the others before anything depends on it. Not here: the queues of `reuse_port`.

use super::Failure;
use super::ears::Ears;
use super::group::Group;
use super::listener::{AtStop, Listener};
use super::privileges::SocketOwner;
use super::queues::Queues;
use super::upgrade::{Handed, Kind};
use crate::config::{Bind, Settings};
use std::io::{self, ErrorKind};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

/// How often a busy address is tried at start, and how long apart: a server that is just leaving may still hold it.
const BIND_TRIES: u32 = 5;
const BIND_PAUSE: Duration = Duration::from_millis(200);

/// What a socket is called that is passed in and is not for TLS.
const PLAIN_NAME: &str = "http";

/// A socket closes, and its file goes, when no generation has it any more.
#[derive(Clone, Default)]
pub(super) struct Sockets {
    shared: Vec<Shared>,
}

#[derive(Clone)]
struct Shared {
    origin: Origin,
    listener: Rc<Listener>,
}

#[derive(Clone, PartialEq, Eq)]
enum Origin {
    Bound(Bind),
    /// Under this name.
    PassedIn(String),
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
            Ok(Shared { origin: Origin::PassedIn(name), listener: Rc::new(listener) })
        };
        Ok(Sockets { shared: passed.into_iter().map(adopt).collect::<Result<_, _>>()? })
    }

    /// Listens at every address, at those of `reuse_port` through `queues`, with what was handed over where that will do;
    /// `None` where a signal asked to stop meanwhile.
    ///
    /// # Errors
    /// When an address cannot be had, or stays busy.
    pub(super) fn open(
        settings: &Settings,
        owner: SocketOwner,
        queues: &mut Queues,
        handed: &mut Handed,
        ears: &mut Ears,
    ) -> Result<Option<Sockets>, Failure> {
        let mut sockets = Sockets::default();
        for bind in settings.addresses() {
            if adopt_handed(bind, settings, handed, queues, &mut sockets)? {
                continue;
            }
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
        if new.reuse_port || self.shared.iter().any(|shared| matches!(shared.origin, Origin::PassedIn(_))) {
            return Ok(self.clone());
        }
        let mut sockets = Sockets::default();
        for bind in new.addresses() {
            let is_open = |shared: &&Shared| shared.origin == Origin::Bound(bind.clone());
            let shared = match self.shared.iter().find(is_open) {
                Some(open) => open.clone(),
                None => open(bind, new, owner).map_err(|error| (bind.clone(), error))?,
            };
            sockets.shared.push(shared);
        }
        Ok(sockets)
    }

    /// Where it is not TLS that is spoken, as the workers see the addresses: at those of `plain_bind`, and at a socket that was
    /// passed in under the name of `http`.
    pub(super) fn plain_places(&self, settings: &Settings, queues: &Queues) -> Vec<String> {
        let is_plain = |origin: &Origin| match origin {
            Origin::Bound(bind) => settings.plain_bind.contains(bind),
            Origin::PassedIn(name) => name == PLAIN_NAME,
        };
        let shared = self.shared.iter().filter(|shared| is_plain(&shared.origin));
        let shared = shared.map(|shared| shared.listener.to_string());
        let queues = queues.groups().iter().filter(|group| settings.plain_bind.contains(group.bind()));
        shared.chain(queues.map(ToString::to_string)).collect()
    }

    /// As the log has them.
    pub(super) fn addresses(&self) -> impl Iterator<Item = String> {
        self.shared.iter().map(|shared| shared.listener.to_string())
    }

    /// All sockets, for a successor.
    pub(super) fn handed(&self) -> impl Iterator<Item = (BorrowedFd<'_>, Kind)> {
        self.shared.iter().map(|Shared { origin, listener }| {
            let kind = match origin {
                Origin::Bound(bind) => Kind::Shared(bind.clone()),
                Origin::PassedIn(name) => Kind::Passed(name.clone()),
            };
            (listener.socket(), kind)
        })
    }

    /// The files of what this server bound itself, or a predecessor of it, go with the sockets from now on.
    pub(super) fn own_files(&self) {
        let bound = self.shared.iter().filter(|shared| matches!(shared.origin, Origin::Bound(_)));
        bound.for_each(|shared| shared.listener.own_file());
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

/// Takes what the old master had at this address. Where one of the two wants queues and the other does not, the sockets stay
/// what they are: shared ones cannot be joined by others, and queues are as good to share.
fn adopt_handed(
    bind: &Bind,
    settings: &Settings,
    handed: &mut Handed,
    queues: &mut Queues,
    sockets: &mut Sockets,
) -> Result<bool, Failure> {
    let failure = |error| Failure::Bind { bind: bind.clone(), error };
    let mut lane = handed.take(&Kind::Queue(bind.clone()));
    let wants_queues = settings.reuse_port && matches!(bind, Bind::Tcp { .. });
    if wants_queues && !lane.is_empty() {
        let group = Group::adopt(bind.clone(), lane, settings.backlog).map_err(failure)?;
        log::info!("listening on={group}");
        queues.add(group);
        return Ok(true);
    }
    lane.extend(handed.take(&Kind::Shared(bind.clone())));
    let found = !lane.is_empty();
    if wants_queues && found {
        log::warn!("reuse_port takes a restart at an address that the old server shared bind={bind}");
    }
    for fd in lane {
        // The file is the old master's until it leaves.
        let listener = Listener::adopt(fd, AtStop::KeepFile).map_err(failure)?;
        listener.set_backlog(settings.backlog).map_err(failure)?;
        log::info!("listening on={listener}");
        sockets.shared.push(Shared { origin: Origin::Bound(bind.clone()), listener: Rc::new(listener) });
    }
    Ok(found)
}

fn open(bind: &Bind, settings: &Settings, owner: SocketOwner) -> io::Result<Shared> {
    let listener = Listener::bind(bind, settings.backlog, settings.socket_mode, owner)?;
    log::info!("listening on={listener}");
    Ok(Shared { origin: Origin::Bound(bind.clone()), listener: Rc::new(listener) })
}

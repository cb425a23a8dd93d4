//! The master's part in an upgrade, as the old one and as the new one. Not here: when (the arbiter), what passes between the two
//! (`upgrade`).

use super::arbiter::Event;
use super::crew::Role;
use super::pidfile::Pidfile;
use super::sockets::Sockets;
use super::upgrade::{self, Kind};
use super::{Failure, Master};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Instant;

impl Master<'_> {
    pub(super) fn start_successor(&mut self) {
        let sockets = self.current.1.sockets.handed().chain(self.queues.handed());
        let generations = self.generations.iter().map(|file| (file.as_fd(), Kind::Generations));
        let handed: Vec<_> = sockets.chain(generations).collect();
        let started = upgrade::start(&self.around.start, &handed, self.around.notifier.variables());
        let program = self.around.start.program().display();
        match started {
            Ok((pid, successor)) => {
                log::info!("upgrade started pid={pid} program={program}");
                self.waits.upgrade_is_started(pid);
                self.crew.add(Role::Successor, pid, Instant::now());
                self.around.successor = Some(successor);
            }
            Err(error) => {
                log::error!("upgrade could not be started program={program} error=\"{error}\"");
                self.waits.upgrade_will_fail(&format!("{program} could not be started: {error}"));
                self.learnt.push(Event::SuccessorGone);
            }
        }
    }

    /// The old master's part: what names the server is the successor's.
    pub(super) fn hand_over(&mut self) {
        self.sockets().for_each(Sockets::keep_files);
        // Before its process goes, and before this master's other ends are told of.
        self.waits.upgrade_is_done(self.crew.pid(Role::Successor));
        self.tell_who_waits();
        self.admin.leave();
        self.stand();
        if let Some(pidfile) = self.around.pidfile.take() {
            pidfile.leave();
        }
        self.around.notifier.hand_over(self.crew.pid(Role::Successor));
        if let Some(mut successor) = self.around.successor.take() {
            successor.tell();
        }
        log::info!("upgrade handed over");
    }

    /// The new master's part.
    pub(super) fn take_over(&mut self) {
        self.around.predecessor = None;
        // It may have been killed, and its workers with it.
        self.board.generations.bump_all();
        self.around.notifier.take_over();
        self.sockets().for_each(Sockets::own_files);
        let path = self.settings().pidfile.clone();
        if let (Some(pidfile), Some(path)) = (&mut self.around.pidfile, path)
            && let Err(error) = pidfile.rename_to(&path)
        {
            log::error!("pidfile could not be taken over path={} error=\"{error}\"", path.display());
        }
        log::info!("upgrade done pid={}", std::process::id());
    }
}

/// Beside an old master the file has another name, until the old one leaves.
pub(super) fn write_pidfile(path: &Path, is_second: bool) -> Result<Pidfile, Failure> {
    let mut name = path.as_os_str().to_owned();
    if is_second {
        name.push(".2");
    }
    Pidfile::write(Path::new(&name)).map_err(|error| Failure::Pidfile { path: name.into(), error })
}

//! How the master comes to its workers: by forking them itself, or by asking the generation's nursery. Not here: when one is
//! wanted.

use super::arbiter::{Event, Generation, SlotId};
use super::crew::Role;
use super::nursery::{self, Born, News, Nursery, Outfit};
use super::{Era, Master, Post, process};
use nix::unistd::Pid;
use std::io;
use std::time::Instant;

impl Master<'_> {
    pub(super) fn spawn(&mut self, slot: SlotId, generation: Generation, quiet: bool) {
        // Somebody may be about to rotate them.
        self.make_logs(&self.era(generation).settings);
        self.board.take_seat(slot);
        let since = Instant::now();
        let spawned = match self.roles.preload {
            Some(_) => self.ask_for_worker(slot, generation, since, quiet),
            None => self
                .fork_worker(slot, generation)
                .map(|pid| self.note_worker(slot, generation, pid, since, quiet)),
        };
        if let Err(error) = spawned {
            log::error!("worker could not be forked slot={slot} error=\"{error}\"");
            self.learnt.push(Event::SpawnFailed(slot));
        }
    }

    /// The generation's own, also while it is on trial.
    fn era(&self, generation: Generation) -> &Era {
        let (current, serving) = &self.current;
        self.trial.as_ref().filter(|_| generation > *current).unwrap_or(serving)
    }

    fn is_on_trial(&self, generation: Generation) -> bool {
        self.trial.is_some() && generation > self.current.0
    }

    fn nursery(&mut self, generation: Generation) -> &mut Option<Nursery> {
        let (current, serving) = &mut self.current;
        &mut self.trial.as_mut().filter(|_| generation > *current).unwrap_or(serving).nursery
    }

    fn note_worker(&mut self, slot: SlotId, generation: Generation, pid: Pid, since: Instant, quiet: bool) {
        let level = if quiet { log::Level::Debug } else { log::Level::Info };
        log::log!(level, "worker spawned slot={slot} pid={pid} generation={generation}");
        let seat = self.board.seat(slot);
        seat.tenure.begin(pid.as_raw() as u32, generation);
        self.crew.add_worker(slot, pid, since, seat, quiet);
    }

    fn outfit(&mut self, slot: SlotId, generation: Generation) -> io::Result<Outfit> {
        let mut listeners = self.era(generation).sockets.share()?;
        listeners.extend(self.queues.assign(slot, generation, self.arbiter.wanted())?);
        let (offers, bell) = (self.queues.workers_end()?, self.ears.workers_bell()?);
        Ok(Outfit { listeners, offers, bell, is_on_trial: self.is_on_trial(generation) })
    }

    fn fork_worker(&mut self, slot: SlotId, generation: Generation) -> io::Result<Pid> {
        let Outfit { listeners, offers, bell, is_on_trial } = self.outfit(slot, generation)?;
        let settings = self.era(generation).settings.clone();
        let post = Post { slot, settings, board: self.board, listeners, offers, bell, is_on_trial };
        self.fork(&format!("w{slot}"), |roles| (roles.work)(post))
    }

    /// From the generation's nursery, which is started with its first worker.
    fn ask_for_worker(
        &mut self,
        slot: SlotId,
        generation: Generation,
        since: Instant,
        quiet: bool,
    ) -> io::Result<()> {
        if self.nursery(generation).is_none() {
            self.start_nursery(generation)?;
        }
        let outfit = self.outfit(slot, generation)?;
        let nursery = self.nursery(generation).as_mut().ok_or(io::ErrorKind::NotFound)?;
        if nursery.is_loaded() {
            nursery.ask(slot, since, quiet, &outfit)
        } else {
            nursery.wait_for(slot, since, quiet);
            Ok(())
        }
    }

    fn start_nursery(&mut self, generation: Generation) -> io::Result<()> {
        let Some(load) = self.roles.preload else { return Ok(()) };
        let (nursery, link) = Nursery::pair(generation)?;
        let (master, board) = (Pid::this(), self.board);
        let settings = self.era(generation).settings.clone();
        let name = settings.proc_name.clone();
        let mut nursery = Some(nursery);
        let pid = self.fork("nursery", |roles| {
            nursery = None;
            nursery::tend(link, master, &settings, board, load, |post| {
                let role = format!("w{}", post.slot);
                process::set_comm(&name, &role);
                crate::logging::sign_as(&role);
                (roles.work)(post)
            })
        })?;
        log::info!("nursery started generation={generation} pid={pid}");
        self.crew.add(Role::Nursery(generation), pid, Instant::now());
        *self.nursery(generation) = nursery;
        Ok(())
    }

    /// Takes in workers that have shown up, and asks a nursery that has loaded for those that wait.
    pub(super) fn hear_nurseries(&mut self) {
        let nurseries = self.eras().filter_map(|era| era.nursery.as_ref());
        let generations: Vec<Generation> = nurseries.map(Nursery::generation).collect();
        for generation in generations {
            let Some(nursery) = self.nursery(generation) else { continue };
            let was_loaded = nursery.is_loaded();
            let news = nursery.hear();
            let waiting = if nursery.is_loaded() { nursery.take_waiting() } else { Vec::new() };
            if nursery.is_loaded() && !was_loaded {
                log::info!("nursery loaded generation={generation}");
            }
            for news in news {
                match news {
                    News::Born(born) => self.take_in(born, generation),
                    News::NotForked(slot) => self.learnt.push(Event::SpawnFailed(slot)),
                }
            }
            for (slot, since, quiet) in waiting {
                if let Err(error) = self.ask_for_worker(slot, generation, since, quiet) {
                    log::error!("worker could not be asked for slot={slot} error=\"{error}\"");
                    self.learnt.push(Event::SpawnFailed(slot));
                }
            }
        }
    }

    fn take_in(&mut self, born: Born, generation: Generation) {
        let Born { slot, pid, since, quiet, .. } = born;
        if process::is_child(pid) {
            self.note_worker(slot, generation, pid, since, quiet);
            born.let_begin();
        } else {
            // It was killed before it was noted, and has been reaped.
            self.learnt.push(Event::Exited { slot, clean: false });
        }
    }

    /// An order ends a worker that has not shown up: it never will.
    pub(super) fn forget_unborn(&mut self, slot: SlotId) {
        let (serving, trial) = (&mut self.current.1, self.trial.as_mut());
        let nurseries = trial.into_iter().chain([serving]).filter_map(|era| era.nursery.as_mut());
        let mut forgotten = false;
        for nursery in nurseries {
            forgotten |= nursery.forget(slot);
        }
        if forgotten {
            self.learnt.push(Event::Exited { slot, clean: false });
        }
    }

    /// Nobody will be asked for again.
    pub(super) fn close_nursery(&mut self, nursery: Option<Nursery>) {
        if let Some(nursery) = nursery {
            self.crew.dismiss_nursery(nursery.generation());
            self.lose(&nursery);
        }
    }

    /// Nurseries that have died; the next worker of their generation starts a new one.
    pub(super) fn bury_nurseries(&mut self) {
        for generation in std::mem::take(&mut self.crew.lost_nurseries) {
            let nursery = self.nursery(generation).take_if(|nursery| nursery.generation() == generation);
            if let Some(nursery) = nursery {
                self.lose(&nursery);
            }
        }
    }

    fn lose(&mut self, nursery: &Nursery) {
        self.learnt.extend(nursery.unborn().into_iter().map(|slot| Event::Exited { slot, clean: false }));
    }
}

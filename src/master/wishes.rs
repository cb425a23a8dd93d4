//! What the master is asked for, by a signal or over the line of the admin process: one way for both, from the wish to the fact
//! that the arbiter observes. Not here: what becomes of it (`waits`), decisions (the arbiter).

use super::arbiter::{Event, Objection, SlotId};
use super::waits::Goal;
use super::{Master, process};
use crate::control::{Ask, News, Scale, What, Wish};
use crate::logging;
use log::LevelFilter;
use nix::sys::signal::Signal;
use std::fmt;
use std::mem;
use std::time::Instant;

/// Who wishes.
#[derive(Clone, Copy)]
pub(super) enum Asker {
    /// By this name.
    Signal(&'static str),
    /// Over the line, as this user.
    Control { uid: u32 },
}

impl fmt::Display for Objection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Objection::Stopping => f.write_str("the server is about to stop"),
            Objection::AboveMaximum { max } => write!(f, "at most max_workers, which is {max}"),
            Objection::BelowMinimum => f.write_str("at least one worker stays"),
            Objection::UpgradeUnderWay => f.write_str("another upgrade is under way"),
            Objection::NotServing => f.write_str("no worker serves in this slot"),
        }
    }
}

impl Master<'_> {
    /// What came over the lines since this was last asked.
    pub(super) fn hear_wishes(&mut self) {
        for (line, ask) in self.admin.hear() {
            match ask {
                Some(Ask { ticket, uid, what: What::Wish { wish, wait } }) => {
                    self.grant(line, ticket, (wish, wait), uid);
                }
                Some(Ask { ticket, what: What::Forget, .. }) => self.waits.forget(line, ticket),
                Some(Ask { what: What::Farewell, .. }) => {}
                None => self.waits.forget_line(line),
            }
        }
    }

    fn grant(&mut self, line: u64, ticket: u32, (wish, wait): (Wish, bool), uid: u32) {
        let workers = self.workers_meant(wish);
        let has_room = !wait || self.waits.has_room();
        let heard = match has_room {
            true => self.hear(wish, Asker::Control { uid }),
            false => Err("too many wait already; ask without waiting".to_owned()),
        };
        let goal = Goal::of(wish, self.arbiter.wanted(), workers).filter(|_| wait);
        let news = match (heard, goal) {
            (Ok(()), Some(goal)) => return self.waits.add(line, ticket, goal),
            (Ok(()), None) => News::Done(self.asked_for(wish)),
            (Err(reason), _) => News::Refused(reason),
        };
        self.admin.tell(line, ticket, news);
    }

    /// What is said where nobody waits.
    fn asked_for(&self, wish: Wish) -> String {
        match wish {
            Wish::Scale(_) => format!("{} workers are wanted", self.arbiter.wanted()),
            Wish::Level(level) => format!("the level is {level} until the next reload").to_lowercase(),
            Wish::Reopen => "the logs were opened anew".to_owned(),
            Wish::Reload | Wish::Upgrade | Wish::Recycle(_) | Wish::Stop { .. } => "asked for".to_owned(),
        }
    }

    /// The one way of every wish.
    ///
    /// # Errors
    /// Why it comes to nothing. For a signal the arbiter's notice says so.
    pub(super) fn hear(&mut self, wish: Wish, asker: Asker) -> Result<(), String> {
        let is_silly = wish == Wish::Upgrade && process::is_first();
        let refusal = is_silly.then(|| {
            "as process 1 this master cannot leave to a successor; start a new container instead".to_owned()
        });
        // What is known already comes first.
        self.tell_arbiter();
        let events = self.events_of(wish);
        let refusal = refusal.or_else(|| match asker {
            Asker::Signal(_) => None,
            Asker::Control { .. } if events.is_empty() && matches!(wish, Wish::Recycle(_)) => {
                Some("no worker serves".to_owned())
            }
            Asker::Control { .. } => {
                events.iter().find_map(|event| self.arbiter.objection(*event)).map(|what| what.to_string())
            }
        });
        if let Some(reason) = refusal {
            match asker {
                Asker::Signal(name) => log::warn!("signal refused signal={name} reason=\"{reason}\""),
                Asker::Control { uid } => {
                    log::warn!("wish refused wish=\"{wish}\" uid={uid} reason=\"{reason}\"");
                }
            }
            return Err(reason);
        }
        match asker {
            // These are told of by what they do.
            Asker::Signal(_) if wish == Wish::Reopen => {}
            Asker::Signal(name) => log::info!("signal received signal={name}"),
            Asker::Control { uid } => log::info!("wish received wish=\"{wish}\" uid={uid}"),
        }
        match wish {
            Wish::Reload => self.around.notifier.reloading(),
            Wish::Reopen => self.reopen_logs(),
            Wish::Level(level) => self.set_level(level),
            Wish::Upgrade => self.waits.begin_upgrade(),
            Wish::Scale(_) | Wish::Recycle(_) | Wish::Stop { .. } => {}
        }
        self.learnt.extend(events);
        self.tell_arbiter();
        Ok(())
    }

    /// What the arbiter is to observe of it.
    fn events_of(&self, wish: Wish) -> Vec<Event> {
        let wanted = self.arbiter.wanted();
        match wish {
            Wish::Reload => vec![Event::Reload],
            Wish::Upgrade => vec![Event::Upgrade],
            Wish::Scale(Scale::Up(1)) => vec![Event::Grow],
            Wish::Scale(Scale::Down(1)) => vec![Event::Shrink],
            Wish::Scale(Scale::To(workers)) => vec![Event::Resize(workers)],
            Wish::Scale(Scale::Up(workers)) => vec![Event::Resize(wanted.saturating_add(workers))],
            Wish::Scale(Scale::Down(workers)) => vec![Event::Resize(wanted.saturating_sub(workers))],
            Wish::Recycle(Some(slot)) => vec![Event::Retiring(slot)],
            Wish::Recycle(None) => self.slots_serving().map(Event::Retiring).collect(),
            Wish::Stop { now: false } => vec![Event::Drain],
            Wish::Stop { now: true } => vec![Event::Halt],
            Wish::Reopen | Wish::Level(_) => Vec::new(),
        }
    }

    /// Those that the arbiter, too, takes for serving.
    fn slots_serving(&self) -> impl Iterator<Item = SlotId> {
        let slots = self.crew.serving_workers().map(|(slot, _)| slot);
        slots.filter(|slot| self.arbiter.objection(Event::Retiring(*slot)) != Some(Objection::NotServing))
    }

    /// Whom a wish to recycle is about: these processes, whoever has their slots later.
    fn workers_meant(&self, wish: Wish) -> Vec<nix::unistd::Pid> {
        let Wish::Recycle(which) = wish else { return Vec::new() };
        let serving: Vec<SlotId> = self.slots_serving().collect();
        let is_meant = |slot: &SlotId| which.is_none_or(|which| which == *slot) && serving.contains(slot);
        self.crew.serving_workers().filter(|(slot, _)| is_meant(slot)).map(|(_, pid)| pid).collect()
    }

    fn reopen_logs(&mut self) {
        logging::reopen();
        self.make_logs(self.settings());
        log::info!("logs reopened");
        self.crew.send_to_workers(Signal::SIGUSR1);
        self.admin.reopen_log();
        self.notify.reopen_log();
    }

    /// Of master, workers and admin process, those to come included, until a reload is adopted.
    fn set_level(&mut self, level: LevelFilter) {
        log::set_max_level(level);
        // The others look there now and then.
        self.board.set_level(Some(level));
    }

    /// What was learnt goes to whom it concerns.
    pub(super) fn tell_arbiter(&mut self) {
        let now = Instant::now();
        for event in mem::take(&mut self.learnt) {
            self.queues.observe(event);
            self.arbiter.observe(event, now);
        }
    }

    /// Has those who wait know how far it is.
    pub(super) fn tell_who_waits(&mut self) {
        let Master { waits, crew, arbiter, admin, .. } = self;
        let (serving, wanted, fresh) = (crew.serving() as u32, arbiter.wanted(), arbiter.fresh());
        waits.look(serving, wanted, fresh, |pid| crew.serves(pid));
        for (line, ticket, news) in waits.take_news() {
            admin.tell(line, ticket, news);
        }
        admin.let_go(|line| waits.has_any(line), Instant::now());
    }
}

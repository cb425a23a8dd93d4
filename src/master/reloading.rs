//! The master's part in a reload: reading, refusing, taking over. Not here: when, and the trial between (the arbiter).

use super::arbiter::{Event, Generation};
use super::crew::{self, Role};
use super::{Era, Failure, Master, policy, words};
use crate::config::{Change, Changes};
use crate::logging;
use crate::scoreboard::{self, LastReload, now_millis};
use std::mem;
use std::time::Instant;

impl Master<'_> {
    /// Reads the settings again, and puts them to trial or refuses them; at once, or when the database has said whether it
    /// has room for them.
    pub(super) fn reread(&mut self) {
        match self.read_again() {
            Ok(era) => {
                let (new, old) = (&era.settings.database, &self.settings().database);
                let is_asked = new.max_connections > 0
                    && (new.max_connections, &new.url) != (old.max_connections, &old.url);
                self.read = Some(era);
                if !(is_asked && self.ask_for_room()) {
                    self.try_what_was_read(true);
                }
            }
            Err(message) => {
                self.refuse_reload(&format!("\"{message}\""), &Changes::default());
                self.learnt.push(Event::Reread(None));
            }
        }
    }

    /// Whether somebody asks now.
    fn ask_for_room(&mut self) -> bool {
        let Some(settings) = self.read.as_ref().map(|era| era.settings.clone()) else { return false };
        let board = self.board;
        match self.fork("help", |roles| crew::exit_code((roles.check_limit)(&settings, board))) {
            Ok(pid) => {
                self.crew.add(Role::Limit, pid, Instant::now());
                true
            }
            Err(error) => {
                log::error!("limit helper could not be forked error=\"{error}\"");
                false
            }
        }
    }

    /// Puts what was read to trial, or refuses it.
    pub(super) fn try_what_was_read(&mut self, has_room: bool) {
        let Some(era) = self.read.take() else { return };
        let policy = if has_room {
            let policy = policy(&era.settings);
            self.trial = Some(era);
            Some(policy)
        } else {
            self.refuse_reload(
                "\"the database has no room for database.max_connections; the line before says why\"",
                &era.changes,
            );
            None
        };
        self.learnt.push(Event::Reread(policy));
    }

    pub(super) fn refuse_reload(&mut self, reason: &str, changes: &Changes) {
        // Whoever has read the log finds it on the board, too.
        self.keep_reload(false, format!("reload refused reason={reason}"), changes);
        log::error!("reload refused reason={reason}");
        self.waits.reload_is_refused(reason);
        self.board.count_reload(false);
        self.around.notifier.reloaded();
    }

    fn keep_reload(&self, is_adopted: bool, text: String, Changes { taken, fixed }: &Changes) {
        let of = |changes: &[Change], is_fixed| -> Vec<_> {
            let one = |change: &Change| scoreboard::Change {
                setting: change.key.clone(),
                values: change.values.clone(),
                is_fixed,
            };
            changes.iter().map(one).collect()
        };
        let changes = [of(taken, false), of(fixed, true)].concat();
        self.board.keep_reload(&LastReload { at: now_millis(), is_adopted, text, changes, has_more: false });
    }

    /// Everything that can be refused at once: the file, and new addresses.
    fn read_again(&self) -> Result<Era, String> {
        let mut settings = (self.roles.reload)()?;
        settings.check_after(self.settings())?;
        let changes = settings.follow(self.settings());
        let sockets = self.current.1.sockets.succeed(&settings, self.around.accounts.socket);
        let sockets = sockets.map_err(|(bind, error)| Failure::Bind { bind, error }.to_string())?;
        settings.plain_places = sockets.plain_places(&settings, &self.queues);
        words::say_changes(&changes);
        Ok(Era { settings, sockets, nursery: None, changes })
    }

    pub(super) fn adopt(&mut self, generation: Generation) {
        let Some(era) = self.trial.take() else { return };
        let settings = &era.settings;
        if let Err(error) = logging::open(settings, self.around.accounts.log_owner()) {
            log::error!("error log could not be opened error=\"{error}\"");
        }
        if settings.backlog != self.settings().backlog {
            era.sockets.set_backlog(settings.backlog);
            self.queues.set_backlog(settings.backlog);
        }
        let (_, before) = mem::replace(&mut self.current, (generation, era));
        self.leaving.push(before.sockets);
        self.close_nursery(before.nursery);
        self.board.count_reload(true);
        self.board.set_level(None);
        self.waits.reload_is_adopted(generation);
        self.admin.replace();
        self.notify.replace();
        let changes = mem::take(&mut self.current.1.changes);
        self.keep_reload(true, format!("reload adopted generation={generation}"), &changes);
        log::info!("reload adopted generation={generation}");
    }
}

//! The master's part in a reload: reading, refusing, taking over. Not here: when, and the trial between (the arbiter).

use super::arbiter::{Event, Generation};
use super::{Era, Failure, Master, policy, words};
use crate::logging;
use std::mem;

impl Master<'_> {
    /// Puts the settings, read again, to trial, or refuses them.
    pub(super) fn reread(&mut self) {
        let policy = match self.read_again() {
            Ok(era) => {
                let policy = policy(&era.settings);
                self.trial = Some(era);
                Some(policy)
            }
            Err(message) => {
                self.refuse_reload(&format!("\"{message}\""));
                None
            }
        };
        self.learnt.push(Event::Reread(policy));
    }

    pub(super) fn refuse_reload(&mut self, reason: &str) {
        // Whoever has read the log finds it on the board, too.
        self.board.keep_reload(&format!("reload refused reason={reason}"));
        log::error!("reload refused reason={reason}");
        self.board.count_reload(false);
        self.around.notifier.reloaded();
    }

    /// Everything that can be refused at once: the file, and new addresses.
    fn read_again(&self) -> Result<Era, String> {
        let mut settings = (self.roles.reload)()?;
        settings.check_after(self.settings())?;
        let changes = settings.follow(self.settings());
        let sockets = self.current.1.sockets.succeed(&settings, self.around.accounts.socket);
        let sockets = sockets.map_err(|(bind, error)| Failure::Bind { bind, error }.to_string())?;
        words::say_changes(&changes);
        Ok(Era { settings, sockets, nursery: None })
    }

    pub(super) fn adopt(&mut self, generation: Generation) {
        let Some(era) = self.trial.take() else { return };
        let settings = &era.settings;
        if let Err(error) =
            logging::open(&settings.errorlog, settings.loglevel, self.around.accounts.log_owner())
        {
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
        self.admin.replace();
        self.board.keep_reload(&format!("reload adopted generation={generation}"));
        log::info!("reload adopted generation={generation}");
    }
}

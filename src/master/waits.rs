//! Who waits for the outcome of a wish, and how far it is: the master notes here what happens, and takes from here what is to
//! be told. Not here: the lines over which it is told.

use super::arbiter::Generation;
use crate::control::{News, Stage, Wish};
use nix::unistd::Pid;

/// Wishes that are waited for at a time, over all lines.
const MAX_WAITS: usize = 32;

/// What a wait is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Goal {
    Reload(Reload),
    Upgrade,
    /// So many workers, neither more nor less.
    Workers(u32),
    /// These have left to others.
    Others(Vec<Pid>),
}

/// How far a reload is that somebody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reload {
    /// The settings are read after whatever is under way.
    Asked,
    /// Read, or on trial.
    Tried,
    Adopted(Generation),
}

impl Goal {
    /// `None`: there is nothing to wait for, here.
    pub(super) fn of(wish: Wish, wanted: u32, workers: Vec<Pid>) -> Option<Goal> {
        match wish {
            Wish::Reload => Some(Goal::Reload(Reload::Asked)),
            Wish::Upgrade => Some(Goal::Upgrade),
            Wish::Scale(_) => Some(Goal::Workers(wanted)),
            Wish::Recycle(_) => Some(Goal::Others(workers)),
            // The end of the process is the outcome.
            Wish::Stop { .. } => None,
            Wish::Reopen | Wish::Level(_) => None,
        }
    }
}

struct Wait {
    line: u64,
    ticket: u32,
    goal: Goal,
    /// What was told last.
    stage: Option<Stage>,
}

#[derive(Default)]
pub(super) struct Waits {
    waits: Vec<Wait>,
    news: Vec<(u64, u32, News)>,
    /// Why the upgrade under way came to nothing, as soon as that is known.
    upgrade_failed: Option<String>,
}

impl Waits {
    pub(super) fn has_room(&self) -> bool {
        self.waits.len() < MAX_WAITS
    }

    pub(super) fn add(&mut self, line: u64, ticket: u32, goal: Goal) {
        self.waits.push(Wait { line, ticket, goal, stage: None });
    }

    pub(super) fn forget(&mut self, line: u64, ticket: u32) {
        self.waits.retain(|wait| (wait.line, wait.ticket) != (line, ticket));
    }

    /// Nobody is at the other end.
    pub(super) fn forget_line(&mut self, line: u64) {
        self.waits.retain(|wait| wait.line != line);
    }

    pub(super) fn has_any(&self, line: u64) -> bool {
        self.waits.iter().any(|wait| wait.line == line)
    }

    /// What is to be told since this was last asked.
    pub(super) fn take_news(&mut self) -> Vec<(u64, u32, News)> {
        std::mem::take(&mut self.news)
    }

    // What happened

    pub(super) fn reload_is_put_off(&mut self) {
        self.progress(|goal| *goal == Goal::Reload(Reload::Asked), Stage::PutOff);
    }

    /// The settings are read now: for all that asked until now.
    pub(super) fn reload_begins(&mut self) {
        self.progress(|goal| *goal == Goal::Reload(Reload::Asked), Stage::Reading);
        self.turn(Reload::Asked, Reload::Tried);
    }

    pub(super) fn reload_is_on_trial(&mut self, generation: Generation) {
        self.progress(|goal| *goal == Goal::Reload(Reload::Tried), Stage::Trial { generation });
    }

    pub(super) fn reload_is_refused(&mut self, reason: &str) {
        let news = News::Refused(reason.trim_matches('"').to_owned());
        self.end(|goal| *goal == Goal::Reload(Reload::Tried), &news);
    }

    pub(super) fn reload_is_adopted(&mut self, generation: Generation) {
        self.progress(|goal| *goal == Goal::Reload(Reload::Tried), Stage::Adopted { generation });
        self.turn(Reload::Tried, Reload::Adopted(generation));
    }

    /// The last worker of the generations before was told to leave.
    pub(super) fn reload_is_done(&mut self, generation: Generation) {
        let news = News::Done(format!("generation {generation} serves"));
        self.end(
            |goal| matches!(goal, Goal::Reload(Reload::Adopted(before)) if *before <= generation),
            &news,
        );
    }

    /// The workers come back that rested beside another master: what a reload means then.
    pub(super) fn rest_is_over(&mut self) {
        let news = News::Done("the workers come back, with the settings that they had".to_owned());
        self.end(|goal| *goal == Goal::Reload(Reload::Asked), &news);
    }

    pub(super) fn begin_upgrade(&mut self) {
        self.upgrade_failed.get_or_insert_default().clear();
    }

    pub(super) fn upgrade_is_started(&mut self, pid: Pid) {
        self.progress(|goal| *goal == Goal::Upgrade, Stage::Started { pid: pid.as_raw() as u32 });
    }

    /// The first reason counts: the others follow from it.
    pub(super) fn upgrade_will_fail(&mut self, reason: &str) {
        let known = self.upgrade_failed.get_or_insert_default();
        if known.is_empty() {
            reason.trim_matches('"').clone_into(known);
        }
    }

    pub(super) fn upgrade_is_refused(&mut self) {
        let reason = self.upgrade_failed.take().filter(|reason| !reason.is_empty());
        let reason = reason.unwrap_or_else(|| "the server is about to stop".to_owned());
        self.end(|goal| *goal == Goal::Upgrade, &News::Refused(reason));
    }

    /// Both masters serve.
    pub(super) fn upgrade_is_beside(&mut self) {
        let news = News::Done("both masters serve until one of them is stopped".to_owned());
        self.end(|goal| *goal == Goal::Upgrade, &news);
    }

    /// The server is the successor's.
    pub(super) fn upgrade_is_done(&mut self, successor: Option<Pid>) {
        let pid = successor.map_or_else(String::new, |pid| format!(" pid={pid}"));
        self.end(|goal| *goal == Goal::Upgrade, &News::Done(format!("the new master has the server{pid}")));
        let gone = News::Refused("a new master has the server, and has read the settings itself".to_owned());
        self.end(|_| true, &gone);
    }

    pub(super) fn server_stops(&mut self) {
        self.end(|_| true, &News::Refused("the server stops".to_owned()));
    }

    /// How things stand now: so many serve, are wanted, and are of the generation that serves.
    pub(super) fn look(&mut self, serving: u32, wanted: u32, fresh: u32, serves: impl Fn(Pid) -> bool) {
        for wait in &mut self.waits {
            let (stage, news) = match &wait.goal {
                Goal::Reload(Reload::Adopted(_)) => (Some(Stage::Workers { are: fresh, wanted }), None),
                Goal::Reload(Reload::Asked | Reload::Tried) | Goal::Upgrade => (None, None),
                Goal::Workers(goal) if *goal != wanted => {
                    (None, Some(News::Refused(format!("by now, {wanted} workers are wanted"))))
                }
                Goal::Workers(goal) if serving == *goal => {
                    (None, Some(News::Done(format!("{serving} workers serve"))))
                }
                Goal::Workers(_) => (Some(Stage::Workers { are: serving, wanted }), None),
                Goal::Others(pids) => match pids.iter().filter(|pid| serves(**pid)).count() as u32 {
                    0 => (None, Some(News::Done(format!("{} workers were replaced", pids.len())))),
                    workers => (Some(Stage::Left { workers }), None),
                },
            };
            let is_new = stage.is_some() && wait.stage != stage;
            wait.stage = stage.or(wait.stage);
            let stage = stage.filter(|_| is_new).map(News::Progress);
            self.news.extend(stage.or(news).map(|news| (wait.line, wait.ticket, news)));
        }
        self.drop_the_told();
    }

    fn progress(&mut self, is_meant: impl Fn(&Goal) -> bool, stage: Stage) {
        for wait in self.waits.iter_mut().filter(|wait| is_meant(&wait.goal)) {
            if wait.stage.replace(stage) != Some(stage) {
                self.news.push((wait.line, wait.ticket, News::Progress(stage)));
            }
        }
    }

    fn turn(&mut self, from: Reload, to: Reload) {
        for wait in self.waits.iter_mut().filter(|wait| wait.goal == Goal::Reload(from)) {
            wait.goal = Goal::Reload(to);
        }
    }

    fn end(&mut self, is_meant: impl Fn(&Goal) -> bool, news: &News) {
        let ended = self.waits.iter().filter(|wait| is_meant(&wait.goal));
        self.news.extend(ended.map(|wait| (wait.line, wait.ticket, news.clone())));
        self.drop_the_told();
    }

    /// Whoever was told the outcome waits no more.
    fn drop_the_told(&mut self) {
        let is_outcome = |news: &News| matches!(news, News::Done(_) | News::Refused(_));
        let told = |wait: &Wait| {
            let mut news = self.news.iter().filter(|(_, _, news)| is_outcome(news));
            news.any(|(line, ticket, _)| (*line, *ticket) == (wait.line, wait.ticket))
        };
        self.waits.retain(|wait| !told(wait));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(waits: &mut Waits) -> Vec<(u32, News)> {
        waits.take_news().into_iter().map(|(_, ticket, news)| (ticket, news)).collect()
    }

    fn done(text: &str) -> News {
        News::Done(text.to_owned())
    }

    fn refused(text: &str) -> News {
        News::Refused(text.to_owned())
    }

    #[test]
    fn a_reload_counts_for_those_who_asked_before_the_settings_were_read() {
        let mut waits = Waits::default();
        let asked = || Goal::Reload(Reload::Asked);
        waits.add(1, 1, asked());
        waits.reload_begins();
        waits.add(1, 2, asked());
        waits.reload_is_refused("\"workers: got 0\"");
        let reading = News::Progress(Stage::Reading);
        assert_eq!(told(&mut waits), [(1, reading.clone()), (1, refused("workers: got 0"))]);
        waits.reload_begins();
        waits.reload_is_on_trial(2);
        waits.add(2, 3, asked());
        waits.reload_is_adopted(2);
        waits.look(2, 2, 1, |_| true);
        waits.look(2, 2, 1, |_| true);
        waits.reload_is_done(2);
        let news = [
            reading,
            News::Progress(Stage::Trial { generation: 2 }),
            News::Progress(Stage::Adopted { generation: 2 }),
            News::Progress(Stage::Workers { are: 1, wanted: 2 }),
            done("generation 2 serves"),
        ];
        assert_eq!(told(&mut waits), news.map(|news| (2, news)));
        assert!(waits.has_any(2) && !waits.has_any(1));
        waits.server_stops();
        assert_eq!(told(&mut waits), [(3, refused("the server stops"))]);
    }

    #[test]
    fn a_size_is_reached_or_overtaken_and_workers_are_replaced_one_by_one() {
        let mut waits = Waits::default();
        waits.add(1, 1, Goal::Workers(3));
        waits.add(1, 2, Goal::Workers(2));
        waits.add(1, 3, Goal::Others(vec![Pid::from_raw(7), Pid::from_raw(8)]));
        waits.look(2, 3, 0, |_| true);
        let left = |workers| News::Progress(Stage::Left { workers });
        assert_eq!(
            told(&mut waits),
            [
                (1, News::Progress(Stage::Workers { are: 2, wanted: 3 })),
                (2, refused("by now, 3 workers are wanted")),
                (3, left(2))
            ]
        );
        waits.look(3, 3, 0, |pid| pid.as_raw() == 7);
        assert_eq!(told(&mut waits), [(1, done("3 workers serve")), (3, left(1))]);
        waits.look(3, 3, 0, |_| false);
        assert_eq!(told(&mut waits), [(3, done("2 workers were replaced"))]);
        assert!(!waits.has_any(1));
    }

    #[test]
    fn an_upgrade_fails_for_the_first_reason_and_takes_the_other_waits_along() {
        let mut waits = Waits::default();
        waits.begin_upgrade();
        waits.add(1, 1, Goal::Upgrade);
        waits.upgrade_will_fail("\"too late\"");
        waits.upgrade_will_fail("exited");
        waits.upgrade_is_refused();
        assert_eq!(told(&mut waits), [(1, refused("too late"))]);
        waits.begin_upgrade();
        waits.add(1, 2, Goal::Upgrade);
        waits.add(1, 3, Goal::Workers(2));
        waits.upgrade_is_done(Some(Pid::from_raw(9)));
        let told = told(&mut waits);
        assert_eq!(told[0], (2, done("the new master has the server pid=9")));
        assert!(matches!(&told[1], (3, News::Refused(_))));
        assert_eq!(told.len(), 2);
    }

    #[test]
    fn there_is_room_for_so_many() {
        let mut waits = Waits::default();
        for ticket in 0..MAX_WAITS as u32 {
            assert!(waits.has_room());
            waits.add(1, ticket, Goal::Upgrade);
        }
        assert!(!waits.has_room());
        waits.forget(1, 3);
        assert!(waits.has_room());
        waits.forget_line(1);
        assert!(!waits.has_any(1));
    }
}

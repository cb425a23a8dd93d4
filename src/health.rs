//! Whether the server lives, and whether it should be sent requests: what the board says of it, for whoever answers probes.
//! Not here: anything that asks a worker, HTTP.

use crate::scoreboard::{Board, Phase, PoolState};
use serde_json::{Value, json};
use std::time::Duration;

/// A master or an event loop that was silent for so long hangs, as far as can be told from outside.
pub(crate) const SILENT: Duration = Duration::from_secs(2);

/// Of what `Verdict::to_text` gives.
pub(crate) const MEDIA_TYPE: &str = "application/json";

/// What a probe asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Probe {
    Alive,
    Ready,
    /// Ready also by the database.
    ReadyWithDatabase,
}

impl Probe {
    /// The same, as its query has it: `database` asks for that, too.
    pub(crate) fn with(self, query: Option<&str>) -> Probe {
        let names_it = |field: &str| field.split('=').next() == Some("database");
        let is_asked = query.is_some_and(|query| query.split('&').any(names_it));
        match self {
            Probe::Ready if is_asked => Probe::ReadyWithDatabase,
            Probe::Alive | Probe::Ready | Probe::ReadyWithDatabase => self,
        }
    }
}

/// What was looked at, and all that is wrong with it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    reasons: Vec<String>,
    workers: Option<Workers>,
    pools: Option<Pools>,
    silence: Duration,
}

/// What the board showed of the workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Workers {
    ready: u32,
    /// They say that they serve, and their event loop is silent.
    silent: u32,
    wanted: u32,
}

/// What those that are ready say of their database connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Pools {
    usable: u32,
    down: u32,
}

impl Verdict {
    pub(crate) fn is_good(&self) -> bool {
        self.reasons.is_empty()
    }

    /// The body of the answer.
    pub(crate) fn to_text(&self) -> String {
        format!("{:#}\n", self.to_json())
    }

    fn to_json(&self) -> Value {
        let status = if self.is_good() { "ok" } else { "unavailable" };
        let mut told = json!({
            "status": status,
            "reasons": self.reasons,
            "master_silent_seconds": self.silence.as_secs_f64(),
        });
        if let Some(Workers { ready, silent, wanted }) = self.workers {
            told["workers"] = json!({ "ready": ready, "silent": silent, "wanted": wanted });
        }
        if let Some(Pools { usable, down }) = self.pools {
            told["database"] = json!({ "usable": usable, "down": down });
        }
        told
    }
}

pub(crate) fn judge(probe: Probe, board: &Board, now: u64) -> Verdict {
    match probe {
        Probe::Alive => alive(board, now),
        Probe::Ready => ready(board, false, now),
        Probe::ReadyWithDatabase => ready(board, true, now),
    }
}

/// Whether the master's loop turns.
fn alive(board: &Board, now: u64) -> Verdict {
    let silence = Duration::from_millis(now.saturating_sub(board.standing().said));
    Verdict { reasons: master_hangs(silence).into_iter().collect(), workers: None, pools: None, silence }
}

/// Whether enough workers serve, and will go on to.
fn ready(board: &Board, with_database: bool, now: u64) -> Verdict {
    let mut workers = Workers::default();
    let mut pools = Pools::default();
    for (_, seat) in board.seats_used() {
        match seat.phase() {
            Phase::Serving | Phase::Retiring if seat.silence(now) < SILENT => {
                workers.ready += 1;
                match seat.pool_state() {
                    PoolState::Absent => {}
                    PoolState::Usable => pools.usable += 1,
                    PoolState::Down => pools.down += 1,
                }
            }
            Phase::Serving | Phase::Retiring => workers.silent += 1,
            Phase::Booting | Phase::Draining => {}
        }
    }
    // After the seats: why workers drain was said before they did.
    let standing = board.standing();
    let silence = Duration::from_millis(now.saturating_sub(standing.said));
    workers.wanted = standing.workers_wanted;
    let is_leaving = board.is_leaving() || standing.is_stopping;
    let reasons = if standing.is_succeeded {
        // Who asks is with one of the last workers; the next connection is to the new server, which was ready.
        Vec::new()
    } else {
        let is_leaving = is_leaving.then(|| "the server is about to stop".into());
        let database = with_database.then(|| without_database(workers, pools)).flatten();
        [master_hangs(silence), is_leaving, lack(workers), database].into_iter().flatten().collect()
    };
    let pools = with_database.then_some(pools);
    Verdict { reasons, workers: Some(workers), pools, silence }
}

fn master_hangs(silence: Duration) -> Option<String> {
    (silence >= SILENT).then(|| format!("the master has been silent for {silence:.1?}"))
}

/// Half of the workers, and at least one, are enough: a reload or a crash must not take a server out of rotation, and one
/// that is left alone with the load of many should be.
fn lack(workers: Workers) -> Option<String> {
    let Workers { ready, silent, wanted } = workers;
    let needed = wanted.div_ceil(2).max(1);
    (ready < needed)
        .then(|| format!("{ready} of {wanted} workers are ready, {silent} are silent, {needed} are needed"))
}

/// One worker that reaches it is enough: what keeps the others from it is no reason to send everybody away.
fn without_database(workers: Workers, pools: Pools) -> Option<String> {
    let Pools { usable, down } = pools;
    // Why is in the log; it might name hosts and accounts.
    match (usable, down) {
        (0, 0) if workers.ready == 0 => None,
        (0, 0) => Some("no database is set".into()),
        (0, _) => Some("the database cannot be reached: the last attempt of every worker failed".into()),
        (_, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scoreboard::Standing;
    use std::sync::atomic::Ordering;

    const NOW: u64 = 1_000_000;

    fn board(wanted: u32, seats: &[(Phase, u64)]) -> Board {
        let board = Board::stub(8);
        board.stand(&Standing { workers_wanted: wanted, said: NOW, ..Standing::default() });
        for (slot, (phase, silent)) in seats.iter().enumerate() {
            let seat = board.take_seat(slot as u32);
            seat.set_phase(*phase);
            seat.beat_at.store(NOW - silent, Ordering::Relaxed);
        }
        board
    }

    #[test]
    fn half_of_the_workers_are_enough() {
        use Phase::{Booting, Draining, Retiring, Serving};
        for (wanted, seats, is_ready) in [
            (1, &[][..], false),
            (1, &[(Booting, 0)], false),
            (1, &[(Serving, 0)], true),
            (1, &[(Serving, 5000)], false),
            (1, &[(Draining, 0)], false),
            (2, &[(Retiring, 0)], true),
            (3, &[(Serving, 0)], false),
            (3, &[(Serving, 0), (Serving, 1999)], true),
            (3, &[(Serving, 0), (Serving, 2000)], false),
        ] {
            assert_eq!(ready(&board(wanted, seats), false, NOW).is_good(), is_ready, "{wanted} {seats:?}");
        }
    }

    #[test]
    fn a_server_that_leaves_or_whose_master_hangs_is_not_ready() {
        let fine = board(1, &[(Phase::Serving, 0)]);
        assert!(ready(&fine, false, NOW).is_good() && alive(&fine, NOW + 1999).is_good());
        assert!(!alive(&fine, NOW + 2000).is_good());
        assert_eq!(ready(&fine, false, NOW + 2000).reasons.len(), 2, "the worker is silent, too");
        fine.set_leaving();
        assert!(alive(&fine, NOW).is_good());
        assert_eq!(ready(&fine, false, NOW).reasons, ["the server is about to stop"]);
    }

    #[test]
    fn a_server_that_another_has_taken_the_place_of_sends_nobody_away() {
        let gone = board(2, &[(Phase::Draining, 0), (Phase::Draining, 0)]);
        let standing = Standing { workers_wanted: 2, is_stopping: true, said: NOW, ..Standing::default() };
        gone.stand(&standing);
        assert!(!ready(&gone, false, NOW).is_good());
        gone.stand(&Standing { is_succeeded: true, ..standing });
        assert!(ready(&gone, false, NOW).is_good());
    }

    #[test]
    fn one_pool_that_can_be_used_is_enough_for_who_asks() {
        use PoolState::{Absent, Down, Usable};
        for (pools, is_ready) in [
            ([Absent, Absent], false),
            ([Usable, Usable], true),
            ([Usable, Down], true),
            ([Down, Down], false),
            ([Absent, Down], false),
        ] {
            let board = board(2, &[(Phase::Serving, 0), (Phase::Serving, 0), (Phase::Draining, 0)]);
            for (slot, state) in pools.into_iter().chain([Usable]).enumerate() {
                board.seat(slot as u32).set_pool_state(state);
            }
            assert_eq!(
                judge(Probe::Ready.with(Some("a&database=1")), &board, NOW).is_good(),
                is_ready,
                "{pools:?}"
            );
            assert!(judge(Probe::Ready.with(Some("databases")), &board, NOW).is_good());
            assert!(judge(Probe::Alive.with(Some("database")), &board, NOW).is_good());
            board.take_seat(0);
            assert_eq!(board.seat(0).pool_state(), Absent, "the next worker says it anew");
        }
    }
}

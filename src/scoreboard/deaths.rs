//! The last deaths of workers, with the requests that each had under way. They stand in shared memory because that is
//! the simple way to a process that is forked before they happen: it finds them where the master wrote them.
//! Not here: how a cause is found, and the log.

use super::in_flight::{RECORDS, Record, Requests, SeenRequest};
use super::text::Text;
use std::cmp::Reverse;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// How many deaths are kept.
pub(super) const KEPT: u64 = 32;

/// How a worker died; read from the board it is as untrusted as all that stands there, and escaped.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Death {
    pub(crate) slot: u32,
    pub(crate) pid: u32,
    pub(crate) cause: String,
    pub(crate) age: Duration,
    /// Requests answered.
    pub(crate) requests: u64,
    /// Requests under way.
    pub(crate) in_flight: u32,
}

#[derive(Default)]
#[repr(C)]
struct Entry {
    /// The death's number from 1; 0: none yet.
    number: AtomicU64,
    /// On the clock of `now_millis`.
    at: AtomicU64,
    age_millis: AtomicU64,
    requests: AtomicU64,
    slot: AtomicU32,
    pid: AtomicU32,
    in_flight: AtomicU32,
    cause: Text<8>,
    lost: [Record; RECORDS],
}

#[derive(Default)]
#[repr(C)]
pub(crate) struct Deaths {
    entries: [Entry; KEPT as usize],
}

impl Deaths {
    /// Keeps the death with this number, counted from 1, and the records of what was under way; the oldest makes room.
    pub(crate) fn keep(&self, number: u64, death: &Death, under_way: &Requests, now: u64) {
        let entry = self.entry(number);
        entry.number.store(0, Relaxed);
        entry.at.store(now, Relaxed);
        entry.age_millis.store(death.age.as_millis() as u64, Relaxed);
        entry.requests.store(death.requests, Relaxed);
        entry.slot.store(death.slot, Relaxed);
        entry.pid.store(death.pid, Relaxed);
        entry.in_flight.store(death.in_flight, Relaxed);
        entry.cause.write(&death.cause);
        for (kept, record) in entry.lost.iter().zip(&under_way.records) {
            kept.copy_from(record);
        }
        entry.number.store(number, Relaxed);
    }

    /// The death with this number, if it is still kept, and the requests that it cost: fewer than were in flight, where
    /// there was no record left.
    pub(crate) fn read(&self, number: u64) -> Option<(Death, Vec<SeenRequest>)> {
        let entry = self.entry(number);
        if number == 0 || entry.number.load(Relaxed) != number {
            return None;
        }
        let death = Death {
            slot: entry.slot.load(Relaxed),
            pid: entry.pid.load(Relaxed),
            cause: entry.cause.read(),
            age: Duration::from_millis(entry.age_millis.load(Relaxed)),
            requests: entry.requests.load(Relaxed),
            in_flight: entry.in_flight.load(Relaxed),
        };
        let at = entry.at.load(Relaxed);
        Some((death, entry.lost.iter().filter_map(|record| record.see(at)).collect()))
    }

    /// All that are kept, the latest first, with how long ago each was and the requests that it cost.
    pub(crate) fn all(&self, now: u64) -> Vec<(Duration, Death, Vec<SeenRequest>)> {
        let mut numbers: Vec<u64> = self.entries.iter().map(|entry| entry.number.load(Relaxed)).collect();
        numbers.sort_unstable_by_key(|number| Reverse(*number));
        let found = numbers.into_iter().filter_map(|number| {
            let (death, lost) = self.read(number)?;
            let ago = Duration::from_millis(now.saturating_sub(self.entry(number).at.load(Relaxed)));
            // One that was overwritten meanwhile is neither of the two.
            (self.entry(number).number.load(Relaxed) == number).then_some((ago, death, lost))
        });
        found.collect()
    }

    fn entry(&self, number: u64) -> &Entry {
        &self.entries[(number % KEPT) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scoreboard::{Board, Place, RequestPhase};

    #[test]
    fn the_last_deaths_are_kept_with_what_was_under_way() {
        let board = Board::stub(1);
        let seat = board.seat(0);
        let (place, gone) = (Place::default(), Place::default());
        place.begin(&seat.in_flight, "POST", "/buy", 4000).enter(RequestPhase::Database);
        gone.begin(&seat.in_flight, "GET", "/", 4000);
        gone.end(&seat.in_flight);
        let death = |number: u64, cause: &str| Death {
            slot: 0,
            pid: number as u32,
            cause: cause.to_owned(),
            age: Duration::from_millis(1234),
            requests: 5,
            in_flight: 1,
        };
        for number in 1..=KEPT + 3 {
            board.deaths.keep(number, &death(number, "killed by \"SIGSEGV\""), &seat.in_flight, 5000);
        }
        seat.clear();
        let kept: Vec<u64> = (0..2 * KEPT).filter(|number| board.deaths.read(*number).is_some()).collect();
        assert_eq!(kept, (4..=KEPT + 3).collect::<Vec<u64>>());
        let all = board.deaths.all(6000);
        let pids: Vec<u64> = all.iter().map(|(_, death, _)| u64::from(death.pid)).collect();
        assert_eq!(pids, (4..=KEPT + 3).rev().collect::<Vec<u64>>());
        assert_eq!(all[0].0, Duration::from_secs(1));
        let lost = SeenRequest {
            method: "POST".into(),
            path: "/buy".into(),
            phase: RequestPhase::Database,
            age: Duration::from_secs(1),
        };
        let last = death(KEPT + 3, "killed by \\x22SIGSEGV\\x22");
        assert_eq!(board.deaths.read(KEPT + 3), Some((last, vec![lost])));
    }
}

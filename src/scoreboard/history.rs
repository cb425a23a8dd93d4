//! The last 15 minutes in figures, a row every two seconds. It stands in shared memory so that the next admin process goes on with it,
//! and a reload leaves no gap. The admin process alone writes and reads it; its memory is touched only when there is one.
//! Not here: which figures.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

pub(crate) const EVERY: Duration = Duration::from_secs(2);
pub(crate) const KEPT: Duration = Duration::from_secs(15 * 60);

const ROWS: usize = (KEPT.as_millis() / EVERY.as_millis()) as usize;
/// Figures of a row.
pub(crate) const WIDTH: usize = 48;

/// A row: when it was taken, on the clock of `now_millis`, and the figures; 0: never.
#[derive(Debug)]
#[repr(C)]
struct Row {
    at: AtomicU64,
    figures: [AtomicU64; WIDTH],
}

#[derive(Debug)]
#[repr(C)]
pub(crate) struct History {
    rows: [Row; ROWS],
}

impl History {
    /// Keeps the figures of this moment in the place of those that are 15 minutes old. While one process takes the other's
    /// place both may keep a row: the first of the two seconds counts.
    pub(crate) fn keep(&self, now: u64, figures: &[u64; WIDTH]) {
        let turn = |at: u64| at / EVERY.as_millis() as u64;
        let row = &self.rows[turn(now) as usize % ROWS];
        let before = row.at.load(Relaxed);
        if before != 0 && turn(before) == turn(now) {
            return;
        }
        row.at.store(0, Relaxed);
        for (kept, figure) in row.figures.iter().zip(figures) {
            kept.store(*figure, Relaxed);
        }
        row.at.store(now, Relaxed);
    }

    /// What was kept after `since` and is not older than 15 minutes, the oldest first.
    pub(crate) fn after(&self, since: u64, now: u64) -> Vec<(u64, [u64; WIDTH])> {
        let oldest = since.max(now.saturating_sub(KEPT.as_millis() as u64));
        let rows = self.rows.iter().filter_map(|row| {
            let at = row.at.load(Relaxed);
            (at > oldest && at <= now)
                .then(|| (at, row.figures.each_ref().map(|figure| figure.load(Relaxed))))
        });
        let mut rows: Vec<_> = rows.collect();
        rows.sort_unstable_by_key(|(at, _)| *at);
        rows
    }
}

#[cfg(test)]
mod tests {
    use crate::scoreboard::Board;
    use crate::scoreboard::history::{EVERY, ROWS, WIDTH};

    #[test]
    fn the_last_rows_are_kept_in_their_order_and_no_others() {
        let board = Board::stub(1);
        let every = EVERY.as_millis() as u64;
        let start = 1_000_000_007;
        assert!(board.history.after(0, start).is_empty());
        let total = ROWS as u64 + 5;
        for number in 0..total {
            board.history.keep(start + number * every, &[number; WIDTH]);
        }
        let now = start + (total - 1) * every;
        let numbers = |since| -> Vec<u64> {
            board.history.after(since, now).iter().map(|(_, figures)| figures[WIDTH - 1]).collect()
        };
        assert_eq!(numbers(0), (5..total).collect::<Vec<u64>>());
        assert_eq!(numbers(now - 2 * every), [total - 2, total - 1]);
        assert!(numbers(now).is_empty());
        board.history.keep(now + 1, &[9; WIDTH]);
        assert_eq!(numbers(now - 1), [total - 1], "the first of two counts");
        // A time in which nobody kept anything is a gap, and what is older is not told.
        let later = now + 10 * 60 * 1000;
        board.history.keep(later, &[7; WIDTH]);
        let told = board.history.after(0, later);
        assert!(told.iter().all(|(at, _)| later - at < 15 * 60 * 1000), "{}", told.len());
        assert!(told.len() > 100 && told.len() < ROWS / 2, "{}", told.len());
    }
}

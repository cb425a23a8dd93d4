//! What of the workers' memory is their own. The kernel walks all pages of a process to tell it, some 40 ms for 1 GiB, so it is
//! asked seldom, only when somebody wants to know, and on a thread: who asks whether the server lives does not wait for it.
//! Not here: how one process is asked.

use super::process::{Share, share};
use crate::scoreboard::Board;
use nix::time::{ClockId, clock_gettime};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// What is told is no older than this when it is first told, unless a look took so long that a longer rest is due.
const EVERY: Duration = Duration::from_secs(5);
/// A look is followed by a rest of this many times the processor's time that it took: at most half a hundredth of a core.
const REST: u32 = 200;
/// So long an answer waits for a look; after that it has what was seen before.
const PATIENCE: Duration = Duration::from_millis(500);

/// By pid.
pub(super) type Shares = HashMap<u32, Share>;

#[derive(Default)]
pub(super) struct Memory {
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    shares: Arc<Shares>,
    is_looking: bool,
    /// `None`: at once.
    next: Option<Instant>,
}

impl Memory {
    /// What there is to know; those who ask while somebody looks have what was seen before.
    pub(super) async fn look(&self, board: Board) -> Arc<Shares> {
        let is_due = {
            let mut seen = lock(&self.seen);
            let is_due = !seen.is_looking && seen.next.is_none_or(|next| next <= Instant::now());
            seen.is_looking |= is_due;
            is_due
        };
        if is_due {
            let seen = Arc::clone(&self.seen);
            let _ = timeout(PATIENCE, spawn_blocking(move || look_at_all(board, &seen))).await;
        }
        Arc::clone(&lock(&self.seen).shares)
    }
}

fn look_at_all(board: Board, seen: &Mutex<Seen>) {
    let begin = time_spent();
    let pids = board.seats_used().filter_map(|(_, seat)| seat.tenure.pid());
    let shares: Shares = pids.filter_map(|pid| Some((pid, share(pid)?))).collect();
    let rest = (time_spent().saturating_sub(begin) * REST).max(EVERY);
    *lock(seen) =
        Seen { shares: Arc::new(shares), is_looking: false, next: Instant::now().checked_add(rest) };
}

/// The processor's time that this thread has had.
fn time_spent() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("Linux has this clock").into()
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_look_is_made_at_once_and_then_not_again_for_a_while() {
        let board = Board::stub(2);
        let memory = Memory::default();
        assert!(memory.look(board).await.is_empty());
        board.take_seat(0).tenure.begin(std::process::id(), 1);
        assert!(memory.look(board).await.is_empty(), "it has just looked");
        lock(&memory.seen).next = None;
        // A busy machine may take longer than who asks has patience.
        while memory.look(board).await.is_empty() {}
        let share = memory.look(board).await[&std::process::id()];
        assert!(share.private_bytes > 0 && share.pss_bytes >= share.private_bytes, "{share:?}");
    }
}

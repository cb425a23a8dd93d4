//! The budget of database connections of the whole server: a token for each, in memory that all workers share, those of
//! two masters during an upgrade as well. Not here: how many there are, and who may have how many (the app's pools).
//!
//! The first one is set aside: for whoever asks the database something for the server's sake, which takes a moment. So
//! there is a way to find out what became of the others, also when all of them are lost.
//!
//! A token is free, held, or lost. It is lost when its holder ends without having seen the database's process end that
//! served the connection: that one may still be at work on a statement. A lost token becomes free when somebody has
//! looked and found that process gone, or when so much time has passed that it must be.

use super::now_millis;
use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// The largest budget.
const MAX_TOKENS: usize = 4096;

/// In a holder's place: nobody, but the database may not have noticed yet.
const LOST: u32 = u32::MAX;

/// For how long a wish counts that nobody repeats, in milliseconds.
const WISH_LASTS: u64 = 200;

#[repr(C, align(128))]
pub(crate) struct Tokens {
    /// Until when somebody goes short who has less than his share.
    wished_until: AtomicU64,
    /// Tokens from here on were never held.
    used: AtomicUsize,
    cells: [Cell; MAX_TOKENS],
}

#[repr(C)]
struct Cell {
    /// The holder's process above, the database's process below; 0: free.
    word: AtomicU64,
    /// For how long the token stays lost once it is, in milliseconds; `u64::MAX`: until somebody has looked.
    grace: AtomicU64,
    /// Until when, once it is.
    until: AtomicU64,
}

/// A token that is held. It stays so until it is given back, or the holder's end is noticed.
#[derive(Debug)]
pub(crate) struct Held {
    number: usize,
    word: u64,
}

/// A lost token, and the process of the database that it was for; 0 where that is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lost {
    number: usize,
    word: u64,
}

impl Lost {
    pub(crate) fn backend(&self) -> u32 {
        self.word as u32
    }
}

impl Tokens {
    /// One of the first `budget` tokens that is free, for the process `holder`; lost for `grace` after its death.
    pub(crate) fn claim(&self, budget: usize, holder: u32, grace: Duration) -> Option<Held> {
        (1..budget.min(MAX_TOKENS)).find_map(|number| self.claim_one(number, holder, grace))
    }

    /// The one that is set aside, if it is free.
    pub(crate) fn claim_aside(&self, holder: u32, grace: Duration) -> Option<Held> {
        self.claim_one(0, holder, grace)
    }

    fn claim_one(&self, number: usize, holder: u32, grace: Duration) -> Option<Held> {
        let (cell, word) = (&self.cells[number], word(holder, 0));
        let seen = cell.word.load(Ordering::Acquire);
        let has_lapsed = holder_of(seen) == LOST && cell.until.load(Ordering::Acquire) <= now_millis();
        if !(seen == 0 || has_lapsed) || !cell.replace(seen, word) {
            return None;
        }
        self.used.fetch_max(number + 1, Ordering::AcqRel);
        cell.grace.store(millis(Some(grace)), Ordering::Release);
        Some(Held { number, word })
    }

    /// Notes which process of the database the token is for, and for how long it stays lost from now on; `None`: until
    /// somebody has looked.
    pub(crate) fn note_backend(&self, held: &mut Held, backend: u32, grace: Option<Duration>) {
        let (cell, word) = (&self.cells[held.number], word(holder_of(held.word), backend));
        cell.grace.store(millis(grace), Ordering::Release);
        if cell.replace(held.word, word) {
            held.word = word;
        }
    }

    /// Gives it back: nothing is left of the connection on either side.
    pub(crate) fn free(&self, held: Held) {
        self.cells[held.number].replace(held.word, 0);
    }

    /// Gives it back while the database may not have noticed; `grace` in place of what was said before.
    pub(crate) fn lose(&self, held: Held, grace: Option<Duration>) {
        let cell = &self.cells[held.number];
        if grace.is_some() {
            cell.grace.store(millis(grace), Ordering::Release);
        }
        cell.lose(held.word);
    }

    /// A process has ended: what it held is lost.
    pub(crate) fn abandon(&self, holder: u32) {
        for cell in self.used() {
            let seen = cell.word.load(Ordering::Acquire);
            if seen != 0 && holder_of(seen) == holder {
                cell.lose(seen);
            }
        }
    }

    /// The same for every holder that is no more: for those whose master did not live to notice.
    pub(crate) fn abandon_the_dead(&self) {
        for holder in self.holders() {
            let pid = i32::try_from(holder).map(Pid::from_raw);
            if pid.is_ok_and(|pid| kill(pid, None) == Err(Errno::ESRCH)) {
                self.abandon(holder);
            }
        }
    }

    /// Processes that hold tokens.
    fn holders(&self) -> Vec<u32> {
        let words = self.used().iter().map(|cell| cell.word.load(Ordering::Acquire));
        let mut holders: Vec<u32> =
            words.filter(|word| *word != 0).map(holder_of).filter(|holder| *holder != LOST).collect();
        holders.sort_unstable();
        holders.dedup();
        holders
    }

    /// What is lost.
    pub(crate) fn lost(&self) -> Vec<Lost> {
        let words = self.used().iter().map(|cell| cell.word.load(Ordering::Acquire)).enumerate();
        words
            .filter(|(_, word)| holder_of(*word) == LOST)
            .map(|(number, word)| Lost { number, word })
            .collect()
    }

    /// The process that a lost token was for is gone.
    pub(crate) fn find(&self, lost: Lost) {
        self.cells[lost.number].replace(lost.word, 0);
    }

    fn used(&self) -> &[Cell] {
        &self.cells[..self.used.load(Ordering::Acquire).min(MAX_TOKENS)]
    }

    /// Somebody who has less than his share goes short.
    pub(crate) fn wish(&self) {
        self.wished_until.store(now_millis() + WISH_LASTS, Ordering::Release);
    }

    /// Whether somebody goes short who has less than his share.
    pub(crate) fn is_wished(&self) -> bool {
        let until = self.wished_until.load(Ordering::Acquire);
        until != 0 && now_millis() < until
    }
}

impl Cell {
    fn replace(&self, seen: u64, word: u64) -> bool {
        self.word.compare_exchange(seen, word, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    fn lose(&self, seen: u64) {
        let until = now_millis().saturating_add(self.grace.load(Ordering::Acquire));
        self.until.store(until, Ordering::Release);
        self.replace(seen, word(LOST, seen as u32));
    }
}

fn millis(grace: Option<Duration>) -> u64 {
    grace.map_or(u64::MAX, |grace| grace.as_millis() as u64)
}

fn word(holder: u32, backend: u32) -> u64 {
    u64::from(holder) << 32 | u64::from(backend)
}

fn holder_of(word: u64) -> u32 {
    (word >> 32) as u32
}

#[cfg(test)]
mod tests {
    use crate::scoreboard::Board;
    use std::time::Duration;

    const LONG: Duration = Duration::from_secs(100);

    #[test]
    fn there_are_no_more_tokens_than_the_budget_and_one_is_set_aside() {
        let tokens = Board::stub(1).tokens;
        let mut held: Vec<_> = (0..2).map(|_| tokens.claim(3, 7, LONG).unwrap()).collect();
        assert!(tokens.claim(3, 8, LONG).is_none());
        let aside = tokens.claim_aside(8, LONG).unwrap();
        assert!(tokens.claim_aside(8, LONG).is_none());
        tokens.free(aside);
        assert!(tokens.claim_aside(8, LONG).is_some());
        assert!(tokens.claim(4, 8, LONG).is_some(), "a larger budget has more");
        tokens.free(held.pop().unwrap());
        assert!(tokens.claim(3, 8, LONG).is_some());
        assert!(tokens.claim(3, 8, LONG).is_none());
        assert_eq!(tokens.holders(), [7, 8]);
    }

    #[test]
    fn what_the_dead_held_is_free_when_somebody_has_looked_or_time_has_passed() {
        let tokens = Board::stub(1).tokens;
        let mut held = tokens.claim(3, 7, Duration::ZERO).unwrap();
        tokens.note_backend(&mut held, 1234, Some(LONG));
        let brief = tokens.claim(3, 7, Duration::ZERO).unwrap();
        tokens.abandon(7);
        assert!(tokens.holders().is_empty());
        assert!(tokens.claim(3, 8, LONG).is_some(), "its time has passed");
        assert!(tokens.claim(3, 8, LONG).is_none());
        let lost = tokens.lost();
        assert_eq!(lost.iter().map(|lost| lost.backend()).collect::<Vec<_>>(), [1234]);
        // Who comes too late with what he held changes nothing.
        tokens.free(held);
        tokens.free(brief);
        assert!(tokens.claim(3, 8, LONG).is_none());
        tokens.find(lost[0]);
        assert!(tokens.claim(3, 8, LONG).is_some());
        tokens.find(lost[0]);
        assert!(tokens.claim(3, 8, LONG).is_none(), "found twice");
    }

    #[test]
    fn a_wish_is_forgotten_unless_it_is_repeated() {
        let tokens = Board::stub(1).tokens;
        assert!(!tokens.is_wished());
        let begin = std::time::Instant::now();
        tokens.wish();
        let is_wished = tokens.is_wished();
        assert!(is_wished || begin.elapsed() >= Duration::from_millis(super::WISH_LASTS));
        std::thread::sleep(Duration::from_millis(super::WISH_LASTS + 5));
        assert!(!tokens.is_wished());
    }
}

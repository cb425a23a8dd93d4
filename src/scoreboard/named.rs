//! What workers count by name: of each cache and of each program. A name has one place in all seats, for as long as the master
//! lives, so that sums can be made by place. How many names there can be is fixed; whatever comes later is counted together.
//! Not here: what is to be called how.

use super::text::Text;
use siphasher::sip::SipHasher13;
use std::hash::Hasher;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::*};

/// How many names of caches, and of programs, are told apart in the life of a master, reloads included. One more is for the rest.
const MAX_CACHES: usize = 31;
const MAX_PROGRAMS: usize = 15;
const CACHES: usize = MAX_CACHES + 1;
const PROGRAMS: usize = MAX_PROGRAMS + 1;

/// Under which those are counted for whom there is no place.
const OTHERS: &str = "(others)";

/// A longer name is cut.
const NAME_WORDS: usize = 8;

/// Where something of this name is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place(usize);

/// The names of one kind. Workers write here, each name once.
pub(super) struct Names<const N: usize, const WORDS: usize> {
    /// Zero: the place is free.
    hashes: [AtomicU64; N],
    texts: [Text<WORDS>; N],
    /// The text is whole.
    is_written: [AtomicU32; N],
}

/// What has a name, in the memory that all share.
pub(crate) struct Registry {
    caches: Names<CACHES, NAME_WORDS>,
    programs: Names<PROGRAMS, NAME_WORDS>,
}

/// One worker's counts, by place.
#[derive(Default)]
pub(crate) struct Named {
    caches: [CacheCounts; CACHES],
    programs: [ProgramCounts; PROGRAMS],
}

/// Of the caches of one name; any thread may write.
#[derive(Default)]
pub(crate) struct CacheCounts {
    pub(crate) hits: AtomicU64,
    pub(crate) misses: AtomicU64,
    /// Of the misses, those that were answered with a value whose time was over.
    pub(crate) stale: AtomicU64,
    /// Entries that went for want of room.
    pub(crate) evictions: AtomicU64,
    /// What is kept now.
    pub(crate) entries: AtomicU64,
    pub(crate) bytes: AtomicU64,
}

/// Of the programs of one name; any thread may write.
#[derive(Default)]
pub(crate) struct ProgramCounts {
    /// Calls that a child was asked.
    pub(crate) calls: AtomicU64,
    /// Of these, those over which it died, or that it said no answer to.
    pub(crate) failures: AtomicU64,
    /// Of these, those that it had not answered in time.
    pub(crate) timeouts: AtomicU64,
    /// Calls that no child was asked: too many waited, none was free in time, or none was there.
    pub(crate) refusals: AtomicU64,
    /// Attempts to start one in the place of one that ended, or that could not be started.
    pub(crate) restarts: AtomicU64,
    /// Processes there are, and calls that wait, as of the last sweep.
    pub(crate) children: AtomicU64,
    pub(crate) waiting: AtomicU64,
}

impl<const N: usize, const WORDS: usize> Names<N, WORDS> {
    /// The place of this name in every seat; the last one where there is no other.
    pub(super) fn place(&self, name: &str) -> usize {
        // What is the same when it is cut is the same.
        let bytes = &name.as_bytes()[..name.len().min(8 * WORDS)];
        let mut hasher = SipHasher13::new();
        hasher.write(bytes);
        let hash = hasher.finish().max(1);
        let is_free = |place: &usize| match self.hashes[*place].compare_exchange(0, hash, AcqRel, Acquire) {
            Ok(_) => true,
            Err(known) => known == hash,
        };
        let own = (0..N - 1).filter(|_| name != OTHERS).find(is_free);
        let (place, text) = own.map_or((N - 1, OTHERS), |place| (place, name));
        // Whoever else writes here writes the same.
        self.texts[place].write(text);
        self.is_written[place].store(1, Release);
        place
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (usize, String)> {
        let is_used = |place: &usize| self.is_written[*place].load(Acquire) != 0;
        (0..N).filter(is_used).map(|place| (place, self.texts[place].read()))
    }
}

impl Registry {
    pub(super) fn cache(&self, name: &str) -> Place {
        Place(self.caches.place(name))
    }

    pub(super) fn program(&self, name: &str) -> Place {
        Place(self.programs.place(name))
    }

    pub(super) fn caches(&self) -> impl Iterator<Item = (Place, String)> {
        self.caches.all().map(|(place, name)| (Place(place), name))
    }

    pub(super) fn programs(&self) -> impl Iterator<Item = (Place, String)> {
        self.programs.all().map(|(place, name)| (Place(place), name))
    }
}

impl Named {
    pub(crate) fn cache(&self, Place(place): Place) -> &CacheCounts {
        &self.caches[place]
    }

    pub(crate) fn program(&self, Place(place): Place) -> &ProgramCounts {
        &self.programs[place]
    }

    /// Hits and misses, of all caches.
    pub(crate) fn cache_look_ups(&self) -> (u64, u64) {
        let sum = |of: fn(&CacheCounts) -> &AtomicU64| {
            self.caches.iter().map(|counts| of(counts).load(Relaxed)).fold(0, u64::wrapping_add)
        };
        (sum(|counts| &counts.hits), sum(|counts| &counts.misses))
    }

    /// What only grows.
    pub(super) fn counters(&self) -> impl Iterator<Item = &AtomicU64> {
        let of_caches = self.caches.iter().flat_map(CacheCounts::counters);
        of_caches.chain(self.programs.iter().flat_map(ProgramCounts::counters))
    }

    /// What goes up and down.
    pub(super) fn gauges(&self) -> impl Iterator<Item = &AtomicU64> {
        let of_caches = self.caches.iter().flat_map(|counts| [&counts.entries, &counts.bytes]);
        of_caches.chain(self.programs.iter().flat_map(|counts| [&counts.children, &counts.waiting]))
    }
}

impl CacheCounts {
    fn counters(&self) -> [&AtomicU64; 4] {
        let CacheCounts { hits, misses, stale, evictions, entries: _, bytes: _ } = self;
        [hits, misses, stale, evictions]
    }
}

impl ProgramCounts {
    fn counters(&self) -> [&AtomicU64; 5] {
        let ProgramCounts { calls, failures, timeouts, refusals, restarts, children: _, waiting: _ } = self;
        [calls, failures, timeouts, refusals, restarts]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::array;

    const MAX_NAME: usize = 8 * NAME_WORDS;

    fn names<const N: usize>() -> Names<N, NAME_WORDS> {
        Names {
            hashes: array::from_fn(|_| AtomicU64::new(0)),
            texts: array::from_fn(|_| Text::default()),
            is_written: array::from_fn(|_| AtomicU32::new(0)),
        }
    }

    fn told<const N: usize>(names: &Names<N, NAME_WORDS>) -> Vec<String> {
        names.all().map(|(place, name)| format!("{place} {name}")).collect()
    }

    #[test]
    fn a_name_has_one_place_and_those_too_many_share_the_last() {
        let names = names::<4>();
        assert_eq!(["b", "a", "b", "c", "a"].map(|name| names.place(name)), [0, 1, 0, 2, 1]);
        assert_eq!(told(&names), ["0 b", "1 a", "2 c"]);
        assert_eq!(["d", "e", "c"].map(|name| names.place(name)), [3, 3, 2]);
        assert_eq!(told(&names), ["0 b", "1 a", "2 c", "3 (others)"]);
    }

    #[test]
    fn no_two_samples_have_one_name() {
        let names = names::<4>();
        let long = "x".repeat(MAX_NAME);
        assert_eq!(names.place(&long), 0);
        assert_eq!(names.place(&format!("{long}y")), 0, "they would be read as the same");
        assert_eq!(names.place(OTHERS), 3);
        assert_eq!(names.place("a\"\\\n"), 1);
        assert_eq!(told(&names), [&format!("0 {long}..."), "1 a\\x22\\x5c\\x0a", "3 (others)"]);
    }

    #[test]
    fn many_who_name_the_same_at_once_agree() {
        let names = names::<16>();
        let places: Vec<Vec<usize>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|thread| {
                    let names = &names;
                    let name = move |number: usize| names.place(&format!("n{}", (number + thread) % 12));
                    scope.spawn(move || {
                        let mut places: Vec<usize> = (0..12).map(name).collect();
                        places.rotate_right(thread % 12);
                        places
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(places.iter().all(|of_thread| *of_thread == places[0]), "{places:?}");
        let mut sorted = places[0].clone();
        sorted.sort_unstable();
        assert_eq!(sorted, Vec::from_iter(0..12), "each has its own");
    }
}

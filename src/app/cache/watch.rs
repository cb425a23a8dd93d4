//! Whether something was invalidated since it was read: the generations that a load saw before it began, and that still
//! have to be the same when its value is served. docs/caching.md has the proof. Not here: the counters themselves.

use crate::scoreboard::{Generations, Moment, Slot, SlotHasher};
use std::hash::Hash;

/// What a counter is of. Two things that share one by accident cost each other a miss.
#[derive(Hash)]
enum Of {
    Cache,
    Key,
    Tag,
}

/// The counters that one cache looks at.
pub(super) struct Watch {
    generations: Generations,
    /// Has the cache's name in it.
    keys: SlotHasher,
    cache: Slot,
}

/// What the counters showed before a load. The epoch is that of everything; `None`: nothing may be kept.
#[derive(Clone)]
pub(super) struct Seen {
    epoch: Option<u64>,
    cache: u64,
    key: (Slot, u64),
    tags: Box<[(Slot, u64)]>,
}

/// The counter of a tag, which is the same in the caches of every name.
pub(crate) fn tag_slot(tag: &str) -> Slot {
    SlotHasher::default().with(Of::Tag).with(tag).slot()
}

/// Some tags, to be invalidated again and again.
pub(crate) struct Invalidation {
    generations: Generations,
    slots: Box<[Slot]>,
}

impl Invalidation {
    pub(crate) fn new(generations: Generations, tags: &[String]) -> Invalidation {
        Invalidation { generations, slots: tags.iter().map(|tag| tag_slot(tag)).collect() }
    }

    /// Invalidates when the guard is dropped, by a panic too.
    pub(crate) fn at_the_end(&self) -> impl Drop {
        AtTheEnd(self)
    }
}

struct AtTheEnd<'a>(&'a Invalidation);

impl Drop for AtTheEnd<'_> {
    fn drop(&mut self) {
        self.0.slots.iter().for_each(|slot| self.0.generations.bump(*slot));
    }
}

impl Watch {
    pub(super) fn new(name: &str, generations: Generations) -> Watch {
        let cache = SlotHasher::default().with(Of::Cache).with(name).slot();
        Watch { generations, keys: SlotHasher::default().with(Of::Key).with(name), cache }
    }

    pub(super) fn generations(&self) -> Generations {
        self.generations
    }

    /// To be called before the load begins.
    pub(super) fn see(&self, key: &(impl Hash + ?Sized), tags: &[Slot]) -> Seen {
        let see = |slot| (slot, self.generations.generation(slot));
        Seen {
            epoch: self.generations.of_all(),
            cache: self.generations.generation(self.cache),
            key: see(self.slot(key)),
            tags: tags.iter().copied().map(see).collect(),
        }
    }

    /// What was `seen`, and at the `moment` with it, of tags that the load itself has named; `None` where one of them may
    /// have been invalidated since.
    pub(super) fn see_late(&self, mut seen: Seen, moment: &Moment, tags: &[Slot]) -> Option<Seen> {
        let late = tags.iter().map(|slot| Some((*slot, self.generations.generation_at(moment, *slot)?)));
        let late: Vec<_> = late.collect::<Option<_>>()?;
        seen.tags = seen.tags.iter().copied().chain(late).collect();
        Some(seen)
    }

    /// Whether nothing of it was invalidated since.
    pub(super) fn is_current(&self, seen: &Seen) -> bool {
        let is_same = |(slot, before): &(Slot, u64)| self.generations.generation(*slot) == *before;
        seen.epoch.is_some()
            && seen.epoch == self.generations.of_all()
            && seen.cache == self.generations.generation(self.cache)
            && is_same(&seen.key)
            && seen.tags.iter().all(is_same)
    }

    pub(super) fn bump(&self, key: &(impl Hash + ?Sized)) {
        self.generations.bump(self.slot(key));
    }

    pub(super) fn bump_cache(&self) {
        self.generations.bump(self.cache);
    }

    pub(super) fn slot(&self, key: &(impl Hash + ?Sized)) -> Slot {
        self.keys.with(key).slot()
    }
}

impl Seen {
    pub(super) fn can_be_kept(&self) -> bool {
        self.epoch.is_some()
    }

    /// Whether a load that saw this began after everything that was invalidated when `reader` looked, but for the tags that
    /// the load named itself: of these, `has_more_tags` says whether there are any.
    pub(super) fn covers(&self, reader: &Seen) -> bool {
        let not_before =
            |(ours, theirs): (&(Slot, u64), &(Slot, u64))| ours.0 == theirs.0 && ours.1 >= theirs.1;
        self.epoch.is_some()
            && self.epoch >= reader.epoch
            && self.cache >= reader.cache
            && not_before((&self.key, &reader.key))
            && self.tags.len() >= reader.tags.len()
            && self.tags.iter().zip(&reader.tags).all(not_before)
    }

    pub(super) fn has_more_tags(&self, reader: &Seen) -> bool {
        self.tags.len() > reader.tags.len()
    }
}

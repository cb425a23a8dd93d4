//! The entries of a cache, within its bounds: number, bytes, age. Not here: loading them.

use super::CacheOptions;
use super::watch::Seen;
use crate::scoreboard::CacheCounts;
use lru::LruCache;
use std::borrow::Borrow;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

pub(super) const UNPOISONED: &str =
    "only the Hash, Eq, Clone and Drop of keys and values run under this lock";

/// What the time to live is divided by to get the most that is taken off it at random.
const TTL_JITTER: u32 = 10;
/// In how many steps.
const STEPS: u32 = 1024;

pub(super) struct Entries<K, V> {
    kept: Mutex<Kept<K, V>>,
    options: CacheOptions<K, V>,
}

struct Kept<K, V> {
    entries: LruCache<K, Entry<V>>,
    /// The sum of their weights.
    bytes: usize,
    /// On the board. Caches of several workers never share it, but several of one worker may.
    counts: &'static CacheCounts,
}

pub(super) struct Entry<V> {
    /// `None`: there is no such thing.
    value: Option<V>,
    /// `None`: until it is pushed out.
    expires: Option<Instant>,
    /// For how long it is good for others after that, while one loads.
    stale: Duration,
    weight: usize,
    seen: Seen,
}

/// How long something is kept, where its cache's own times are not meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lifetime {
    pub(crate) ttl: Duration,
    pub(crate) stale: Duration,
}

/// What was found for a key.
pub(crate) enum Found<V> {
    Fresh(Option<V>),
    /// Too old, but good enough while a new one is loaded.
    Stale(Option<V>),
    Nothing,
}

impl<K: Hash + Eq, V: Clone> Entries<K, V> {
    pub(super) fn new(options: CacheOptions<K, V>, counts: &'static CacheCounts) -> Entries<K, V> {
        // `LruCache::new` would set aside the memory for all entries at once.
        let kept = Kept { entries: LruCache::unbounded(), bytes: 0, counts };
        Entries { kept: Mutex::new(kept), options }
    }

    /// `now` is asked only of what ends.
    pub(super) fn look_up<Q>(
        &self,
        key: &Q,
        now: impl FnOnce() -> Instant,
        is_current: impl FnOnce(&Seen) -> bool,
    ) -> Found<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let mut kept = self.kept();
        let Some(entry) = kept.entries.get(key) else { return Found::Nothing };
        if is_current(&entry.seen) {
            let Some(expires) = entry.expires else { return Found::Fresh(entry.value.clone()) };
            let now = now();
            if now < expires {
                return Found::Fresh(entry.value.clone());
            }
            if now.duration_since(expires) < entry.stale {
                return Found::Stale(entry.value.clone());
            }
        }
        kept.remove(key);
        Found::Nothing
    }

    /// What would be kept; `None` where it would not. Not yet under any lock: weighing is the app's code.
    pub(super) fn prepare(
        &self,
        key: &K,
        value: Option<V>,
        lifetime: Option<Lifetime>,
        seen: Seen,
    ) -> Option<Entry<V>> {
        let options = &self.options;
        let (ttl, weight) = match &value {
            Some(value) => (options.ttl, (options.weigh)(key, value)),
            None if options.absent_ttl.is_zero() => return None,
            None => (options.absent_ttl, 0),
        };
        let Lifetime { ttl, stale } = lifetime.unwrap_or(Lifetime { ttl, stale: options.stale });
        let fits = seen.can_be_kept() && weight <= options.max_bytes;
        fits.then(|| Entry { value, expires: expiry(ttl), stale, weight, seen })
    }

    /// Puts the entry in the place of what was there before.
    pub(super) fn keep(&self, key: K, entry: Option<Entry<V>>) {
        let mut kept = self.kept();
        kept.remove(&key);
        let Some(entry) = entry else { return };
        kept.put(key, entry);
        while kept.entries.len() > self.options.capacity || kept.bytes > self.options.max_bytes {
            kept.evict();
        }
    }

    pub(super) fn remove<Q>(&self, key: &Q)
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.kept().remove(key);
    }

    pub(super) fn clear(&self) {
        let mut kept = self.kept();
        let (count, bytes) = (kept.entries.len(), kept.bytes);
        kept.entries.clear();
        kept.forget(count, bytes);
    }

    pub(super) fn len(&self) -> usize {
        self.kept().entries.len()
    }

    fn kept(&self) -> MutexGuard<'_, Kept<K, V>> {
        self.kept.lock().expect(UNPOISONED)
    }
}

impl<K: Hash + Eq, V> Kept<K, V> {
    fn remove<Q>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        if let Some(entry) = self.entries.pop(key) {
            self.forget(1, entry.weight);
        }
    }

    /// What was there under the key is gone already.
    fn put(&mut self, key: K, entry: Entry<V>) {
        self.bytes += entry.weight;
        self.counts.entries.fetch_add(1, Relaxed);
        self.counts.bytes.fetch_add(entry.weight as u64, Relaxed);
        self.entries.put(key, entry);
    }

    /// Removes what was not used for the longest time.
    fn evict(&mut self) {
        if let Some((_, entry)) = self.entries.pop_lru() {
            self.forget(1, entry.weight);
            self.counts.evictions.fetch_add(1, Relaxed);
        }
    }

    fn forget(&mut self, count: usize, bytes: usize) {
        self.bytes -= bytes;
        self.counts.entries.fetch_sub(count as u64, Relaxed);
        self.counts.bytes.fetch_sub(bytes as u64, Relaxed);
    }
}

/// When something ends that is kept from now on; `None`: never.
fn expiry(ttl: Duration) -> Option<Instant> {
    if ttl.is_zero() {
        return None;
    }
    let now = Instant::now();
    // Chance enough: the clock's nanoseconds, hashed.
    let mut hasher = DefaultHasher::new();
    now.hash(&mut hasher);
    let share = (hasher.finish() % u64::from(STEPS)) as u32;
    now.checked_add(ttl - ttl / TTL_JITTER / STEPS * share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn up_to_a_tenth_of_the_time_to_live_is_taken_off() {
        let ttl = Duration::from_secs(1000);
        let before = Instant::now();
        let left: Vec<Duration> =
            (0..1000).filter_map(|_| expiry(ttl)).map(|expires| expires - before).collect();
        let (least, most) = (left.iter().min().unwrap(), left.iter().max().unwrap());
        assert!(left.len() == 1000 && *least >= ttl * 9 / 10 && *most < ttl + Duration::from_secs(10));
        assert!(*most - *least > ttl / 20, "they are spread: {least:?} to {most:?}");
        assert_eq!(expiry(Duration::ZERO), None);
        assert_eq!(expiry(Duration::MAX), None);
    }
}

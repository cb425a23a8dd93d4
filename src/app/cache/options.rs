//! How a cache is bounded. Not here: how the bounds are kept.

use std::time::Duration;

/// How long that there is no such thing is good, unless told otherwise.
const ABSENT_TTL: Duration = Duration::from_secs(1);

/// What an entry costs beside what is weighed of it, about: the entry itself, its place in the table and in the order of use,
/// and what the allocator adds.
pub(crate) const ENTRY_BYTES: usize = 300;

/// How much a cache keeps in each worker, and for how long.
///
/// ```
/// # fn make(worker: ferricorn::Worker) {
/// use ferricorn::CacheOptions;
/// use std::time::Duration;
///
/// let options = CacheOptions::new(10_000, Duration::from_secs(60))
///     .max_bytes(16 << 20, |key: &String, page: &String| key.len() + page.len())
///     .stale(Duration::from_secs(10));
/// let pages = worker.cache_with("pages", options);
/// # pages.insert("a".into(), "b".into());
/// # }
/// ```
pub struct CacheOptions<K, V> {
    pub(super) capacity: usize,
    pub(super) ttl: Duration,
    pub(super) absent_ttl: Duration,
    pub(super) stale: Duration,
    pub(super) max_bytes: usize,
    pub(super) weigh: fn(&K, &V) -> usize,
}

impl<K, V> CacheOptions<K, V> {
    /// `capacity` is in entries; 0 keeps nothing. A time to live of zero keeps for ever. Up to a tenth of it is taken off
    /// at random, so that what was loaded together is not loaded again together.
    pub fn new(capacity: usize, ttl: Duration) -> CacheOptions<K, V> {
        let absent_ttl = if ttl.is_zero() { ABSENT_TTL } else { ABSENT_TTL.min(ttl) };
        CacheOptions {
            capacity,
            ttl,
            absent_ttl,
            stale: Duration::ZERO,
            max_bytes: usize::MAX,
            weigh: |_, _| 0,
        }
    }

    /// How long `Ok(None)` of [`Cache::find_or_load`](super::Cache::find_or_load) is kept; zero: not at all. The default
    /// is a second, or the time to live if that is less.
    #[must_use]
    pub fn absent_ttl(mut self, absent_ttl: Duration) -> CacheOptions<K, V> {
        self.absent_ttl = absent_ttl;
        self
    }

    /// For how long after the time to live the old value is given to others while one loads the new one. Something that
    /// was invalidated is never given. The default is zero: they wait.
    #[must_use]
    pub fn stale(mut self, stale: Duration) -> CacheOptions<K, V> {
        self.stale = stale;
        self
    }

    /// At most so many bytes, by what `weigh` says of each entry; what the cache itself needs, some 300 bytes an entry, is
    /// not counted unless `weigh` does. One entry that is heavier is not kept. The default is no limit.
    #[must_use]
    pub fn max_bytes(mut self, max_bytes: usize, weigh: fn(&K, &V) -> usize) -> CacheOptions<K, V> {
        self.max_bytes = max_bytes;
        self.weigh = weigh;
        self
    }
}

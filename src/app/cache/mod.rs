//! A cache of one worker, which the other workers can invalidate: least recently used goes first, one load at a time per key.
//! Not here: the counters by which workers agree (the scoreboard), and other workers' entries, which are their own.
//!
//! `watch` sees whether an entry was invalidated, `entries` keeps them within bounds, `fill` is the way of a load, `flight` holds
//! those under way.

mod entries;
mod fill;
mod flight;
mod options;
mod tagged;
mod watch;

pub use options::CacheOptions;
pub use tagged::{MAX_TAGS, TaggedCache};

pub(crate) use entries::{Found, Lifetime};
pub(crate) use fill::{Filled, Loaded};
pub(crate) use options::ENTRY_BYTES;
pub(crate) use watch::{Invalidation, tag_slot};

use crate::scoreboard::{CacheCounts, Generations, Slot};
use entries::Entries;
use flight::Flights;
use std::borrow::Borrow;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;
use watch::Watch;

/// A bounded map with a time to live, coherent with the caches of that name in all workers of the server; a handle, cheap
/// to clone. Values are cloned out: put large ones into an `Arc`.
///
/// ```
/// # async fn page(worker: ferricorn::Worker) -> Result<(), std::io::Error> {
/// let prices = worker.cache::<u32, u64>("prices");
/// let price = prices.get_or_load(7, || async { Ok::<u64, std::io::Error>(1299) }).await?;
/// assert_eq!(prices.get(&7), Some(price));
/// prices.invalidate(&7); // after the change: no worker will give that price any more
/// # Ok(()) }
/// ```
pub struct Cache<K, V> {
    inner: Arc<Inner<K, V>>,
}

/// How often a cache had the answer since the worker started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    pub hits: u64,
    pub misses: u64,
}

/// Lock order: `flights`, then `entries`.
struct Inner<K, V> {
    entries: Entries<K, V>,
    flights: Flights<K, V>,
    watch: Watch,
    hits: AtomicU64,
    misses: AtomicU64,
    /// On the board.
    counts: &'static CacheCounts,
}

impl<K, V> Cache<K, V>
where
    K: Hash + Eq + Clone + Send + 'static,
    V: Clone + Send + 'static,
{
    pub(crate) fn new(
        name: &str,
        options: CacheOptions<K, V>,
        generations: Generations,
        counts: &'static CacheCounts,
    ) -> Cache<K, V> {
        let inner = Inner {
            entries: Entries::new(options, counts),
            flights: Flights::default(),
            watch: Watch::new(name, generations),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            counts,
        };
        Cache { inner: Arc::new(inner) }
    }

    /// The value for `key`, unless it is absent, too old or invalidated. Counts as a hit or a miss.
    pub fn get<Q>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let found = self.inner.fresh(key).flatten();
        self.inner.count(found.is_some());
        found
    }

    /// Keeps `value` for the time to live, in this worker. A load of this key that is under way will not replace it.
    ///
    /// It counts as read now: what changed between the reading and this call is not noticed. For what a database
    /// holds, [`Cache::get_or_load`] is the safe way.
    pub fn insert(&self, key: K, value: V) {
        let seen = self.inner.watch.see(&key, &[]);
        let entry = self.inner.entries.prepare(&key, Some(value), None, seen);
        self.inner.flights.overtake(&key, || self.inner.entries.keep(key.clone(), entry));
    }

    /// Has every worker forget `key`, also what loads that are under way will bring. To be called after the change, when it
    /// is committed: a read that begins after this returned gets what was loaded after this began, in any worker.
    ///
    /// It takes no lock of other processes and waits for nobody, so it can be called on a handler thread as well.
    pub fn invalidate<Q>(&self, key: &Q)
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.inner.watch.bump(key);
        self.inner.flights.overtake(key, || self.inner.entries.remove(key));
    }

    /// Like [`Cache::invalidate`], of every entry with this tag, in the caches of every name. See [`Cache::tagged`].
    pub fn invalidate_tag(&self, tag: &str) {
        self.inner.watch.generations().bump(tag_slot(tag));
    }

    /// Like [`Cache::invalidate`], of everything in the caches of this name.
    pub fn clear(&self) {
        self.inner.watch.bump_cache();
        self.inner.flights.overtake_all(|| self.inner.entries.clear());
    }

    /// This cache, for entries that [`Cache::invalidate_tag`] with one of these tags is to reach. A tag is the server's: it
    /// may stand for entries of several caches.
    ///
    /// ```
    /// # async fn page(worker: ferricorn::Worker) -> Result<(), std::io::Error> {
    /// let pages = worker.cache::<String, String>("pages");
    /// let load = || async { Ok::<String, std::io::Error>("<ul>".to_owned()) };
    /// let page = pages.tagged(["items", "prices"]).get_or_load("front".into(), load).await?;
    /// assert_eq!(pages.get("front"), Some(page));
    /// pages.invalidate_tag("items");
    /// assert_eq!(pages.get("front"), None);
    /// # Ok(()) }
    /// ```
    ///
    /// # Panics
    /// With more than [`MAX_TAGS`] tags.
    pub fn tagged<T: AsRef<str>>(&self, tags: impl IntoIterator<Item = T>) -> TaggedCache<K, V> {
        TaggedCache::new(self.clone(), tags)
    }

    /// How many entries are kept, those included that are too old or invalidated and that nobody asked for since.
    pub fn len(&self) -> usize {
        self.inner.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The hits and misses of this cache, in this worker.
    pub fn stats(&self) -> CacheStats {
        CacheStats { hits: self.inner.hits.load(Relaxed), misses: self.inner.misses.load(Relaxed) }
    }

    /// The value for `key`, from the cache or else from `load`.
    ///
    /// Of those who want the same key at the same time one loads, the others wait for its value. An error goes to
    /// the one who loaded and is not kept; when a load fails or its request goes away, the next one loads.
    pub async fn get_or_load<E, F, L>(&self, key: K, load: F) -> Result<V, E>
    where
        F: FnOnce() -> L,
        L: Future<Output = Result<V, E>>,
    {
        self.value(key, &[], load).await
    }

    /// Like [`Cache::get_or_load`], where there may be no such thing: `Ok(None)` is kept too, for the time of
    /// [`CacheOptions::absent_ttl`].
    ///
    /// ```
    /// # async fn name(worker: ferricorn::Worker) -> Result<(), ferricorn::Error> {
    /// let names = worker.cache::<u32, String>("names");
    /// let name = names.find_or_load(7, || async { Ok::<_, ferricorn::Error>(None) }).await?;
    /// assert_eq!(name, None);
    /// # Ok(()) }
    /// ```
    pub async fn find_or_load<E, F, L>(&self, key: K, load: F) -> Result<Option<V>, E>
    where
        F: FnOnce() -> L,
        L: Future<Output = Result<Option<V>, E>>,
    {
        self.find(key, &[], |_| true, load).await
    }

    async fn value<E, F, L>(&self, key: K, tags: &[Slot], load: F) -> Result<V, E>
    where
        F: FnOnce() -> L,
        L: Future<Output = Result<V, E>>,
    {
        // That there is none, which another may have found, is no answer here.
        let found = self.find(key, tags, Option::is_some, || async { load().await.map(Some) }).await?;
        Ok(found.expect("neither the load nor what was accepted is none"))
    }

    async fn find<E, F, L>(
        &self,
        key: K,
        tags: &[Slot],
        accept: fn(&Option<V>) -> bool,
        load: F,
    ) -> Result<Option<V>, E>
    where
        F: FnOnce() -> L,
        L: Future<Output = Result<Option<V>, E>>,
    {
        let load = || async {
            let outcome = load().await;
            let loaded = outcome.as_ref().ok().map(|value| Loaded::of(value.clone()));
            (outcome, loaded)
        };
        match self.fill(key, tags, accept, None, load).await {
            Filled::Found(value) => Ok(value),
            Filled::Loaded(outcome) => outcome,
        }
    }
}

impl<K, V> Clone for Cache<K, V> {
    fn clone(&self) -> Cache<K, V> {
        Cache { inner: Arc::clone(&self.inner) }
    }
}

impl<K: Hash + Eq + Clone, V: Clone> Inner<K, V> {
    fn look_up<Q>(&self, key: &Q, now: impl FnOnce() -> Instant) -> Found<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.entries.look_up(key, now, |seen| self.watch.is_current(seen))
    }

    fn fresh<Q>(&self, key: &Q) -> Option<Option<V>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        match self.look_up(key, Instant::now) {
            Found::Fresh(value) => Some(value),
            Found::Stale(_) | Found::Nothing => None,
        }
    }

    fn count(&self, hit: bool) {
        let (own, of_all) =
            if hit { (&self.hits, &self.counts.hits) } else { (&self.misses, &self.counts.misses) };
        own.fetch_add(1, Relaxed);
        of_all.fetch_add(1, Relaxed);
    }

    /// A miss was answered with what is too old, while another loads.
    fn count_stale(&self) {
        self.counts.stale.fetch_add(1, Relaxed);
    }
}

#[cfg(test)]
mod tests;

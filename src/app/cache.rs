//! A cache of one worker: least recently used goes first, one load at a time per key.
//! Not here: other workers' caches, which know nothing of this one.

use crate::scoreboard::Seat;
use lru::LruCache;
use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

const UNPOISONED: &str = "only the Hash, Eq, Clone and Drop of keys and values run under this lock";

/// A bounded map with a time to live; a handle, cheap to clone. Values are cloned out: put large ones into an `Arc`.
///
/// ```
/// # async fn page(worker: ferricorn::Worker) -> Result<(), std::io::Error> {
/// let prices = worker.cache::<u32, u64>("prices");
/// let price = prices.get_or_load(7, || async { Ok::<u64, std::io::Error>(1299) }).await?;
/// assert_eq!(prices.get(&7), Some(price));
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
    entries: Mutex<LruCache<K, Entry<V>>>,
    /// The loads under way. Bounded by the requests that wait for them.
    flights: Mutex<HashMap<K, Arc<Flight<V>>>>,
    capacity: usize,
    ttl: Duration,
    hits: AtomicU64,
    misses: AtomicU64,
    seat: &'static Seat,
}

struct Entry<V> {
    value: V,
    /// `None`: until it is pushed out.
    expires: Option<Instant>,
}

/// One load and those who wait for it: who holds the lock loads, and leaves the value for the others.
type Flight<V> = tokio::sync::Mutex<Option<V>>;

impl<K, V> Cache<K, V>
where
    K: Hash + Eq + Clone + Send + 'static,
    V: Clone + Send + 'static,
{
    /// `capacity` 0 keeps nothing; `ttl` zero keeps for ever.
    pub(crate) fn new(capacity: usize, ttl: Duration, seat: &'static Seat) -> Cache<K, V> {
        let inner = Inner {
            // `LruCache::new` would set aside the memory for all entries at once.
            entries: Mutex::new(LruCache::unbounded()),
            flights: Mutex::default(),
            capacity,
            ttl,
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            seat,
        };
        Cache { inner: Arc::new(inner) }
    }

    /// The value for `key`, unless it is absent or too old. Counts as a hit or a miss.
    pub fn get<Q>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let found = self.inner.look_up(key);
        self.inner.count(found.is_some());
        found
    }

    /// Keeps `value` for the time to live. A load of this key that is under way will not replace it.
    pub fn insert(&self, key: K, value: V) {
        let mut flights = self.inner.flights();
        flights.remove(&key);
        self.inner.keep(key, value);
    }

    /// Forgets `key`, also what a load that is under way will bring. Returns what was there.
    pub fn remove<Q>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let mut flights = self.inner.flights();
        flights.remove(key);
        let entry = self.inner.entries().pop(key)?;
        entry.is_fresh().then_some(entry.value)
    }

    /// Forgets everything, also what the loads that are under way will bring.
    pub fn clear(&self) {
        let mut flights = self.inner.flights();
        flights.clear();
        self.inner.entries().clear();
    }

    /// How many entries are kept, those included that are too old and that nobody asked for since.
    pub fn len(&self) -> usize {
        self.inner.entries().len()
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
        if let Some(value) = self.get(&key) {
            return Ok(value);
        }
        let passenger = self.inner.board(key);
        let mut landed = passenger.flight.lock().await;
        if let Some(value) = &*landed {
            return Ok(value.clone());
        }
        // The load that we missed may have ended before we boarded.
        if let Some(value) = self.inner.look_up(&passenger.key) {
            return Ok(value);
        }
        let value = load().await?;
        *landed = Some(value.clone());
        passenger.land(value.clone());
        Ok(value)
    }
}

impl<K, V> Clone for Cache<K, V> {
    fn clone(&self) -> Cache<K, V> {
        Cache { inner: Arc::clone(&self.inner) }
    }
}

impl<K: Hash + Eq + Clone, V: Clone> Inner<K, V> {
    fn entries(&self) -> MutexGuard<'_, LruCache<K, Entry<V>>> {
        self.entries.lock().expect(UNPOISONED)
    }

    fn look_up<Q>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let mut entries = self.entries();
        let entry = entries.get(key)?;
        if entry.is_fresh() {
            return Some(entry.value.clone());
        }
        entries.pop(key);
        None
    }

    fn count(&self, hit: bool) {
        let (own, seat) =
            if hit { (&self.hits, &self.seat.cache_hits) } else { (&self.misses, &self.seat.cache_misses) };
        own.fetch_add(1, Relaxed);
        seat.fetch_add(1, Relaxed);
    }

    fn keep(&self, key: K, value: V) {
        let expires = if self.ttl.is_zero() { None } else { Instant::now().checked_add(self.ttl) };
        let mut entries = self.entries();
        entries.put(key, Entry { value, expires });
        while entries.len() > self.capacity {
            entries.pop_lru();
        }
    }

    /// Joins the load of `key`, or makes one.
    fn board(&self, key: K) -> Passenger<'_, K, V> {
        let flight = Arc::clone(self.flights().entry(key.clone()).or_default());
        Passenger { inner: self, key, flight }
    }
}

impl<K: Hash + Eq, V> Inner<K, V> {
    fn flights(&self) -> MutexGuard<'_, HashMap<K, Arc<Flight<V>>>> {
        self.flights.lock().expect(UNPOISONED)
    }
}

impl<V> Entry<V> {
    fn is_fresh(&self) -> bool {
        self.expires.is_none_or(|expires| Instant::now() < expires)
    }
}

/// One who loads or waits; the last one out takes the flight off the board.
struct Passenger<'a, K: Hash + Eq, V> {
    inner: &'a Inner<K, V>,
    key: K,
    flight: Arc<Flight<V>>,
}

impl<K: Hash + Eq, V> Passenger<'_, K, V> {
    fn is_on_board(&self, flights: &HashMap<K, Arc<Flight<V>>>) -> bool {
        flights.get(&self.key).is_some_and(|flight| Arc::ptr_eq(flight, &self.flight))
    }
}

impl<K: Hash + Eq + Clone, V: Clone> Passenger<'_, K, V> {
    /// Keeps the value, unless `insert`, `remove` or `clear` has overtaken this load.
    fn land(&self, value: V) {
        let mut flights = self.inner.flights();
        if self.is_on_board(&flights) {
            flights.remove(&self.key);
            self.inner.keep(self.key.clone(), value);
        }
    }
}

impl<K: Hash + Eq, V> Drop for Passenger<'_, K, V> {
    fn drop(&mut self) {
        let mut flights = self.inner.flights();
        // Two: the board's and ours.
        if Arc::strong_count(&self.flight) == 2 && self.is_on_board(&flights) {
            flights.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::future::{pending, ready};
    use tokio::join;
    use tokio::task::yield_now;

    const FOREVER: Duration = Duration::ZERO;

    fn cache(capacity: usize, ttl: Duration) -> Cache<String, u32> {
        Cache::new(capacity, ttl, Box::leak(Box::default()))
    }

    fn run<T>(story: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(story)
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let cache = cache(2, FOREVER);
        cache.insert("a".into(), 1);
        cache.insert("b".into(), 2);
        assert_eq!(cache.get("a"), Some(1));
        cache.insert("c".into(), 3);
        assert_eq!([cache.get("a"), cache.get("b"), cache.get("c")], [Some(1), None, Some(3)]);
        assert_eq!((cache.len(), cache.stats()), (2, CacheStats { hits: 3, misses: 1 }));
        assert_eq!(cache.inner.seat.cache_hits.load(Relaxed), 3);
        assert_eq!(cache.inner.seat.cache_misses.load(Relaxed), 1);
        assert_eq!(cache.remove("a"), Some(1));
        cache.clear();
        assert!(cache.is_empty());
    }

    #[test]
    fn capacity_zero_keeps_nothing_and_what_is_too_old_is_gone() {
        let nothing = cache(0, FOREVER);
        nothing.insert("a".into(), 1);
        assert_eq!(nothing.get("a"), None);
        let brief = cache(2, Duration::from_nanos(1));
        brief.insert("a".into(), 1);
        assert_eq!((brief.get("a"), brief.len()), (None, 0));
        brief.insert("a".into(), 1);
        assert_eq!(brief.remove("a"), None);
        let lasting = cache(2, Duration::from_secs(3600));
        lasting.insert("a".into(), 1);
        assert_eq!(lasting.get("a"), Some(1));
    }

    #[test]
    fn one_loads_and_the_others_wait() {
        // Also where nothing is kept: who waited gets the value all the same.
        for capacity in [0, 1] {
            let cache = cache(capacity, FOREVER);
            let loads = Cell::new(0);
            let load = || async {
                loads.set(loads.get() + 1);
                yield_now().await;
                Ok::<u32, ()>(7)
            };
            let get = || cache.get_or_load("a".into(), load);
            assert_eq!(run(async { join!(get(), get(), get()) }), (Ok(7), Ok(7), Ok(7)));
            assert_eq!(loads.get(), 1, "capacity {capacity}");
            assert!(cache.inner.flights().is_empty());
        }
    }

    #[test]
    fn a_load_that_fails_or_is_dropped_lets_the_next_one_load() {
        let cache = cache(1, FOREVER);
        run(async {
            let fail = cache.get_or_load("a".into(), || async {
                yield_now().await;
                Err("away")
            });
            let next = cache.get_or_load("a".into(), || ready(Ok::<u32, &str>(2)));
            assert_eq!(join!(fail, next), (Err("away"), Ok(2)));

            cache.clear();
            let mut stuck = Box::pin(cache.get_or_load("a".into(), pending::<Result<u32, ()>>));
            let mut next = std::pin::pin!(cache.get_or_load("a".into(), || ready(Ok::<u32, ()>(3))));
            tokio::select! {
                biased;
                _ = &mut stuck => panic!("nothing resolves it"),
                _ = &mut next => panic!("the first one loads"),
                () = ready(()) => {}
            }
            drop(stuck);
            assert_eq!(next.await, Ok(3));
            assert!(cache.inner.flights().is_empty());
        });
    }

    #[test]
    fn a_change_overtakes_the_load_under_way() {
        type Change = fn(&Cache<String, u32>);
        let rows: [(&str, Change, Option<u32>); 4] = [
            ("nothing", |_| {}, Some(1)),
            ("remove", |cache| assert_eq!(cache.remove("a"), None), None),
            ("clear", |cache| cache.clear(), None),
            ("insert", |cache| cache.insert("a".into(), 2), Some(2)),
        ];
        for (name, change, kept) in rows {
            let cache = cache(1, FOREVER);
            let load = || async {
                change(&cache);
                Ok::<u32, ()>(1)
            };
            assert_eq!(run(cache.get_or_load("a".into(), load)), Ok(1), "{name}");
            assert_eq!(cache.get("a"), kept, "{name}");
        }
    }

    #[test]
    fn a_future_that_borrows_can_go_between_threads() {
        fn must_be_send<T: Send>(value: T) -> T {
            value
        }
        let (cache, local) = (cache(1, FOREVER), String::from("five"));
        let loaded = cache.get_or_load("a".into(), || async { Ok::<u32, ()>(local.len() as u32) });
        assert_eq!(run(must_be_send(loaded)), Ok(4));
    }
}

//! The loads under way: one at a time for each key, and those who wait for it. Not here: what is kept of them.

use super::entries::UNPOISONED;
use super::watch::{Seen, Watch};
use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard};

/// Bounded by the requests that wait for them.
pub(super) struct Flights<K, V>(Mutex<HashMap<K, Arc<Flight<V>>>>);

/// One load and those who wait for it: who holds the lock loads, and leaves what came of it for the others.
type Flight<V> = tokio::sync::Mutex<Option<Landed<V>>>;

/// What a load has brought.
pub(super) struct Landed<V> {
    pub(super) value: Option<V>,
    pub(super) seen: Seen,
}

impl<V: Clone> Landed<V> {
    /// The value, unless the load began before something that `reader` knows to be invalidated.
    pub(super) fn serve(&self, reader: &Seen, watch: &Watch) -> Option<Option<V>> {
        // What the reader knows of the tags that only the load named is not noted anywhere.
        let covers =
            self.seen.covers(reader) && (!self.seen.has_more_tags(reader) || watch.is_current(&self.seen));
        covers.then(|| self.value.clone())
    }
}

/// What came of wanting to load.
pub(super) enum Boarding<'a, K: Hash + Eq, V> {
    Passenger(Passenger<'a, K, V>),
    /// Another loads, and this is good enough meanwhile.
    Spared(Option<V>),
}

impl<K, V> Default for Flights<K, V> {
    fn default() -> Flights<K, V> {
        Flights(Mutex::default())
    }
}

impl<K: Hash + Eq, V> Flights<K, V> {
    /// Joins the load of `key`, or makes one; with something `stale` in hand nobody joins.
    pub(super) fn board(&self, key: K, stale: Option<Option<V>>) -> Boarding<'_, K, V>
    where
        K: Clone,
    {
        let mut board = self.lock();
        match stale {
            Some(value) if board.contains_key(&key) => Boarding::Spared(value),
            Some(_) | None => {
                let flight = Arc::clone(board.entry(key.clone()).or_default());
                Boarding::Passenger(Passenger { flights: self, key, flight })
            }
        }
    }

    /// Makes a change that the load under way is not to undo; who comes later does not wait for that load.
    pub(super) fn overtake<Q, T>(&self, key: &Q, change: impl FnOnce() -> T) -> T
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let mut board = self.lock();
        board.remove(key);
        change()
    }

    /// Like `overtake`, of every load.
    pub(super) fn overtake_all(&self, change: impl FnOnce()) {
        let mut board = self.lock();
        board.clear();
        change();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, Arc<Flight<V>>>> {
        self.0.lock().expect(UNPOISONED)
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }
}

/// One who loads or waits; the last one out takes the flight off the board.
pub(super) struct Passenger<'a, K: Hash + Eq, V> {
    flights: &'a Flights<K, V>,
    key: K,
    flight: Arc<Flight<V>>,
}

impl<K: Hash + Eq, V> Passenger<'_, K, V> {
    pub(super) fn key(&self) -> &K {
        &self.key
    }

    /// Until it is this one's turn: with what landed before, or to load.
    pub(super) async fn wait(&self) -> tokio::sync::MutexGuard<'_, Option<Landed<V>>> {
        self.flight.lock().await
    }

    /// Has the value kept, unless a change here has overtaken this load. What a change elsewhere has overtaken is not worth
    /// keeping: whoever waits still will load once more, for all.
    pub(super) fn land(&self, is_current: bool, keep: impl FnOnce(K))
    where
        K: Clone,
    {
        let mut board = self.flights.lock();
        if is_current && self.is_on_board(&board) {
            board.remove(&self.key);
            keep(self.key.clone());
        }
    }

    fn is_on_board(&self, board: &HashMap<K, Arc<Flight<V>>>) -> bool {
        board.get(&self.key).is_some_and(|flight| Arc::ptr_eq(flight, &self.flight))
    }
}

impl<K: Hash + Eq, V> Drop for Passenger<'_, K, V> {
    fn drop(&mut self) {
        let mut board = self.flights.lock();
        // Two: the board's and ours.
        if Arc::strong_count(&self.flight) == 2 && self.is_on_board(&board) {
            board.remove(&self.key);
        }
    }
}

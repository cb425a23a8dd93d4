//! The way of a load into the cache: who loads, who waits, and what is kept of it.
//! Not here: where the loads under way are held (flight), and the bounds (entries).

use super::flight::{Boarding, Landed};
use super::watch::Seen;
use super::{Cache, Found, Lifetime};
use crate::scoreboard::{Moment, Slot};
use std::borrow::Borrow;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// What a load gives the cache.
pub(crate) struct Loaded<V> {
    value: Option<V>,
    /// `None`: that of the cache.
    lifetime: Option<Lifetime>,
    late: Option<Late>,
    is_kept: bool,
}

/// The tags that only the load could name, and the moment before it.
struct Late {
    moment: Moment,
    tags: Box<[Slot]>,
}

/// What came of wanting a value: it was there, or the load has its own outcome.
pub(crate) enum Filled<V, R> {
    Found(Option<V>),
    Loaded(R),
}

/// What was seen before a load that nobody waits for.
#[derive(Clone)]
pub(crate) struct Before(Seen);

impl<V> Loaded<V> {
    pub(super) fn of(value: Option<V>) -> Loaded<V> {
        Loaded { value, lifetime: None, late: None, is_kept: true }
    }

    pub(crate) fn lasting(value: V, lifetime: Lifetime) -> Loaded<V> {
        Loaded { value: Some(value), lifetime: Some(lifetime), late: None, is_kept: true }
    }

    /// For those who wait, and nobody who comes later.
    pub(crate) fn passing(value: V) -> Loaded<V> {
        Loaded { value: Some(value), lifetime: None, late: None, is_kept: false }
    }

    pub(crate) fn value(&self) -> Option<&V> {
        self.value.as_ref()
    }

    /// With tags that were not known before the load; `moment` was.
    pub(crate) fn tagged(mut self, moment: Moment, tags: Box<[Slot]>) -> Loaded<V> {
        self.late = Some(Late { moment, tags });
        self
    }
}

impl<K, V> Cache<K, V>
where
    K: Hash + Eq + Clone + Send + 'static,
    V: Clone + Send + 'static,
{
    /// What is kept `now`; counted neither as hit nor as miss.
    pub(crate) fn look<Q>(&self, key: &Q, now: Instant) -> Found<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.inner.look_up(key, || now)
    }

    pub(crate) fn count(&self, hit: bool) {
        self.inner.count(hit);
    }

    /// The counter of a key, to be a tag of other entries: with it they are invalidated when this key is.
    pub(crate) fn slot<Q>(&self, key: &Q) -> Slot
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.inner.watch.slot(key)
    }

    pub(crate) fn moment(&self) -> Moment {
        self.inner.watch.generations().moment()
    }

    /// To be called before a load that is to be kept by `keep`.
    pub(crate) fn before(&self, key: &K, tags: &[Slot]) -> Before {
        Before(self.inner.watch.see(key, tags))
    }

    /// Keeps what was loaded beside the flights, unless it was invalidated meanwhile.
    pub(crate) fn keep(&self, key: K, Before(seen): Before, loaded: Loaded<V>) {
        let inner = &*self.inner;
        let Some(seen) = inner.seen_after(seen, loaded.late) else { return };
        if inner.watch.is_current(&seen) {
            let entry = inner.entries.prepare(&key, loaded.value, loaded.lifetime, seen);
            inner.flights.overtake(&key, || inner.entries.keep(key.clone(), entry));
        }
    }

    /// What is kept, what another's load brings, or what `load` has brought; the latter for the others too, unless it gives
    /// none. Who has waited for `patience` loads for itself alone.
    pub(crate) async fn fill<R, F, L>(
        &self,
        key: K,
        tags: &[Slot],
        accept: fn(&Option<V>) -> bool,
        patience: Option<Duration>,
        load: F,
    ) -> Filled<V, R>
    where
        F: FnOnce() -> L,
        L: Future<Output = (R, Option<Loaded<V>>)>,
    {
        let inner = &*self.inner;
        let (fresh, stale) = match inner.look_up(&key, Instant::now) {
            Found::Fresh(value) => (Some(value), None),
            Found::Stale(value) => (None, Some(value)),
            Found::Nothing => (None, None),
        };
        let fresh = fresh.filter(accept);
        inner.count(fresh.is_some());
        if let Some(value) = fresh {
            return Filled::Found(value);
        }
        // After the look: what is invalidated from here on concerns no read that has begun already.
        let seen = inner.watch.see(&key, tags);
        if !seen.can_be_kept() {
            // Waiting for another's load is of no use where nothing is kept.
            return Filled::Loaded(load().await.0);
        }
        let passenger = match inner.flights.board(key, stale.filter(accept)) {
            Boarding::Spared(value) => {
                inner.count_stale();
                return Filled::Found(value);
            }
            Boarding::Passenger(passenger) => passenger,
        };
        let turn = match patience {
            None => Some(passenger.wait().await),
            Some(patience) => tokio::time::timeout(patience, passenger.wait()).await.ok(),
        };
        let Some(mut landed) = turn else { return Filled::Loaded(load().await.0) };
        let served = landed.as_ref().and_then(|landed| landed.serve(&seen, &inner.watch));
        if let Some(value) = served.filter(accept) {
            return Filled::Found(value);
        }
        // The load that we missed may have ended before we boarded.
        if let Some(value) = inner.fresh(passenger.key()).filter(accept) {
            return Filled::Found(value);
        }
        // Before the load, so that it tells of every change that the load may have missed.
        let seen = inner.watch.see(passenger.key(), tags);
        let (outcome, loaded) = load().await;
        let Some(Loaded { value, lifetime, late, is_kept }) = loaded else { return Filled::Loaded(outcome) };
        let Some(seen) = inner.seen_after(seen, late) else { return Filled::Loaded(outcome) };
        landed.replace(Landed { value: value.clone(), seen: seen.clone() });
        let is_current = inner.watch.is_current(&seen);
        if is_kept {
            let entry = inner.entries.prepare(passenger.key(), value, lifetime, seen);
            passenger.land(is_current, |key| inner.entries.keep(key, entry));
        }
        Filled::Loaded(outcome)
    }
}

impl<K, V> super::Inner<K, V> {
    /// With the tags that the load named; `None` where one of them may have been invalidated since it began.
    fn seen_after(&self, seen: Seen, late: Option<Late>) -> Option<Seen> {
        match late {
            None => Some(seen),
            Some(Late { moment, tags }) => self.watch.see_late(seen, &moment, &tags),
        }
    }
}

//! A cache whose entries carry tags. Not here: how it works, which is the cache's own.

use super::{Cache, Found, tag_slot};
use crate::scoreboard::Slot;
use std::borrow::Borrow;
use std::hash::Hash;
use std::time::Instant;

/// The most tags of an entry: each is looked at whenever the entry is served.
pub const MAX_TAGS: usize = 8;

/// A [`Cache`] for entries with some tags; made by [`Cache::tagged`]. A handle.
pub struct TaggedCache<K, V> {
    cache: Cache<K, V>,
    tags: Box<[Slot]>,
}

impl<K, V> TaggedCache<K, V>
where
    K: Hash + Eq + Clone + Send + 'static,
    V: Clone + Send + 'static,
{
    pub(super) fn new<T: AsRef<str>>(
        cache: Cache<K, V>,
        tags: impl IntoIterator<Item = T>,
    ) -> TaggedCache<K, V> {
        let tags: Box<[Slot]> = tags.into_iter().map(|tag| tag_slot(tag.as_ref())).collect();
        assert!(tags.len() <= MAX_TAGS, "an entry has at most {MAX_TAGS} tags, not {}", tags.len());
        TaggedCache { cache, tags }
    }

    /// What is kept `now`; counts as a hit where there is something, and else as nothing: a load is to follow.
    pub(crate) fn hit<Q>(&self, key: &Q, now: Instant) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let Found::Fresh(Some(value)) = self.cache.look(key, now) else { return None };
        self.cache.count(true);
        Some(value)
    }

    /// As [`Cache::get_or_load`].
    pub async fn get_or_load<E, F, L>(&self, key: K, load: F) -> Result<V, E>
    where
        F: FnOnce() -> L,
        L: Future<Output = Result<V, E>>,
    {
        self.cache.value(key, &self.tags, load).await
    }

    /// As [`Cache::find_or_load`].
    pub async fn find_or_load<E, F, L>(&self, key: K, load: F) -> Result<Option<V>, E>
    where
        F: FnOnce() -> L,
        L: Future<Output = Result<Option<V>, E>>,
    {
        self.cache.find(key, &self.tags, |_| true, load).await
    }
}

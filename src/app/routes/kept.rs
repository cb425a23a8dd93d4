//! A route's answers to GET and HEAD as its cache keeps them, with what lets a client ask whether its copy is still right.
//! Not here: the cache; what an answer says.
//!
//! It is not the layer for whole responses, though a page is kept as there. That one knows a request by its URL, and hands
//! on what it cannot judge: a range, a body, a HEAD that finds nothing. Here the values of the parameters are all that
//! counts, so that no spelling of a URL and no field of a request has an answer made once more.

use super::input::{Input, Values};
use super::refusal::Refusal;
use super::value::Value;
use crate::app::cache::ENTRY_BYTES;
use crate::app::response_cache::KeptPage;
use crate::app::{Body, CacheOptions, CachedBody, TaggedCache, Worker};
use crate::config::Route;
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Up to so many bytes are copied and hashed where the worker takes requests; that of more is a handler thread's.
const SMALL: usize = 1 << 20;

pub(super) struct Pages {
    cache: TaggedCache<Values, Arc<KeptPage>>,
    ttl: Duration,
    media_type: HeaderValue,
    worker: Worker,
}

impl Pages {
    /// `None` for a route that keeps nothing.
    pub(super) fn new(worker: &Worker, route: &Route, media_type: &HeaderValue) -> Option<Pages> {
        if route.cache.is_zero() {
            return None;
        }
        let of_caches = &worker.settings().cache;
        let max_bytes = if of_caches.max_bytes == 0 { usize::MAX } else { of_caches.max_bytes };
        let options = CacheOptions::new(of_caches.capacity, route.cache).max_bytes(max_bytes, weigh);
        let cache = worker.cache_with(&format!("route {}", route.path), options).tagged(&route.tags);
        Some(Pages { cache, ttl: route.cache, media_type: media_type.clone(), worker: worker.clone() })
    }

    /// The answer out of the cache, or into it: `make` has its body. A refusal is an `Err` and so is never kept.
    pub(super) async fn answer<F>(
        &self,
        request: Request,
        input: &Input,
        make: impl FnOnce(Values) -> F,
    ) -> Result<Response, Refusal>
    where
        F: Future<Output = Result<Bytes, Refusal>>,
    {
        let conditions = conditions(request.headers());
        let values = input.read(request).await?;
        let now = Instant::now();
        let response = match self.cache.hit(&values, now) {
            Some(page) => page.hit(now, Some(&conditions)),
            None => Box::pin(self.filled(values, &conditions, make)).await?,
        };
        Ok(response.map(Body::new::<CachedBody<Body>>))
    }

    /// The answer by way of a load, its own or another's.
    async fn filled<F>(
        &self,
        values: Values,
        conditions: &HeaderMap,
        make: impl FnOnce(Values) -> F,
    ) -> Result<http::Response<CachedBody<Body>>, Refusal>
    where
        F: Future<Output = Result<Bytes, Refusal>>,
    {
        let mut first = None;
        let load = async || {
            let page = self.page(make(values.clone()).await?).await?;
            first = Some(page.first(conditions));
            Ok::<_, Refusal>(page)
        };
        let page = self.cache.get_or_load(values.clone(), load).await?;
        Ok(first.unwrap_or_else(|| page.hit(Instant::now(), Some(conditions))))
    }

    async fn page(&self, body: Bytes) -> Result<Arc<KeptPage>, Refusal> {
        let mut response = Response::new(());
        response.headers_mut().insert(CONTENT_TYPE, self.media_type.clone());
        let (parts, ()) = response.into_parts();
        let ttl = self.ttl;
        let keep = move |body: Bytes| Arc::new(KeptPage::new(parts, &body, Duration::ZERO, ttl));
        if body.len() <= SMALL {
            return Ok(keep(body));
        }
        self.worker.blocking(move || keep(body)).await.map_err(Refusal::Database)
    }
}

fn weigh(values: &Values, page: &Arc<KeptPage>) -> usize {
    ENTRY_BYTES + values.iter().map(Value::bytes).sum::<usize>() + page.bytes()
}

/// Those of a request that an answer without a date of change can meet.
fn conditions(fields: &HeaderMap) -> HeaderMap {
    let mut conditions = HeaderMap::new();
    for value in fields.get_all(IF_NONE_MATCH) {
        conditions.append(IF_NONE_MATCH, value.clone());
    }
    conditions
}

//! A route's answers to GET and HEAD as its cache keeps them, with what lets a client ask whether its copy is still right.
//! Not here: the cache; what an answer says.
//!
//! It is not the layer for whole responses, though a page is kept as there. That one knows a request by its URL, and hands
//! on what it cannot judge: a range, a body, a HEAD that finds nothing. Here the values that were bound are all that counts,
//! so that no spelling of a URL and no field of a request gets a statement run once more.

use super::super::input::Values;
use super::super::refusal::Refusal;
use super::super::value::Value;
use super::Endpoint;
use crate::app::cache::ENTRY_BYTES;
use crate::app::response_cache::KeptPage;
use crate::app::{Body, CacheOptions, CachedBody, TaggedCache, Worker};
use crate::config::Route;
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_TYPE, IF_NONE_MATCH};
use std::sync::Arc;
use std::time::Duration;

/// Up to so many bytes are copied and hashed where the worker takes requests; that of more is a handler thread's.
const SMALL: usize = 1 << 20;

pub(super) struct Pages {
    cache: TaggedCache<Values, Arc<KeptPage>>,
    ttl: Duration,
}

impl Pages {
    pub(super) fn new(worker: &Worker, route: &Route) -> Pages {
        let of_caches = &worker.settings().cache;
        let max_bytes = if of_caches.max_bytes == 0 { usize::MAX } else { of_caches.max_bytes };
        let options = CacheOptions::new(of_caches.capacity, route.cache).max_bytes(max_bytes, weigh);
        let cache = worker.cache_with(&format!("route {}", route.path), options).tagged(&route.tags);
        Pages { cache, ttl: route.cache }
    }

    /// The answer out of the cache, or into it. A refusal is an `Err` and so is never kept.
    pub(super) async fn answer(&self, endpoint: &Endpoint, request: Request) -> Result<Response, Refusal> {
        let conditions = conditions(request.headers());
        let values = endpoint.input.read(request).await?;
        let mut first = None;
        let load = async {
            let page = self.page(endpoint, values.clone()).await?;
            first = Some(page.first(&conditions));
            Ok::<_, Refusal>(page)
        };
        let page = self.cache.get_or_load(values.clone(), || load).await?;
        let response = first.unwrap_or_else(|| page.hit(Some(&conditions)));
        Ok(response.map(Body::new::<CachedBody<Body>>))
    }

    async fn page(&self, endpoint: &Endpoint, values: Values) -> Result<Arc<KeptPage>, Refusal> {
        let body = endpoint.shared.whole(values).await?;
        let mut response = Response::new(());
        *response.status_mut() = endpoint.status;
        response.headers_mut().insert(CONTENT_TYPE, endpoint.media_type.clone());
        let (parts, ()) = response.into_parts();
        let ttl = self.ttl;
        let keep = move |body: Bytes| Arc::new(KeptPage::new(parts, &body, Duration::ZERO, ttl));
        if body.len() <= SMALL {
            return Ok(keep(body));
        }
        endpoint.shared.worker.blocking(move || keep(body)).await.map_err(Refusal::Database)
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

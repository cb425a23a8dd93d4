//! How a response cache is bounded, and what it takes a request and a response for. Not here: the rules themselves.

use http::header::HeaderName;
use std::time::Duration;

const CAPACITY: usize = 10_000;
const MAX_BYTES: usize = 16 << 20;
const MAX_BODY: usize = 1 << 20;
const MAX_WAIT: Duration = Duration::from_secs(5);

/// What [`Worker::response_cache`](crate::Worker::response_cache) keeps, in each worker, and for how long.
///
/// ```
/// use axum::{Router, routing::get};
/// use ferricorn::ResponseCacheOptions;
/// use std::time::Duration;
///
/// # fn app(worker: ferricorn::Worker) -> Router {
/// let options = ResponseCacheOptions::new(Duration::from_secs(30)).query(["page"]).tags(["items"]);
/// Router::new().route("/items", get(async || "a list\n")).layer(worker.response_cache("items", options))
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct ResponseCacheOptions {
    pub(super) ttl: Duration,
    pub(super) stale: Duration,
    pub(super) capacity: usize,
    pub(super) max_bytes: usize,
    pub(super) max_body: usize,
    pub(super) max_wait: Duration,
    pub(super) query: Option<Vec<String>>,
    pub(super) vary_by: Option<Vec<HeaderName>>,
    pub(super) tags: Vec<String>,
    pub(super) any_host: bool,
    pub(super) cookies: bool,
    pub(super) authorized: bool,
    pub(super) set_cookie: bool,
    pub(super) obeys_requests: bool,
}

impl ResponseCacheOptions {
    /// `ttl` is for how long a response with status 200, 203, 301 or 308 is kept that does not say so itself; zero: it is not.
    pub fn new(ttl: Duration) -> ResponseCacheOptions {
        ResponseCacheOptions {
            ttl,
            stale: Duration::ZERO,
            capacity: CAPACITY,
            max_bytes: MAX_BYTES,
            max_body: MAX_BODY,
            max_wait: MAX_WAIT,
            query: None,
            vary_by: None,
            tags: Vec::new(),
            any_host: false,
            cookies: false,
            authorized: false,
            set_cookie: false,
            obeys_requests: true,
        }
    }

    /// For how long after its time a response is given to others while one request has it made anew, where it does not say
    /// so itself (`stale-while-revalidate`). The default is zero: they wait.
    #[must_use]
    pub fn stale(mut self, stale: Duration) -> ResponseCacheOptions {
        self.stale = stale;
        self
    }

    /// How many responses are kept; the default is 10,000.
    #[must_use]
    pub fn capacity(mut self, capacity: usize) -> ResponseCacheOptions {
        self.capacity = capacity;
        self
    }

    /// How many bytes of heads and bodies are kept, about 300 for each response counted in; the default is 16 MiB.
    #[must_use]
    pub fn max_bytes(mut self, max_bytes: usize) -> ResponseCacheOptions {
        self.max_bytes = max_bytes;
        self
    }

    /// How large a body that is kept can be; a larger one passes as it comes. The default is 1 MiB.
    #[must_use]
    pub fn max_body(mut self, max_body: usize) -> ResponseCacheOptions {
        self.max_body = max_body;
        self
    }

    /// For how long a request waits for another's response; then the app is asked for this one as well, and it is not kept.
    /// Within this time a body must also have come as a whole. The default is 5 s.
    #[must_use]
    pub fn max_wait(mut self, max_wait: Duration) -> ResponseCacheOptions {
        self.max_wait = max_wait;
        self
    }

    /// The parameters of the query that make a difference; without this all of them do. The app is not shown any others,
    /// so that nothing of them can get into what others are served.
    #[must_use]
    pub fn query<T: Into<String>>(mut self, names: impl IntoIterator<Item = T>) -> ResponseCacheOptions {
        self.query = Some(names.into_iter().map(Into::into).collect());
        self
    }

    /// The fields of the request that make a difference, in place of those that `Vary` in a response names.
    #[must_use]
    pub fn vary_by(mut self, fields: impl IntoIterator<Item = HeaderName>) -> ResponseCacheOptions {
        self.vary_by = Some(fields.into_iter().collect());
        self
    }

    /// Tags of every response; see [`CacheTags`](super::CacheTags) for those of a single one.
    #[must_use]
    pub fn tags<T: Into<String>>(mut self, tags: impl IntoIterator<Item = T>) -> ResponseCacheOptions {
        self.tags = tags.into_iter().map(Into::into).collect();
        self
    }

    /// The response does not depend on the request's `Host`.
    #[must_use]
    pub fn any_host(mut self) -> ResponseCacheOptions {
        self.any_host = true;
        self
    }

    /// The response does not depend on cookies, so that requests with a `Cookie` are served from the cache, and their responses
    /// are kept. Without this they go to the app.
    #[must_use]
    pub fn any_cookie(mut self) -> ResponseCacheOptions {
        self.cookies = true;
        self
    }

    /// The response does not depend on who asks: as [`any_cookie`](Self::any_cookie), of requests with an `Authorization`. Only where the
    /// access is checked outside of the cache, or anybody may see the response.
    #[must_use]
    pub fn any_authorization(mut self) -> ResponseCacheOptions {
        self.authorized = true;
        self
    }

    /// Responses with a `Set-Cookie` are kept too, and the cookie is given to everybody.
    #[must_use]
    pub fn keep_set_cookie(mut self) -> ResponseCacheOptions {
        self.set_cookie = true;
        self
    }

    /// `Cache-Control` of a request is not obeyed, but for `only-if-cached`: no client can have the app do work that the cache would
    /// save. That is as for an origin server, which owes nobody a fresh response.
    #[must_use]
    pub fn ignore_request_directives(mut self) -> ResponseCacheOptions {
        self.obeys_requests = false;
        self
    }
}

//! Whole responses kept by a layer, by the rules of RFC 9111 for a shared cache before the app. docs/caching.md says what
//! is obeyed. Not here: the cache itself, its bounds, and how workers agree on what is out of date (cache).
//!
//! `ask` reads what a request wants, `key` is what a response is found by, `policy` judges what may be kept, `page` is what is
//! kept of it and how that is given, `fill` has a response made, for all who wait for it.

mod ask;
mod body;
mod date;
mod directives;
mod fill;
mod key;
mod options;
mod page;
mod policy;

pub use body::CachedBody;
pub use options::ResponseCacheOptions;
pub(super) use page::Page as KeptPage;

use super::cache::{Cache, CacheOptions, ENTRY_BYTES, Found, MAX_TAGS, tag_slot};
use crate::app::Worker;
use crate::scoreboard::Slot;
use ask::{Ask, Wish};
use bytes::Bytes;
use http::header::HeaderName;
use http::{Method, Request, Response, StatusCode, Uri};
use http_body::Body;
use key::{Key, Parts, Probe};
use page::Page;
use pin_project_lite::pin_project;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tower::{Layer, Service};

/// Tags of one response, which the app puts into its extensions: with any of them,
/// [`Worker::invalidate_tag`](crate::Worker::invalidate_tag) has every worker forget it. With those of the layer's options they
/// are at most [`MAX_TAGS`]; a response with more is not kept.
///
/// ```
/// use axum::Extension;
/// use ferricorn::CacheTags;
///
/// async fn item() -> (Extension<CacheTags>, &'static str) {
///     (Extension(CacheTags::new(["items", "item 7"])), "a kettle\n")
/// }
/// ```
#[derive(Clone)]
pub struct CacheTags(Vec<Slot>);

impl CacheTags {
    pub fn new<T: AsRef<str>>(tags: impl IntoIterator<Item = T>) -> CacheTags {
        CacheTags(tags.into_iter().map(|tag| tag_slot(tag.as_ref())).collect())
    }
}

/// Has responses served from a cache; made by [`Worker::response_cache`](crate::Worker::response_cache).
#[derive(Clone)]
pub struct ResponseCacheLayer {
    shared: Arc<Shared>,
}

/// A service behind a [`ResponseCacheLayer`].
#[derive(Clone)]
pub struct CachedService<S> {
    inner: S,
    shared: Arc<Shared>,
}

struct Shared {
    cache: Cache<Key, Kept>,
    options: ResponseCacheOptions,
    tags: Box<[Slot]>,
}

#[derive(Clone)]
enum Kept {
    Page(Arc<Page>),
    /// The responses stand under keys with the values of these fields.
    Varies(Arc<[HeaderName]>),
    /// The last response was not to be kept: nobody need wait for the next one.
    Pass,
}

impl ResponseCacheLayer {
    /// # Panics
    /// With more than [`MAX_TAGS`] tags.
    pub(crate) fn new(worker: &Worker, name: &str, options: ResponseCacheOptions) -> ResponseCacheLayer {
        let bounds = CacheOptions::new(options.capacity, Duration::ZERO).max_bytes(options.max_bytes, weigh);
        ResponseCacheLayer::over(worker.cache_with(&format!("response {name}"), bounds), options)
    }

    fn over(cache: Cache<Key, Kept>, options: ResponseCacheOptions) -> ResponseCacheLayer {
        let CacheTags(tags) = CacheTags::new(&options.tags);
        assert!(tags.len() <= MAX_TAGS, "a response has at most {MAX_TAGS} tags, not {}", tags.len());
        ResponseCacheLayer { shared: Arc::new(Shared { cache, options, tags: tags.into() }) }
    }
}

fn weigh(key: &Key, kept: &Kept) -> usize {
    ENTRY_BYTES
        + key.bytes()
        + match kept {
            Kept::Page(page) => page.bytes(),
            Kept::Varies(names) => names.iter().map(|name| name.as_str().len()).sum(),
            Kept::Pass => 0,
        }
}

impl<S> Layer<S> for ResponseCacheLayer {
    type Service = CachedService<S>;

    fn layer(&self, inner: S) -> CachedService<S> {
        CachedService { inner, shared: Arc::clone(&self.shared) }
    }
}

/// What the cache has for a GET or HEAD.
enum Look<B: Body> {
    Hit(Response<CachedBody<B>>),
    Miss(Key, Lack),
}

/// Why the app has to be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lack {
    /// There is nothing: one asks for all.
    Nothing,
    /// The request wants something newer.
    New,
    /// The last response was not to be kept.
    Passed,
}

impl Shared {
    fn look<R, B: Body>(&self, request: &Request<R>, wish: &Wish<'_>) -> Look<B> {
        let fields = request.headers();
        let target = key::normal_target(request.uri());
        let mut variant =
            self.options.vary_by.as_ref().map_or(Vec::new(), |names| key::variant(names, fields));
        let base = Probe { host: wish.host, target: &target, variant: b"" };
        // Read once, for all that a hit asks of it.
        let now = Instant::now();
        let mut found = self.cache.look(&Probe { variant: &variant, ..base } as &dyn Parts, now);
        if let Found::Fresh(Some(Kept::Varies(names))) = &found {
            let varied = key::variant(names, fields);
            found = self.cache.look(&Probe { variant: &varied, ..base } as &dyn Parts, now);
            if matches!(&found, Found::Fresh(Some(Kept::Page(_) | Kept::Pass))) {
                variant = varied;
            }
        }
        let lack = match found {
            Found::Fresh(Some(Kept::Page(page))) if wish.accepts(|| page.times(now)) => {
                self.cache.count(true);
                return Look::Hit(page.hit(now, wish.is_conditional.then_some(fields)));
            }
            Found::Fresh(Some(Kept::Pass)) => Lack::Passed,
            Found::Fresh(Some(Kept::Page(_))) => Lack::New,
            Found::Fresh(Some(Kept::Varies(_)) | None) | Found::Stale(_) | Found::Nothing => {
                if wish.wants_new() { Lack::New } else { Lack::Nothing }
            }
        };
        Look::Miss(Key::new(Probe { variant: &variant, ..base }), lack)
    }

    /// The parameters that the app is not shown, if there are any, taken off.
    fn shorten(&self, uri: &Uri) -> Option<Uri> {
        key::only(uri, self.options.query.as_ref()?)
    }

    fn key_of_target<R>(&self, request: &Request<R>) -> Key {
        let host = if self.options.any_host { None } else { request.headers().get(http::header::HOST) };
        let host = host.map_or(&b""[..], |host| host.as_bytes());
        let shortened = self.shorten(request.uri());
        let target = key::normal_target(shortened.as_ref().unwrap_or(request.uri()));
        Key::new(Probe { host, target: &target, variant: b"" })
    }
}

impl<S, R, B> Service<Request<R>> for CachedService<S>
where
    S: Service<Request<R>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
    R: Body + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Send,
{
    type Response = Response<CachedBody<B>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, B, S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<R>) -> Self::Future {
        if matches!(*request.method(), Method::GET | Method::HEAD)
            && let Some(uri) = self.shared.shorten(request.uri())
        {
            *request.uri_mut() = uri;
        }
        let step = match Ask::read(&request, &self.shared.options) {
            Ask::Through => Step::Through { future: self.inner.call(request), changed: None },
            Ask::Change => {
                let key = self.shared.key_of_target(&request);
                let changed = Some(Changed { shared: Arc::clone(&self.shared), key, happened: true });
                Step::Through { future: self.inner.call(request), changed }
            }
            Ask::Page(wish) => match self.shared.look(&request, &wish) {
                Look::Hit(response) => Step::Ready { response: Some(response) },
                Look::Miss(..) if wish.is_only_if_cached() => {
                    let mut response = Response::new(CachedBody::empty());
                    *response.status_mut() = StatusCode::GATEWAY_TIMEOUT;
                    Step::Ready { response: Some(response) }
                }
                // Its response has no body that could be kept.
                Look::Miss(..) if request.method() == Method::HEAD => {
                    Step::Through { future: self.inner.call(request), changed: None }
                }
                Look::Miss(key, lack) => {
                    // The one that was asked whether it is ready is the one to be called.
                    let inner = self.inner.clone();
                    let service = std::mem::replace(&mut self.inner, inner);
                    let shared = Arc::clone(&self.shared);
                    Step::Making { making: Box::pin(fill::fill(shared, service, request, key, lack)) }
                }
            },
        };
        ResponseFuture { step }
    }
}

pin_project! {
    /// The future of a response behind a [`ResponseCacheLayer`].
    pub struct ResponseFuture<F, B: Body, E> {
        #[pin]
        step: Step<F, B, E>,
    }
}

type Making<B, E> = Pin<Box<dyn Future<Output = Result<Response<CachedBody<B>>, E>> + Send>>;

pin_project! {
    #[project = StepView]
    enum Step<F, B: Body, E> {
        Ready { response: Option<Response<CachedBody<B>>> },
        Through { #[pin] future: F, changed: Option<Changed> },
        Making { making: Making<B, E> },
    }
}

impl<F, B, E> Future for ResponseFuture<F, B, E>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body,
{
    type Output = Result<Response<CachedBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().step.project() {
            StepView::Ready { response } => {
                Poll::Ready(Ok(response.take().expect("a future is not polled after its end")))
            }
            StepView::Through { future, changed } => {
                let response = ready!(future.poll(cx));
                if let (Some(changed), Ok(response)) = (changed, &response) {
                    changed.happened = !response.status().is_client_error();
                }
                Poll::Ready(response.map(|response| response.map(CachedBody::app)))
            }
            StepView::Making { making } => making.as_mut().poll(cx),
        }
    }
}

/// What a request other than GET may have changed. When the request is over, also by its client's leaving, the target is
/// invalidated, unless the response said that nothing was done.
struct Changed {
    shared: Arc<Shared>,
    key: Key,
    happened: bool,
}

impl Drop for Changed {
    fn drop(&mut self) {
        if self.happened {
            self.shared.cache.invalidate(&self.key);
        }
    }
}

#[cfg(test)]
mod tests;

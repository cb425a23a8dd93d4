//! Has a response made, once for all who want it at the same time, and keeps what may be kept. Not here: what may (policy).

use super::body::{Collected, collect};
use super::date::Date;
use super::key::{self, Key};
use super::page::Page;
use super::{CacheTags, CachedBody, Kept, Lack, MAX_TAGS, Shared, policy};
use crate::app::cache::{Filled, Lifetime, Loaded};
use crate::scoreboard::Slot;
use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, IF_MODIFIED_SINCE, IF_NONE_MATCH};
use http::response::Parts;
use http::{Request, Response};
use http_body::Body;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tower::Service;

/// How long after a response that was not to be kept requests for the same do not wait for each other.
const PASS: Duration = Duration::from_secs(10);
/// How often a request follows a hint at other fields that its response varies by.
const ROUNDS: usize = 3;

type Outcome<B, E> = Result<Response<CachedBody<B>>, E>;

/// A request on its way to the app.
struct Errand<S, R> {
    service: S,
    request: Request<R>,
    /// As they came.
    fields: HeaderMap,
    /// The app is shown the conditions, and may answer 304; without them, its response is whole.
    is_shown_all: bool,
}

/// A response that may be kept, by its head.
struct Keepable {
    lifetime: Lifetime,
    age: Duration,
    tags: Box<[Slot]>,
    /// What it varies by.
    names: Vec<HeaderName>,
}

pub(super) async fn fill<S, R, B>(
    shared: Arc<Shared>,
    service: S,
    request: Request<R>,
    mut key: Key,
    lack: Lack,
) -> Outcome<B, S::Error>
where
    S: Service<Request<R>, Response = Response<B>>,
    B: Body<Data = Bytes>,
{
    let fields = request.headers().clone();
    let mut errand = Some(Errand { service, request, fields: fields.clone(), is_shown_all: false });
    let mut passes = lack == Lack::Passed;
    let mut names: Arc<[HeaderName]> = Arc::default();
    for _ in 0..if lack == Lack::Nothing { ROUNDS } else { 0 } {
        let mut tags = shared.tags.to_vec();
        if !key.is_of_target() {
            tags.push(shared.cache.slot(&Key::new(key.of_target())));
        }
        let (taken, known, place) = (&mut errand, &names, &key);
        let shared = &shared;
        let load = move || async move {
            let errand = taken.take().expect("a load runs once, and nothing follows it");
            shared.run(errand, place, known).await
        };
        let patience = Some(shared.options.max_wait);
        match shared.cache.fill(key.clone(), &tags, Option::is_some, patience, load).await {
            Filled::Loaded(outcome) => return outcome,
            Filled::Found(Some(Kept::Page(page))) => return Ok(page.hit(Instant::now(), Some(&fields))),
            Filled::Found(Some(Kept::Varies(found))) => {
                key = key.with_variant(key::variant(&found, &fields));
                names = found;
            }
            Filled::Found(Some(Kept::Pass) | None) => {
                passes = true;
                break;
            }
        }
    }
    let mut errand = errand.expect("no load has taken it");
    errand.is_shown_all = passes;
    shared.run_alone(errand, &key, &names).await
}

impl Shared {
    /// Beside those who wait for each other; what comes of it is kept all the same.
    async fn run_alone<S, R, B>(
        &self,
        errand: Errand<S, R>,
        key: &Key,
        names: &[HeaderName],
    ) -> Outcome<B, S::Error>
    where
        S: Service<Request<R>, Response = Response<B>>,
        B: Body<Data = Bytes>,
    {
        let before = self.cache.before(&Key::new(key.of_target()), &self.tags);
        let (outcome, loaded) = self.run(errand, key, names).await;
        // Not that it was not to be kept: the one who found that out first has left a mark.
        if let Some(loaded) = loaded.filter(|loaded| !matches!(loaded.value(), Some(Kept::Pass))) {
            self.cache.keep(key.clone(), before, loaded);
        }
        outcome
    }

    /// The response of the app, and what is to stand under `key` from now on; `names` are the fields that it has in it.
    async fn run<S, R, B>(
        &self,
        mut errand: Errand<S, R>,
        key: &Key,
        names: &[HeaderName],
    ) -> (Outcome<B, S::Error>, Option<Loaded<Kept>>)
    where
        S: Service<Request<R>, Response = Response<B>>,
        B: Body<Data = Bytes>,
    {
        let target = Key::new(key.of_target());
        // Both before the app begins: they tell of every change that it may have missed.
        let (before, moment) = (self.cache.before(&target, &self.tags), self.cache.moment());
        if !errand.is_shown_all {
            errand.request.headers_mut().remove(IF_NONE_MATCH);
            errand.request.headers_mut().remove(IF_MODIFIED_SINCE);
        }
        let (parts, body) = match errand.service.call(errand.request).await {
            Ok(response) => response.into_parts(),
            Err(error) => return (Err(error), None),
        };
        let Some(keepable) = self.judge(&parts) else {
            let pass = match parts.status {
                // Who waits for an app that fails goes on waiting, and asks it in turn.
                status if status.is_server_error() => None,
                // Else whoever asks for what there is not could fill the cache with marks.
                status if status.is_client_error() => Some(Loaded::passing(Kept::Pass)),
                _ => Some(pass()),
            };
            return (Ok(Response::from_parts(parts, CachedBody::app(body))), pass);
        };
        let body = match collect(body, self.options.max_body, self.options.max_wait).await {
            Collected::Whole(body) => body,
            Collected::Passing(body) => return (Ok(Response::from_parts(parts, body)), Some(pass())),
        };
        let Keepable { lifetime, age, tags, names: new } = keepable;
        let page = Arc::new(Page::new(parts, &body, age, lifetime.ttl));
        let response = Ok(page.first(&errand.fields));
        let loaded = Loaded::lasting(Kept::Page(page), lifetime).tagged(moment, tags);
        if self.options.vary_by.is_some() || new.iter().all(|name| names.contains(name)) {
            return (response, Some(loaded));
        }
        // It varies by more than the key has in it.
        let mut all = [names, &new].concat();
        all.sort_by(|one, other| one.as_str().cmp(other.as_str()));
        all.dedup();
        self.cache.keep(target.with_variant(key::variant(&all, &errand.fields)), before.clone(), loaded);
        // No shorter than what it leads to.
        let hint = Lifetime { ttl: lifetime.ttl.saturating_mul(2), stale: lifetime.stale };
        let hint = Loaded::lasting(Kept::Varies(all.into()), hint);
        if key.is_of_target() {
            return (response, Some(hint));
        }
        self.cache.keep(target, before, hint);
        (response, Some(pass()))
    }

    fn judge(&self, parts: &Parts) -> Option<Keepable> {
        let policy::Verdict { lifetime, age } =
            policy::judge(parts.status, &parts.headers, &self.options, Date::now())?;
        let names = policy::vary(&parts.headers)?;
        let tags = parts.extensions.get().map_or(&[][..], |CacheTags(tags)| tags);
        let count = tags.len() + self.tags.len();
        if count > MAX_TAGS {
            log::warn!("response not cached tags={count} at_most={MAX_TAGS}");
            return None;
        }
        Some(Keepable { lifetime, age, tags: tags.into(), names })
    }
}

fn pass() -> Loaded<Kept> {
    Loaded::lasting(Kept::Pass, Lifetime { ttl: PASS, stale: Duration::ZERO })
}

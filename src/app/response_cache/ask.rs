//! What a request wants of the cache. Not here: what the cache has.

use super::ResponseCacheOptions;
use super::directives::Directives;
use http::header::{
    AUTHORIZATION, CACHE_CONTROL, COOKIE, HOST, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE,
    IF_UNMODIFIED_SINCE, RANGE,
};
use http::{Method, Request};
use http_body::Body;
use std::time::Duration;

pub(super) enum Ask<'a> {
    /// The cache has nothing to do with it.
    Through,
    /// It may change what the cache has (RFC 9111, 4.4).
    Change,
    Page(Wish<'a>),
}

/// What a GET or HEAD says of the response that it wants.
#[derive(Clone, Copy, Default)]
pub(super) struct Wish<'a> {
    pub(super) host: &'a [u8],
    /// A 304 may do.
    pub(super) is_conditional: bool,
    directives: Option<Directives>,
}

impl<'a> Ask<'a> {
    pub(super) fn read<R: Body>(request: &'a Request<R>, options: &ResponseCacheOptions) -> Ask<'a> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let is_safe = matches!(*request.method(), Method::OPTIONS | Method::TRACE);
            return if is_safe { Ask::Through } else { Ask::Change };
        }
        // A body is in no key, and neither is the host of an absolute target, which counts in place of the field's.
        if !request.body().is_end_stream() || request.uri().authority().is_some() {
            return Ask::Through;
        }
        let mut wish = Wish::default();
        let mut has_directives = false;
        // One pass: a lookup for each field costs more.
        for (name, value) in request.headers() {
            match *name {
                HOST if !options.any_host => wish.host = value.as_bytes(),
                AUTHORIZATION if !options.authorized => return Ask::Through,
                COOKIE if !options.cookies => return Ask::Through,
                RANGE | IF_RANGE | IF_MATCH | IF_UNMODIFIED_SINCE => return Ask::Through,
                IF_NONE_MATCH | IF_MODIFIED_SINCE => wish.is_conditional = true,
                CACHE_CONTROL => has_directives = true,
                _ => {}
            }
        }
        if has_directives {
            let given = Directives::read(request.headers());
            let directives = if options.obeys_requests {
                given
            } else {
                Directives { only_if_cached: given.only_if_cached, ..Directives::default() }
            };
            if directives.no_store {
                return Ask::Through;
            }
            wish.directives = Some(directives);
        }
        Ask::Page(wish)
    }
}

impl Wish<'_> {
    pub(super) fn is_only_if_cached(&self) -> bool {
        self.directives.is_some_and(|directives| directives.only_if_cached)
    }

    /// Whether something new has to be made in any case.
    pub(super) fn wants_new(&self) -> bool {
        self.directives.is_some_and(|directives| {
            directives.no_cache || directives.max_age.is_some_and(|max_age| max_age.is_zero())
        })
    }

    /// Whether a response of this age will do, that is fresh for so much longer.
    pub(super) fn accepts(&self, times: impl FnOnce() -> (Duration, Duration)) -> bool {
        let Some(directives) = self.directives else { return true };
        if self.wants_new() {
            return false;
        }
        let (age, left) = times();
        directives.max_age.is_none_or(|max_age| age <= max_age)
            && directives.min_fresh.is_none_or(|min_fresh| left >= min_fresh)
    }
}

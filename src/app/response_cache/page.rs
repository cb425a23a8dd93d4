//! A response as it is kept, and how it is given: whole, or as a 304. Not here: whether it may be kept (policy).

use super::body::CachedBody;
use super::date::Date;
use bytes::Bytes;
use http::header::{
    AGE, CONNECTION, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH, CONTENT_TYPE, DATE, ETAG,
    HeaderName, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED, PROXY_AUTHENTICATE, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use http::response::Parts;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body::Body;
use siphasher::sip128::{Hasher128, SipHasher13};
use std::hash::Hasher;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Of one connection (RFC 9111, 3.1), or said by the length of the body.
const NOT_KEPT: [HeaderName; 8] = [
    CONNECTION,
    CONTENT_LENGTH,
    HeaderName::from_static("keep-alive"),
    PROXY_AUTHENTICATE,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];
/// Of the representation, which a 304 does not bring (RFC 9110, 15.4.5).
const NOT_IN_304: [HeaderName; 3] = [CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_TYPE];
/// What a field costs in memory beside its text, about.
const FIELD_BYTES: usize = 100;

pub(in crate::app) struct Page {
    status: StatusCode,
    head: Mutex<Head>,
    body: Bytes,
    /// By which a client's copy is told to be the same; only where a 304 would do.
    etag: Option<HeaderValue>,
    modified: Option<Date>,
    made: Instant,
    /// How old it was when it was made.
    age: Duration,
    ttl: Duration,
    bytes: usize,
}

/// The fields, with the age that was true at the last hit: it is the same for all hits of a second.
struct Head {
    age: Option<u64>,
    fields: HeaderMap,
}

impl Page {
    pub(in crate::app) fn new(parts: Parts, body: &[u8], age: Duration, ttl: Duration) -> Page {
        let Parts { status, headers: mut fields, .. } = parts;
        let named: Vec<HeaderName> = fields
            .get_all(CONNECTION)
            .iter()
            .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
            .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
            .collect();
        for name in NOT_KEPT.iter().chain(&named) {
            fields.remove(name);
        }
        if !fields.contains_key(DATE) {
            fields.insert(DATE, Date::now().field());
        }
        let is_whole = status == StatusCode::OK;
        if is_whole && !fields.contains_key(ETAG) {
            fields.insert(ETAG, etag(body));
        }
        let etag = fields.get(ETAG).filter(|_| is_whole).cloned();
        let modified = fields.get(LAST_MODIFIED).filter(|_| is_whole).and_then(Date::read);
        let head: usize =
            fields.iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD_BYTES).sum();
        Page {
            status,
            head: Mutex::new(Head { age: None, fields }),
            // Copied, so that nothing is kept of a larger buffer that it may be a part of.
            body: Bytes::copy_from_slice(body),
            etag,
            modified,
            made: Instant::now(),
            age,
            ttl,
            bytes: head + body.len() + size_of::<Page>(),
        }
    }

    pub(in crate::app) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How old it is, and how long it is fresh.
    pub(super) fn times(&self, now: Instant) -> (Duration, Duration) {
        let since = now.saturating_duration_since(self.made);
        (self.age + since, self.ttl.saturating_sub(since))
    }

    /// As it was made; to be called before anybody else can have it.
    pub(in crate::app) fn first<B: Body>(&self, asked: &HeaderMap) -> Response<CachedBody<B>> {
        let fields = self.head.lock().unwrap_or_else(PoisonError::into_inner).fields.clone();
        self.respond(fields, Some(asked))
    }

    /// As it is out of the cache; `asked` are the request's fields, where it has conditions.
    pub(in crate::app) fn hit<B: Body>(
        &self,
        now: Instant,
        asked: Option<&HeaderMap>,
    ) -> Response<CachedBody<B>> {
        let age = (self.age + now.saturating_duration_since(self.made)).as_secs();
        let mut head = self.head.lock().unwrap_or_else(PoisonError::into_inner);
        if head.age != Some(age) {
            head.age = Some(age);
            head.fields.insert(AGE, HeaderValue::from(age));
        }
        let fields = head.fields.clone();
        drop(head);
        self.respond(fields, asked)
    }

    fn respond<B: Body>(&self, fields: HeaderMap, asked: Option<&HeaderMap>) -> Response<CachedBody<B>> {
        let is_known = asked.is_some_and(|asked| self.is_known(asked));
        let body = if is_known { CachedBody::empty() } else { CachedBody::kept(self.body.clone()) };
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        *response.headers_mut() = fields;
        if is_known {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            for name in &NOT_IN_304 {
                response.headers_mut().remove(name);
            }
            if self.etag.is_some() {
                response.headers_mut().remove(LAST_MODIFIED);
            }
        }
        response
    }

    /// Whether the client has it, by the conditions of its request (RFC 9110, 13.2.2).
    fn is_known(&self, asked: &HeaderMap) -> bool {
        if self.status != StatusCode::OK {
            return false;
        }
        if asked.contains_key(IF_NONE_MATCH) {
            let Some(etag) = &self.etag else { return false };
            return asked.get_all(IF_NONE_MATCH).iter().any(|value| names(value.as_bytes(), etag.as_bytes()));
        }
        let since = asked.get(IF_MODIFIED_SINCE).and_then(Date::read);
        since.zip(self.modified).is_some_and(|(since, modified)| modified <= since)
    }
}

/// Whether a list of entity tags names this one, weak or strong.
fn names(list: &[u8], etag: &[u8]) -> bool {
    if list.trim_ascii() == b"*" {
        return true;
    }
    let wanted = etag.strip_prefix(b"W/").unwrap_or(etag);
    let mut rest = list;
    loop {
        let blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b',');
        rest = &rest[rest.iter().take_while(|byte| blank(byte)).count()..];
        rest = rest.strip_prefix(b"W/").unwrap_or(rest);
        let Some(after) = rest.strip_prefix(b"\"") else { return false };
        let Some(end) = after.iter().position(|byte| *byte == b'"') else { return false };
        if &rest[..end + 2] == wanted {
            return true;
        }
        rest = &after[end + 1..];
    }
}

/// The same in every worker and after every start, so that it does not matter who is asked next.
fn etag(body: &[u8]) -> HeaderValue {
    let mut hasher = SipHasher13::new();
    hasher.write(body);
    let text = format!("\"{:032x}\"", hasher.finish128().as_u128());
    HeaderValue::from_str(&text).expect("digits and quotes are a field's value")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entity_tags_are_compared_weakly() {
        let table = [
            ("\"a\"", "\"a\"", true),
            ("W/\"a\"", "\"a\"", true),
            ("\"a\"", "W/\"a\"", true),
            ("\"b\", \"a\"", "\"a\"", true),
            ("\"b\",W/\"c\" , \"a\"", "\"a\"", true),
            ("\"a,b\"", "\"a,b\"", true),
            ("\"a,b\"", "\"a\"", false),
            ("*", "\"a\"", true),
            ("\"b\"", "\"a\"", false),
            ("a", "\"a\"", false),
            ("\"a", "\"a\"", false),
            ("", "\"a\"", false),
            ("w/\"a\"", "\"a\"", false),
        ];
        for (list, etag, wanted) in table {
            assert_eq!(names(list.as_bytes(), etag.as_bytes()), wanted, "{list} {etag}");
        }
    }
}

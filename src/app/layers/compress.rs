//! Answers compressed with what their client accepts, by tower-http. Here is what it leaves to others: which answers are worth
//! it, and what becomes of their `ETag`. Not here: encodings themselves, the choice among those that a client accepts.

use crate::app::Body;
use crate::config::{Encodings, Settings};
use http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY,
};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tower::util::MapResponse;
use tower::{Layer, Service, ServiceExt};
use tower_http::compression::predicate::Predicate;
use tower_http::compression::{Compression, CompressionLayer};

/// Compressed only where it is named: events are to arrive one by one, and are short.
const EVENTS: &str = "text/event-stream";

/// In an answer's extensions: it is as it is to be, compressed or not. So said by a route with a word of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settled;

/// Has answers compressed.
#[derive(Clone)]
pub(crate) struct Compress {
    layer: CompressionLayer<Worth>,
}

impl Compress {
    /// With these encodings; what is worth it is the settings' word.
    pub(crate) fn new(encodings: Encodings, settings: &Settings) -> Compress {
        let worth =
            Worth { min_size: settings.compress_min_size, types: settings.compress_types.clone().into() };
        let Encodings { gzip, brotli, zstd } = encodings;
        let layer = CompressionLayer::new().gzip(gzip).br(brotli).zstd(zstd).compress_when(worth);
        Compress { layer }
    }
}

type Note<B> = fn(Response<B>) -> Response<Body>;

impl<S> Layer<S> for Compress {
    type Service = Compressed<S>;

    fn layer(&self, inner: S) -> Compressed<S> {
        Compressed { inner, layer: self.layer.clone() }
    }
}

/// A service behind [`Compress`].
#[derive(Clone)]
pub(crate) struct Compressed<S> {
    inner: S,
    layer: CompressionLayer<Worth>,
}

/// The answer as the app gave it.
#[derive(Clone, Copy)]
struct Given {
    status: StatusCode,
    is_encoded: bool,
}

fn note<B>(answer: Response<B>) -> Response<Body>
where
    B: http_body::Body<Data = bytes::Bytes, Error: Into<super::BoxError>> + Send + 'static,
{
    let given =
        Given { status: answer.status(), is_encoded: answer.headers().contains_key(CONTENT_ENCODING) };
    let mut answer = answer.map(Body::new);
    answer.extensions_mut().insert(given);
    answer
}

impl<S, B> Service<Request<Body>> for Compressed<S>
where
    S: Service<Request<Body>, Response = Response<B>, Future: Send + 'static> + Clone + Send + 'static,
    S::Error: Send,
    B: http_body::Body<Data = bytes::Bytes, Error: Into<super::BoxError>> + Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let fresh = self.inner.clone();
        // The one that was found ready.
        let ready = std::mem::replace(&mut self.inner, fresh);
        let noted: MapResponse<S, Note<B>> = ready.map_response(note);
        let mut compressed: Compression<_, Worth> = self.layer.layer(noted);
        let asked = request.headers().get(IF_NONE_MATCH).cloned();
        let future = compressed.call(request);
        Box::pin(async move { Ok(finished(future.await?.map(Body::new), asked.as_ref())) })
    }
}

/// Puts right what the layer leaves as it was.
fn finished(mut answer: Response<Body>, asked: Option<&HeaderValue>) -> Response<Body> {
    let Some(Given { status, is_encoded }) = answer.extensions_mut().remove() else { return answer };
    // To a client that accepts nothing that there is, the layer says 406 when the request is done already. RFC 9110, 12.5.3, leaves it
    // to the server, and the answer as it is serves better.
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    if !is_encoded && headers.contains_key(CONTENT_ENCODING) {
        weaken(headers);
    } else if status == StatusCode::NOT_MODIFIED {
        // A client that has the compressed form knows it by the weak tag, and both vary by the same field (RFC 9110, 15.4.5).
        let is_weak_one_asked_for = headers.get(ETAG).zip(asked).is_some_and(|(etag, asked)| {
            let weak = [b"W/", etag.as_bytes()].concat();
            asked.as_bytes().windows(weak.len()).any(|part| part == weak)
        });
        if is_weak_one_asked_for {
            weaken(headers);
        }
        if !names_encoding(headers) {
            headers.append(VARY, ACCEPT_ENCODING.into());
        }
    }
    answer
}

/// Another form of the same is not the same byte for byte (RFC 9110, 8.8.1).
fn weaken(headers: &mut HeaderMap) {
    let weak = headers.get(ETAG).filter(|etag| etag.as_bytes().starts_with(b"\"")).map(|etag| {
        HeaderValue::from_bytes(&[b"W/", etag.as_bytes()].concat()).expect("two letters more are a value")
    });
    if let Some(weak) = weak {
        headers.insert(ETAG, weak);
    }
}

fn names_encoding(headers: &HeaderMap) -> bool {
    let mut names =
        headers.get_all(VARY).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    names.any(|name| name.trim_ascii().eq_ignore_ascii_case(b"accept-encoding"))
}

/// Which answers are compressed.
#[derive(Clone)]
pub(crate) struct Worth {
    min_size: u64,
    types: Arc<[String]>,
}

impl Predicate for Worth {
    fn should_compress<B: http_body::Body>(&self, answer: &Response<B>) -> bool {
        let headers = answer.headers();
        // The length in the head first: the answer to HEAD has it, and no body.
        let length = headers
            .get(CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok()?.parse().ok())
            .or_else(|| answer.body().size_hint().exact());
        length.is_none_or(|length| length >= self.min_size.max(1))
            && answer.status() != StatusCode::PARTIAL_CONTENT
            && answer.extensions().get::<Settled>().is_none()
            && !forbids(headers)
            && headers
                .get(CONTENT_TYPE)
                .and_then(|kind| kind.to_str().ok())
                .is_some_and(|kind| self.takes(kind))
    }
}

impl Worth {
    fn takes(&self, kind: &str) -> bool {
        let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        self.types.iter().any(|wanted| fits(wanted, &kind))
    }
}

/// `text/*` and `application/*+json` stand for all of their kind.
fn fits(wanted: &str, kind: &str) -> bool {
    let Some((before, after)) = wanted.split_once('*') else { return wanted == kind };
    kind != EVENTS
        && kind.len() > before.len() + after.len()
        && kind.starts_with(before)
        && kind.ends_with(after)
}

/// `no-transform` (RFC 9111, 5.2.2.6).
fn forbids(headers: &HeaderMap) -> bool {
    let mut directives =
        headers.get_all(CACHE_CONTROL).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    directives.any(|directive| directive.trim_ascii().eq_ignore_ascii_case(b"no-transform"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_taken_by_name_or_by_kind() {
        let types = ["text/*", "application/json", "application/*+json"].map(str::to_owned);
        let worth = Worth { min_size: 0, types: types.into() };
        for (kind, is_taken) in [
            ("text/html", true),
            ("Text/HTML; charset=utf-8", true),
            ("application/json", true),
            ("application/problem+json", true),
            ("application/+json", false),
            ("application/jsonx", false),
            ("image/png", false),
            ("text/", false),
            ("text/event-stream", false),
            ("", false),
        ] {
            assert_eq!(worth.takes(kind), is_taken, "{kind:?}");
        }
        let worth = Worth { types: [EVENTS.to_owned()].into(), ..worth };
        assert!(worth.takes(EVENTS));
    }
}

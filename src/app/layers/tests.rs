//! What the layers make of answers, without a server. Whether a client can read them, the system tests see.

use super::*;
use crate::app::{ClientInfo, Peer, Scheme};
use crate::config::Encodings;
use bytes::Bytes;
use http::{HeaderMap, Method};
use http_body_util::BodyExt;
use std::convert::Infallible;
use std::future::ready;
use tower::service_fn;

const PAGE: &str = "a page that is long enough to be worth it, a page that is long enough to be worth it\n";

fn settings() -> Settings {
    let all = Encodings { gzip: true, brotli: true, zstd: true };
    Settings { compress: all, compress_min_size: 40, ..Settings::default() }
}

type Fields<'a> = &'a [(&'a str, &'a str)];

fn response(status: u16, fields: Fields<'_>, body: &str) -> Response<Body> {
    let mut response = Response::builder().status(status);
    for (name, value) in fields {
        response = response.header(*name, *value);
    }
    response.body(Body::from(body.to_owned())).unwrap()
}

/// What comes of this answer for this request: its head, and its body.
async fn send(
    settings: &Settings,
    request: Request<Body>,
    answer: impl Fn() -> Response<Body> + Clone + Send + 'static,
) -> (http::response::Parts, Bytes) {
    let app = service_fn(move |_: Request<Body>| ready(Ok::<_, Infallible>(answer())));
    let (head, body) = around(settings, Board::stub(1), app).oneshot(request).await.unwrap().into_parts();
    (head, body.collect().await.unwrap().to_bytes())
}

fn ask(method: &str, fields: Fields<'_>) -> Request<Body> {
    let mut request = Request::builder().method(method);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(Body::empty()).unwrap()
}

fn field<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap())
}

#[tokio::test]
async fn an_answer_is_compressed_where_that_is_worth_it_and_allowed() {
    let html = ("content-type", "text/html");
    let etag = ("etag", "\"a\"");
    // (accepted, status, the app's fields, body, encoding, whether it varies by what is accepted)
    type Row<'a> = (&'a str, u16, Fields<'a>, &'a str, Option<&'a str>, bool);
    let table: &[Row<'_>] = &[
        ("gzip", 200, &[html], PAGE, Some("gzip"), true),
        ("gzip, br, zstd", 200, &[html], PAGE, Some("zstd"), true),
        ("gzip, br", 200, &[html], PAGE, Some("br"), true),
        ("gzip, br;q=0.5", 200, &[html], PAGE, Some("gzip"), true),
        ("gzip;q=0", 200, &[html], PAGE, None, true),
        ("", 200, &[html], PAGE, None, true),
        ("identity", 200, &[html], PAGE, None, true),
        ("*", 200, &[html], PAGE, Some("zstd"), true),
        // Nothing fits: RFC 9110, 12.5.3, leaves it to the server, and a request that was carried out is not refused.
        ("identity;q=0, deflate", 200, &[html], PAGE, None, true),
        ("gzip", 404, &[html], PAGE, Some("gzip"), true),
        ("gzip", 200, &[html], "short", None, false),
        ("gzip", 200, &[], PAGE, None, false),
        ("gzip", 200, &[("content-type", "image/png")], PAGE, None, false),
        ("gzip", 200, &[html, ("content-encoding", "br")], PAGE, Some("br"), false),
        ("gzip", 206, &[html, ("content-range", "bytes 0-84/100")], PAGE, None, false),
        ("gzip", 206, &[("content-type", "text/x-parts")], PAGE, None, false),
        ("gzip", 200, &[html, ("cache-control", "max-age=1, No-Transform")], PAGE, None, false),
        ("gzip", 204, &[html, etag], "", None, false),
    ];
    for &(accepted, status, fields, body, encoding, varies) in table {
        let answer = {
            let fields: Vec<(String, String)> =
                fields.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
            let body = body.to_owned();
            move || {
                let fields: Vec<_> =
                    fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
                response(status, &fields, &body)
            }
        };
        let (head, sent) = send(&settings(), ask("GET", &[("accept-encoding", accepted)]), answer).await;
        let row = format!("{accepted:?} {status} {fields:?}");
        assert_eq!(head.status, status, "{row}");
        assert_eq!(field(&head.headers, "content-encoding"), encoding, "{row}");
        assert_eq!(field(&head.headers, "vary"), varies.then_some("accept-encoding"), "{row}");
        let is_changed = encoding.is_some() && !fields.iter().any(|(name, _)| *name == "content-encoding");
        assert_eq!(sent != body.as_bytes(), is_changed, "{row}");
    }
}

/// Says something, and then nothing for ever.
struct Pausing(Option<&'static str>);

impl http_body::Body for Pausing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        self.0.take().map_or(std::task::Poll::Pending, |text| {
            std::task::Poll::Ready(Some(Ok(http_body::Frame::data(Bytes::from_static(text.as_bytes())))))
        })
    }
}

#[tokio::test]
async fn what_was_said_does_not_wait_for_what_is_still_to_come() {
    for accepted in ["gzip", "br", "zstd"] {
        let answer =
            || response(200, &[("content-type", "text/plain")], "").map(|_| Body::new(Pausing(Some(PAGE))));
        let app = service_fn(move |_: Request<Body>| ready(Ok::<_, Infallible>(answer())));
        let request = ask("GET", &[("accept-encoding", accepted)]);
        let mut body = around(&settings(), Board::stub(1), app).oneshot(request).await.unwrap().into_body();
        // Its head, and all that was said: compressed, that is less than it was, and more than a head.
        let mut bytes = 0;
        while bytes < 25 {
            let frame = tokio::time::timeout(std::time::Duration::from_secs(10), body.frame()).await;
            bytes += frame.expect("it comes at once").unwrap().unwrap().into_data().unwrap().len();
        }
    }
}

#[tokio::test]
async fn tags_ranges_and_lengths_are_those_of_what_is_sent() {
    let fields = [
        ("content-type", "text/html"),
        ("etag", "\"a\""),
        ("accept-ranges", "bytes"),
        ("content-length", "85"),
    ];
    let page = move || response(200, &fields, PAGE);
    let (head, _) = send(&settings(), ask("GET", &[("accept-encoding", "gzip")]), page).await;
    assert_eq!(field(&head.headers, "etag"), Some("W/\"a\""));
    assert_eq!((field(&head.headers, "content-length"), field(&head.headers, "accept-ranges")), (None, None));
    let (head, _) = send(&settings(), ask("GET", &[]), page).await;
    assert_eq!(field(&head.headers, "etag"), Some("\"a\""));
    assert_eq!(field(&head.headers, "content-length"), Some("85"));
    // HEAD says what GET would, and nothing that GET would not.
    let empty = move || response(200, &fields, "");
    let (head, _) = send(&settings(), ask("HEAD", &[("accept-encoding", "gzip")]), empty).await;
    assert_eq!(
        (field(&head.headers, "content-encoding"), field(&head.headers, "content-length")),
        (Some("gzip"), None)
    );
    assert_eq!(field(&head.headers, "etag"), Some("W/\"a\""));
    // A client that has the compressed form is told that it is still good by the tag that it has.
    for (asked, etag) in [("W/\"a\"", "W/\"a\""), ("\"a\"", "\"a\""), ("\"x\", W/\"a\"", "W/\"a\"")] {
        let request = ask("GET", &[("accept-encoding", "gzip"), ("if-none-match", asked)]);
        let (head, _) = send(&settings(), request, || response(304, &[("etag", "\"a\"")], "")).await;
        assert_eq!(field(&head.headers, "etag"), Some(etag), "{asked}");
        assert_eq!(field(&head.headers, "vary"), Some("accept-encoding"));
    }
}

#[tokio::test]
async fn preflights_are_answered_and_other_questions_reach_the_app() {
    let mut settings = Settings::default();
    settings.cors.origins = vec!["https://a.example".into(), "https://b.example".into()];
    settings.cors.headers = vec!["x-token".into()];
    settings.cors.expose = vec!["x-count".into()];
    settings.cors.credentials = true;
    let app = || response(200, &[("x-app", "1"), ("vary", "accept")], "app");
    let asked = [("origin", "https://b.example"), ("access-control-request-method", "POST")];
    let (head, _) = send(&settings, ask("OPTIONS", &asked), app).await;
    let said = |name: &str| field(&head.headers, name);
    assert_eq!((head.status.as_u16(), said("x-app")), (200, None));
    assert_eq!(said("access-control-allow-origin"), Some("https://b.example"));
    assert_eq!(said("access-control-allow-methods"), Some("GET,HEAD,POST"));
    assert_eq!(said("access-control-allow-headers"), Some("x-token"));
    assert_eq!(said("access-control-allow-credentials"), Some("true"));
    assert_eq!(said("access-control-max-age"), Some("600"));
    // (method, origin, allowed)
    for (method, origin, allowed) in [
        ("GET", "https://a.example", Some("https://a.example")),
        ("GET", "https://evil.example", None),
        ("GET", "https://a.example.evil.example", None),
        ("POST", "null", None),
    ] {
        let (head, body) = send(&settings, ask(method, &[("origin", origin)]), app).await;
        assert_eq!((field(&head.headers, "x-app"), &body[..]), (Some("1"), &b"app"[..]));
        assert_eq!(field(&head.headers, "access-control-allow-origin"), allowed, "{method} {origin}");
        let vary: Vec<_> = head.headers.get_all("vary").iter().map(|value| value.to_str().unwrap()).collect();
        assert!(vary.join(",").contains("origin") && vary.join(",").contains("accept"), "{vary:?}");
    }
    let (head, _) = send(&settings, ask("OPTIONS", &[]), app).await;
    assert_eq!(field(&head.headers, "x-app"), Some("1"), "it is no preflight");
    settings.cors.credentials = false;
    settings.cors.origins = vec!["*".into()];
    let (head, _) = send(&settings, ask("GET", &[("origin", "https://c.example")]), app).await;
    assert_eq!(field(&head.headers, "access-control-allow-origin"), Some("*"));
    assert_eq!(field(&head.headers, "vary"), Some("accept"));
}

#[tokio::test]
async fn fields_are_added_where_the_app_has_none_and_hsts_only_by_tls() {
    let mut settings = Settings::default();
    settings.security.nosniff = true;
    settings.security.frame_options = "DENY".into();
    settings.security.hsts = "max-age=9".into();
    let app = || response(200, &[("x-frame-options", "SAMEORIGIN")], "");
    for (scheme, hsts) in [(Scheme::Http, None), (Scheme::Https, Some("max-age=9"))] {
        let mut request = ask("GET", &[]);
        let client = ClientInfo::of_connection(Peer::Unix, request.uri(), request.headers());
        request.extensions_mut().insert(ClientInfo { scheme, ..client });
        let (head, _) = send(&settings, request, app).await;
        assert_eq!(field(&head.headers, "x-content-type-options"), Some("nosniff"));
        assert_eq!(field(&head.headers, "x-frame-options"), Some("SAMEORIGIN"));
        assert_eq!(field(&head.headers, "strict-transport-security"), hsts);
        assert_eq!(field(&head.headers, "referrer-policy"), None);
    }
}

#[test]
fn without_a_setting_there_is_no_layer() {
    let mut settings = Settings::default();
    assert!(!wanted(&settings));
    let method: Method = settings.cors.methods[0].parse().unwrap();
    assert_eq!(method, Method::GET, "the defaults are there all the same");
    settings.security.hsts = "max-age=9".into();
    assert!(wanted(&settings));
}

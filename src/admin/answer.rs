//! Which question has which answer. Not here: what is in the answers.

use super::dashboard::DASHBOARD;
use super::{Desk, history, metrics, status};
use crate::health::{self, Probe, Verdict};
use crate::scoreboard::now_millis;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Response, StatusCode, Uri, header};
use http_body_util::Full;
use serde_json::Value;

const TEXT: &str = "text/plain; charset=utf-8";
/// Prometheus's text format.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json";

const MOVING: &str = "the figures are being moved\n";

pub(super) async fn answer(desk: &Desk, method: &Method, uri: &Uri) -> Response<Full<Bytes>> {
    if ![Method::GET, Method::HEAD].contains(method) {
        let mut refusal = text(StatusCode::METHOD_NOT_ALLOWED, "nothing can be changed here\n");
        refusal.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refusal;
    }
    let now = now_millis();
    let probe = |probe: Probe| judged(&health::judge(probe.with(uri.query()), &desk.board, now));
    match uri.path() {
        "/" => page(),
        "/healthz" => probe(Probe::Alive),
        "/readyz" => probe(Probe::Ready),
        "/metrics" => {
            let shares = desk.memory.look(desk.board).await;
            match metrics::expose(desk, &shares, now) {
                Some(text) => whole(StatusCode::OK, METRICS, text),
                None => text(StatusCode::SERVICE_UNAVAILABLE, MOVING),
            }
        }
        "/status" => json(StatusCode::OK, &status::tell(desk, now).await),
        "/history" => match history::tell(desk.board, history::since(uri.query()), now) {
            Some(told) => whole(StatusCode::OK, JSON, told.to_string()),
            None => text(StatusCode::SERVICE_UNAVAILABLE, MOVING),
        },
        _ => text(StatusCode::NOT_FOUND, "there are /, /healthz, /readyz, /metrics, /status and /history\n"),
    }
}

fn page() -> Response<Full<Bytes>> {
    let mut response = whole(StatusCode::OK, HTML, DASHBOARD.page.clone());
    let policy = HeaderValue::from_static(&DASHBOARD.policy);
    let more = [
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
    ];
    response.headers_mut().extend(more);
    response
}

fn judged(verdict: &Verdict) -> Response<Full<Bytes>> {
    let status = if verdict.is_good() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    whole(status, health::MEDIA_TYPE, verdict.to_text())
}

fn json(status: StatusCode, value: &Value) -> Response<Full<Bytes>> {
    whole(status, JSON, format!("{value:#}\n"))
}

fn text(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    whole(status, TEXT, text.to_owned())
}

fn whole(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // No page of another server may read it.
    let policy = HeaderName::from_static("cross-origin-resource-policy");
    headers.insert(policy, HeaderValue::from_static("same-origin"));
    response
}

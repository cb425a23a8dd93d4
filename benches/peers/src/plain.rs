//! The pages as a plain service gives them, for bare hyper and for Ferricorn without a router. Not here: files.

use crate::pages;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Body;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Request, Response, StatusCode};

// Constants, as a value that is made of a text is looked at byte by byte.
const TEXT: HeaderValue = HeaderValue::from_static(pages::TEXT);
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const BYTES: HeaderValue = HeaderValue::from_static(pages::BYTES);

pub async fn answer<B: Body>(request: Request<B>) -> Result<Response<Full<Bytes>>, B::Error> {
    Ok(match request.uri().path() {
        "/" => page(TEXT, pages::HELLO),
        "/json" => page(JSON, serde_json::to_vec(&pages::items()).expect("it is JSON")),
        "/length" => {
            let body = request.into_body().collect().await?.to_bytes();
            page(TEXT, body.len().to_string())
        }
        "/download" => page(BYTES, Bytes::from_static(&pages::DOWNLOAD)),
        _ => {
            let mut response = Response::default();
            *response.status_mut() = StatusCode::NOT_FOUND;
            response
        }
    })
}

fn page(kind: HeaderValue, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

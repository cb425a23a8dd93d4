//! The pages as a plain service gives them, for bare hyper and for Ferricorn without a router. Not here: files.

use crate::pages;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Body;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Request, Response, StatusCode};

pub async fn answer<B: Body>(request: Request<B>) -> Result<Response<Full<Bytes>>, B::Error> {
    Ok(match request.uri().path() {
        "/" => page(pages::TEXT, pages::HELLO),
        "/json" => page("application/json", serde_json::to_vec(&pages::items()).expect("it is JSON")),
        "/length" => {
            let body = request.into_body().collect().await?.to_bytes();
            page(pages::TEXT, body.len().to_string())
        }
        "/download" => page(pages::BYTES, Bytes::from_static(&pages::DOWNLOAD)),
        _ => {
            let mut response = Response::default();
            *response.status_mut() = StatusCode::NOT_FOUND;
            response
        }
    })
}

fn page(kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

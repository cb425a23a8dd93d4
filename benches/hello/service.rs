//! The page of examples/hello.rs as a plain tower service: what the server costs without axum's routing.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Request, Response};
use http_body_util::Full;
use std::convert::Infallible;
use std::process::ExitCode;

const PAGE: &str = "Hello from Ferricorn\n";

fn main() -> ExitCode {
    ferricorn::run(|_worker| tower::service_fn(hello))
}

async fn hello(_request: Request<ferricorn::Body>) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut response = Response::new(Full::new(Bytes::from_static(PAGE.as_bytes())));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    Ok(response)
}

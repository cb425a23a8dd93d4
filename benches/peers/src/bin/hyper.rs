//! Bare hyper: a process for each worker, with a listener of its own and one current-thread runtime. No routing, no log, no limits,
//! no timers, and no files.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, body::Incoming};
use hyper_util::rt::TokioIo;
use peers::{Arguments, pages, prefork};

fn main() {
    let listener = prefork(&Arguments::read());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, serve(listener));
}

async fn serve(listener: std::net::TcpListener) {
    let listener = tokio::net::TcpListener::from_std(listener).expect("a listening socket");
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer));
        tokio::task::spawn_local(connection);
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
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

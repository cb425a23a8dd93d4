//! The measure of examples/hello.rs: the same page from hyper alone, on one current-thread runtime. No
//! timers, no limits, no log, no drain. Takes `-b HOST:PORT` and ignores what else a Ferricorn server would
//! be given.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, body::Incoming};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::net::TcpListener;

const PAGE: &str = "Hello from Ferricorn\n";

fn main() {
    let addr =
        std::env::args().skip_while(|arg| arg != "-b").nth(1).unwrap_or_else(|| "127.0.0.1:8000".into());
    let listener = TcpListener::bind(addr).expect("the address is free");
    listener.set_nonblocking(true).expect("a socket can be non-blocking");
    eprintln!("- INFO [bare] listening on={}", listener.local_addr().expect("it is bound"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, serve(listener));
}

async fn serve(listener: TcpListener) {
    let listener = tokio::net::TcpListener::from_std(listener).expect("a listening socket");
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        // Failing to set it costs speed, nothing else.
        let _ = stream.set_nodelay(true);
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(hello));
        tokio::task::spawn_local(connection);
    }
}

async fn hello(_request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut response = Response::new(Full::new(Bytes::from_static(PAGE.as_bytes())));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    Ok(response)
}

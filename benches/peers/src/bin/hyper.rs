//! Bare hyper: a process for each worker, with a listener of its own and one current-thread runtime. No routing, no log, no limits,
//! no timers, and no files.

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use peers::{Arguments, plain, prefork};

fn main() {
    let listener = prefork(&Arguments::read());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, serve(listener));
}

async fn serve(listener: std::net::TcpListener) {
    let listener = tokio::net::TcpListener::from_std(listener).expect("a listening socket");
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(plain::answer));
        tokio::task::spawn_local(connection);
    }
}

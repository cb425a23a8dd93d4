//! axum as its users start it: one process with tokio's threads. No log, no limits, no timeouts.

use peers::{Arguments, pages};
use tokio::net::TcpListener;
use tokio::runtime::Builder;

fn main() {
    let arguments = Arguments::read();
    let runtime = Builder::new_multi_thread().worker_threads(arguments.workers).enable_io().build();
    runtime.expect("a runtime").block_on(async {
        let listener = TcpListener::bind(arguments.bind).await.expect("the address is free");
        let listener = axum::serve::ListenerExt::tap_io(listener, |stream| drop(stream.set_nodelay(true)));
        axum::serve(listener, pages::router()).await.expect("it serves");
    });
}

//! The servers whose requests are counted, and the client that asks them. The count is the difference of two runs, so that
//! neither start nor stop is in it. Not here: budgets.

use super::{callgrind, total};
use axum::{Router, body::Body, routing::get};
use bytes::Bytes;
use ferricorn::{ResponseCacheOptions, Worker, guards};
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Request, Response};
use http_body_util::Full;
use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ExitCode};
use std::time::{Duration, Instant};
use tower::Layer;

/// With it this program is the server of that name.
pub const VARIABLE: &str = "FERRICORN_GUARD";

/// How many requests the two runs have.
const REQUESTS: [u64; 2] = [500, 3_500];

const PAGE: &str = "Hello from Ferricorn\n";
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// Only one that fails waits so long.
const PATIENCE: Duration = Duration::from_secs(60);

pub fn serve(name: &str) -> ExitCode {
    match name {
        "service" | "seen" => ferricorn::run(|_worker| tower::service_fn(hello)),
        "unseen" => {
            guards::look_away();
            ferricorn::run(|_worker| tower::service_fn(hello))
        }
        "axum" => ferricorn::run(|_worker| Router::new().route("/", get(async || PAGE))),
        "cached" => ferricorn::run(|worker: Worker| {
            let pages = worker.response_cache("pages", ResponseCacheOptions::new(Duration::from_secs(3600)));
            pages.layer(Router::new().route("/", get(async || PAGE)))
        }),
        other => panic!("there is no {other}"),
    }
}

async fn hello(_request: Request<Body>) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut response = Response::new(Full::new(Bytes::from_static(PAGE.as_bytes())));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    Ok(response)
}

/// What part of a request's instructions is for what monitoring tells of it: counters, histogram, clock, record of what is in
/// flight. The access log, which is text for each request, is off.
pub fn share_of_seeing(folder: &Path) -> f64 {
    let [seen, unseen] = ["seen", "unseen"].map(|name| count(folder, name));
    (seen - unseen) / seen
}

/// Instructions of the worker for one request.
pub fn count(folder: &Path, name: &str) -> f64 {
    let [few, many] = REQUESTS.map(|requests| total_of(folder, name, requests));
    (many - few) as f64 / (REQUESTS[1] - REQUESTS[0]) as f64
}

fn total_of(folder: &Path, name: &str, requests: u64) -> u64 {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port");
    let mut command = callgrind(folder, &[]);
    command.env(VARIABLE, name).args(["-b", &free.to_string(), "-w", "1", "--timeout", "0"]);
    if !["seen", "unseen"].contains(&name) {
        command.args(["--access-logfile", "access.log"]);
    }
    let mut server = command.args(["--log-level", "warning"]).spawn().expect("valgrind is installed");
    ask(connect(free), requests);
    stop(&mut server);
    total(folder)
}

fn connect(addr: SocketAddr) -> TcpStream {
    let begin = Instant::now();
    loop {
        match TcpStream::connect(addr) {
            Ok(stream) => return stream,
            Err(error) => assert!(begin.elapsed() < PATIENCE, "the server does not listen: {error}"),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn ask(mut stream: TcpStream, requests: u64) {
    stream.set_read_timeout(Some(PATIENCE)).expect("it is not zero");
    let mut answer = Vec::new();
    for _ in 0..requests {
        stream.write_all(REQUEST).expect("the server reads");
        answer.clear();
        let mut part = [0; 1024];
        while !answer.ends_with(PAGE.as_bytes()) {
            let length = stream.read(&mut part).expect("the server answers");
            assert!(length > 0, "the server closed the connection");
            answer.extend_from_slice(&part[..length]);
        }
        assert!(answer.starts_with(b"HTTP/1.1 200 "));
    }
}

/// Valgrind runs the master within its own process, so the signal reaches it.
fn stop(server: &mut Child) {
    let pid = server.id().to_string();
    let told = std::process::Command::new("kill").arg(&pid).status().expect("there is kill(1)");
    assert!(told.success() && server.wait().expect("it is ours").success(), "the server did not stop well");
}

//! A service for testing a server from outside: it echoes, waits, blocks, fails and crashes on demand, and
//! says in `x-worker-pid` who answered. It takes all of Ferricorn's options. Not for the open network:
//! `/crash` means it.

use axum::extract::{DefaultBodyLimit, Query, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use axum::{Extension, Json, Router};
use bytes::Bytes;
use ferricorn::{
    Body, Cache, CacheTags, ClientInfo, Database, Deadline, Error, ResponseCacheOptions, TlsInfo, Worker,
};
use http_body::Frame;
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::path::Path;
use std::pin::Pin;
use std::process::{self, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::thread;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;

/// `/bytes` gives no more: 64 MiB.
const MAX_BYTES: usize = 64 * 1024 * 1024;
/// How often `/block` looks for the file that ends it.
const LOOK_EVERY: Duration = Duration::from_millis(5);

fn main() -> ExitCode {
    ferricorn::run(app)
}

/// What the handlers share within one worker.
#[derive(Clone)]
struct Probe {
    worker: Worker,
    cache: Cache<String, u64>,
    /// How often the cache asked for a value.
    loads: Arc<AtomicU64>,
}

fn app(worker: Worker) -> Router {
    let pages = worker.response_cache("pages", ResponseCacheOptions::new(Duration::from_secs(3600)));
    let probe = Probe { cache: worker.cache("probe"), loads: Arc::default(), worker };
    Router::new()
        .route("/", any(async || "This is Ferricorn's probe.\n"))
        .route("/echo", get(echo).post(async |body: Bytes| body))
        .route("/sleep", get(sleep))
        .route("/patient", get(patient))
        .route("/block", get(block))
        .route("/spin", get(spin))
        .route("/bytes", get(bytes))
        .route("/stream", get(stream))
        .route("/headers", any(headers))
        .route("/ready", get(ready))
        .route("/reloads", get(reloads))
        .route("/measure", get(measure))
        .route("/pid", get(async || process::id().to_string()))
        .route("/env", get(env))
        .route("/tls", get(tls))
        .route("/cached", get(cached))
        .route("/value", get(value).post(set_value))
        .route("/page", get(page).layer(pages))
        .route("/fresh", get(fresh))
        .route("/db", get(db))
        .route("/db/sleep", get(db_sleep))
        .route("/db/error", get(db_error))
        .route("/upload", post(upload).put(upload))
        .route("/crash", any(async || -> () { process::abort() }))
        .route("/segv", any(segv))
        .route("/exit", any(async |Query(Exit { code }): Query<Exit>| -> () { process::exit(code) }))
        .route("/leak", any(leak))
        .route("/hold", any(hold))
        .route("/silence", get(silence))
        .route("/flood", get(flood))
        .route("/panic", any(async || -> () { panic!("asked to panic") }))
        // The server has a limit of its own, which is what is tested.
        .layer(DefaultBodyLimit::disable())
        .layer(map_response(sign))
        .with_state(probe)
}

/// Says which process answered.
async fn sign(mut response: Response) -> Response {
    response.headers_mut().insert("x-worker-pid", HeaderValue::from(process::id()));
    response
}

async fn reloads(State(probe): State<Probe>) -> String {
    let (count, last) = probe.worker.reloads();
    format!("{count} {last}")
}

#[derive(Deserialize)]
struct Measured {
    kind: String,
    value: f64,
    level: i64,
}

/// Figures of its own.
async fn measure(State(probe): State<Probe>, Query(Measured { kind, value, level }): Query<Measured>) {
    let metrics = probe.worker.metrics();
    metrics.with("kind", &kind).counter("probe_measured_total", "What was measured.").add(1);
    metrics.gauge("probe_level", "The last level.").set(level);
    metrics.histogram("probe_values", "Values that were measured.", &[1.0, 2.5]).record(value);
}

/// What the handler knows of the request's TLS, or `none`.
async fn tls(tls: Option<TlsInfo>, client: ClientInfo) -> String {
    tls.map_or_else(
        || "none".to_owned(),
        |tls| {
            let scheme = client.scheme();
            let client = tls.client_certificate().map_or(0, <[u8]>::len);
            let name = tls.server_name().unwrap_or("-");
            format!("{} {scheme}://{name} resumed={} client={client}", tls.version(), tls.is_resumed())
        },
    )
}

/// What a load balancer asks.
async fn ready(State(probe): State<Probe>) -> StatusCode {
    if probe.worker.is_leaving() { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }
}

#[derive(Deserialize)]
struct Message {
    msg: String,
}

async fn echo(Query(Message { msg }): Query<Message>) -> String {
    msg
}

#[derive(Deserialize)]
struct Name {
    name: String,
}

/// A variable of the worker's environment, or 404.
async fn env(Query(Name { name }): Query<Name>) -> Result<String, StatusCode> {
    std::env::var(name).map_err(|_| StatusCode::NOT_FOUND)
}

#[derive(Clone, Copy, Deserialize)]
struct Milliseconds {
    ms: u64,
}

impl Milliseconds {
    fn duration(self) -> Duration {
        Duration::from_millis(self.ms)
    }
}

/// Waits as an async handler should: others go on.
async fn sleep(Query(time): Query<Milliseconds>) -> String {
    tokio::time::sleep(time.duration()).await;
    format!("slept {} ms\n", time.ms)
}

#[derive(Deserialize)]
struct Patience {
    ms: u64,
    extend: u64,
    /// How long a handler thread is occupied as well.
    #[serde(default)]
    block: u64,
}

/// Asks for more time, then waits.
async fn patient(
    State(probe): State<Probe>,
    deadline: Deadline,
    Query(Patience { ms, extend, block }): Query<Patience>,
) -> Result<String, Error> {
    deadline.extend(Duration::from_millis(extend));
    tokio::time::sleep(Duration::from_millis(ms)).await;
    probe.worker.blocking(move || thread::sleep(Duration::from_millis(block))).await?;
    Ok(format!("slept {ms} ms, {:?} left\n", deadline.remaining()))
}

#[derive(Deserialize)]
struct Hindrance {
    ms: u64,
    /// A file in the server's folder that ends it early, as soon as it is there.
    until: Option<String>,
}

/// Occupies one handler thread.
async fn block(State(probe): State<Probe>, Query(block): Query<Hindrance>) -> Result<String, Error> {
    let Hindrance { ms, until } = block;
    let wait = move || {
        let (begin, time) = (Instant::now(), Duration::from_millis(ms));
        while begin.elapsed() < time && !until.as_ref().is_some_and(|file| Path::new(file).exists()) {
            let left = time.saturating_sub(begin.elapsed());
            thread::sleep(if until.is_some() { left.min(LOOK_EVERY) } else { left });
        }
    };
    probe.worker.blocking(wait).await?;
    Ok(format!("blocked {ms} ms\n"))
}

/// Occupies the event loop, as no handler may.
async fn spin(Query(time): Query<Milliseconds>) -> String {
    let begin = Instant::now();
    while begin.elapsed() < time.duration() {
        std::hint::spin_loop();
    }
    format!("spun {} ms\n", time.ms)
}

#[derive(Deserialize)]
struct Count {
    n: usize,
}

async fn bytes(Query(Count { n }): Query<Count>) -> Response {
    if n > MAX_BYTES {
        return (StatusCode::BAD_REQUEST, format!("n must be at most {MAX_BYTES}\n")).into_response();
    }
    vec![b'x'; n].into_response()
}

/// As many bytes, in pieces that cost no memory.
async fn stream(Query(Count { n }): Query<Count>) -> Response {
    Response::new(axum::body::Body::new(Pieces { left: n }))
}

struct Pieces {
    left: usize,
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        static PIECE: [u8; 16 * 1024] = [b'x'; 16 * 1024];
        let piece = &PIECE[..self.left.min(PIECE.len())];
        self.left -= piece.len();
        Poll::Ready((!piece.is_empty()).then(|| Ok(Frame::data(Bytes::from_static(piece)))))
    }
}

#[derive(Deserialize)]
struct Exit {
    code: i32,
}

async fn segv() {
    // SAFETY: none. It writes to where nothing is, to die of it.
    unsafe { std::ptr::with_exposed_provenance_mut::<u8>(8).write_volatile(1) }
}

#[derive(Deserialize)]
struct Leak {
    bytes: usize,
}

/// Takes memory, uses it and never gives it back.
async fn leak(Query(Leak { bytes }): Query<Leak>) -> String {
    vec![1_u8; bytes].leak();
    format!("leaked {bytes} bytes\n")
}

#[derive(Deserialize)]
struct Hold {
    bytes: usize,
    ms: u64,
}

/// Takes memory, uses it for a while and gives it back.
async fn hold(Query(Hold { bytes, ms }): Query<Hold>) -> String {
    let held = vec![1_u8; bytes];
    tokio::time::sleep(Duration::from_millis(ms)).await;
    format!("held {} bytes\n", held.len())
}

/// Changes to a protocol in which nobody ever says anything.
async fn silence(mut request: Request) -> Response {
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async {
        let held = upgrade.await;
        std::future::pending::<()>().await;
        drop(held);
    });
    let fields = [(header::CONNECTION, "upgrade"), (header::UPGRADE, "silence")];
    (StatusCode::SWITCHING_PROTOCOLS, fields).into_response()
}

/// Changes to a protocol in which one side talks for ever.
async fn flood(mut request: Request) -> Response {
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async {
        let Ok(upgraded) = upgrade.await else { return };
        let mut stream = TokioIo::new(upgraded);
        while stream.write_all(&[b'x'; 16 * 1024]).await.is_ok() {}
    });
    let fields = [(header::CONNECTION, "upgrade"), (header::UPGRADE, "flood")];
    (StatusCode::SWITCHING_PROTOCOLS, fields).into_response()
}

/// What the server made of the request.
async fn headers(peer: ferricorn::Peer, client: ferricorn::ClientInfo, request: Request) -> Json<Value> {
    let fields: Vec<Value> = request
        .headers()
        .iter()
        .map(|(name, value)| json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())]))
        .collect();
    Json(json!({
        "method": request.method().as_str(),
        "target": request.uri().to_string(),
        "version": format!("{:?}", request.version()),
        "scheme": request.uri().scheme_str().unwrap_or("http"),
        "peer": peer.to_string(),
        "client": {
            "address": client.address().map(|address| address.to_string()),
            "port": client.port(),
            "scheme": client.scheme().as_str(),
            "host": client.host(),
            "root_path": client.root_path(),
            "is_forwarded": client.is_forwarded(),
        },
        "fields": fields,
    }))
}

#[derive(Deserialize)]
struct Key {
    key: String,
    /// How long a load takes.
    #[serde(default)]
    ms: u64,
}

/// Tells the number of the load that the value came from: the same number again is a hit.
async fn cached(State(probe): State<Probe>, Query(Key { key, ms }): Query<Key>) -> Result<String, Error> {
    let loads = Arc::clone(&probe.loads);
    let load = || async move {
        tokio::time::sleep(Duration::from_millis(ms)).await;
        Ok::<u64, Error>(loads.fetch_add(1, Relaxed) + 1)
    };
    let number = probe.cache.get_or_load(key, load).await?;
    Ok(number.to_string())
}

/// Where the value is that all workers share: where this link in the server's folder points to. A link changes as a whole,
/// and without waiting for a disk.
const VALUE_LINK: &str = "value";
const VALUE_KEY: &str = "value";
const VALUE_TAG: &str = "values";

/// The shared value, 0 before it is set, from this worker's cache.
async fn value(State(probe): State<Probe>) -> Result<String, Error> {
    let worker = probe.worker.clone();
    let load = || async move {
        match worker.blocking(|| std::fs::read_link(VALUE_LINK)).await? {
            Ok(value) => value.to_string_lossy().parse().map_err(Error::other),
            Err(_) => Ok(0),
        }
    };
    let value: u64 = probe.cache.tagged([VALUE_TAG]).get_or_load(VALUE_KEY.to_owned(), load).await?;
    Ok(value.to_string())
}

/// The shared value as a page, which the response cache keeps until the value's tag is invalidated.
async fn page(State(probe): State<Probe>) -> Result<(Extension<CacheTags>, String), Error> {
    let value = probe.worker.blocking(|| std::fs::read_link(VALUE_LINK)).await?;
    let value = value.map_or_else(|_| "0".to_owned(), |value| value.to_string_lossy().into_owned());
    probe.loads.fetch_add(1, Relaxed);
    Ok((Extension(CacheTags::new([VALUE_TAG])), value))
}

/// Tells how often this worker was asked for it, and says that caches may keep that for a while.
async fn fresh(State(probe): State<Probe>) -> impl IntoResponse {
    let count = probe.loads.fetch_add(1, Relaxed) + 1;
    let fields = [(header::CACHE_CONTROL, "max-age=60"), (header::VARY, "accept-language")];
    (fields, format!("{}-{count}", process::id()))
}

#[derive(Deserialize)]
struct Set {
    set: u64,
    by: By,
}

/// How the others are told.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum By {
    Key,
    Tag,
    Clear,
    /// Not at all: the worker dies between the change and the telling.
    Death,
}

/// Changes the shared value. The telling belongs to the change, on the handler thread: this future may be dropped at any
/// `await`, when the client goes away, and the change would be made all the same.
async fn set_value(State(probe): State<Probe>, Query(Set { set, by }): Query<Set>) -> Result<String, Error> {
    let cache = probe.cache.clone();
    let change = move || {
        let new = format!("{VALUE_LINK}.{}", process::id());
        std::os::unix::fs::symlink(set.to_string(), &new)?;
        let changed = std::fs::rename(new, VALUE_LINK);
        match by {
            By::Key => cache.invalidate(VALUE_KEY),
            By::Tag => cache.invalidate_tag(VALUE_TAG),
            By::Clear => cache.clear(),
            By::Death => process::abort(),
        }
        changed
    };
    probe.worker.blocking(change).await?.map_err(Error::other)?;
    Ok(format!("set to {set}\n"))
}

#[derive(Deserialize)]
struct Token {
    token: String,
}

/// Sends the token to the database and gives back what came from there.
async fn db(State(probe): State<Probe>, Query(Token { token }): Query<Token>) -> Result<String, Error> {
    match database(&probe)? {
        Database::Postgres(pool) => {
            pool.run(move |session| Ok(session.query("select $1::text", &[&token])?[0].get(0))).await
        }
        Database::Sqlite(pool) => {
            pool.run(move |session| Ok(session.query_row("select ?1", [&token], |row| row.get(0))?)).await
        }
    }
}

/// Holds a connection.
async fn db_sleep(State(probe): State<Probe>, Query(time): Query<Milliseconds>) -> Result<String, Error> {
    let seconds = time.duration().as_secs_f64();
    match database(&probe)? {
        Database::Postgres(pool) => {
            pool.run(move |session| Ok(session.execute("select pg_sleep($1)", &[&seconds])?)).await?;
        }
        // SQLite has no function that waits; the connection is held all the same.
        Database::Sqlite(pool) => {
            pool.run(move |_| {
                thread::sleep(time.duration());
                Ok(())
            })
            .await?;
        }
    }
    Ok(format!("the database slept {} ms\n", time.ms))
}

/// Fails in the middle of a transaction. The next to get this connection must not notice.
async fn db_error(State(probe): State<Probe>) -> Result<(), Error> {
    const FAILING: &str = "select this_column_does_not_exist";
    match database(&probe)? {
        Database::Postgres(pool) => {
            pool.transaction(|session| Ok(session.execute(FAILING, &[]).map(drop)?)).await
        }
        Database::Sqlite(pool) => {
            pool.transaction(|session| Ok(session.execute(FAILING, []).map(drop)?)).await
        }
    }
}

fn database(probe: &Probe) -> Result<Database, Error> {
    probe.worker.database().ok_or_else(|| Error::Other("start the probe with --database-url".into()))
}

#[derive(Deserialize)]
struct Upload {
    /// How long it is busy with the first piece.
    #[serde(default)]
    ms: u64,
}

/// Counts the bytes as they come and keeps none.
async fn upload(Query(Upload { ms }): Query<Upload>, mut body: Body) -> Response {
    let mut count = 0;
    while let Some(frame) = body.frame().await {
        if count == 0 && ms > 0 {
            tokio::time::sleep(Duration::from_millis(ms)).await;
        }
        match frame {
            Ok(frame) => count += frame.data_ref().map_or(0, Bytes::len),
            Err(error) => return (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
        }
    }
    count.to_string().into_response()
}

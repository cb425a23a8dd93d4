//! An app within the test's own process, without a master, a fork, or a connection. Not here: the real program (server.rs).

use super::Answer;
use crate::app::{Body, BoxError, Deadline, HttpService, Peer, Worker};
use crate::config::{AppKind, AppType, Environment, Settings, Source};
use crate::scoreboard::{Board, Generations};
use crate::worker::{Edge, Pipe};
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use std::cell::OnceCell;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tower::ServiceExt;

/// An app with the default settings: [`Setup`] has others.
///
/// # Panics
/// When there is no runtime to be had, or when it is called within one.
pub fn app<F, S>(app: F) -> Local<S>
where
    F: FnOnce(Worker) -> S,
    S: HttpService,
{
    Setup::new().app(app)
}

/// What an app under test is given.
///
/// ```
/// use axum::{Router, routing::get};
/// use ferricorn::{Worker, testing::Setup};
///
/// #[derive(serde::Deserialize)]
/// struct Shop {
///     greeting: String,
/// }
///
/// fn app(worker: Worker) -> Router {
///     let greeting = worker.app_settings::<Shop>().greeting.clone();
///     Router::new().route("/", get(move || async move { greeting }))
/// }
///
/// let app = Setup::new().settings::<Shop>().config("[app]\ngreeting = 'hello'").app(app);
/// assert_eq!(app.get("/").text(), "hello");
/// ```
#[derive(Default)]
pub struct Setup {
    config: String,
    settings: Option<AppType>,
    environment: Environment,
}

impl Setup {
    pub fn new() -> Setup {
        Setup::default()
    }

    /// The text of a config file.
    #[must_use]
    pub fn config(mut self, text: &str) -> Setup {
        self.config = text.to_owned();
        self
    }

    /// A variable that the text refers to. It is not set in the environment of the test.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Setup {
        self.environment.insert(name.to_owned(), value.to_owned());
        self
    }

    /// What the `[app]` table is read as: [`App::settings`](crate::App::settings).
    #[must_use]
    pub fn settings<T: DeserializeOwned + Send + Sync + 'static>(mut self) -> Setup {
        self.settings = Some(AppType::of::<T>());
        self
    }

    /// Builds the app, as a worker would.
    ///
    /// # Panics
    /// When the settings are wrong, when there is no runtime to be had, or when it is called within one.
    #[track_caller]
    pub fn app<F, S>(self, app: F) -> Local<S>
    where
        F: FnOnce(Worker) -> S,
        S: HttpService,
    {
        let settings = self.read().unwrap_or_else(|message| panic!("{message}"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
        let runtime = runtime.expect("a test has a runtime");
        let (generations, _) = Generations::make().expect("a test has memory");
        let board = Board::new(1, generations).expect("a test has memory");
        // A program that outlives the test reads the end of its input.
        let worker = Worker::new(0, Arc::new(settings), board, false, |_| {}, || {});
        let service = runtime.block_on(async { app(worker.clone()) });
        Local { runtime, worker, service: Some(service), edge: OnceCell::new() }
    }

    fn read(self) -> Result<Settings, String> {
        let mut source = Source::of_text(AppKind::Own, self.config, self.environment);
        source.declare_app(self.settings);
        let settings = source.read().map_err(|error| error.to_string())?;
        crate::app::database::check(&settings)?;
        Ok(settings)
    }
}

/// An app, its worker, and the event loop that both live on. All that a [`Worker`] offers works: caches, pools, blocking calls,
/// deadlines. What stands between app and client is there for [`speak`](Local::speak) alone: limits of heads and bodies, the strict reading of
/// HTTP, the access log. Hooks and what ends slow connections are nowhere.
pub struct Local<S> {
    runtime: Runtime,
    worker: Worker,
    /// Until it is dropped.
    service: Option<S>,
    edge: OnceCell<Edge>,
}

impl<S: HttpService> Local<S> {
    pub fn worker(&self) -> &Worker {
        &self.worker
    }

    /// Asks for a page, and waits for the answer.
    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path).body("").expect("the test gives a path"))
    }

    /// Sends a request, and waits for the answer.
    ///
    /// ```
    /// # use axum::{Router, routing::post};
    /// # let app = ferricorn::testing::app(|_| Router::new().route("/", post(async |text: String| text)));
    /// let request = axum::http::Request::post("/").header("content-type", "text/plain").body("hello");
    /// assert_eq!(app.send(request.unwrap()).text(), "hello");
    /// ```
    ///
    /// # Panics
    /// When the app panics, or its service fails.
    #[track_caller]
    pub fn send(&self, request: Request<impl Into<Body>>) -> Answer {
        self.block_on(self.call(request))
    }

    /// Runs a future on the app's event loop: for requests that are to be under way at the same time, each by
    /// [`call`](Local::call), and for what only async code can do.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// Like `send`, where async code is.
    pub async fn call(&self, request: Request<impl Into<Body>>) -> Answer {
        let mut request = request.map(Into::into);
        request.headers_mut().entry(header::HOST).or_insert(HeaderValue::from_static("localhost"));
        if request.extensions().get::<Peer>().is_none() {
            request.extensions_mut().insert(Peer::Unix);
        }
        let request_timeout = self.worker.settings().request_timeout;
        let deadline = (!request_timeout.is_zero()).then(|| Deadline::after(request_timeout));
        let mut answering = pin!(answer(self.service.clone().expect("it is there until the end"), request));
        let answering = std::future::poll_fn(|cx| {
            let _in_time = deadline.as_ref().map(Deadline::enter);
            answering.as_mut().poll(cx)
        });
        let Some(deadline) = &deadline else { return whole(answering.await).await };
        tokio::select! {
            biased;
            response = answering => whole(response).await,
            () = deadline.clone().passed() => Answer {
                status: StatusCode::GATEWAY_TIMEOUT,
                headers: http::HeaderMap::new(),
                body: Bytes::from_static(b"the application did not answer in time\n"),
            },
        }
    }
}

/// How often the event loop turns before it is given time for what is done elsewhere, on handler threads.
const TURNS: usize = 1000;
/// After this a connection counts as one that never rests.
const DEADLINE: Duration = Duration::from_secs(30);

/// What a server sent over a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spoken {
    pub bytes: Vec<u8>,
    /// The server closed it, and not because the client did.
    pub is_closed: bool,
}

async fn answer<S: HttpService>(service: S, request: Request<Body>) -> Response<S::AnswerBody> {
    match service.oneshot(request).await {
        Ok(response) => response,
        Err(error) => panic!("the app failed: {}", error.into()),
    }
}

async fn whole<B>(response: Response<B>) -> Answer
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>>,
{
    let (head, body) = response.into_parts();
    match body.collect().await {
        Ok(body) => Answer { status: head.status, headers: head.headers, body: body.to_bytes() },
        Err(error) => panic!("the body of the answer ended early: {}", error.into()),
    }
}

impl<S: HttpService> Local<S> {
    /// Sends bytes over a connection of their own, through all that stands between a client and the app, and returns what comes
    /// back until the server rests. Each piece is sent when the one before it has been read. For tests that are about HTTP itself.
    ///
    /// ```
    /// # use axum::{Router, routing::get};
    /// # let app = ferricorn::testing::app(|_| Router::new().route("/", get(async || "open")));
    /// let spoken = app.speak(&[b"GET / HTTP/1.1\r\n", b"host: shop\n\r\n"]);
    /// assert!(spoken.bytes.starts_with(b"HTTP/1.1 400 Bad Request\r\n") && spoken.is_closed);
    /// ```
    ///
    /// # Panics
    /// When the connection never rests, or does not end with the client's side.
    #[track_caller]
    pub fn speak(&self, pieces: &[&[u8]]) -> Spoken {
        let edge = self.edge.get_or_init(|| {
            let settings = self.worker.settings().clone();
            Edge::new(settings, self.worker.board()).expect("a test has memory, and files to open")
        });
        let pipe = Pipe::default();
        self.runtime.block_on(async {
            edge.serve(&pipe, self.service.clone().expect("it is there until the end"));
            for piece in pieces {
                pipe.send(piece);
                rest(|| edge.is_at_rest(&pipe)).await;
            }
            let (_, is_closed) = pipe.answered();
            pipe.finish();
            rest(|| edge.count() == 0).await;
            Spoken { bytes: pipe.answered().0, is_closed }
        })
    }
}

/// Lets the connections go on until there is nothing left to do.
async fn rest(is_at_rest: impl Fn() -> bool) {
    let (mut turns, mut begin) = (0, None);
    loop {
        tokio::task::yield_now().await;
        if is_at_rest() {
            return;
        }
        turns += 1;
        if turns > TURNS {
            let begin = *begin.get_or_insert_with(Instant::now);
            assert!(begin.elapsed() < DEADLINE, "the connection does not come to rest");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

impl<S> Drop for Local<S> {
    fn drop(&mut self) {
        self.service = None;
        self.worker.shut_down();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Error, Peer};
    use axum::Router;
    use axum::extract::State;
    use axum::routing::get;
    use std::sync::atomic::{AtomicU32, Ordering};

    fn router(worker: Worker) -> Router {
        Router::new()
            .route("/peer", get(async |peer: Peer| peer.to_string()))
            .route("/cached", get(cached))
            .route("/block", get(async |State(worker): State<Worker>| worker.blocking(|| "done").await))
            .route("/late", get(async || tokio::time::sleep(Duration::from_secs(60)).await))
            .route("/patient", get(patient))
            .with_state(worker)
    }

    async fn cached(State(worker): State<Worker>) -> Result<String, Error> {
        static LOADS: AtomicU32 = AtomicU32::new(0);
        let load = async || Ok::<_, Error>(LOADS.fetch_add(1, Ordering::Relaxed));
        Ok(worker.cache::<u8, u32>("loads").get_or_load(1, load).await?.to_string())
    }

    async fn patient(deadline: Deadline) -> String {
        deadline.extend(Duration::from_secs(60));
        tokio::time::sleep(Duration::from_millis(700)).await;
        format!("{}", deadline.remaining().is_some())
    }

    #[test]
    fn what_a_worker_offers_works() {
        let app = app(router);
        assert_eq!(app.get("/peer").text(), "unix");
        assert_eq!([app.get("/cached").text(), app.get("/cached").text()], ["0", "0"]);
        app.worker().cache::<u8, u32>("loads").clear();
        assert_eq!(app.get("/cached").text(), "1");
        assert_eq!(app.get("/block").text(), "done");
        assert_eq!(app.get("/patient").text(), "false", "there is no deadline by default");
        let both = app.block_on(async {
            let request = || Request::get("/cached").body("").unwrap();
            tokio::join!(app.call(request()), app.call(request()))
        });
        assert_eq!((both.0.text(), both.1.text()), ("1".into(), "1".into()));
    }

    #[test]
    fn a_late_answer_is_a_504_and_an_extended_one_is_not() {
        let app = Setup::new().config("request_timeout = '500ms'").app(router);
        assert_eq!(app.get("/late").status, StatusCode::GATEWAY_TIMEOUT);
        assert_eq!(app.get("/patient").text(), "true");
    }

    #[test]
    #[should_panic(expected = "settings:1: timeout: got \"x\"")]
    fn wrong_settings_fail_the_test() {
        Setup::new().config("timeout = 'x'").app(router);
    }
}

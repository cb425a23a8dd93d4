//! The `Worker` handle that an app receives. Not here: the life of a worker process.

use super::blocking::{Limits, Threads};
use super::cache::{Invalidation, tag_slot};
use super::program::Programs;
use super::{
    Cache, CacheOptions, Database, Error, Metrics, Pool, PostgresSession, Program, ProgramOptions,
    ResponseCacheLayer, ResponseCacheOptions, SqliteSession,
};
use crate::config::Settings;
use crate::scoreboard::Board;
use std::any::{Any, type_name};
use std::collections::HashMap;
use std::hash::Hash;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;

/// How long the end of a worker waits for its connections to say goodbye.
const SHUT_DOWN_WAIT: Duration = Duration::from_millis(200);

/// What one worker process has for its app: settings, caches, the database, threads that may block.
/// Made after the fork, one for each worker; a handle, cheap to clone.
///
/// ```
/// async fn digest(worker: ferricorn::Worker, text: String) -> Result<usize, ferricorn::Error> {
///     worker.blocking(move || text.len()).await // stands for something that takes a while
/// }
/// ```
#[derive(Clone)]
pub struct Worker {
    inner: Arc<Inner>,
}

struct Inner {
    slot: u32,
    settings: Arc<Settings>,
    board: Board,
    threads: Arc<Threads>,
    database: Option<Database>,
    /// `Cache<K, V>` by name; as many as the app's code names.
    caches: Mutex<HashMap<String, Box<dyn Any + Send + Sync>>>,
    programs: Programs,
    draining: watch::Sender<bool>,
    is_on_trial: bool,
}

impl Worker {
    /// Connects to nothing and starts no handler thread: both come at first need. `tie` has what a command starts die with the
    /// thread that starts it; each handler thread begins with `give_way`.
    pub(crate) fn new(
        slot: u32,
        settings: Arc<Settings>,
        board: Board,
        is_on_trial: bool,
        tie: fn(&mut Command),
        give_way: fn(),
    ) -> Worker {
        let threads = Arc::new(Threads::new(Limits::of(&settings), &board.seat(slot).shed, give_way));
        let database = Database::new(&settings, slot, board, &threads);
        Worker::of(slot, settings, board, is_on_trial, threads, database, Programs::new(tie, board, slot))
    }

    fn of(
        slot: u32,
        settings: Arc<Settings>,
        board: Board,
        is_on_trial: bool,
        threads: Arc<Threads>,
        database: Option<Database>,
        programs: Programs,
    ) -> Worker {
        let (caches, draining) = (Mutex::default(), watch::Sender::new(false));
        Worker {
            inner: Arc::new(Inner {
                slot,
                settings,
                board,
                threads,
                database,
                caches,
                programs,
                draining,
                is_on_trial,
            }),
        }
    }

    /// Whether a reload hangs on this worker's becoming ready.
    pub(crate) fn is_on_trial(&self) -> bool {
        self.inner.is_on_trial
    }

    pub(crate) fn board(&self) -> Board {
        self.inner.board
    }

    /// The number of this worker's seat, from 0.
    pub fn slot(&self) -> u32 {
        self.inner.slot
    }

    /// Whether the server has been told to stop and still serves, for the time of `lame_duck`: what a health check should
    /// answer 503 to, so that load balancers send no more.
    ///
    /// ```
    /// use axum::http::StatusCode;
    ///
    /// async fn readyz(worker: ferricorn::Worker) -> StatusCode {
    ///     if worker.is_leaving() { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }
    /// }
    /// ```
    pub fn is_leaving(&self) -> bool {
        self.inner.board.is_leaving()
    }

    /// Waits until this worker drains: it takes no more connections, and has `graceful_timeout` to finish what is open.
    /// Answers come to their end by themselves. What does not, such as a WebSocket, should be ended by the app.
    ///
    /// ```
    /// use axum::extract::ws::{Message, WebSocket};
    ///
    /// async fn talk(mut socket: WebSocket, worker: ferricorn::Worker) {
    ///     loop {
    ///         tokio::select! {
    ///             Some(Ok(message)) = socket.recv() => drop(socket.send(message).await),
    ///             () = worker.draining() => return drop(socket.send(Message::Close(None)).await),
    ///             else => return,
    ///         }
    ///     }
    /// }
    /// ```
    pub async fn draining(&self) {
        // The sender lives as long as this handle, so that there is an end to wait for.
        let _ = self.inner.draining.subscribe().wait_for(|draining| *draining).await;
    }

    pub(crate) fn begin_to_drain(&self) {
        self.inner.draining.send_replace(true);
    }

    /// The app's own figures, which `/metrics` of the admin process shows beside the server's.
    pub fn metrics(&self) -> Metrics {
        Metrics::new(self.inner.board, self.inner.slot)
    }

    /// How many reloads of the server came to an end, adopted or refused, and what the log said of the last one, cut to
    /// 256 bytes; empty before the first.
    pub fn reloads(&self) -> (u64, String) {
        self.inner.board.reloads()
    }

    pub fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    /// What the `[app]` table of the config file says, as the type that was declared with [`App::settings`](crate::App::settings).
    ///
    /// # Panics
    /// When another type was declared, or none.
    pub fn app_settings<T: 'static>(&self) -> &T {
        self.inner.settings.app()
    }

    /// The cache called `name`, made at the first call with the capacity and time to live of `[cache]`.
    ///
    /// # Panics
    /// When the cache of that name has other types.
    pub fn cache<K, V>(&self, name: &str) -> Cache<K, V>
    where
        K: Hash + Eq + Clone + Send + 'static,
        V: Clone + Send + 'static,
    {
        let cache = &self.inner.settings.cache;
        self.cache_with(name, CacheOptions::new(cache.capacity, cache.ttl))
    }

    /// Like [`Worker::cache`], with options of its own, which count at the first call.
    pub fn cache_with<K, V>(&self, name: &str, options: CacheOptions<K, V>) -> Cache<K, V>
    where
        K: Hash + Eq + Clone + Send + 'static,
        V: Clone + Send + 'static,
    {
        let existing = {
            let mut caches = self.inner.caches.lock().expect("nothing that can panic runs under this lock");
            let made = caches.entry(name.to_owned()).or_insert_with(|| {
                let Inner { board, slot, .. } = &*self.inner;
                let counts = board.cache_counts(*slot, name);
                Box::new(Cache::<K, V>::new(name, options, board.generations, counts))
            });
            made.downcast_ref::<Cache<K, V>>().cloned()
        };
        existing.unwrap_or_else(|| {
            let (key, value) = (type_name::<K>(), type_name::<V>());
            panic!("the cache {name:?} exists with other types than <{key}, {value}>")
        })
    }

    /// Has every worker forget the entries with this tag, in the caches of every name; as [`Cache::invalidate_tag`]. Other
    /// servers do not hear of it: for these there is [`PostgresSession::invalidate_tag`].
    pub fn invalidate_tag(&self, tag: &str) {
        self.inner.board.generations.bump(tag_slot(tag));
    }

    /// A layer that has responses served from a cache called `name`: those of an axum `Router`, of some of its routes, or of any
    /// tower service. docs/caching.md says which are kept, and what of RFC 9111 is obeyed. Two layers of one name share their
    /// responses, if the options for its bounds are the first one's.
    ///
    /// ```
    /// use axum::{Router, routing::get};
    /// use ferricorn::{ResponseCacheOptions, Worker};
    /// use std::time::Duration;
    ///
    /// fn app(worker: Worker) -> Router {
    ///     let pages = worker.response_cache("pages", ResponseCacheOptions::new(Duration::from_secs(30)));
    ///     Router::new().route("/", get(async || "a page that takes a while\n")).layer(pages)
    /// }
    /// ```
    ///
    /// # Panics
    /// With more than [`MAX_TAGS`](super::MAX_TAGS) tags in the options.
    pub fn response_cache(&self, name: &str, options: ResponseCacheOptions) -> ResponseCacheLayer {
        ResponseCacheLayer::new(self, name, options)
    }

    pub(crate) fn invalidation(&self, tags: &[String]) -> Invalidation {
        Invalidation::new(self.inner.board.generations, tags)
    }

    /// The pool of the configured database, whichever it is; `None` without `[database] url`.
    pub fn database(&self) -> Option<Database> {
        self.inner.database.clone()
    }

    /// The pool of the PostgreSQL database.
    ///
    /// # Panics
    /// When `[database] url` is absent or does not begin with `postgres://`.
    pub fn postgres(&self) -> Pool<PostgresSession> {
        match &self.inner.database {
            Some(Database::Postgres(pool)) => pool.clone(),
            Some(Database::Sqlite(_)) => panic!("the app wants PostgreSQL, but [database] url is SQLite's"),
            None => panic!("the app wants PostgreSQL, but [database] url is not set"),
        }
    }

    /// The pool of the SQLite database.
    ///
    /// # Panics
    /// When `[database] url` is absent or does not begin with `sqlite:`.
    pub fn sqlite(&self) -> Pool<SqliteSession> {
        match &self.inner.database {
            Some(Database::Sqlite(pool)) => pool.clone(),
            Some(Database::Postgres(_)) => panic!("the app wants SQLite, but [database] url is PostgreSQL's"),
            None => panic!("the app wants SQLite, but [database] url is not set"),
        }
    }

    /// Runs `work`, which may block, on one of the worker's `threads` handler threads.
    ///
    /// # Errors
    /// `QueueFull` at once when `blocking_queue` calls wait already; `WaitedTooLong` when it has waited for a thread for
    /// `max_wait`, and then it never starts; `TimedOut` when `work` has run for `timeout`
    /// (it goes on, but nobody hears of it); `Panicked`. A call whose future is dropped while it waits never starts.
    pub async fn blocking<T, F>(&self, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        self.inner.threads.call(work).await
    }

    /// The program called `name`, which is started with these options at the first call, and runs beside this worker until it
    /// leaves. It need not be there: calls fail until it is.
    ///
    /// ```no_run
    /// # async fn handler(worker: ferricorn::Worker) -> Result<(), ferricorn::Error> {
    /// use ferricorn::ProgramOptions;
    ///
    /// let upper = worker.program("upper", ProgramOptions::new(["python3", "upper.py"]));
    /// let shouted: String = upper.call("hello").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn program(&self, name: &str, options: ProgramOptions) -> Program {
        self.inner.programs.find_or_start(name, options)
    }

    /// For how long the oldest of the running blocking calls has run.
    pub(crate) fn longest_call(&self) -> Option<Duration> {
        self.inner.threads.longest_call()
    }

    /// Whether a blocking call still runs `grace` after the deadline of the request that it was for.
    pub(crate) fn call_outlived_its_request(&self, grace: Duration) -> bool {
        self.inner.threads.outlived(grace)
    }

    /// Shows on the board how the database's pool and the programs stand.
    pub(crate) fn show(&self) {
        self.inner.programs.show();
        if let Some(database) = &self.inner.database {
            database.show();
        }
    }

    /// Has the programs leave, and closes the connections that nobody uses, for at most `SHUT_DOWN_WAIT`. The process is
    /// expected to exit next.
    pub(crate) fn shut_down(&self) {
        self.inner.programs.close();
        self.inner.threads.close();
        let Some(database) = self.database() else { return };
        let (done, wait) = std::sync::mpsc::channel::<()>();
        // A thread of its own: a client may not be closed on a thread that runs async code.
        let closing = std::thread::Builder::new().name("goodbye".into()).spawn(move || {
            database.close();
            drop(done);
        });
        if closing.is_ok() {
            let _ = wait.recv_timeout(SHUT_DOWN_WAIT);
        }
    }

    /// A worker over a database that a test made.
    #[cfg(test)]
    pub(crate) fn stub(settings: Settings, database: Option<Database>) -> Worker {
        let board = Board::stub(4);
        let threads = Arc::new(Threads::new(Limits::of(&settings), &board.seat(3).shed, || {}));
        Worker::of(3, Arc::new(settings), board, false, threads, database, Programs::new(|_| {}, board, 3))
    }
}

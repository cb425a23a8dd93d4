//! A worker's life: build the app, say that it is ready, serve, drain, leave. Not here: who decides when.

mod accept;
mod access_log;
mod allowance;
mod answer;
mod body;
mod clock;
mod connection;
mod crowd;
mod drain;
mod edge;
mod forwarded;
mod framing;
mod gate;
mod hooks;
mod http2;
mod memory;
mod pipe;
mod prelude;
mod request_id;
mod rest;
mod service;
mod signals;
mod stall;
mod stream;
mod sweep;
mod target;
mod tls;
mod watched;
mod wire;

use crate::app::{Body, BoxError, HttpService, RequestId, Worker};
use crate::config::Settings;
use crate::logging;
use crate::scoreboard::{Board, Clients, Phase, Seat, now_millis};
use accept::HeldBy;
use access_log::AccessLog;
use clock::Clock;
use connection::Connections;
use http::{Request, Response, StatusCode};
use request_id::RequestIds;
use signals::{Asked, Signals};
use std::io::{self, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use stream::Listener;
use tokio::sync::watch;
use tower::Service;
use watched::{Origin, Watched};

pub(crate) use edge::Edge;
pub(crate) use hooks::{Hooks, Moment};
pub(crate) use pipe::Pipe;
pub use service::{Answered, Around, Bare, PostRequest, PreRequest};
pub(crate) use tls::{TicketSecret, check as check_tls};

/// How long a stopping worker goes on accepting what the listeners' queues still hold.
const LAST_ACCEPTS: Duration = Duration::from_millis(100);
/// How long a drain leaves idle keep-alive connections open, so that a request on its way is still answered.
const IDLE_LINGER: Duration = Duration::from_secs(1);

/// What `max_worker_age` is divided by to get the most that is added to it at random.
const AGE_JITTER: u64 = 10;

/// Exit code of a worker that could not begin to serve.
const BOOT_FAILED: i32 = 1;

/// What a worker starts with.
pub(crate) struct Post {
    pub(crate) slot: u32,
    pub(crate) settings: Settings,
    pub(crate) board: Board,
    pub(crate) tickets: TicketSecret,
    pub(crate) listeners: Vec<OwnedFd>,
    pub(crate) offers: Option<Offers>,
    pub(crate) bell: UnixStream,
    /// A reload hangs on it.
    pub(crate) is_on_trial: bool,
}

/// Where the master offers queues in which something waits and that nobody serves.
pub(crate) struct Offers {
    pub(crate) offers: UnixDatagram,
    /// Takes one; `WouldBlock` where there is none.
    pub(crate) take: fn(BorrowedFd<'_>) -> io::Result<OwnedFd>,
}

/// A tower service that the worker can serve: cloned for each connection, its answers' bodies streamed.
pub(crate) trait App<B>:
    Service<Request<Body>, Response = Response<B>, Error: Into<BoxError>, Future: Send> + Clone + Send + 'static
{
}

impl<S, B> App<B> for S where
    S: Service<Request<Body>, Response = Response<B>, Error: Into<BoxError>, Future: Send>
        + Clone
        + Send
        + 'static
{
}

/// What all connections of a worker share.
struct Floor {
    settings: Settings,
    seat: &'static Seat,
    board: Board,
    bell: UnixStream,
    connections: Connections,
    /// How many of them may have the kernel hold more than others.
    large_allowances: AtomicUsize,
    access_log: Option<AccessLog>,
    /// `None`: all connections are in the clear.
    tls: Option<tls::Acceptor>,
    request_ids: Option<RequestIds>,
    /// Where this worker counts connections by client; `None`: it does not.
    clients: Option<&'static Clients>,
    draining: AtomicBool,
    served: AtomicU64,
    /// After how many requests the worker asks for a successor.
    max_requests: u64,
    /// When it does so for its age, on the same clock as `coarse_now`.
    retires_at: Option<u64>,
    /// It holds more than `max_worker_memory`.
    is_too_large: Option<Arc<AtomicBool>>,
    /// `scoreboard::now_millis` as of the last sweep: time enough for timeouts, and free to read.
    coarse_now: AtomicU64,
    clock: Arc<Clock>,
}

impl Floor {
    fn open(
        settings: Settings,
        slot: u32,
        board: Board,
        bell: UnixStream,
        tickets: &TicketSecret,
    ) -> io::Result<Floor> {
        let Settings { max_requests, max_requests_jitter, max_worker_age, max_worker_memory, .. } = settings;
        let max_age = max_worker_age.as_millis() as u64;
        let seat = board.seat(slot);
        Ok(Floor {
            clients: (settings.limit_client_connections > 0).then(|| seat.count_clients()),
            tls: tls::Acceptor::new(&settings, tickets)?,
            access_log: AccessLog::open(&settings.accesslog, &settings.access_log_format)?,
            request_ids: RequestIds::new(&settings.request_id_header),
            max_requests: jittered(max_requests, max_requests_jitter),
            retires_at: (max_age > 0).then(|| now_millis() + jittered(max_age, max_age / AGE_JITTER)),
            is_too_large: (max_worker_memory > 0).then(|| memory::watch(max_worker_memory)).transpose()?,
            settings,
            seat,
            board,
            bell,
            connections: Connections::default(),
            large_allowances: AtomicUsize::new(0),
            draining: AtomicBool::new(false),
            served: AtomicU64::new(0),
            coarse_now: AtomicU64::new(now_millis()),
            clock: Arc::default(),
        })
    }

    fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Says on the board what this worker is about, and has the master look.
    fn show(&self, phase: Phase) {
        self.seat.set_phase(phase);
        // A full pipe means that the master has a look ahead of it anyway.
        let _ = (&self.bell).write(&[1]);
    }

    /// Logs a request of which there was no whole head, and which had this answer all the same.
    fn log_unread(&self, watched: &Watched, status: StatusCode) {
        self.log_refused(watched.origin(), status);
    }

    fn log_refused(&self, origin: &Origin, status: StatusCode) {
        if let Some(access_log) = &self.access_log {
            access_log.write_unread(&origin.name, status);
        }
    }

    /// Asks for a successor, once.
    fn retire(&self, why: &str) {
        if self.seat.phase() == Phase::Serving {
            log::info!("worker asked for a successor why={why}");
            self.show(Phase::Retiring);
        }
    }
}

/// What a worker does by the master's means.
#[derive(Clone, Copy)]
pub(crate) struct Powers {
    /// Lets signals through, once handlers stand.
    pub(crate) unblock: fn(),
    /// Has what a command starts die with the thread that starts it.
    pub(crate) tie: fn(&mut Command),
    /// Has this thread let others go first, as it does when the worker starts.
    pub(crate) be_patient: fn(),
    pub(crate) be_prompt: fn(),
    /// Has this thread interrupt nobody when it is woken: what each handler thread begins with.
    pub(crate) give_way: fn(),
}

/// Serves until told to leave; returns the process's exit code.
pub(crate) fn work<S: HttpService>(
    post: Post,
    hooks: &Hooks,
    app: impl FnOnce(Worker) -> S,
    powers: Powers,
) -> i32 {
    let clock = Arc::new(Clock::default());
    let woken = clock.clone();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .on_thread_unpark(move || woken.woke())
        // For files alone; what the app has to wait for goes to the handler threads.
        .max_blocking_threads(post.settings.threads)
        .build();
    let result = runtime.and_then(|runtime| {
        logging::log_panics();
        let settings = Arc::new(post.settings.clone());
        let Powers { tie, give_way, .. } = powers;
        let worker = Worker::new(post.slot, settings, post.board, post.is_on_trial, tie, give_way);
        runtime.block_on(live(post, clock, worker.clone(), hooks, app, powers))?;
        hooks.run(Moment::Exit, &worker);
        worker.shut_down();
        (powers.be_patient)();
        Ok(())
    });
    match result {
        Ok(()) => 0,
        Err(error) => {
            log::error!("worker could not start error=\"{error}\"");
            BOOT_FAILED
        }
    }
}

async fn live<S: HttpService>(
    post: Post,
    clock: Arc<Clock>,
    worker: Worker,
    hooks: &Hooks,
    app: impl FnOnce(Worker) -> S,
    powers: Powers,
) -> io::Result<()> {
    let mut signals = Signals::listen(post.bell.try_clone()?)?;
    (powers.unblock)();
    let listen = |fd| Listener::new(fd, &post.settings);
    let listeners = post.listeners.into_iter().map(listen).collect::<io::Result<Vec<_>>>()?;
    let floor = Floor::open(post.settings, post.slot, post.board, post.bell, &post.tickets)?;
    let floor = Arc::new(Floor { clock, ..floor });
    if floor.request_ids.is_some() {
        logging::name_requests(|| RequestId::current().map(|id| id.to_string()));
    }
    // Before anything of the app: its threads and programs are not to inherit patience.
    (powers.be_prompt)();
    hooks.run(Moment::Starting, &worker);
    let service = app(worker.clone());
    hooks.warm_up(&worker, &service).await.map_err(io::Error::other)?;
    let (stop_accepting, stopped) = watch::channel(false);
    let mut accepting: Vec<_> = listeners
        .into_iter()
        .map(|listener| {
            let queued = post.offers.is_some() && listener.is_tcp();
            let held_by = if queued { HeldBy::Us } else { HeldBy::All };
            tokio::spawn(accept::accept(floor.clone(), listener, held_by, service.clone(), stopped.clone()))
        })
        .collect();
    if let Some(offers) = post.offers {
        accepting.push(tokio::spawn(accept::take_offers(floor.clone(), offers, service, stopped)));
    }
    tokio::spawn(sweep::sweep(floor.clone(), worker.clone()));
    signals.booted();
    floor.show(Phase::Serving);
    hooks.run(Moment::Ready, &worker);

    while let Asked::ReopenLogs = signals.next().await {
        reopen(&floor);
    }
    if signals.last() == Asked::Drain {
        floor.draining.store(true, Ordering::Relaxed);
        floor.show(Phase::Draining);
        hooks.run(Moment::Draining, &worker);
        worker.begin_to_drain();
        drain(&floor, &mut signals, &stop_accepting, accepting).await;
    }
    if signals.last() == Asked::Leave {
        hooks.run(Moment::Aborting, &worker);
    }
    if let Some(access_log) = &floor.access_log {
        access_log.flush();
    }
    Ok(())
}

/// Accepts what still waits, then finishes what is open, unless told to leave at once.
async fn drain(
    floor: &Arc<Floor>,
    signals: &mut Signals,
    stop_accepting: &watch::Sender<bool>,
    accepting: Vec<tokio::task::JoinHandle<()>>,
) {
    stop_accepting.send_replace(true);
    let finished = async {
        let closed = async {
            for task in accepting {
                let _ = task.await;
            }
            sweep::close_idle(floor).await;
            floor.connections.all_closed().await;
        };
        tokio::join!(drain::dismiss_all(floor), closed);
    };
    let told_to_leave = async {
        while signals.next().await != Asked::Leave {
            if signals.last() == Asked::ReopenLogs {
                reopen(floor);
            }
        }
    };
    tokio::select! {
        () = finished => {}
        () = told_to_leave => {}
    }
}

fn reopen(floor: &Floor) {
    logging::reopen();
    if let Some(access_log) = &floor.access_log {
        access_log.reopen();
    }
}

/// Spreads the successions of workers that started together. Zero stays zero: never.
fn jittered(base: u64, jitter: u64) -> u64 {
    if base == 0 || jitter == 0 {
        return base;
    }
    // The process id is as good as a die here: it differs between workers.
    let mut hasher = std::hash::DefaultHasher::new();
    std::hash::Hash::hash(&(std::process::id(), Instant::now()), &mut hasher);
    base.saturating_add(std::hash::Hasher::finish(&hasher) % jitter.saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn a_jitter_is_added_and_nothing_that_is_off_is_jittered() {
        assert_eq!((jittered(0, 10), jittered(5, 0), jittered(u64::MAX, u64::MAX)), (0, 5, u64::MAX));
        let values: HashSet<u64> = (0..1000).map(|_| jittered(100, 10)).collect();
        assert!(values.iter().all(|value| (100..=110).contains(value)), "{values:?}");
        assert!(values.len() > 5, "they differ: {values:?}");
    }
}

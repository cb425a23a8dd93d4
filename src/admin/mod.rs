//! The admin process: it answers for the server, from the scoreboard, to whoever may reach its socket. It serves no
//! request of the app, so it has time when no worker has. Over HTTP nothing can be changed; wishes come over a socket of their own
//! and go to the master over a line.
//! Not here: who starts it anew when it dies (the master).

mod answer;
mod control;
mod dashboard;
mod exposition;
mod history;
mod line;
mod listeners;
mod memory;
mod metrics;
mod named;
mod own;
mod process;
mod status;

use crate::config::Settings;
use crate::scoreboard::Board;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use line::{Line, Turn};
use memory::Memory;
use nix::sys::socket::{AddressFamily, SockaddrLike, SockaddrStorage, getsockname};
use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram as StdLine;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

/// Connections open at a time; more wait to be accepted.
const MAX_CONNECTIONS: u32 = 64;
/// How long a request's head may take, and how large it may be.
const HEAD_TIME: Duration = Duration::from_secs(2);
const HEAD_BYTES: usize = 16 * 1024;
/// How long a connection may last, which is for one request: so nobody holds a place who reads slowly or not at all.
const CONNECTION_TIME: Duration = Duration::from_secs(10);
/// How often it looks whether it is to log more, or less.
const LEVEL_LOOK: Duration = Duration::from_secs(1);
/// How long accepting rests after an error.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const FAILED: i32 = 1;

/// What the process starts with.
pub(crate) struct Post {
    pub(crate) settings: Settings,
    pub(crate) board: Board,
    /// Those of the server.
    pub(crate) addresses: Vec<String>,
    /// Where it is asked over HTTP, and where wishes come in.
    pub(crate) http: Option<OwnedFd>,
    pub(crate) control: Option<OwnedFd>,
    /// To the master; the end asks to leave.
    pub(crate) line: StdLine,
    pub(crate) flush: Flush,
}

/// Has no worker serve any more what was cached with this tag; without one, what was cached at all.
pub(crate) type Flush = fn(Board, Option<&str>);

/// Answers until told to leave; returns the process's exit code. Signals stay blocked: they mean the master.
pub(crate) fn work(post: Post) -> i32 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
    match runtime.and_then(|runtime| runtime.block_on(live(post))) {
        Ok(()) => 0,
        Err(error) => {
            log::error!("admin could not start error=\"{error}\"");
            FAILED
        }
    }
}

/// What all answers come from.
struct Desk {
    settings: Settings,
    board: Board,
    addresses: Vec<String>,
    memory: Memory,
    flush: Flush,
    places: Arc<Semaphore>,
}

async fn live(post: Post) -> io::Result<()> {
    let Post { settings, board, addresses, http, control, line, flush } = post;
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS as usize));
    let clients = Arc::new(Semaphore::new(control::MAX_CLIENTS));
    let http = http.map(Listener::new).transpose()?;
    let control = control.map(|fd| UnixListener::from_std(fd.into())).transpose()?;
    let line = Arc::new(Line::new(line)?);
    let desk = Arc::new(Desk {
        settings,
        board,
        addresses,
        memory: Memory::default(),
        flush,
        places: places.clone(),
    });
    let turn = tokio::select! {
        () = answer_all(http.as_ref(), &desk) => Turn::Leave,
        () = obey_all(control.as_ref(), &desk, &line, &clients) => Turn::Leave,
        () = log_as_told(&desk) => Turn::Leave,
        () = remember(http.as_ref(), &desk) => Turn::Leave,
        turn = line.listen() => turn,
    };
    drop((http, control));
    if turn == Turn::Retire {
        // Those who wait are told the outcome; then the line ends.
        while line.listen().await != Turn::Leave {}
    }
    // What is open is finished; all places are free when the last connection is closed.
    let finished = async {
        let _ = places.acquire_many(MAX_CONNECTIONS).await;
        let _ = clients.acquire_many(control::MAX_CLIENTS as u32).await;
    };
    let _ = timeout(CONNECTION_TIME, finished).await;
    Ok(())
}

async fn answer_all(listener: Option<&Listener>, desk: &Arc<Desk>) {
    let Some(listener) = listener else { return pending().await };
    loop {
        if listener.accept(desk).await.is_err() {
            sleep(ACCEPT_PAUSE).await;
        }
    }
}

async fn obey_all(
    listener: Option<&UnixListener>,
    desk: &Arc<Desk>,
    line: &Arc<Line>,
    clients: &Arc<Semaphore>,
) {
    let Some(listener) = listener else { return pending().await };
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let Ok(place) = clients.clone().try_acquire_owned() else {
            control::turn_away(stream).await;
            continue;
        };
        let (desk, line) = (desk.clone(), line.clone());
        tokio::spawn(async move {
            control::serve(stream, &desk, &line).await;
            drop(place);
        });
    }
}

/// Where nobody can ask for it, nothing is kept.
async fn remember(listener: Option<&Listener>, desk: &Desk) {
    match listener {
        Some(_) => history::keep(desk.board).await,
        None => pending().await,
    }
}

/// The operator may change what is logged.
async fn log_as_told(desk: &Desk) {
    loop {
        log::set_max_level(desk.board.level().unwrap_or(desk.settings.loglevel));
        sleep(LEVEL_LOOK).await;
    }
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    fn new(fd: OwnedFd) -> io::Result<Listener> {
        let addr: SockaddrStorage = getsockname(fd.as_raw_fd())?;
        Ok(match addr.family() {
            Some(AddressFamily::Unix) => Listener::Unix(UnixListener::from_std(fd.into())?),
            Some(_) | None => Listener::Tcp(TcpListener::from_std(fd.into())?),
        })
    }

    /// Takes the next connection, as soon as there is a place for it.
    async fn accept(&self, desk: &Arc<Desk>) -> io::Result<()> {
        let place = desk.places.clone().acquire_owned().await.map_err(io::Error::other)?;
        match self {
            Listener::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                let desk = desk.clone();
                tokio::spawn(async move {
                    serve(stream, &desk).await;
                    drop(place);
                });
            }
            Listener::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                let desk = desk.clone();
                tokio::spawn(async move {
                    serve(stream, &desk).await;
                    drop(place);
                });
            }
        }
        Ok(())
    }
}

/// One request, one answer.
async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, desk: &Desk) {
    let service = service_fn(|request| async move {
        Ok::<_, Infallible>(answer::answer(desk, request.method(), request.uri()).await)
    });
    let mut http1 = hyper::server::conn::http1::Builder::new();
    http1.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME).max_buf_size(HEAD_BYTES).keep_alive(false);
    let _ = timeout(CONNECTION_TIME, http1.serve_connection(TokioIo::new(stream), service)).await;
}

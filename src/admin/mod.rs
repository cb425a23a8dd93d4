//! The admin process: it answers for the server, from the scoreboard, to whoever may reach its socket. It serves no
//! request of the app, so it has time when no worker has. Nothing can be changed through it.
//! Not here: who starts it anew when it dies (the master).

mod answer;
mod exposition;
mod health;
mod metrics;
mod process;
mod status;

use crate::config::Settings;
use crate::logging;
use crate::scoreboard::Board;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::sys::socket::{AddressFamily, SockaddrLike, SockaddrStorage, getsockname};
use std::convert::Infallible;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream as Line;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

/// Connections open at a time; more wait to be accepted.
const MAX_CONNECTIONS: u32 = 64;
/// How long a request's head may take, and how large it may be.
const HEAD_TIME: Duration = Duration::from_secs(2);
const HEAD_BYTES: usize = 16 * 1024;
/// How long a connection may last, which is for one request: so nobody holds a place who reads slowly or not at all.
const CONNECTION_TIME: Duration = Duration::from_secs(10);
/// How long accepting rests after an error.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const FAILED: i32 = 1;

/// What the process starts with.
pub(crate) struct Post {
    pub(crate) settings: Settings,
    pub(crate) board: Board,
    pub(crate) listener: OwnedFd,
    /// A byte asks to open the log anew; the end asks to leave.
    pub(crate) line: Line,
}

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
    places: Arc<Semaphore>,
}

async fn live(post: Post) -> io::Result<()> {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS as usize));
    let listener = Listener::new(post.listener)?;
    post.line.set_nonblocking(true)?;
    let mut line = UnixStream::from_std(post.line)?;
    let desk = Arc::new(Desk { settings: post.settings, board: post.board, places: places.clone() });
    let accepting = async {
        loop {
            if listener.accept(&desk).await.is_err() {
                sleep(ACCEPT_PAUSE).await;
            }
        }
    };
    let told_to_leave = async {
        while line.read(&mut [0; 16]).await.is_ok_and(|bytes| bytes > 0) {
            logging::reopen();
        }
    };
    tokio::select! {
        () = accepting => {}
        () = told_to_leave => {}
    }
    drop(listener);
    // What is open is finished; all places are free when the last connection is closed.
    let _ = timeout(CONNECTION_TIME, places.acquire_many(MAX_CONNECTIONS)).await;
    Ok(())
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
        Ok::<_, Infallible>(answer::answer(desk, request.method(), request.uri().path()))
    });
    let mut http1 = hyper::server::conn::http1::Builder::new();
    http1.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME).max_buf_size(HEAD_BYTES).keep_alive(false);
    let _ = timeout(CONNECTION_TIME, http1.serve_connection(TokioIo::new(stream), service)).await;
}

//! Listeners and connections of both kinds, TCP and Unix, as one. Not here: HTTP.

use crate::app::Peer;
use nix::sys::socket::{AddressFamily, SockaddrLike, SockaddrStorage, getsockname};
use nix::sys::socket::{MsgFlags, recv};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    pub(super) fn new(fd: OwnedFd) -> io::Result<Listener> {
        let addr: SockaddrStorage = getsockname(fd.as_raw_fd())?;
        if addr.family() == Some(AddressFamily::Unix) {
            UnixListener::from_std(fd.into()).map(Listener::Unix)
        } else {
            TcpListener::from_std(fd.into()).map(Listener::Tcp)
        }
    }

    pub(super) fn is_tcp(&self) -> bool {
        match self {
            Listener::Tcp(_) => true,
            Listener::Unix(_) => false,
        }
    }

    pub(super) async fn accept(&self) -> io::Result<(Stream, Peer)> {
        match self {
            Listener::Tcp(listener) => {
                listener.accept().await.map(|(stream, addr)| (Stream::Tcp(stream), Peer::Tcp(addr)))
            }
            Listener::Unix(listener) => {
                listener.accept().await.map(|(stream, _)| (Stream::Unix(stream), Peer::Unix))
            }
        }
    }

    /// One connection that already waits, by asking the kernel itself and not the runtime, which may not have been
    /// told yet. `WouldBlock` where the queue is empty.
    pub(super) fn accept_waiting(&self) -> io::Result<(Stream, Peer)> {
        use std::os::fd::{AsFd, BorrowedFd};
        let fd: BorrowedFd<'_> = match self {
            Listener::Tcp(listener) => listener.as_fd(),
            Listener::Unix(listener) => listener.as_fd(),
        };
        let fd = fd.try_clone_to_owned()?;
        match self {
            Listener::Tcp(_) => {
                let (stream, addr) = std::net::TcpListener::from(fd).accept()?;
                stream.set_nonblocking(true)?;
                Ok((Stream::Tcp(TcpStream::from_std(stream)?), Peer::Tcp(addr)))
            }
            Listener::Unix(_) => {
                let (stream, _) = std::os::unix::net::UnixListener::from(fd).accept()?;
                stream.set_nonblocking(true)?;
                Ok((Stream::Unix(UnixStream::from_std(stream)?), Peer::Unix))
            }
        }
    }
}

pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    /// Writes what fits into the socket's buffer right now.
    pub(super) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.try_write(bytes),
            Stream::Unix(stream) => stream.try_write(bytes),
        }
    }

    /// Whether bytes lie in the socket that nobody has read yet.
    pub(super) fn has_unread(&self) -> bool {
        self.peek(&mut [0; 1]) > 0
    }

    /// How many bytes lie in the socket, as far as they fit, and which. They stay there.
    pub(super) fn peek(&self, bytes: &mut [u8]) -> usize {
        let fd = match self {
            Stream::Tcp(stream) => stream.as_raw_fd(),
            Stream::Unix(stream) => stream.as_raw_fd(),
        };
        recv(fd, bytes, MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT).unwrap_or(0)
    }
}

/// Runs `$body` with `$stream` as the pinned stream of either kind.
macro_rules! either {
    ($self:expr, $stream:ident => $body:expr) => {
        match $self.get_mut() {
            Stream::Tcp(stream) => {
                let $stream = Pin::new(stream);
                $body
            }
            Stream::Unix(stream) => {
                let $stream = Pin::new(stream);
                $body
            }
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        either!(self, stream => stream.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self, stream => stream.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_shutdown(cx))
    }
}

/// A stream that hyper drives and the sweep can reach: on one thread, so the lock is never waited for.
#[derive(Clone)]
pub(super) struct Shared(Arc<Mutex<Stream>>);

impl Shared {
    pub(super) fn new(stream: Stream) -> Shared {
        Shared(Arc::new(Mutex::new(stream)))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Stream> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

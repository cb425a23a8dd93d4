//! Listeners and connections of both kinds, TCP and Unix, as one; a connection perhaps with TLS. Not here: HTTP, handshakes.

use super::pipe::Served;
use super::tls;
use crate::app::Peer;
use crate::config::Settings;
use nix::sys::socket::{AddressFamily, SockaddrLike, SockaddrStorage, getsockname};
use nix::sys::socket::{MsgFlags, recv};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_rustls::server::TlsStream;

/// So much is copied to one place before it is sent: send(2) of it costs less than writev(2) of a head and a short body.
const TOGETHER_BYTES: usize = 2048;

pub(super) struct Listener {
    socket: Socket,
    /// What comes here begins with a handshake.
    speaks_tls: bool,
}

enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    pub(super) fn new(fd: OwnedFd, settings: &Settings) -> io::Result<Listener> {
        let addr: SockaddrStorage = getsockname(fd.as_raw_fd())?;
        let (socket, place) = if addr.family() == Some(AddressFamily::Unix) {
            let listener = UnixListener::from_std(fd.into())?;
            let addr: std::os::unix::net::SocketAddr = listener.local_addr()?.into();
            let name = |name: &[u8]| format!("unix:@{}", String::from_utf8_lossy(name));
            let path = addr.as_pathname().map(|path| format!("unix:{}", path.display()));
            (
                Socket::Unix(listener),
                path.unwrap_or_else(|| name(addr.as_abstract_name().unwrap_or_default())),
            )
        } else {
            let listener = TcpListener::from_std(fd.into())?;
            let addr = listener.local_addr()?;
            (Socket::Tcp(listener), addr.to_string())
        };
        Ok(Listener { socket, speaks_tls: settings.has_tls() && !settings.plain_places.contains(&place) })
    }

    pub(super) fn is_tcp(&self) -> bool {
        match self.socket {
            Socket::Tcp(_) => true,
            Socket::Unix(_) => false,
        }
    }

    pub(super) fn speaks_tls(&self) -> bool {
        self.speaks_tls
    }

    pub(super) async fn accept(&self) -> io::Result<(Stream, Peer)> {
        match &self.socket {
            Socket::Tcp(listener) => {
                listener.accept().await.map(|(stream, addr)| (Stream::Tcp(stream), Peer::Tcp(addr)))
            }
            Socket::Unix(listener) => {
                listener.accept().await.map(|(stream, _)| (Stream::Unix(stream), Peer::Unix))
            }
        }
    }

    /// One connection that already waits, by asking the kernel itself and not the runtime, which may not have been
    /// told yet. `WouldBlock` where the queue is empty.
    pub(super) fn accept_waiting(&self) -> io::Result<(Stream, Peer)> {
        let fd: BorrowedFd<'_> = match &self.socket {
            Socket::Tcp(listener) => listener.as_fd(),
            Socket::Unix(listener) => listener.as_fd(),
        };
        let fd = fd.try_clone_to_owned()?;
        match self.socket {
            Socket::Tcp(_) => {
                let (stream, addr) = std::net::TcpListener::from(fd).accept()?;
                stream.set_nonblocking(true)?;
                Ok((Stream::Tcp(TcpStream::from_std(stream)?), Peer::Tcp(addr)))
            }
            Socket::Unix(_) => {
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
    /// Around one of the two. Boxed, so that the others are no larger for it.
    Tls(Box<TlsStream<Stream>>),
    /// Within the process.
    Pipe(Served),
    /// Its handshake has it.
    Away,
}

impl Stream {
    /// Writes what fits into the socket's buffer right now.
    pub(super) fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.try_write(bytes),
            Stream::Unix(stream) => stream.try_write(bytes),
            Stream::Tls(secured) => {
                let written = io::Write::write(&mut secured.get_mut().1.writer(), bytes)?;
                tls::flush_now(secured)?;
                Ok(written)
            }
            Stream::Pipe(stream) => stream.try_write(bytes),
            Stream::Away => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Whether it goes over TCP, with TLS or without.
    pub(super) fn is_tcp(&self) -> bool {
        match self {
            Stream::Tcp(_) => true,
            Stream::Tls(secured) => secured.get_ref().0.is_tcp(),
            Stream::Unix(_) | Stream::Pipe(_) | Stream::Away => false,
        }
    }

    /// `None`: it has none, or its handshake has it.
    pub(super) fn socket(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Stream::Tcp(stream) => Some(stream.as_fd()),
            Stream::Unix(stream) => Some(stream.as_fd()),
            Stream::Tls(secured) => secured.get_ref().0.socket(),
            Stream::Pipe(_) | Stream::Away => None,
        }
    }

    /// Whether bytes lie in the socket that nobody has read yet.
    pub(super) fn has_unread(&self) -> bool {
        self.peek(&mut [0; 1]) > 0
    }

    /// How many bytes lie in the socket, as far as they fit, and which. They stay there.
    pub(super) fn peek(&self, bytes: &mut [u8]) -> usize {
        self.look(bytes).unwrap_or(0)
    }

    fn look(&self, bytes: &mut [u8]) -> io::Result<usize> {
        if let Stream::Pipe(stream) = self {
            return Ok(stream.peek(bytes));
        }
        let socket = self.socket().ok_or(io::ErrorKind::NotConnected)?;
        Ok(recv(socket.as_raw_fd(), bytes, MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT)?)
    }

    /// Waits until it shows whether the first bytes are these. They stay where they are.
    pub(super) async fn begins_with(&self, wanted: &[u8; 4]) -> bool {
        let mut bytes = [0; 4];
        let mut seen = 0;
        loop {
            let ready = match self {
                Stream::Tcp(stream) => stream.ready(Interest::READABLE).await,
                Stream::Unix(stream) => stream.ready(Interest::READABLE).await,
                Stream::Tls(_) | Stream::Away | Stream::Pipe(_) => return false,
            };
            let Ok(ready) = ready else { return false };
            // What lies there already is nothing to be woken for again.
            let look = || {
                self.look(&mut bytes).and_then(|count| {
                    if count > seen || ready.is_read_closed() {
                        Ok(count)
                    } else {
                        Err(io::ErrorKind::WouldBlock.into())
                    }
                })
            };
            let looked = match self {
                Stream::Tcp(stream) => stream.try_io(Interest::READABLE, look),
                Stream::Unix(stream) => stream.try_io(Interest::READABLE, look),
                Stream::Tls(_) | Stream::Away | Stream::Pipe(_) => return false,
            };
            seen = match looked {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(_) => return false,
                Ok(count) if bytes[..count] != wanted[..count] => return false,
                Ok(count) if count == wanted.len() => return true,
                Ok(_) if ready.is_read_closed() => return false,
                Ok(count) => count,
            };
        }
    }

    /// What was agreed upon to be spoken over TLS is HTTP/2.
    pub(super) fn has_agreed_on_http2(&self) -> bool {
        match self {
            Stream::Tls(secured) => secured.get_ref().1.alpn_protocol() == Some(b"h2"),
            Stream::Tcp(_) | Stream::Unix(_) | Stream::Away | Stream::Pipe(_) => false,
        }
    }

    /// Whether `poll_first_byte` can see what comes.
    pub(super) fn can_peek(&self) -> bool {
        match self {
            Stream::Tcp(_) | Stream::Unix(_) => true,
            Stream::Tls(_) | Stream::Pipe(_) | Stream::Away => false,
        }
    }

    /// Waits for the first byte, which stays where it is; `None` at the end.
    pub(super) fn poll_first_byte(&self, cx: &mut Context<'_>) -> Poll<io::Result<Option<u8>>> {
        let mut byte = [0];
        loop {
            let (ready, looked) = match self {
                Stream::Tcp(stream) => {
                    (stream.poll_read_ready(cx), stream.try_io(Interest::READABLE, || self.look(&mut byte)))
                }
                Stream::Unix(stream) => {
                    (stream.poll_read_ready(cx), stream.try_io(Interest::READABLE, || self.look(&mut byte)))
                }
                Stream::Tls(_) | Stream::Pipe(_) | Stream::Away => {
                    return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
                }
            };
            match looked {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(ready)?,
                looked => return Poll::Ready(looked.map(|count| (count > 0).then_some(byte[0]))),
            }
        }
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
            Stream::Tls(stream) => {
                let $stream = Pin::new(&mut **stream);
                $body
            }
            Stream::Pipe(stream) => {
                let $stream = Pin::new(stream);
                $body
            }
            Stream::Away => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
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
        if let [buf] = bufs {
            return self.poll_write(cx, buf);
        }
        let is_short = bufs.iter().map(|buf| buf.len()).sum::<usize>() <= TOGETHER_BYTES;
        if !is_short {
            return either!(self, stream => stream.poll_write_vectored(cx, bufs));
        }
        let mut room = [MaybeUninit::uninit(); TOGETHER_BYTES];
        let mut together = ReadBuf::uninit(&mut room);
        bufs.iter().for_each(|buf| together.put_slice(buf));
        either!(self, stream => stream.poll_write(cx, together.filled()))
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

    /// For a handshake, until it puts something back.
    pub(super) fn take(&self) -> Stream {
        std::mem::replace(&mut *self.lock(), Stream::Away)
    }

    pub(super) fn put(&self, stream: Stream) {
        *self.lock() = stream;
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Stream> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

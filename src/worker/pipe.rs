//! A connection without a socket: two heaps of bytes, for tests within a process. Not here: what is said over it.

use bytes::{Buf, BytesMut};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The client's end.
#[derive(Clone, Default)]
pub(crate) struct Pipe(Arc<Mutex<Ends>>);

/// The server's end.
pub(super) struct Served(Pipe);

#[derive(Default)]
struct Ends {
    sent: BytesMut,
    /// The client sends nothing more.
    is_over: bool,
    /// Whoever waits for what the client sends.
    reader: Option<Waker>,
    answered: Vec<u8>,
    /// The server sends nothing more.
    is_closed: bool,
}

impl Pipe {
    pub(super) fn served(&self) -> Served {
        Served(self.clone())
    }

    pub(crate) fn send(&self, bytes: &[u8]) {
        self.change(|ends| ends.sent.extend_from_slice(bytes));
    }

    pub(crate) fn finish(&self) {
        self.change(|ends| ends.is_over = true);
    }

    /// All that the server has sent, and whether it has closed its side.
    pub(crate) fn answered(&self) -> (Vec<u8>, bool) {
        let ends = self.lock();
        (ends.answered.clone(), ends.is_closed)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().is_closed
    }

    /// The server has read all there is, and waits for more.
    pub(super) fn is_waited_for(&self) -> bool {
        self.lock().reader.is_some()
    }

    fn change(&self, change: impl FnOnce(&mut Ends)) {
        let mut ends = self.lock();
        change(&mut ends);
        let reader = ends.reader.take();
        drop(ends);
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Ends> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Served {
    pub(super) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut ends = self.0.lock();
        if ends.is_closed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        ends.answered.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    pub(super) fn peek(&self, bytes: &mut [u8]) -> usize {
        let ends = self.0.lock();
        let count = bytes.len().min(ends.sent.len());
        bytes[..count].copy_from_slice(&ends.sent[..count]);
        count
    }
}

impl AsyncRead for Served {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut ends = self.0.lock();
        if ends.sent.is_empty() && !ends.is_over {
            ends.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let count = ends.sent.len().min(buf.remaining());
        buf.put_slice(&ends.sent[..count]);
        ends.sent.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Served {
    fn poll_write(self: Pin<&mut Self>, _cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(self.try_write(buf))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.lock().is_closed = true;
        Poll::Ready(Ok(()))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.0.lock().is_closed = true;
    }
}

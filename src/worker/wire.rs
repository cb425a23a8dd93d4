//! The stream as hyper reads and writes it. What is read goes through the guard, which decides where requests end; what passes
//! is noted for the sweep. Not here: the rules for either.

use super::connection::Entry;
use super::framing::{Guard, Limits};
use super::watched::{Stage, Watched};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The stream as hyper sees it: what passes is noted for the sweep, and is framed as it has to be.
pub(super) struct Wire {
    watched: Arc<Watched>,
    guard: Guard,
    _entry: Arc<Entry>,
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.guard.holds() {
            return this.poll_held(cx, buf);
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut *this.watched.stream.lock()).poll_read(cx, buf))?;
        let read = &buf.filled()[before..];
        if read.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let stage = this.note_read();
        if stage == Stage::Upgraded {
            return Poll::Ready(Ok(()));
        }
        let (count, passed) = (read.len(), this.guard.take(read));
        if stage == Stage::Rest {
            this.note_rest();
        } else if passed < count && (passed > 0 || stage == Stage::Body) {
            // What is held begins another request.
            this.watched.ahead.store(true, Ordering::Relaxed);
        }
        if passed == count {
            return Poll::Ready(Ok(()));
        }
        buf.set_filled(before + passed);
        if passed == 0 { this.poll_held(cx, buf) } else { Poll::Ready(Ok(())) }
    }
}

impl Wire {
    pub(super) fn new(watched: Arc<Watched>, limits: Limits, entry: Arc<Entry>) -> Wire {
        Wire { watched, guard: Guard::new(limits), _entry: entry }
    }

    /// Bytes have come: in which stage.
    fn note_read(&self) -> Stage {
        let stage = self.watched.stage();
        match stage {
            Stage::New | Stage::Idle => self.watched.enter(Stage::Head),
            Stage::Head | Stage::Body | Stage::Upgraded | Stage::Handshake | Stage::Rest => {}
            Stage::Answer => self.watched.ahead.store(true, Ordering::Relaxed),
        }
        stage
    }

    /// More has come of a body that is read away: perhaps the last of it, and the beginning of the next request.
    fn note_rest(&self) {
        if !self.guard.is_in_body() {
            self.watched.enter(if self.guard.holds() { Stage::Head } else { Stage::Idle });
        }
    }

    /// Reads until the guard lets something pass.
    fn poll_held(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let stage = self.watched.stage();
            if stage == Stage::Upgraded {
                self.guard.step_aside();
            }
            let ready = self.guard.ready();
            if !ready.is_empty() {
                let count = ready.len().min(buf.remaining());
                buf.put_slice(&ready[..count]);
                self.guard.gave(count);
                return Poll::Ready(Ok(()));
            }
            match self.guard.fault() {
                Some(fault) if fault.is_of_body() => {
                    self.watched.note_fault(fault);
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, fault)));
                }
                // The request before it comes first, and whatever follows belongs to what it may change the protocol to.
                // hyper is woken when it has its answer.
                Some(_) if self.guard.is_over() || matches!(stage, Stage::Body | Stage::Answer) => {
                    return Poll::Pending;
                }
                Some(fault) => {
                    self.watched.note_fault(fault);
                    self.guard.replace_head();
                    continue;
                }
                None => {}
            }
            let before = buf.filled().len();
            ready!(Pin::new(&mut *self.watched.stream.lock()).poll_read(cx, buf))?;
            let read = &buf.filled()[before..];
            if read.is_empty() || self.note_read() == Stage::Upgraded {
                return Poll::Ready(Ok(()));
            }
            let passed = self.guard.take(read);
            if stage == Stage::Rest {
                self.note_rest();
            }
            buf.set_filled(before + passed);
        }
    }
}

/// What is written, whichever version of HTTP it is of; whether the client takes it is noted.
impl Watched {
    pub(super) fn poll_write(&self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut *self.stream.lock()).poll_write(cx, buf);
        self.note_written(written)
    }

    pub(super) fn poll_write_vectored(
        &self,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut *self.stream.lock()).poll_write_vectored(cx, bufs);
        self.note_written(written)
    }

    /// A socket holds nothing back, so that there is nothing to flush; TLS may.
    pub(super) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.tls.get().is_none() {
            return Poll::Ready(Ok(()));
        }
        let written = Pin::new(&mut *self.stream.lock()).poll_flush(cx);
        self.note_written(written)
    }

    pub(super) fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let written = Pin::new(&mut *self.stream.lock()).poll_shutdown(cx);
        self.note_written(written)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.watched.poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.watched.poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.watched.poll_flush(cx))?;
        // hyper flushes when it has written all it has: an answer that was complete before is now out.
        if matches!(self.watched.stage(), Stage::Idle | Stage::Head | Stage::Upgraded | Stage::Rest) {
            self.watched.place.end(&self.watched.floor.seat.in_flight);
            if self.guard.fault().is_some() {
                // It waited for this.
                cx.waker().wake_by_ref();
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // With a body unread the sending side must stay open until the answer is out; `linger` closes it.
        self.watched.poll_shutdown(cx)
    }
}

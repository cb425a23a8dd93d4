//! The stream below hyper's HTTP/2: what passes is noted. Not here: what is made of it (`session`).

use super::budget::Overspent;
use super::frames::ENHANCE_YOUR_CALM;
use super::session::Session;
use crate::worker::connection::Entry;
use crate::worker::watched::Watched;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub(super) struct Wire {
    watched: Arc<Watched>,
    session: Arc<Session>,
    _entry: Arc<Entry>,
}

impl Wire {
    pub(super) fn new(watched: Arc<Watched>, session: Arc<Session>, entry: Arc<Entry>) -> Wire {
        Wire { watched, session, _entry: entry }
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut *self.watched.stream.lock()).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            let received = self.session.received(&self.watched, &buf.filled()[before..]);
            if received == Err(Overspent) {
                self.session.tell_end(&self.watched, ENHANCE_YOUR_CALM);
                return Poll::Ready(Err(io::Error::other("it sent too many frames for nothing")));
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let count = ready!(self.watched.poll_write(cx, buf))?;
        self.session.sent(&self.watched, &[buf], count);
        Poll::Ready(Ok(count))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(self.watched.poll_write_vectored(cx, bufs))?;
        self.session.sent(&self.watched, bufs, count);
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.watched.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.watched.poll_shutdown(cx)
    }
}

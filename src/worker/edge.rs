//! A worker's way from bytes to bytes, within a process: for tests of what stands between a client and an app.
//! Not here: sockets, a worker's life, what ends slow connections.

use super::pipe::Pipe;
use super::stream::Stream;
use super::watched::Stage;
use super::{App, Floor, TicketSecret, connection};
use crate::app::{BoxError, Peer};
use crate::config::Settings;
use crate::scoreboard::Board;
use bytes::Bytes;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

pub(crate) struct Edge {
    floor: Arc<Floor>,
    /// What the worker tells its master, which nobody reads.
    _bell: UnixStream,
}

impl Edge {
    /// # Errors
    /// As a worker's start has them.
    pub(crate) fn new(settings: Settings, board: Board) -> io::Result<Edge> {
        let (bell, heard) = UnixStream::pair()?;
        bell.set_nonblocking(true)?;
        let tickets = TicketSecret::new().map_err(io::Error::other)?;
        let floor = Floor::open(settings, 0, board, bell, &tickets)?;
        Ok(Edge { floor: Arc::new(floor), _bell: heard })
    }

    /// Serves a connection, in a task of its own.
    pub(crate) fn serve<S, B>(&self, pipe: &Pipe, service: S)
    where
        S: App<B>,
        B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        connection::serve(&self.floor, Stream::Pipe(pipe.served()), Peer::Unix, false, service);
    }

    /// Whether the server waits for the client, or has closed the connection.
    pub(crate) fn is_at_rest(&self, pipe: &Pipe) -> bool {
        let mut is_answering = false;
        self.floor.connections.each(|watched| is_answering |= watched.stage() == Stage::Answer);
        pipe.is_closed() || pipe.is_waited_for() && !is_answering
    }

    /// How many connections are open.
    pub(crate) fn count(&self) -> usize {
        self.floor.connections.count()
    }
}

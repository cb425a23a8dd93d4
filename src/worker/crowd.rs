//! How many connections a client may have open (`limit_client_connections`), counted over all workers. Not here: how they are
//! counted, which is the board's.

use super::watched::{Origin, Stage, Watched};
use crate::app::Peer;
use crate::scoreboard::ClientMark;
use http::StatusCode;
use nix::sys::socket::{MsgFlags, Shutdown, recv, send, shutdown};
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;

/// Told before anything of a request is read.
const TOO_MANY: &[u8] = b"HTTP/1.1 429 Too Many Requests\r\nconnection: close\r\nretry-after: 1\r\n\
content-type: text/plain; charset=utf-8\r\ncontent-length: 46\r\n\r\ntoo many connections are open from this place\n";
/// How much of what such a client has sent is read, so that it gets the answer and not a reset: a head, hardly more.
const DISCARD_READS: usize = 8;

/// Counts a connection. False: it is one too many, is not counted, and the client has been told.
pub(super) fn admit(watched: &Watched, origin: &Origin) -> bool {
    let floor = &*watched.floor;
    let (Some(clients), Peer::Tcp(addr)) = (floor.clients, origin.peer) else { return true };
    // A proxy's connections are those of its clients.
    if origin.is_trusted {
        return true;
    }
    let mark = floor.board.client_mark(addr.ip());
    if !clients.add(mark) {
        return true;
    }
    // Counted first and then added up: of two workers that do so at a time, one sees the other's.
    let has_room = floor.board.connections_of(mark) <= floor.settings.limit_client_connections;
    if has_room {
        watched.client.store(mark.to_bits(), Ordering::Relaxed);
    } else {
        clients.remove(mark);
        refuse(watched, origin);
    }
    has_room
}

/// The connection is closed.
pub(super) fn leave(watched: &Watched) {
    let mark = ClientMark::from_bits(watched.client.load(Ordering::Relaxed));
    if let (Some(clients), Some(mark)) = (watched.floor.clients, mark) {
        clients.remove(mark);
    }
}

/// Tells the client, as far as that costs nothing, before the connection is closed: a word in the clear is none in TLS.
fn refuse(watched: &Watched, origin: &Origin) {
    let floor = &watched.floor;
    floor.seat.tally.connection_refused();
    log::debug!("connection refused peer={} reason=\"limit_client_connections\"", origin.peer);
    if watched.stage() == Stage::Handshake {
        return;
    }
    let stream = watched.stream.lock();
    let Some(socket) = stream.socket().map(|socket| socket.as_raw_fd()) else { return };
    // By the kernel itself: the runtime has not been told yet that the socket can be written.
    let _ = send(socket, TOO_MANY, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL);
    let _ = shutdown(socket, Shutdown::Write);
    let mut discarded = [0; 16 * 1024];
    let read = |_: &usize| recv(socket, &mut discarded, MsgFlags::MSG_DONTWAIT).is_ok_and(|count| count > 0);
    (0..DISCARD_READS).take_while(read).for_each(drop);
    floor.log_refused(origin, StatusCode::TOO_MANY_REQUESTS);
}

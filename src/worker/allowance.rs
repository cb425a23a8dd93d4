//! How much of an answer the kernel may hold that is not on its way yet. A socket has little of it from its listener; some of those
//! that fill it get so much that an answer of 1 MiB goes in one piece. Not here: whether a client takes what it is sent (`stall`).

use super::watched::Watched;
use nix::libc;
use nix::sys::socket::setsockopt;
use nix::{setsockopt_impl, sockopt_impl};
use std::sync::atomic::Ordering::Relaxed;

/// To so many of a worker's connections. Who stops reading keeps what it was given, so this is what bounds the whole.
const MOST_LARGE: usize = 64;
const LARGE_BYTES: u32 = 1024 * 1024;

sockopt_impl!(
    /// `TCP_NOTSENT_LOWAT`, tcp(7).
    NotSentLowWater,
    SetOnly,
    libc::IPPROTO_TCP,
    libc::TCP_NOTSENT_LOWAT,
    u32
);

/// The socket is full: if there is still a large allowance, it is this connection's until it ends, and the kernel says at once
/// that there is room. Streams of HTTP/2 are sent as their windows let them, and gain nothing.
pub(super) fn ask(watched: &Watched) {
    let given = &watched.floor.large_allowances;
    if watched.has_large_allowance.load(Relaxed) || watched.session.get().is_some() {
        return;
    }
    let stream = watched.stream.lock();
    let Some(socket) = stream.socket().filter(|_| stream.is_tcp()) else { return };
    if given.fetch_update(Relaxed, Relaxed, |given| (given < MOST_LARGE).then_some(given + 1)).is_ok() {
        // A kernel that is none may not know it: then there is nothing to be allowed, either.
        let _ = setsockopt(&socket, NotSentLowWater, &LARGE_BYTES);
        watched.has_large_allowance.store(true, Relaxed);
    }
}

/// The connection has ended.
pub(super) fn give_back(watched: &Watched) {
    if watched.has_large_allowance.swap(false, Relaxed) {
        watched.floor.large_allowances.fetch_sub(1, Relaxed);
    }
}

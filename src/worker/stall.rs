//! Whether a client still takes what it is sent. hyper has no timer for that, and the kernel tells too little: a full socket is
//! writable again when a third of its buffer is free, for which a slow but steady reader may take minutes. So what the client
//! has taken is asked for, of full sockets alone, at each sweep. Not here: what a limit of time is (the sweep's settings).

use super::stream::Stream;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{Shutdown, getsockopt, setsockopt, shutdown, sockopt};
use nix::{getsockopt_impl, sockopt_impl};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Not yet looked at.
const BEGUN: u64 = 1;

sockopt_impl!(
    /// `struct tcp_info`, as eight-byte words, up to `tcpi_bytes_acked` (Linux 4.1).
    TcpInfo,
    GetOnly,
    libc::IPPROTO_TCP,
    libc::TCP_INFO,
    [u64; 16]
);
sockopt_impl!(
    /// `SK_MEMINFO_*` (Linux 4.12).
    MemInfo,
    GetOnly,
    libc::SOL_SOCKET,
    SO_MEMINFO,
    [u32; 9]
);
const BYTES_ACKED: usize = 15;
const SO_MEMINFO: libc::c_int = 55;
const WMEM_ALLOC: usize = 2;

/// The socket of one connection, as to whether it takes what the server writes.
#[derive(Default)]
pub(super) struct Stall {
    /// 0: it does. Otherwise when the client last took something, as the sweep saw it, or `BEGUN`.
    since: AtomicU64,
    /// What the client had taken by then; 0: the socket was never full.
    taken: AtomicU64,
}

impl Stall {
    /// The socket was full.
    pub(super) fn begin(&self) {
        if self.since.load(Relaxed) == 0 {
            self.since.store(BEGUN, Relaxed);
            self.taken.store(BEGUN, Relaxed);
        }
    }

    pub(super) fn is_on(&self) -> bool {
        self.since.load(Relaxed) != 0
    }

    /// Whether it was, ever: the kernel may hold something that the client has not read.
    pub(super) fn has_been(&self) -> bool {
        self.taken.load(Relaxed) != 0
    }

    /// The socket took something.
    pub(super) fn end(&self) {
        self.since.store(0, Relaxed);
    }

    /// For the sweep: whether the client has taken nothing for longer than `limit`. It may have taken all, of what somebody
    /// wrote who then lost interest: that is no fault of the client's.
    pub(super) fn is_over(&self, limit: Duration, now: u64, stream: &Stream) -> bool {
        let since = self.since.load(Relaxed);
        let Some(socket) = stream.socket().filter(|_| since != 0 && !limit.is_zero()) else { return false };
        let taken = taken(socket);
        if since == BEGUN || taken != self.taken.load(Relaxed) {
            self.since.store(now.max(BEGUN + 1), Relaxed);
            self.taken.store(taken, Relaxed);
            return false;
        }
        now.saturating_sub(since) > limit.as_millis() as u64 && !is_writable(socket)
    }

    /// The connection is about to be closed. The kernel goes on sending what it has, and bears a client that takes none of it
    /// for minutes; where it may have a lot, let it be no longer than `limit`.
    pub(super) fn outlive(&self, limit: Duration, stream: &Stream) {
        if self.has_been() {
            let limit = limit.as_millis().try_into().unwrap_or(u32::MAX);
            // Unix sockets do not know it: what they hold is gone with whoever reads it.
            let _ = stream.socket().map(|socket| setsockopt(&socket, sockopt::TcpUserTimeout, &limit));
        }
    }
}

/// Has the kernel forget what it has not sent when the socket is closed; where that is for the app to do, it learns that it is time.
pub(super) fn give_up(stream: &Stream, is_the_apps: bool) {
    if let Some(socket) = stream.socket() {
        let _ = setsockopt(&socket, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 });
        if is_the_apps {
            let _ = shutdown(socket.as_raw_fd(), Shutdown::Both);
        }
    }
}

/// A number that changes whenever the client takes something; the same one where the kernel does not tell.
fn taken(socket: BorrowedFd<'_>) -> u64 {
    let acknowledged = getsockopt(&socket, TcpInfo).map(|info| info[BYTES_ACKED]);
    // A Unix socket knows what is not yet read.
    let unread = || getsockopt(&socket, MemInfo).map(|info| u64::from(info[WMEM_ALLOC]));
    acknowledged.or_else(|_| unread()).unwrap_or(0).max(BEGUN)
}

fn is_writable(socket: BorrowedFd<'_>) -> bool {
    let mut asked = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
    poll(&mut asked, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;

    const LIMIT: Duration = Duration::from_millis(100);

    /// Fills the socket, then follows a client that takes some and ceases to.
    fn story(mut server: impl Write, mut client: impl Read, stream: &Stream) {
        let stall = Stall::default();
        assert!(!stall.is_over(LIMIT, 1000, stream), "it was never full");
        while server.write(&[0; 16 * 1024]).is_ok() {}
        stall.begin();
        assert!(!stall.is_over(LIMIT, 1000, stream), "the first look is where the time begins");
        stall.begin();
        assert!(!stall.is_over(LIMIT, 1100, stream), "not yet");
        // A little, that does not make the socket writable.
        client.read_exact(&mut vec![0; 128 * 1024]).unwrap();
        while !is_writable_again_or_taken(&stall, stream) {}
        assert!(!stall.is_over(LIMIT, 1300, stream), "it takes some");
        assert!(!stall.is_over(LIMIT, 1400, stream), "not yet again");
        assert!(stall.is_over(LIMIT, 1401, stream));
        assert!(!stall.is_over(Duration::ZERO, 99_000, stream), "switched off");
        stall.end();
        assert!(!stall.is_on() && !stall.is_over(LIMIT, 99_000, stream), "the socket takes some");
    }

    /// The kernel's word for it takes a moment.
    fn is_writable_again_or_taken(stall: &Stall, stream: &Stream) -> bool {
        taken(stream.socket().unwrap()) != stall.taken.load(Relaxed)
    }

    fn with_runtime<T>(make: impl FnOnce() -> T) -> (tokio::runtime::Runtime, T) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        let made = {
            let _entered = runtime.enter();
            make()
        };
        (runtime, made)
    }

    #[test]
    fn a_client_that_takes_nothing_is_known_by_what_it_took() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        server.set_nonblocking(true).unwrap();
        let watched = server.try_clone().unwrap();
        let (_runtime, stream) =
            with_runtime(|| Stream::Tcp(tokio::net::TcpStream::from_std(watched).unwrap()));
        story(server, client, &stream);
    }

    #[test]
    fn the_same_over_a_unix_socket() {
        let (server, client) = UnixStream::pair().unwrap();
        server.set_nonblocking(true).unwrap();
        let watched = server.try_clone().unwrap();
        let (_runtime, stream) =
            with_runtime(|| Stream::Unix(tokio::net::UnixStream::from_std(watched).unwrap()));
        story(server, client, &stream);
    }

    #[test]
    fn a_client_that_took_all_is_not_blamed() {
        let (server, mut client) = UnixStream::pair().unwrap();
        server.set_nonblocking(true).unwrap();
        let watched = server.try_clone().unwrap();
        let (_runtime, stream) =
            with_runtime(|| Stream::Unix(tokio::net::UnixStream::from_std(watched).unwrap()));
        let stall = Stall::default();
        let mut sent = 0;
        while let Ok(count) = (&server).write(&[0; 16 * 1024]) {
            sent += count;
        }
        stall.begin();
        client.read_exact(&mut vec![0; sent]).unwrap();
        assert!(!stall.is_over(LIMIT, 1000, &stream));
        assert!(!stall.is_over(LIMIT, 99_000, &stream), "whoever wrote has lost interest");
    }
}

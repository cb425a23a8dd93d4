//! What the servers of this crate share: how they are started, and processes that share a port. Not here: how they answer.

pub mod pages;
pub mod plain;

use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, sockopt};
use nix::sys::wait::wait;
use nix::unistd::{ForkResult, fork};
use std::net::{SocketAddrV4, TcpListener};
use std::os::fd::AsRawFd;

/// From `-b HOST:PORT -w WORKERS`. What is served from files lies in the folder `files`.
pub struct Arguments {
    pub bind: SocketAddrV4,
    pub workers: usize,
}

impl Arguments {
    pub fn read() -> Arguments {
        let after = |flag: &str| std::env::args().skip_while(|arg| arg != flag).nth(1);
        let bind = after("-b").and_then(|bind| bind.parse().ok()).expect("-b ADDRESS:PORT");
        let workers = after("-w").and_then(|workers| workers.parse().ok()).expect("-w WORKERS");
        Arguments { bind, workers }
    }
}

/// Forks the workers, and returns in each of them with a listener of its own at the same port. Whoever ends the process group ends
/// all of them.
pub fn prefork(arguments: &Arguments) -> TcpListener {
    for _ in 0..arguments.workers {
        // SAFETY: nothing has started a thread yet.
        if let ForkResult::Child = unsafe { fork() }.expect("a process can be forked") {
            return listen(arguments.bind);
        }
    }
    let ended = wait();
    panic!("a worker ended: {ended:?}");
}

/// Connections inherit TCP_NODELAY from their listener.
fn listen(bind: SocketAddrV4) -> TcpListener {
    let kind = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let listener = socket::socket(AddressFamily::Inet, SockType::Stream, kind, None).expect("a socket");
    socket::setsockopt(&listener, sockopt::ReuseAddr, &true).expect("SO_REUSEADDR");
    socket::setsockopt(&listener, sockopt::ReusePort, &true).expect("SO_REUSEPORT");
    socket::setsockopt(&listener, sockopt::TcpNoDelay, &true).expect("TCP_NODELAY");
    socket::bind(listener.as_raw_fd(), &SockaddrIn::from(bind)).expect("the address is free");
    socket::listen(&listener, Backlog::MAXCONN).expect("it listens");
    listener.into()
}

//! A group of sockets that listen on one TCP address (SO_REUSEPORT), and which of them new connections go to.
//! Not here: who accepts from them, and when one may be closed without a loss.

use super::listener::tune;
use crate::config::Bind;
use nix::libc::{self, sock_filter, sock_fprog};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, getsockname, listen, setsockopt,
    shutdown, socket, sockopt,
};
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// The sockets, in the order of the kernel's own array, on which its choice hangs: a new one comes last, and the last
/// one takes the place of one that is closed (`reuseport_add_sock` and `reuseport_detach_sock` in
/// net/core/sock_reuseport.c).
pub(super) struct Group {
    /// What it was asked for by.
    bind: Bind,
    addr: SocketAddr,
    backlog: Backlog,
    sockets: Vec<OwnedFd>,
}

impl Group {
    /// A group of one socket.
    ///
    /// # Errors
    /// What the system says; `AddrInUse` also where another server listens that would share the address: the order
    /// of a group in which strangers are is not known.
    pub(super) fn open(host: &str, port: u16, backlog: u32) -> io::Result<Group> {
        let addr = (host, port).to_socket_addrs()?.next().ok_or(ErrorKind::AddrNotAvailable)?;
        let backlog = length(backlog);
        let first = tcp_socket(addr)?;
        setsockopt(&first, sockopt::ReuseAddr, &true)?;
        bind(first.as_raw_fd(), &SockaddrStorage::from(addr))?;
        // Set only now, so that the bind above fails where anybody listens already.
        setsockopt(&first, sockopt::ReusePort, &true)?;
        listen(&first, backlog)?;
        let bind = Bind::Tcp { host: host.to_owned(), port };
        let group = Group { bind, addr: local_addr(&first)?, backlog, sockets: vec![first] };
        group.steer(&[0])?;
        Ok(group)
    }

    /// A group that another master has made, in its order. New connections go where they went.
    ///
    /// # Errors
    /// What the system says, also where there is no socket at all.
    pub(super) fn adopt(bind: Bind, sockets: Vec<OwnedFd>, backlog: u32) -> io::Result<Group> {
        let first = sockets.first().ok_or(ErrorKind::InvalidInput)?;
        let mut group = Group { bind, addr: local_addr(first)?, backlog: length(backlog), sockets };
        group.set_backlog(backlog)?;
        Ok(group)
    }

    pub(super) fn bind(&self) -> &Bind {
        &self.bind
    }

    /// In the order in which they are adopted.
    pub(super) fn sockets(&self) -> &[OwnedFd] {
        &self.sockets
    }

    /// One socket more, the last. No new connection goes to it until it is named to `steer`.
    pub(super) fn grow(&mut self) -> io::Result<()> {
        let socket = tcp_socket(self.addr)?;
        setsockopt(&socket, sockopt::ReusePort, &true)?;
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
        bind(socket.as_raw_fd(), &SockaddrStorage::from(self.addr))?;
        listen(&socket, self.backlog)?;
        self.sockets.push(socket);
        Ok(())
    }

    pub(super) fn set_backlog(&mut self, backlog: u32) -> io::Result<()> {
        self.backlog = length(backlog);
        self.sockets.iter().try_for_each(|socket| Ok(listen(socket, self.backlog)?))
    }

    /// Closes a socket for whoever holds it, and resets what waits in its queue. The last one takes its place.
    pub(super) fn close(&mut self, at: usize) {
        let socket = self.sockets.swap_remove(at);
        // A copy that a worker holds, or that lies in a pipe, would keep a place in the kernel's array.
        let _ = shutdown(socket.as_raw_fd(), nix::sys::socket::Shutdown::Read);
    }

    /// From now on new connections go to these sockets alone, to each with the same chance. A handshake under way ends
    /// where it began.
    pub(super) fn steer(&self, to: &[usize]) -> io::Result<()> {
        let mut program = program(to);
        let length = program.len().try_into().map_err(|_| ErrorKind::InvalidInput)?;
        let program = sock_fprog { len: length, filter: program.as_mut_ptr() };
        Ok(setsockopt(&self.sockets[0], sockopt::AttachReusePortCbpf, &program)?)
    }

    /// A descriptor of a socket for a worker.
    pub(super) fn share(&self, at: usize) -> io::Result<OwnedFd> {
        self.sockets[at].try_clone()
    }

    pub(super) fn socket(&self, at: usize) -> BorrowedFd<'_> {
        self.sockets[at].as_fd()
    }

    /// Whether a connection waits to be accepted there.
    pub(super) fn has_waiting(&self, at: usize) -> bool {
        let mut fds = [PollFd::new(self.socket(at), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.addr)
    }
}

/// The kernel cuts it at net.core.somaxconn.
fn length(backlog: u32) -> Backlog {
    i32::try_from(backlog).ok().and_then(|length| Backlog::new(length).ok()).unwrap_or(Backlog::MAXCONN)
}

fn tcp_socket(addr: SocketAddr) -> io::Result<OwnedFd> {
    let family = if addr.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(family, SockType::Stream, flags, None)?;
    tune(socket.as_fd())?;
    Ok(socket)
}

fn local_addr(socket: &OwnedFd) -> io::Result<SocketAddr> {
    let addr: SockaddrStorage = getsockname(socket.as_raw_fd())?;
    let v4 = addr.as_sockaddr_in().map(|addr| SocketAddr::V4(SocketAddrV4::from(*addr)));
    let v6 = addr.as_sockaddr_in6().map(|addr| SocketAddr::V6(SocketAddrV6::from(*addr)));
    v4.or(v6).ok_or_else(|| ErrorKind::AddrNotAvailable.into())
}

/// A classic BPF program that returns the index of the socket for a new connection: a die is thrown with as many sides
/// as there are sockets to choose from, and where an index that it shows is not among them, one that it cannot
/// show stands in.
fn program(to: &[usize]) -> Vec<sock_filter> {
    let sides = to.len().max(1);
    let mut stand_ins = to.iter().filter(|index| **index >= sides);
    let mut program = vec![
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, RANDOM),
        instruction(libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K, 0, sides as u32),
    ];
    for side in (0..sides).filter(|side| !to.contains(side)) {
        let Some(stand_in) = stand_ins.next() else { break };
        // "Is it this one? If not, skip the next."
        program.push(instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, side as u32));
        program.push(instruction(libc::BPF_RET | libc::BPF_K, 0, *stand_in as u32));
    }
    program.push(instruction(libc::BPF_RET | libc::BPF_A, 0, 0));
    program
}

/// The place from which a filter loads a random number.
const RANDOM: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_RANDOM) as u32;

fn instruction(code: u32, skip_if_not: u8, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt: 0, jf: skip_if_not, k }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::accept;
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpStream};
    use std::os::fd::FromRawFd;
    use std::time::{Duration, Instant};

    const WAITING: usize = 200;

    fn group_of(count: usize) -> Group {
        let mut group = Group::open("127.0.0.1", 0, 1024).unwrap();
        (1..count).for_each(|_| group.grow().unwrap());
        group
    }

    /// Clients that have sent nothing yet, so that their handshakes are under way.
    fn begin(group: &Group, count: usize) -> Vec<TcpStream> {
        let streams = (0..count).map(|_| TcpStream::connect(group.addr).unwrap());
        streams.inspect(|s| s.set_read_timeout(Some(Duration::from_secs(5))).unwrap()).collect()
    }

    /// Sends something, which ends the handshake.
    fn finish(clients: &mut [TcpStream]) {
        clients.iter_mut().for_each(|client| drop(client.write_all(b"x")));
    }

    fn connect(group: &Group, count: usize) -> Vec<TcpStream> {
        let mut clients = begin(group, count);
        finish(&mut clients);
        clients
    }

    /// Accepts from these sockets until nothing waits and `wanted` have come, or some time has passed; greets each, and
    /// says how many came to each socket.
    fn drain(group: &Group, from: &[usize], wanted: usize) -> Vec<usize> {
        let until = Instant::now() + Duration::from_secs(5);
        let mut counts = vec![0; from.len()];
        loop {
            let more = from.iter().zip(&mut counts);
            more.for_each(|(at, count)| *count += drain_now(group, *at));
            if counts.iter().sum::<usize>() >= wanted || Instant::now() > until {
                return counts;
            }
        }
    }

    fn drain_now(group: &Group, at: usize) -> usize {
        let mut count = 0;
        while let Ok(fd) = accept(group.sockets[at].as_raw_fd()) {
            // SAFETY: accept(2) has just made it.
            let mut stream = TcpStream::from(unsafe { OwnedFd::from_raw_fd(fd) });
            stream.write_all(b"hello").unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            count += 1;
        }
        count
    }

    /// How many of the clients were never greeted.
    fn lost(clients: Vec<TcpStream>) -> usize {
        let greeted = |mut client: TcpStream| {
            let mut text = String::new();
            client.read_to_string(&mut text).is_ok() && text == "hello"
        };
        clients.into_iter().map(greeted).filter(|greeted| !greeted).count()
    }

    /// Where each of `count` new connections went.
    fn shares(group: &Group, count: usize) -> Vec<usize> {
        let clients = connect(group, count);
        let all: Vec<usize> = (0..group.sockets.len()).collect();
        let shares = drain(group, &all, count);
        assert_eq!(lost(clients), 0);
        shares
    }

    /// Leaves handshakes under way until data comes, and for longer than a test takes.
    fn hold_handshakes(group: &Group, at: usize) {
        let seconds: libc::c_int = 30;
        // SAFETY: the option reads one int.
        let done = unsafe {
            libc::setsockopt(
                group.sockets[at].as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_DEFER_ACCEPT,
                (&raw const seconds).cast(),
                4,
            )
        };
        assert_eq!(done, 0);
    }

    #[test]
    fn new_connections_go_where_they_are_steered() {
        let mut group = group_of(5);
        for to in [&[0][..], &[4], &[1, 2], &[0, 4], &[1, 3, 4], &[0, 1, 2, 3, 4]] {
            group.steer(to).unwrap();
            let shares = shares(&group, 40 * to.len());
            for (at, share) in shares.iter().enumerate() {
                // One in 10^10 runs leaves a socket out.
                assert_eq!(*share > 0, to.contains(&at), "{to:?}: {shares:?}");
            }
        }
        // The last one takes the place of one that is closed: here as in the kernel.
        group.close(1);
        for at in 0..4 {
            group.steer(&[at]).unwrap();
            let mut wanted = vec![0; 4];
            wanted[at] = 20;
            assert_eq!(shares(&group, 20), wanted);
        }
    }

    #[test]
    fn closed_is_closed_for_all_who_hold_a_copy() {
        let mut group = group_of(2);
        let copy = group.share(1).unwrap();
        group.steer(&[0]).unwrap();
        group.close(1);
        group.grow().unwrap();
        group.steer(&[1]).unwrap();
        assert_eq!(shares(&group, 20), [0, 20], "the copy has no place in the group");
        assert_eq!(accept(copy.as_raw_fd()), Err(nix::Error::EINVAL));
    }

    #[test]
    fn what_waits_is_lost_unless_it_is_steered_away_drained_and_only_then_closed() {
        for (steers, drains, all_served) in
            [(true, true, true), (true, false, false), (false, true, false), (false, false, false)]
        {
            let mut group = group_of(3);
            group.steer(&[2]).unwrap();
            let mut clients = connect(&group, WAITING);
            if steers {
                group.steer(&[0, 1]).unwrap();
            }
            if drains {
                assert_eq!(drain(&group, &[2], WAITING), [WAITING]);
            }
            // More come while the socket is about to be closed.
            clients.extend(connect(&group, WAITING));
            group.close(2);
            drain(&group, &[0, 1], if steers { WAITING } else { 0 });
            let lost = lost(clients);
            assert_eq!(lost == 0, all_served, "steers {steers}, drains {drains}: {lost} lost");
        }
    }

    #[test]
    fn a_handshake_under_way_ends_where_it_began() {
        for (waits, all_served) in [(true, true), (false, false)] {
            let mut group = group_of(2);
            hold_handshakes(&group, 1);
            group.steer(&[1]).unwrap();
            let mut clients = begin(&group, WAITING);
            group.steer(&[0]).unwrap();
            assert_eq!(drain(&group, &[1], 0), [0], "no handshake is complete");
            if waits {
                finish(&mut clients);
                assert_eq!(drain(&group, &[1], WAITING), [WAITING], "not where new connections go");
            }
            group.close(1);
            finish(&mut clients);
            drain(&group, &[0], 0);
            let lost = lost(clients);
            assert_eq!(lost == 0, all_served, "waits {waits}: {lost} lost");
        }
    }

    #[test]
    fn a_group_has_no_strangers() {
        let group = group_of(2);
        let port = group.addr.port();
        let kind = |result: io::Result<Group>| result.err().map(|error| error.kind());
        assert_eq!(kind(Group::open("127.0.0.1", port, 8)), Some(ErrorKind::AddrInUse));
        drop(group);
        assert_eq!(kind(Group::open("127.0.0.1", port, 8)), None);
    }

    #[test]
    fn ipv6_groups_work_as_well() {
        let Ok(mut group) = Group::open("::1", 0, 8) else {
            eprintln!("skipped: this machine has no IPv6");
            return;
        };
        group.grow().unwrap();
        group.steer(&[1]).unwrap();
        assert_eq!(shares(&group, 5), [0, 5]);
    }
}

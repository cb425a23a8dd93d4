//! The listening sockets: bound once by the master or taken from outside, shared by all workers. Not here: accepting.

use super::privileges::SocketOwner;
use crate::config::Bind;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::socket::{AddressFamily, SockType, SockaddrLike, SockaddrStorage, getsockname};
use nix::sys::socket::{
    Backlog, ControlMessageOwned, MsgFlags, getsockopt, listen, recvmsg, setsockopt, sockopt,
};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Uid, fchownat};
use nix::{cmsg_space, libc};
use std::cell::Cell;
use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, ErrorKind, IoSliceMut};
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// A bound and listening socket, non-blocking and close-on-exec.
pub(crate) struct Listener {
    fd: OwnedFd,
    at: Place,
}

enum Place {
    Tcp(SocketAddr),
    /// The path, and the inode that is to be removed there; zero: none.
    Unix(PathBuf, Cell<u64>),
}

/// What becomes of the file of a Unix socket when the server stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AtStop {
    RemoveFile,
    /// It belongs to whoever passed the socket in.
    KeepFile,
}

impl Listener {
    /// A Unix socket gets the permissions `mode`, or what the umask leaves, and `owner`.
    ///
    /// # Errors
    /// What the system says; `AddrInUse` also where another server listens on the socket file, or a file that is no
    /// socket stands there.
    pub(crate) fn bind(
        bind: &Bind,
        backlog: u32,
        mode: Option<u32>,
        owner: SocketOwner,
    ) -> io::Result<Listener> {
        let listener = match bind {
            Bind::Tcp { host, port } => bind_tcp(host, *port)?,
            Bind::Unix(path) => bind_unix(path, mode, owner)?,
        };
        // A second listen(2) only changes the length of the queue.
        listener.set_backlog(backlog)?;
        Ok(listener)
    }

    /// How many connections may wait; the kernel cuts it at net.core.somaxconn.
    pub(crate) fn set_backlog(&self, backlog: u32) -> io::Result<()> {
        let backlog = i32::try_from(backlog).ok().and_then(|length| Backlog::new(length).ok());
        Ok(listen(&self.fd, backlog.unwrap_or(Backlog::MAXCONN))?)
    }

    /// Takes a stream socket that listens already, TCP or Unix, and learns from it where.
    ///
    /// # Errors
    /// `InvalidInput` for anything else; what the system says.
    pub(crate) fn adopt(fd: OwnedFd, at_stop: AtStop) -> io::Result<Listener> {
        let invalid = |what| Err(io::Error::new(ErrorKind::InvalidInput, what));
        match getsockopt(&fd, sockopt::SockType) {
            Ok(SockType::Stream) => {}
            Ok(_) | Err(_) => return invalid("it is no stream socket"),
        }
        if !getsockopt(&fd, sockopt::AcceptConn)? {
            return invalid("it does not listen");
        }
        fcntl(&fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
        let addr: SockaddrStorage = getsockname(fd.as_raw_fd())?;
        match addr.family() {
            Some(AddressFamily::Inet | AddressFamily::Inet6) => Listener::tcp(fd.into()),
            Some(AddressFamily::Unix) => Listener::unix(fd.into(), at_stop),
            Some(_) | None => invalid("it is neither TCP nor Unix"),
        }
    }

    fn tcp(socket: TcpListener) -> io::Result<Listener> {
        socket.set_nonblocking(true)?;
        tune(socket.as_fd())?;
        let addr = socket.local_addr()?;
        Ok(Listener { fd: socket.into(), at: Place::Tcp(addr) })
    }

    fn unix(socket: UnixListener, at_stop: AtStop) -> io::Result<Listener> {
        socket.set_nonblocking(true)?;
        let addr = socket.local_addr()?;
        let (path, inode) = match (addr.as_pathname(), addr.as_abstract_name()) {
            (Some(path), _) => {
                let inode = match at_stop {
                    AtStop::RemoveFile => std::fs::symlink_metadata(path).map_or(0, |file| file.ino()),
                    AtStop::KeepFile => 0,
                };
                (path.to_owned(), inode)
            }
            (None, name) => {
                let name = String::from_utf8_lossy(name.unwrap_or_default());
                (format!("@{name}").into(), 0)
            }
        };
        Ok(Listener { fd: socket.into(), at: Place::Unix(path, Cell::new(inode)) })
    }

    /// The socket's file is this process's from now on, and goes with the socket.
    pub(crate) fn own_file(&self) {
        if let Place::Unix(path, inode) = &self.at {
            inode.set(std::fs::symlink_metadata(path).map_or(0, |file| file.ino()));
        }
    }

    /// Whether other machines may reach it.
    pub(crate) fn reaches_beyond(&self) -> bool {
        matches!(self.at, Place::Tcp(addr) if !addr.ip().is_loopback())
    }

    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// A descriptor of the same socket for a worker.
    pub(crate) fn share(&self) -> io::Result<OwnedFd> {
        self.fd.try_clone()
    }

    /// For a child: its copy closes without taking the socket's file away.
    pub(crate) fn keep_file(&self) {
        if let Place::Unix(_, inode) = &self.at {
            inode.set(0);
        }
    }
}

/// Takes the socket's file away, if it is still the one that was made here.
impl Drop for Listener {
    fn drop(&mut self) {
        if let Place::Unix(path, inode) = &self.at
            && std::fs::symlink_metadata(path).is_ok_and(|file| file.ino() == inode.get())
        {
            let _ = std::fs::remove_file(path);
        }
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.at {
            Place::Tcp(addr) => write!(f, "{addr}"),
            Place::Unix(path, _) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// For a worker: takes a listening socket that the master offers. `WouldBlock` where none is.
pub(crate) fn receive(offers: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut byte = [0];
    let mut bytes = [IoSliceMut::new(&mut byte)];
    let mut space = cmsg_space!(RawFd);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
    let message = recvmsg::<()>(offers.as_raw_fd(), &mut bytes, Some(&mut space), flags)?;
    let rights = message.cmsgs()?.find_map(|rights| match rights {
        ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
        _ => None,
    });
    let fd = rights.ok_or(ErrorKind::InvalidData)?;
    // SAFETY: the kernel has just made this descriptor for us, and there was room for no other.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// How much of an answer the kernel takes beyond what is on its way. By itself it takes as much as it hopes to send, up to 4 MiB,
/// also for a client that reads nothing: a thousand of these then have all TCP of the machine short of memory.
const MAX_UNSENT_BYTES: libc::c_int = 128 * 1024;

/// What all connections of a listening socket inherit, which saves each of them the system calls (tcp(7)).
pub(super) fn tune(socket: BorrowedFd<'_>) -> io::Result<()> {
    setsockopt(&socket, sockopt::TcpNoDelay, &true)?;
    // A kernel that is none, such as a sandbox's, may not have it, and does without.
    let _ = set_number(socket, libc::TCP_NOTSENT_LOWAT, MAX_UNSENT_BYTES);
    defer_accept(socket)
}

/// Has the kernel hand a connection over when its first bytes have come, or at the latest when they have not come for a
/// second (TCP_DEFER_ACCEPT, tcp(7)): in HTTP the client speaks first. So a worker is woken once for a connection and its
/// request, and finds both.
fn defer_accept(socket: BorrowedFd<'_>) -> io::Result<()> {
    set_number(socket, libc::TCP_DEFER_ACCEPT, 1)
}

/// Sets an option of TCP that is one int.
fn set_number(socket: BorrowedFd<'_>, option: libc::c_int, number: libc::c_int) -> io::Result<()> {
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    let (socket, level) = (socket.as_raw_fd(), libc::IPPROTO_TCP);
    // SAFETY: the option reads one int, which lives until the call returns.
    let done = unsafe { libc::setsockopt(socket, level, option, (&raw const number).cast(), length) };
    Errno::result(done)?;
    Ok(())
}

fn bind_tcp(host: &str, port: u16) -> io::Result<Listener> {
    let addr = (host, port).to_socket_addrs()?.next().ok_or(ErrorKind::AddrNotAvailable)?;
    Listener::tcp(TcpListener::bind(addr)?)
}

fn bind_unix(path: &Path, mode: Option<u32>, owner: SocketOwner) -> io::Result<Listener> {
    remove_stale(path)?;
    // The socket is born with its permissions: to set them afterwards, by name, could hit another file.
    let before = mode.map(|mode| umask(Mode::from_bits_truncate(!mode & 0o777)));
    let socket = UnixListener::bind(path);
    before.map(umask);
    let listener = Listener::unix(socket?, AtStop::RemoveFile)?;
    give_away(path, owner)?;
    Ok(listener)
}

/// Gives the socket that was just made to its owner, unless another file has taken its place meanwhile.
fn give_away(path: &Path, owner: SocketOwner) -> io::Result<()> {
    if owner == SocketOwner::default() {
        return Ok(());
    }
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)?;
    let data = file.metadata()?;
    if !data.file_type().is_socket() || data.nlink() != 1 || data.uid() != Uid::effective().as_raw() {
        return Err(io::Error::other("another file took the place of the new socket"));
    }
    fchownat(&file, "", owner.uid, owner.gid, AtFlags::AT_EMPTY_PATH)?;
    Ok(())
}

/// A socket file that nobody listens on is what a killed server left; anything else stays.
fn remove_stale(path: &Path) -> io::Result<()> {
    let file = match std::fs::symlink_metadata(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !file.file_type().is_socket() {
        return Err(io::Error::new(ErrorKind::AddrInUse, "a file that is no socket stands there"));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        Err(error) => Err(error),
        Ok(_) => Err(io::Error::new(ErrorKind::AddrInUse, "another server listens there")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(bind: &Bind) -> io::Result<Listener> {
        Listener::bind(bind, 5000, None, SocketOwner::default())
    }

    fn kind_of(result: io::Result<Listener>) -> Option<ErrorKind> {
        result.err().map(|error| error.kind())
    }

    #[test]
    fn a_socket_file_is_replaced_only_when_stale() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let bind = Bind::Unix(path.clone());
        let first = bound(&bind).unwrap();
        assert_eq!(first.to_string(), format!("unix:{}", path.display()));
        assert_eq!(kind_of(bound(&bind)), Some(ErrorKind::AddrInUse), "a live server's file stays");
        let killed = first;
        killed.keep_file();
        drop(killed);
        assert!(path.exists());
        drop(bound(&bind).unwrap());
        assert!(!path.exists());
        let replaced = bound(&bind).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "notes").unwrap();
        assert_eq!(kind_of(bound(&bind)), Some(ErrorKind::AddrInUse), "a plain file stays");
        drop(replaced);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "notes", "only what was made here is removed");
    }

    #[test]
    fn port_zero_lets_the_kernel_choose() {
        let bind = Bind::Tcp { host: "127.0.0.1".into(), port: 0 };
        let listener = bound(&bind).unwrap();
        let Place::Tcp(addr) = listener.at else { unreachable!() };
        assert_ne!(addr.port(), 0);
        let again = Bind::Tcp { host: "127.0.0.1".into(), port: addr.port() };
        assert_eq!(kind_of(bound(&again)), Some(ErrorKind::AddrInUse));
    }

    #[test]
    fn a_socket_that_listens_is_adopted_and_nothing_else_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        for (at_stop, stays) in [(AtStop::KeepFile, true), (AtStop::RemoveFile, false)] {
            let _ = std::fs::remove_file(&path);
            let adopted = Listener::adopt(UnixListener::bind(&path).unwrap().into(), at_stop).unwrap();
            assert_eq!(adopted.to_string(), format!("unix:{}", path.display()));
            drop(adopted);
            assert_eq!(path.exists(), stays, "{at_stop:?}");
        }
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = tcp.local_addr().unwrap();
        let waits = std::net::TcpStream::connect(addr).unwrap();
        let adopted = Listener::adopt(tcp.into(), AtStop::KeepFile).unwrap();
        assert_eq!(adopted.to_string(), addr.to_string());
        let shared = TcpListener::from(adopted.share().unwrap());
        assert!(shared.accept().is_ok(), "what waited is still there");
        assert_eq!(shared.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
        for other in [
            OwnedFd::from(waits),
            std::net::UdpSocket::bind("127.0.0.1:0").unwrap().into(),
            UnixStream::pair().unwrap().0.into(),
            std::fs::File::open("/dev/null").unwrap().into(),
        ] {
            assert_eq!(kind_of(Listener::adopt(other, AtStop::KeepFile)), Some(ErrorKind::InvalidInput));
        }
    }
}

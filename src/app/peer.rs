//! Who is on the other end of a connection. Not here: proxies and what their headers claim.

use super::Error;
use super::current::{self, Entered};
use axum::extract::FromRequestParts;
use http::request::Parts;
use std::cell::RefCell;
use std::fmt;
use std::net::SocketAddr;

thread_local! {
    /// Of the request whose future is polled now.
    static CURRENT: RefCell<Option<Peer>> = const { RefCell::new(None) };
}

/// The other end of the connection that a request came over. A handler takes it as an argument; other code asks
/// [`Peer::current`].
///
/// ```
/// use ferricorn::Peer;
///
/// async fn greet(peer: Peer) -> String {
///     format!("hello, {peer}")
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Peer {
    /// A client over TCP: its address and port.
    Tcp(SocketAddr),
    /// A client over a socket in the file system, which has no address.
    Unix,
}

impl Peer {
    /// That of the request which this code works for; `None` outside of the app's service and its future, on handler threads
    /// and in tasks of the app's own.
    pub fn current() -> Option<Peer> {
        CURRENT.with_borrow(Clone::clone)
    }

    /// What this thread does until the result is dropped is for a request of this peer. Not by the request's extensions: they
    /// would cost each request three allocations, whether anybody asks or not.
    pub(crate) fn enter(self) -> Entered<Peer> {
        current::enter(&CURRENT, self)
    }
}

/// One that stands in the request's extensions outranks the connection's: a layer may know better, and a test has none.
impl<S: Sync> FromRequestParts<S> for Peer {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Peer, Error> {
        let peer = parts.extensions.get().copied().or_else(Peer::current);
        peer.ok_or_else(|| Error::Other("the request came over no connection".into()))
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Tcp(addr) => addr.fmt(f),
            Peer::Unix => f.write_str("unix"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_extension_outranks_the_connection() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let extract = |parts: &mut Parts| runtime.block_on(Peer::from_request_parts(parts, &())).ok();
        let (mut parts, ()) = http::Request::new(()).into_parts();
        let connection = Peer::Tcp("127.0.0.1:9".parse().unwrap());
        assert_eq!(extract(&mut parts), None);
        let entered = connection.enter();
        assert_eq!(extract(&mut parts), Some(connection));
        parts.extensions.insert(Peer::Unix);
        assert_eq!(extract(&mut parts), Some(Peer::Unix));
        drop(entered);
        assert_eq!(Peer::current(), None);
    }
}

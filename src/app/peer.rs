//! Who is on the other end of a connection. Not here: proxies and what their headers claim.

use std::fmt;
use std::net::SocketAddr;

/// The other end of the connection that a request came over; found in the request's extensions.
///
/// ```
/// use ferricorn::Peer;
///
/// let request = http::Request::builder().extension(Peer::Unix).body(()).unwrap();
/// assert_eq!(request.extensions().get::<Peer>().unwrap().to_string(), "unix");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Peer {
    /// A client over TCP: its address and port.
    Tcp(SocketAddr),
    /// A client over a socket in the file system, which has no address.
    Unix,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Tcp(addr) => addr.fmt(f),
            Peer::Unix => f.write_str("unix"),
        }
    }
}

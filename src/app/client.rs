//! Who asked, and for what: the client behind the proxies that the server believes. Not here: which it believes, and how
//! their fields are read.

use super::{Error, Peer, TlsInfo};
use axum::extract::FromRequestParts;
use http::request::Parts;
use http::{HeaderMap, Uri, header};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// Who sent a request, and under which name and scheme the server was asked: what a trusted proxy says of it, and else what
/// the connection shows. A handler takes it as an argument; other code asks [`ClientInfo::of`].
///
/// Which proxies are believed, and which of their fields, is set by `forwarded_allow_ips`, `forwarded_fields` and
/// `secure_scheme_headers`.
///
/// ```
/// use ferricorn::ClientInfo;
///
/// async fn link(client: ClientInfo) -> String {
///     let host = client.host().unwrap_or("localhost");
///     format!("{}://{host}{}/basket", client.scheme(), client.root_path())
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientInfo {
    pub(crate) peer: Peer,
    pub(crate) address: Option<IpAddr>,
    pub(crate) port: Option<u16>,
    pub(crate) scheme: Scheme,
    pub(crate) host: Option<String>,
    pub(crate) root_path: String,
    pub(crate) is_forwarded: bool,
}

/// What the client speaks to the first server that it meets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Scheme {
    #[default]
    Http,
    Https,
}

impl ClientInfo {
    /// Of the request with these parts. `None` outside of a request that the server received, as in a test that has put
    /// neither a `ClientInfo` nor a [`Peer`] into its extensions.
    pub fn of(parts: &Parts) -> Option<ClientInfo> {
        if let Some(known) = parts.extensions.get::<ClientInfo>() {
            return Some(known.clone());
        }
        let peer = parts.extensions.get().copied().or_else(Peer::current)?;
        let scheme = Scheme::of_connection(parts.extensions.get::<TlsInfo>().is_some());
        Some(ClientInfo { scheme, ..ClientInfo::of_connection(peer, &parts.uri, &parts.headers) })
    }

    /// What is to be seen without anybody's word.
    pub(crate) fn of_connection(peer: Peer, uri: &Uri, headers: &HeaderMap) -> ClientInfo {
        let (address, port) = match peer {
            Peer::Tcp(addr) => (Some(addr.ip().to_canonical()), Some(addr.port())),
            Peer::Unix => (None, None),
        };
        // An absolute target outranks Host (RFC 9112, 3.2.2).
        let host = uri.authority().map(|authority| authority.as_str().to_owned()).or_else(|| {
            let host = headers.get(header::HOST)?.to_str().ok()?;
            (!host.is_empty()).then(|| host.to_owned())
        });
        let root_path = String::new();
        ClientInfo { peer, address, port, scheme: Scheme::Http, host, root_path, is_forwarded: false }
    }

    /// The client's address. `None` where it has none, or a trusted proxy does not know or tell it: that is nobody in
    /// particular, and not the proxy.
    pub fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// The client's port, where it is known.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// Both, where both are known.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.address?, self.port?))
    }

    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The host, perhaps with a port, that the client asked for. It is the client's choice, unless a proxy or the app holds it
    /// against a list.
    pub fn host(&self) -> Option<&str> {
        self.host.as_deref()
    }

    /// Below which path the app is to be found, as the setting `root_path` has it: to be put before the paths of links.
    /// Empty, or begins with a slash and does not end with one.
    pub fn root_path(&self) -> &str {
        &self.root_path
    }

    /// The other end of the connection: the last proxy, if there is one.
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// Whether a trusted proxy told of the client.
    pub fn is_forwarded(&self) -> bool {
        self.is_forwarded
    }
}

impl<S: Sync> FromRequestParts<S> for ClientInfo {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<ClientInfo, Error> {
        ClientInfo::of(parts).ok_or_else(|| Error::Other("the request came over no connection".into()))
    }
}

impl Scheme {
    pub(crate) fn of_connection(is_secured: bool) -> Scheme {
        if is_secured { Scheme::Https } else { Scheme::Http }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }

    /// In whatever case.
    pub(crate) fn parse(text: &str) -> Option<Scheme> {
        [Scheme::Http, Scheme::Https].into_iter().find(|scheme| text.eq_ignore_ascii_case(scheme.as_str()))
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_proxy_the_connection_is_all_there_is() {
        let (mut parts, ()) =
            http::Request::get("/a").header("host", "a.example:1").body(()).unwrap().into_parts();
        assert_eq!(ClientInfo::of(&parts), None);
        let peer = Peer::Tcp("[::ffff:10.0.0.1]:9".parse().unwrap());
        let _entered = peer.enter();
        let client = ClientInfo::of(&parts).unwrap();
        assert_eq!(client.socket_addr(), Some("10.0.0.1:9".parse().unwrap()));
        assert_eq!(
            (client.host(), client.scheme(), client.root_path()),
            (Some("a.example:1"), Scheme::Http, "")
        );
        assert!(!client.is_forwarded());
        parts.uri = "http://b.example/".parse().unwrap();
        parts.extensions.insert(Peer::Unix);
        let client = ClientInfo::of(&parts).unwrap();
        assert_eq!((client.address(), client.port(), client.host()), (None, None, Some("b.example")));
    }
}

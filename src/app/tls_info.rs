//! What a handler may know of the TLS that its request came over. Not here: the handshake; proxies and what their headers claim.

use super::Error;
use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use http::request::Parts;
use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;

/// The TLS between the client and this server. It is in the extensions of each request that came over TLS, and of no other:
/// with it the scheme is `https`. A handler takes `Option<TlsInfo>`, or `TlsInfo` where it is for TLS alone.
///
/// ```
/// use ferricorn::TlsInfo;
///
/// async fn greet(tls: Option<TlsInfo>) -> String {
///     match tls {
///         Some(tls) if tls.client_certificate().is_some() => "hello, whom we know\n".to_owned(),
///         Some(tls) => format!("hello over {}\n", tls.version()),
///         None => "hello, everybody\n".to_owned(),
///     }
/// }
/// ```
#[derive(Clone)]
pub struct TlsInfo(Arc<Facts>);

struct Facts {
    version: &'static str,
    cipher_suite: String,
    server_name: Option<String>,
    is_resumed: bool,
    client_chain: Vec<Vec<u8>>,
}

impl TlsInfo {
    pub(crate) fn new(
        version: &'static str,
        cipher_suite: String,
        server_name: Option<String>,
        is_resumed: bool,
        client_chain: Vec<Vec<u8>>,
    ) -> TlsInfo {
        TlsInfo(Arc::new(Facts { version, cipher_suite, server_name, is_resumed, client_chain }))
    }

    /// `TLSv1.2` or `TLSv1.3`.
    pub fn version(&self) -> &'static str {
        self.0.version
    }

    /// Such as `TLS13_AES_256_GCM_SHA384`.
    pub fn cipher_suite(&self) -> &str {
        &self.0.cipher_suite
    }

    /// The host that the client asked for in its handshake (SNI, RFC 6066, 3), which nobody has checked. None where it
    /// named an address.
    pub fn server_name(&self) -> Option<&str> {
        self.0.server_name.as_deref()
    }

    /// The handshake was a short one, by a ticket of an earlier.
    pub fn is_resumed(&self) -> bool {
        self.0.is_resumed
    }

    /// The client's own certificate, in DER (X.509): one of `ca_certs` vouches for it. `None` where it showed none, which
    /// `cert_reqs = "required"` rules out.
    pub fn client_certificate(&self) -> Option<&[u8]> {
        self.0.client_chain.first().map(Vec::as_slice)
    }

    /// What the client showed, its own certificate first, in DER.
    pub fn client_chain(&self) -> impl Iterator<Item = &[u8]> {
        self.0.client_chain.iter().map(Vec::as_slice)
    }
}

impl fmt::Debug for TlsInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsInfo")
            .field("version", &self.version())
            .field("cipher_suite", &self.cipher_suite())
            .field("server_name", &self.server_name())
            .field("is_resumed", &self.is_resumed())
            .field("has_client_certificate", &self.client_certificate().is_some())
            .finish()
    }
}

impl<S: Sync> FromRequestParts<S> for TlsInfo {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<TlsInfo, Error> {
        parts
            .extensions
            .get()
            .cloned()
            .ok_or_else(|| Error::Other("the request did not come over TLS".into()))
    }
}

impl<S: Sync> OptionalFromRequestParts<S> for TlsInfo {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<TlsInfo>, Infallible> {
        Ok(parts.extensions.get().cloned())
    }
}

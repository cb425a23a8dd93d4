//! TLS to PostgreSQL: what the URL asks for, and the handshake. Either the server is who it should be, by its name and by a
//! certificate of the given authorities, or there is no connection. Not here: what goes over it.

use postgres::Socket;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tokio_rustls::{TlsConnector, rustls};

/// "Do you speak TLS?": <https://www.postgresql.org/docs/current/protocol-message-formats.html>, SSLRequest.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// What the URL says about TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// Nothing.
    No,
    /// `sslmode=disable`.
    Plain,
    /// `sslmode=verify-full`, with the file of `sslrootcert`.
    Verified(PathBuf),
}

/// Takes out of the URL what the client's own parser does not know.
///
/// # Errors
/// What cannot be had, without a secret.
pub(super) fn split(url: &str) -> Result<(String, Asked), String> {
    // A password may have a `?` in it.
    let authority = url.rfind('@').map_or(0, |at| at + 1);
    let Some(start) = url[authority..].find('?').map(|at| authority + at) else {
        return Ok((url.to_owned(), Asked::No));
    };
    let (mut mode, mut roots, mut others) = (None, None, Vec::new());
    for option in url[start + 1..].split('&') {
        match option.split_once('=') {
            Some(("sslmode", value)) => mode = Some(value),
            Some(("sslrootcert", value)) => {
                let value = percent_encoding::percent_decode_str(value).decode_utf8();
                let path = value.map_err(|_| "sslrootcert in the postgres url is no text".to_owned())?;
                roots = Some(PathBuf::from(path.into_owned()));
            }
            Some(_) | None => others.push(option),
        }
    }
    let asked = match (mode, roots) {
        (None, None) => Asked::No,
        (Some("disable"), None) => Asked::Plain,
        (Some("verify-full"), Some(roots)) => Asked::Verified(roots),
        (Some("verify-full"), None) => {
            return Err("sslmode=verify-full in the postgres url needs sslrootcert=FILE, the authorities' certificates".into());
        }
        (None | Some("disable"), Some(_)) => {
            return Err("sslrootcert in the postgres url needs sslmode=verify-full".into());
        }
        (Some("allow" | "prefer" | "require" | "verify-ca"), _) => {
            return Err("the sslmode in the postgres url does not check who is on the other side; \
                 allowed: disable, or verify-full with sslrootcert=FILE"
                .into());
        }
        (Some(_), _) => {
            return Err("the sslmode in the postgres url is unknown; allowed: disable, verify-full".into());
        }
    };
    let separator = if others.is_empty() { "" } else { "?" };
    Ok((format!("{}{separator}{}", &url[..start], others.join("&")), asked))
}

/// Whether what goes to this host may be read on the way.
pub(super) fn leaves_the_machine(host: &str) -> bool {
    host != "localhost" && !host.parse::<IpAddr>().is_ok_and(|addr| addr.is_loopback())
}

/// Trusts the authorities in this file, and no others.
///
/// # Errors
/// When it cannot be read, or has none.
pub(super) fn connector(roots: &Path) -> Result<TlsConnector, String> {
    let about = |error: &dyn std::fmt::Display| format!("sslrootcert {}: {error}", roots.display());
    let certificates = CertificateDer::pem_file_iter(roots).map_err(|error| about(&error))?;
    let mut store = RootCertStore::empty();
    for certificate in certificates {
        let certificate = certificate.map_err(|error| about(&error))?;
        store.add(certificate).map_err(|error| about(&error))?;
    }
    if store.is_empty() {
        return Err(about(&"it has no certificate"));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error: rustls::Error| about(&error))?
        .with_root_certificates(store)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Asks for TLS and shakes hands. A server that has none is refused.
pub(super) async fn secure(mut socket: Socket, tls: &TlsConnector, host: &str) -> io::Result<Transport> {
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    socket.write_all(&SSL_REQUEST).await?;
    let mut answer = [0];
    // No more than that: what follows in the clear is not to be taken for the server's.
    socket.read_exact(&mut answer).await?;
    if answer != *b"S" {
        return Err(io::Error::other("the server does not speak TLS"));
    }
    Ok(Transport::Tls(Box::new(tls.connect(name, socket).await?)))
}

/// The bytes of a connection, in the clear or not.
pub(super) enum Transport {
    Plain(Socket),
    Tls(Box<TlsStream<Socket>>),
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Transport::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Transport::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Transport::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Transport::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Transport::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Transport::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_asked_what_it_says_about_tls() {
        let plain = |url: &str, asked| Ok((url.to_owned(), asked));
        let rows = [
            ("postgres://u@h/db", plain("postgres://u@h/db", Asked::No)),
            ("postgres://u:p?sslmode=disable@h/db", plain("postgres://u:p?sslmode=disable@h/db", Asked::No)),
            ("postgres://u@h/db?sslmode=disable", plain("postgres://u@h/db", Asked::Plain)),
            (
                "postgres://u@h/db?connect_timeout=3&sslrootcert=%2Fa%20b.pem&sslmode=verify-full&options=x",
                plain("postgres://u@h/db?connect_timeout=3&options=x", Asked::Verified("/a b.pem".into())),
            ),
            ("postgres://u@h/db?sslmode=verify-full", Err("needs sslrootcert=FILE")),
            ("postgres://u@h/db?sslrootcert=x", Err("needs sslmode=verify-full")),
            ("postgres://u@h/db?sslmode=disable&sslrootcert=x", Err("needs sslmode=verify-full")),
            ("postgres://u@h/db?sslmode=require", Err("does not check who is on the other side")),
            ("postgres://u@h/db?sslmode=prefer", Err("does not check who is on the other side")),
            (
                "postgres://u@h/db?sslmode=verify-ca&sslrootcert=x",
                Err("does not check who is on the other side"),
            ),
            ("postgres://u@h/db?sslmode=yes", Err("is unknown")),
        ];
        for (url, expected) in rows {
            match (split(url), expected) {
                (Ok(got), Ok(expected)) => assert_eq!(got, expected, "{url}"),
                (Err(got), Err(expected)) => assert!(got.contains(expected), "{url} {got}"),
                (got, expected) => panic!("{url} {got:?} {expected:?}"),
            }
        }
    }

    #[test]
    fn what_stays_on_the_machine_is_known() {
        for (host, leaves) in
            [("localhost", false), ("127.0.0.2", false), ("::1", false), ("10.0.0.1", true), ("db", true)]
        {
            assert_eq!(leaves_the_machine(host), leaves, "{host}");
        }
    }
}

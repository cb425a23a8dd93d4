//! TLS with clients: the handshake that comes before HTTP. Not here: what is read of the certificates (identity), what a
//! session is resumed by (tickets), the bytes that follow (stream).

mod certificate;
mod identity;
mod tickets;

pub(crate) use identity::check;
pub(crate) use tickets::TicketSecret;

use super::connection::linger;
use super::stream::{Shared, Stream};
use super::watched::{Stage, Watched};
use crate::app::TlsInfo;
use crate::config::Settings;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use tokio::io::AsyncWrite;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{HandshakeKind, ProtocolVersion, ServerConnection};
use tokio_rustls::server::TlsStream;

/// What a client gets that speaks HTTP in the clear where TLS is spoken: nginx's 497, in a status that there is.
const IN_THE_CLEAR: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-type: text/plain; charset=utf-8\r\n\
content-length: 44\r\n\r\nthis address speaks TLS: ask it by https://\n";
/// The longest that a failed handshake's reason is told of.
const MAX_REASON: usize = 200;

/// A worker's side of every handshake.
pub(super) struct Acceptor {
    acceptor: TlsAcceptor,
}

impl Acceptor {
    /// `None` where TLS is off.
    ///
    /// # Errors
    /// What is wrong with the files; the master has checked them, so it is nothing that a person did.
    pub(super) fn new(settings: &Settings, secret: &TicketSecret) -> io::Result<Option<Acceptor>> {
        let config = identity::server_config(settings, secret).map_err(io::Error::other)?;
        Ok(config.map(|config| Acceptor { acceptor: TlsAcceptor::from(config) }))
    }
}

/// Shakes hands, in the stage of its own that `Watched` begins with. False: there is no connection, and all is said.
pub(super) async fn secure(watched: &Watched) -> bool {
    let Some(Acceptor { acceptor }) = &watched.floor.tls else { return false };
    let stream = &watched.stream;
    let first = poll_fn(|cx| stream.lock().poll_first_byte(cx)).await;
    match first {
        Ok(Some(letter)) if letter.is_ascii_uppercase() => return refuse_plain(watched).await,
        Ok(Some(_)) => {}
        // It came and went: a probe of the address, and no failure.
        Ok(None) | Err(_) => return false,
    }
    match acceptor.accept(stream.take()).into_fallible().await {
        Ok(secured) => {
            let _ = watched.tls.set(facts(secured.get_ref().1));
            stream.put(Stream::Tls(Box::new(secured)));
            watched.enter(Stage::New);
            true
        }
        Err((error, bare)) => {
            stream.put(bare);
            fail(watched, &error.to_string());
            // The client reads the alert that says why.
            linger(stream).await;
            false
        }
    }
}

async fn refuse_plain(watched: &Watched) -> bool {
    fail(watched, "it speaks HTTP in the clear");
    let _ = watched.stream.lock().try_write(IN_THE_CLEAR);
    linger(&watched.stream).await;
    false
}

/// Counts and tells of a handshake that failed. A client can have many fail: it is no line that all logs have.
pub(super) fn fail(watched: &Watched, reason: &str) {
    // Whatever follows, it has no handshake any more that could be late.
    watched.enter(Stage::Answer);
    watched.floor.seat.tally.handshake_failed();
    let peer = watched.peer().map_or_else(|| "-".to_owned(), |peer| peer.to_string());
    let reason = &reason[..reason.floor_char_boundary(MAX_REASON)];
    log::debug!("handshake failed peer={peer} reason={reason:?}");
}

fn facts(connection: &ServerConnection) -> TlsInfo {
    let chain = connection.peer_certificates().unwrap_or_default();
    TlsInfo::new(
        match connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
            _ => "TLSv1.3",
        },
        connection.negotiated_cipher_suite().map_or_else(String::new, |suite| format!("{:?}", suite.suite())),
        connection.server_name().map(str::to_owned),
        connection.handshake_kind() == Some(HandshakeKind::Resumed),
        chain.iter().map(|certificate| certificate.as_ref().to_vec()).collect(),
    )
}

/// Tells the client that nothing follows (RFC 8446, 6.1), as far as the socket takes it now.
pub(super) fn say_goodbye(stream: &Shared) {
    if let Stream::Tls(secured) = &mut *stream.lock() {
        secured.get_mut().1.send_close_notify();
        let _ = flush_now(secured);
    }
}

/// What fits into the socket's buffer right now.
pub(super) fn flush_now(secured: &mut TlsStream<Stream>) -> io::Result<()> {
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    match Pin::new(secured).poll_flush(&mut cx) {
        std::task::Poll::Ready(flushed) => flushed,
        std::task::Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

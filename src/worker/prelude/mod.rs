//! What a proxy sends before anything of a client's: the header of the PROXY protocol, read to its end and not a byte further.
//! Not here: how it is written (`header`), what is made of it later.

mod header;

use super::Floor;
use super::stream::Shared;
use super::watched::Origin;
use crate::app::Peer;
use crate::config::{ProxyProtocol, Settings};
use header::{Client, MAX_LINE, Step, is_secured, step};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::time::Duration;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::timeout;

/// How long the header may take. The specification asks for no less than 3 s, for a packet that has to be sent again.
const TIME: Duration = Duration::from_secs(5);

/// Why a connection is not served.
#[derive(Debug)]
enum Fault {
    /// Closed before the first byte, as by a health check: nothing to speak of.
    Silent,
    Cut,
    Late,
    Malformed(header::Malformed),
}

/// Whether the peer has to announce its connections.
pub(super) fn is_due(peer: Peer, settings: &Settings) -> bool {
    settings.proxy_protocol != ProxyProtocol::Off
        && match peer {
            Peer::Tcp(addr) => settings.proxy_allow_ips.covers(addr.ip()),
            Peer::Unix => settings.proxy_allow_ips.covers_unix(),
        }
}

/// Reads the header. `None`: there is no valid one, which is logged and counted, and the connection is to be closed.
pub(super) async fn read(stream: &Shared, peer: Peer, floor: &Floor) -> Option<Origin> {
    let settings = &floor.settings;
    let read = timeout(TIME, read_header(stream, settings.proxy_protocol));
    let fault = match read.await.unwrap_or(Err(Fault::Late)) {
        // A connection of the proxy's own, such as a health check.
        Ok((Client::Proxy, _)) => return Some(Origin::of(peer, settings)),
        Ok((Client::At(addr), is_secured)) => {
            return Some(Origin { is_secured, ..Origin::of(Peer::Tcp(addr), settings) });
        }
        // Whoever that is, it is not somebody who is believed.
        Ok((Client::Hidden, is_secured)) => {
            return Some(Origin { is_trusted: false, is_secured, ..Origin::of(Peer::Unix, settings) });
        }
        Err(fault) => fault,
    };
    let reason = match fault {
        Fault::Silent => return None,
        Fault::Cut => "it was cut short",
        Fault::Late => "it took too long",
        Fault::Malformed(why) => why.text(),
    };
    floor.seat.tally.proxy_refused();
    log::warn!("proxy protocol header refused peer={peer} reason=\"{reason}\"");
    None
}

/// The client, and whether he came to the proxy by TLS.
async fn read_header(stream: &Shared, versions: ProxyProtocol) -> Result<(Client, bool), Fault> {
    let mut bytes = Vec::with_capacity(MAX_LINE);
    loop {
        let exactly = match step(&bytes, versions).map_err(Fault::Malformed)? {
            Step::Done(client) => return Ok((client, is_secured(&bytes))),
            Step::Bytes(count) => count,
            // How long a line is shows at its end. So one byte is waited for, and what lies behind it is looked at first.
            Step::Line => {
                more(stream, &mut bytes, 1).await?;
                let mut ahead = [0; MAX_LINE];
                let count = stream.lock().peek(&mut ahead);
                let ahead = &ahead[..count];
                match bytes.last() {
                    Some(b'\n') => continue,
                    Some(_) | None => {
                        ahead.iter().position(|byte| *byte == b'\n').map_or(ahead.len(), |at| at + 1)
                    }
                }
            }
        };
        if exactly > 0 {
            more(stream, &mut bytes, exactly).await?;
        }
    }
}

/// Waits for bytes, and takes at most so many.
async fn more(stream: &Shared, bytes: &mut Vec<u8>, at_most: usize) -> Result<(), Fault> {
    let mut chunk = [0; 1024];
    let at_most = at_most.min(chunk.len());
    let mut chunk = ReadBuf::new(&mut chunk[..at_most]);
    let read: io::Result<()> = poll_fn(|cx| Pin::new(&mut *stream.lock()).poll_read(cx, &mut chunk)).await;
    match (read, chunk.filled()) {
        (Err(_), _) | (Ok(()), []) if bytes.is_empty() => Err(Fault::Silent),
        (Err(_), _) | (Ok(()), []) => Err(Fault::Cut),
        (Ok(()), filled) => {
            bytes.extend_from_slice(filled);
            Ok(())
        }
    }
}

//! The settings of HTTP/2, and which versions of HTTP are spoken at all. Not here: what is done with them.

use super::values::{self, Raw};

/// One way to speak HTTP, by Gunicorn's names and one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpProtocol {
    /// HTTP/1.1, and 1.0.
    H1,
    /// HTTP/2 over TLS, agreed upon in the handshake (RFC 9113, 3.2).
    H2,
    /// HTTP/2 in the clear, with clients that know of it (RFC 9113, 3.3).
    H2c,
}

/// The sizes are in bytes.
#[derive(Clone, Debug)]
pub struct Http2Settings {
    /// `H1` is among them.
    pub protocols: Vec<HttpProtocol>,
    pub max_concurrent_streams: u32,
    pub initial_window_size: u32,
    pub max_frame_size: u32,
    pub max_header_list_size: u32,
}

impl Http2Settings {
    pub(super) const fn blank() -> Http2Settings {
        Http2Settings {
            protocols: Vec::new(),
            max_concurrent_streams: 0,
            initial_window_size: 0,
            max_frame_size: 0,
            max_header_list_size: 0,
        }
    }

    /// What is offered in a TLS handshake, the preferred one first.
    pub(crate) fn alpn(&self) -> Vec<Vec<u8>> {
        let name = |protocol: &HttpProtocol| match protocol {
            HttpProtocol::H1 => Some(b"http/1.1".to_vec()),
            HttpProtocol::H2 => Some(b"h2".to_vec()),
            HttpProtocol::H2c => None,
        };
        self.protocols.iter().filter_map(name).collect()
    }

    pub(crate) fn is_spoken_in_the_clear(&self) -> bool {
        self.protocols.contains(&HttpProtocol::H2c)
    }
}

impl HttpProtocol {
    const ALL: [HttpProtocol; 3] = [HttpProtocol::H1, HttpProtocol::H2, HttpProtocol::H2c];

    fn as_str(self) -> &'static str {
        match self {
            HttpProtocol::H1 => "h1",
            HttpProtocol::H2 => "h2",
            HttpProtocol::H2c => "h2c",
        }
    }
}

/// Each at most once, and `h1` among them.
pub(super) fn protocols(raw: &Raw) -> Option<Vec<HttpProtocol>> {
    let mut protocols = Vec::new();
    for name in values::list_or_none(raw)? {
        let protocol = HttpProtocol::ALL.into_iter().find(|protocol| protocol.as_str() == name)?;
        if protocols.contains(&protocol) {
            return None;
        }
        protocols.push(protocol);
    }
    protocols.contains(&HttpProtocol::H1).then_some(protocols)
}

pub(super) fn show_protocols(protocols: &[HttpProtocol]) -> String {
    let names: Vec<String> = protocols.iter().map(|protocol| protocol.as_str().to_owned()).collect();
    values::show_list(&names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_named_is_the_preferred_one() {
        let read = |text: &str| protocols(&Raw::Text(text.to_owned()));
        let alpn = |text| {
            let settings = Http2Settings { protocols: read(text).unwrap(), ..Http2Settings::blank() };
            settings.alpn().into_iter().map(|name| String::from_utf8(name).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(alpn("h1"), ["http/1.1"]);
        assert_eq!(alpn("h2, h1"), ["h2", "http/1.1"]);
        assert_eq!(alpn("h2c,h1,h2"), ["http/1.1", "h2"]);
        for refused in ["", "h2", "h1,h3", "h1,h1", "h1 h2"] {
            assert_eq!(read(refused), None, "{refused:?}");
        }
    }
}

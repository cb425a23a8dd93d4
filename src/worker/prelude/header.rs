//! The PROXY protocol's header, versions 1 and 2, as HAProxy's proxy-protocol.txt has it: read strictly, and bounded. Not
//! here: where its bytes come from.

use crate::config::ProxyProtocol;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The longest line of version 1, with its end.
pub(super) const MAX_LINE: usize = 107;
/// The longest header of version 2 behind its first 16 bytes: addresses, and as much again of anything else as a proxy could
/// have to say. It may be 64 KiB by its length's kind; by the specification 536 bytes in all have to do.
const MAX_REST: usize = 4096;

const LINE: &[u8] = b"PROXY ";
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const FIXED: usize = 16;

/// Who is on the other side of the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Client {
    /// Nobody: the proxy itself asks.
    Proxy,
    At(SocketAddr),
    /// Somebody without an address, or whom the proxy does not name.
    Hidden,
}

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// At least so many bytes are missing.
    Bytes(usize),
    /// All up to the line's end is.
    Line,
    Done(Client),
}

/// Why it is no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Malformed {
    NoHeader,
    OtherVersion,
    TooLong,
    Line,
    Command,
    Family,
    TooShort,
}

impl Malformed {
    pub(super) fn text(self) -> &'static str {
        match self {
            Malformed::NoHeader => "there is none",
            Malformed::OtherVersion => "its version is not the one that proxy_protocol names",
            Malformed::TooLong => "it is too long",
            Malformed::Line => "its line is malformed",
            Malformed::Command => "its version or command is unknown",
            Malformed::Family => "its address family is none of TCP or Unix",
            Malformed::TooShort => "it is too short for its addresses",
        }
    }
}

/// What the bytes so far amount to.
///
/// # Errors
/// When they begin no valid header.
pub(super) fn step(bytes: &[u8], versions: ProxyProtocol) -> Result<Step, Malformed> {
    let begins = |known: &[u8]| known.iter().zip(bytes).all(|(known, byte)| known == byte);
    let (line, binary) = (begins(LINE), begins(SIGNATURE));
    match (versions, line, binary) {
        (_, false, false) => Err(Malformed::NoHeader),
        (ProxyProtocol::V2, true, false) | (ProxyProtocol::V1, false, true) => Err(Malformed::OtherVersion),
        // No header of either version is shorter.
        _ if bytes.len() < SIGNATURE.len() => Ok(Step::Bytes(SIGNATURE.len() - bytes.len())),
        (_, true, _) => step_line(bytes),
        (_, false, true) => step_binary(bytes),
    }
}

fn step_line(bytes: &[u8]) -> Result<Step, Malformed> {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
        return if bytes.len() < MAX_LINE { Ok(Step::Line) } else { Err(Malformed::TooLong) };
    };
    if end + 1 > MAX_LINE {
        return Err(Malformed::TooLong);
    }
    let text = bytes[LINE.len()..=end].strip_suffix(b"\r\n").ok_or(Malformed::Line)?;
    let text = std::str::from_utf8(text).map_err(|_| Malformed::Line)?;
    if text == "UNKNOWN" || text.starts_with("UNKNOWN ") {
        return Ok(Step::Done(Client::Hidden));
    }
    let words: Vec<&str> = text.split(' ').collect();
    let &[family, source, destination, source_port, destination_port] = words.as_slice() else {
        return Err(Malformed::Line);
    };
    let address = |text: &str| -> Option<IpAddr> {
        match family {
            "TCP4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::from),
            "TCP6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::from),
            _ => None,
        }
    };
    let client = || {
        address(destination)?;
        port(destination_port)?;
        Some(SocketAddr::new(address(source)?, port(source_port)?))
    };
    client().map(|client| Step::Done(Client::At(client))).ok_or(Malformed::Line)
}

/// Digits, and no zero before them.
fn port(text: &str) -> Option<u16> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    is_number.then(|| text.parse().ok()).flatten()
}

fn step_binary(bytes: &[u8]) -> Result<Step, Malformed> {
    let Some((fixed, rest)) = bytes.split_first_chunk::<FIXED>() else {
        return Ok(Step::Bytes(FIXED - bytes.len()));
    };
    let &[.., command, family, high, low] = fixed;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if !matches!(command, 0x20 | 0x21) {
        return Err(Malformed::Command);
    }
    if length > MAX_REST {
        return Err(Malformed::TooLong);
    }
    if rest.len() < length {
        return Ok(Step::Bytes(length - rest.len()));
    }
    if command == 0x20 {
        return Ok(Step::Done(Client::Proxy));
    }
    // Source and destination address, then the ports; behind them whatever else the proxy had to say: see `is_secured`.
    let client = match family {
        0x00 => Client::Hidden,
        0x11 => {
            let rest = rest.first_chunk::<12>().ok_or(Malformed::TooShort)?;
            let &[a, b, c, d, _, _, _, _, high, low, ..] = rest;
            Client::At(SocketAddr::new(Ipv4Addr::new(a, b, c, d).into(), u16::from_be_bytes([high, low])))
        }
        0x21 => {
            let rest = rest.first_chunk::<36>().ok_or(Malformed::TooShort)?;
            let address = *rest.first_chunk::<16>().expect("36 are more than 16");
            let port = u16::from_be_bytes([rest[32], rest[33]]);
            Client::At(SocketAddr::new(Ipv6Addr::from(address).into(), port))
        }
        0x31 if rest.len() < 216 => return Err(Malformed::TooShort),
        0x31 => Client::Hidden,
        _ => return Err(Malformed::Family),
    };
    Ok(Step::Done(client))
}

/// Whether the client came to the proxy by TLS, as a whole header of version 2 has it that announces a client.
pub(super) fn is_secured(header: &[u8]) -> bool {
    /// PP2_TYPE_SSL, whose first byte's lowest bit is PP2_CLIENT_SSL.
    const TLS: u8 = 0x20;
    let Some((&[.., 0x21, family, _, _], rest)) = header.split_first_chunk::<FIXED>() else { return false };
    let addresses = match family {
        0x11 => 12,
        0x21 => 36,
        0x31 => 216,
        _ => 0,
    };
    // Each addition is its kind, its length in two bytes, and so many bytes. What is not whole says nothing.
    let mut rest = rest.get(addresses..).unwrap_or_default();
    while let Some((&[kind, high, low], more)) = rest.split_first_chunk::<3>() {
        let Some((value, behind)) = more.split_at_checked(usize::from(u16::from_be_bytes([high, low])))
        else {
            return false;
        };
        if kind == TLS {
            return value.first().is_some_and(|bits| bits & 1 == 1);
        }
        rest = behind;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What comes of a stream of bytes, given as the steps ask for them; and how many are taken.
    fn take(stream: &[u8], versions: ProxyProtocol) -> (Result<Option<Client>, Malformed>, usize) {
        let mut taken = 0;
        loop {
            let next = match step(&stream[..taken], versions) {
                Ok(Step::Done(client)) => return (Ok(Some(client)), taken),
                Ok(Step::Bytes(count)) => count,
                Ok(Step::Line) => 1,
                Err(why) => return (Err(why), taken),
            };
            if taken + next > stream.len() {
                return (Ok(None), taken);
            }
            taken += next;
        }
    }

    fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = (rest.len() as u16).to_be_bytes();
        [SIGNATURE, [command, family].as_slice(), &length, rest].concat()
    }

    fn at(addr: &str) -> Client {
        Client::At(addr.parse().unwrap())
    }

    const V4: [u8; 12] = [1, 2, 3, 4, 127, 0, 0, 1, 0x10, 0x01, 0, 80];

    #[test]
    fn each_header_names_its_client() {
        let v6 = [&[0x20, 0x01], [0; 13].as_slice(), &[1], &[0; 16], &[0, 9, 0, 80]].concat();
        let long_v6 = "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n";
        let unknown = format!("PROXY UNKNOWN {}\r\n", "x".repeat(MAX_LINE - 16));
        let table: Vec<(Vec<u8>, Client)> = vec![
            ("PROXY TCP4 1.2.3.4 127.0.0.1 4097 80\r\n".into(), at("1.2.3.4:4097")),
            ("PROXY TCP6 2001::1 ::1 9 0\r\n".into(), at("[2001::1]:9")),
            (long_v6.into(), at("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535")),
            ("PROXY UNKNOWN\r\n".into(), Client::Hidden),
            (unknown.into(), Client::Hidden),
            (binary(0x20, 0, &[]), Client::Proxy),
            (binary(0x20, 0x77, b"whatever"), Client::Proxy),
            (binary(0x21, 0x00, &[]), Client::Hidden),
            (binary(0x21, 0x11, &V4), at("1.2.3.4:4097")),
            (binary(0x21, 0x11, &[&V4, b"\x03\0\x04abcd".as_slice()].concat()), at("1.2.3.4:4097")),
            (binary(0x21, 0x11, &[&V4, [7; MAX_REST - 12].as_slice()].concat()), at("1.2.3.4:4097")),
            (binary(0x21, 0x21, &v6), at("[2001::1]:9")),
            (binary(0x21, 0x31, &[b'/'; 216]), Client::Hidden),
        ];
        for (header, client) in table {
            let shown = String::from_utf8_lossy(&header).into_owned();
            let stream = [&header, b"GET / HTTP/1.1\r\n".as_slice()].concat();
            assert_eq!(take(&stream, ProxyProtocol::Auto), (Ok(Some(client)), header.len()), "{shown:?}");
            // Cut anywhere, it is neither good nor bad.
            for end in 0..header.len() {
                assert_eq!(take(&header[..end], ProxyProtocol::Auto).0, Ok(None), "{shown:?} to {end}");
            }
            let is_line = header.starts_with(LINE);
            let (its, other) = if is_line {
                (ProxyProtocol::V1, ProxyProtocol::V2)
            } else {
                (ProxyProtocol::V2, ProxyProtocol::V1)
            };
            assert_eq!(take(&stream, its).0, Ok(Some(client)));
            assert_eq!(take(&stream, other).0, Err(Malformed::OtherVersion));
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let unknown = format!("PROXY UNKNOWN {}\r\n", "x".repeat(MAX_LINE - 15));
        let table: Vec<(Vec<u8>, Malformed)> = vec![
            ("GET / HTTP/1.1\r\n\r\n".into(), Malformed::NoHeader),
            ("\r\n\r\n\0\r\nQUIX\n".into(), Malformed::NoHeader),
            ("proxy TCP4 1.2.3.4 127.0.0.1 1 80\r\n".into(), Malformed::NoHeader),
            (unknown.into(), Malformed::TooLong),
            ("PROXY TCP4 1.2.3.4 127.0.0.1 1 80\n".into(), Malformed::Line),
            ("PROXY TCP4 1.2.3.4 127.0.0.1 1\r\n".into(), Malformed::Line),
            ("PROXY TCP4 1.2.3.4 127.0.0.1 1 80 \r\n".into(), Malformed::Line),
            ("PROXY  TCP4 1.2.3.4 127.0.0.1 1 80\r\n".into(), Malformed::Line),
            ("PROXY TCP4 1.2.3.4 127.0.0.1 01 80\r\n".into(), Malformed::Line),
            ("PROXY TCP4 1.2.3.4 127.0.0.1 65536 80\r\n".into(), Malformed::Line),
            ("PROXY TCP4 1.2.3.4 127.0.0.1 +1 80\r\n".into(), Malformed::Line),
            ("PROXY TCP4 1.2.3.04 127.0.0.1 1 80\r\n".into(), Malformed::Line),
            ("PROXY TCP4 ::1 ::1 1 80\r\n".into(), Malformed::Line),
            ("PROXY TCP6 1.2.3.4 ::1 1 80\r\n".into(), Malformed::Line),
            ("PROXY UDP4 1.2.3.4 1.2.3.4 1 80\r\n".into(), Malformed::Line),
            ("PROXY UNKNOWNX\r\n".into(), Malformed::Line),
            (binary(0x22, 0x11, &V4), Malformed::Command),
            (binary(0x11, 0x11, &V4), Malformed::Command),
            (binary(0x21, 0x12, &V4), Malformed::Family),
            (binary(0x21, 0x11, &V4[..11]), Malformed::TooShort),
            (binary(0x21, 0x21, &[0; 35]), Malformed::TooShort),
            (binary(0x21, 0x31, &[0; 215]), Malformed::TooShort),
            (binary(0x21, 0x11, &[0; MAX_REST + 1]), Malformed::TooLong),
        ];
        for (header, why) in table {
            let shown = String::from_utf8_lossy(&header).into_owned();
            assert_eq!(take(&header, ProxyProtocol::Auto).0, Err(why), "{shown:?}");
        }
    }

    #[test]
    fn a_client_came_by_tls_where_the_header_says_so() {
        let v4 = |additions: &[u8]| binary(0x21, 0x11, &[&V4, additions].concat());
        let tls = [0x20, 0, 5, 0x01, 0, 0, 0, 0];
        let table: Vec<(Vec<u8>, bool)> = vec![
            (v4(&tls), true),
            (v4(&[&[0x04, 0, 2, 9, 9], tls.as_slice()].concat()), true),
            (binary(0x21, 0x00, &tls), true),
            (binary(0x21, 0x21, &[[0; 36].as_slice(), &tls].concat()), true),
            (binary(0x21, 0x31, &[[0; 216].as_slice(), &tls].concat()), true),
            (v4(&[]), false),
            (v4(&[0x20, 0, 5, 0x00, 0, 0, 0, 0]), false),
            (v4(&[0x20, 0, 0]), false),
            (v4(&[0x04, 0, 8, 0x20, 0, 5, 0x01, 0, 0, 0, 0]), false),
            (v4(&tls[..7]), false),
            (v4(&[&[0x04, 0xff, 0xff], tls.as_slice()].concat()), false),
            (binary(0x20, 0x11, &[&V4, tls.as_slice()].concat()), false),
            ("PROXY TCP4 1.2.3.4 127.0.0.1 4097 80\r\n".into(), false),
        ];
        for (header, secured) in table {
            assert_eq!(is_secured(&header), secured, "{header:?}");
        }
    }

    proptest! {
        /// No bytes are too much for it, and it never asks for more than a header can have.
        #[test]
        fn it_stops_within_its_bounds(bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0..3_u8) {
            let stream = match kind {
                0 => bytes,
                1 => [LINE, &bytes].concat(),
                _ => [SIGNATURE.as_slice(), &[0x21, 0x11], &bytes].concat(),
            };
            let (_, taken) = take(&stream, ProxyProtocol::Auto);
            prop_assert!(taken <= stream.len());
            is_secured(&stream);
            for end in 0..stream.len() {
                match step(&stream[..end], ProxyProtocol::Auto) {
                    Ok(Step::Bytes(count)) => prop_assert!(count > 0 && end + count <= FIXED + MAX_REST),
                    Ok(Step::Line) => prop_assert!(end < MAX_LINE),
                    Ok(Step::Done(_)) | Err(_) => {}
                }
            }
        }
    }
}

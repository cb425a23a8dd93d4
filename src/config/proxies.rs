//! Settings for a server behind proxies: whose word counts, and on what. Not here: what they say, and who reads it.

use super::values::{self, Raw};
use std::net::IpAddr;

/// A list of peers that are believed, as it was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    written: Vec<String>,
    everybody: bool,
    unix: bool,
    networks: Vec<Network>,
}

/// An address with all its bits, or a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    prefix: u32,
}

impl Trust {
    /// Whether a peer over TCP is believed. An IPv4 address within IPv6 counts as the IPv4 address that it is.
    pub(crate) fn covers(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.everybody || self.networks.iter().any(|network| network.contains(address))
    }

    /// Whether a peer over a Unix socket is.
    pub(crate) fn covers_unix(&self) -> bool {
        self.everybody || self.unix
    }

    pub(crate) fn is_everybody(&self) -> bool {
        self.everybody
    }
}

impl Network {
    /// `10.0.0.0/8`, `10.0.0.1`, `fd00::/8`, `::1`; the bits behind the prefix must be zero, since a network with others
    /// is more likely a slip than meant.
    fn parse(text: &str) -> Option<Network> {
        let (address, prefix) =
            text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().ok()?;
        let width = width(address);
        let prefix = match prefix {
            Some(digits) if digits.len() <= 3 && digits.bytes().all(|digit| digit.is_ascii_digit()) => {
                digits.parse().ok().filter(|prefix| *prefix <= width)?
            }
            Some(_) => return None,
            None => width,
        };
        let canonical = address.to_canonical();
        let inner = width - self::width(canonical);
        let network = Network { address: canonical, prefix: prefix.checked_sub(inner)? };
        (bits(canonical) & !network.mask() == 0).then_some(network)
    }

    fn contains(&self, address: IpAddr) -> bool {
        width(address) == width(self.address) && bits(address) & self.mask() == bits(self.address)
    }

    /// Ones for the bits that count, in the lower bits of the number.
    fn mask(&self) -> u128 {
        let rest = width(self.address) - self.prefix;
        let all = u128::MAX >> (128 - width(self.address));
        all & u128::MAX.checked_shl(rest).unwrap_or(0)
    }
}

fn width(address: IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

/// The fields that are believed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ForwardedFields {
    /// `X-Forwarded-For`
    pub address: bool,
    /// `X-Forwarded-Proto`
    pub scheme: bool,
    /// `X-Forwarded-Host`
    pub host: bool,
    /// `Forwarded`, and then none of the others: where a proxy writes one kind, the other is the client's.
    pub rfc7239: bool,
}

/// The versions of the PROXY protocol that are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyProtocol {
    Off,
    V1,
    V2,
    Auto,
}

impl ForwardedFields {
    fn names(self) -> impl Iterator<Item = &'static str> {
        let ForwardedFields { address, scheme, host, rfc7239 } = self;
        [address, scheme, host, rfc7239]
            .into_iter()
            .zip(FIELDS)
            .filter(|(is_in, _)| *is_in)
            .map(|(_, name)| name)
    }
}

/// In the order of the struct.
const FIELDS: [&str; 4] = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded"];

/// Empty: none.
pub(super) fn forwarded_fields(raw: &Raw) -> Option<ForwardedFields> {
    let mut named = [false; FIELDS.len()];
    for name in values::list_or_none(raw)? {
        let at = FIELDS.iter().position(|known| name.eq_ignore_ascii_case(known))?;
        named[at] = true;
    }
    let [address, scheme, host, rfc7239] = named;
    let fields = ForwardedFields { address, scheme, host, rfc7239 };
    (!rfc7239 || fields.names().count() == 1).then_some(fields)
}

pub(super) fn show_forwarded_fields(fields: &ForwardedFields) -> String {
    let names: Vec<String> = fields.names().map(str::to_owned).collect();
    values::show_list(&names)
}

/// Empty: none.
pub(super) fn root_path(raw: &Raw) -> Option<String> {
    let path = raw.text()?;
    let is_prefix =
        values::is_path(path) && !path.ends_with('/') && !path.contains(['?', '%']) && !path.contains("//");
    (path.is_empty() || is_prefix).then(|| path.to_owned())
}

pub(super) fn proxy_protocol(raw: &Raw) -> Option<ProxyProtocol> {
    Some(match raw.text()? {
        "off" => ProxyProtocol::Off,
        "v1" => ProxyProtocol::V1,
        "v2" => ProxyProtocol::V2,
        "auto" => ProxyProtocol::Auto,
        _ => return None,
    })
}

pub(super) fn show_proxy_protocol(versions: &ProxyProtocol) -> String {
    values::quoted(match versions {
        ProxyProtocol::Off => "off",
        ProxyProtocol::V1 => "v1",
        ProxyProtocol::V2 => "v2",
        ProxyProtocol::Auto => "auto",
    })
}

/// Empty: nobody.
pub(super) fn trust(raw: &Raw) -> Option<Trust> {
    let mut trust = Trust { written: values::list_or_none(raw)?, ..Trust::default() };
    for peer in &trust.written {
        match peer.as_str() {
            "*" => trust.everybody = true,
            "unix" => trust.unix = true,
            network => trust.networks.push(Network::parse(network)?),
        }
    }
    Some(trust)
}

pub(super) fn show_trust(trust: &Trust) -> String {
    values::show_list(&trust.written)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(peers: &str) -> Option<Trust> {
        trust(&Raw::Text(peers.to_owned()))
    }

    #[test]
    fn an_address_is_in_a_network_or_not() {
        for (peers, address, is_covered) in [
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1", "127.0.0.2", false),
            ("127.0.0.1", "::ffff:127.0.0.1", true),
            ("::ffff:10.0.0.0/104", "10.1.2.3", true),
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.0", false),
            ("10.0.0.0/8", "a00::", false),
            ("0.0.0.0/0", "1.2.3.4", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "::1", true),
            ("::/0", "1.2.3.4", false),
            ("fd00::/8, 192.168.1.128/25", "fdff::1", true),
            ("fd00::/8, 192.168.1.128/25", "192.168.1.127", false),
            ("fd00::/8, 192.168.1.128/25", "192.168.1.128", true),
            ("*", "1.2.3.4", true),
            ("unix", "127.0.0.1", false),
            ("", "127.0.0.1", false),
        ] {
            assert_eq!(
                of(peers).unwrap().covers(address.parse().unwrap()),
                is_covered,
                "{address} in {peers}"
            );
        }
        assert!(of("unix").unwrap().covers_unix() && of("*").unwrap().covers_unix());
        assert!(!of("127.0.0.1").unwrap().covers_unix());
    }

    #[test]
    fn kinds_of_fields_are_not_mixed() {
        let of = |names: &str| forwarded_fields(&Raw::Text(names.to_owned()));
        assert_eq!(of("").unwrap(), ForwardedFields::default());
        let all = of("X-Forwarded-For, x-forwarded-proto,x-forwarded-host").unwrap();
        assert!(all.address && all.scheme && all.host && !all.rfc7239);
        assert!(of("Forwarded").unwrap().rfc7239);
        for names in ["forwarded, x-forwarded-for", "x-real-ip", "x-forwarded-for,"] {
            assert_eq!(of(names), None, "{names}");
        }
        for (path, is_one) in [
            ("", true),
            ("/shop", true),
            ("/a/b", true),
            ("/", false),
            ("/a/", false),
            ("a", false),
            ("/a?b", false),
            ("//a", false),
            ("/%61", false),
        ] {
            assert_eq!(root_path(&Raw::Text(path.into())).is_some(), is_one, "{path}");
        }
    }

    #[test]
    fn what_is_no_peer_is_refused() {
        for peers in [
            "localhost",
            "10.0.0.1/8",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/+8",
            "10.0.0/8",
            "1.2.3.4,",
            "::ffff:0:0/8",
        ] {
            assert_eq!(of(peers), None, "{peers}");
        }
    }
}

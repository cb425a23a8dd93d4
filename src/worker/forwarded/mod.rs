//! What proxies say of a client: believed from trusted peers, and kept from the app from all others. Not here: the PROXY
//! protocol, which speaks of a connection; how RFC 7239 is written.

mod rfc7239;

use super::access_log::Asked;
use super::gate::{Fields, Refusal, is_host};
use super::watched::Origin;
use crate::app::{ClientInfo, Scheme};
use crate::config::{SchemeHeaders, Settings, Trust};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, Request, Uri, header};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How many proxies in a row are looked through. One that is further away is taken for unknown.
const MAX_HOPS: usize = 32;

static FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Whether this is a field by which proxies speak of clients. `name` is in lower case, as all are.
pub(super) fn is_field(name: &str) -> bool {
    match name.as_bytes() {
        [b'x', b'-', rest @ ..] => rest.starts_with(b"forwarded-") || rest == b"real-ip",
        name => name == b"forwarded",
    }
}

/// One stop on the way of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Hop {
    address: IpAddr,
    port: Option<u16>,
}

/// Who a client is, as trusted proxies have it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Claim {
    /// `Some(None)`: they say that they do not know.
    hop: Option<Option<Hop>>,
    scheme: Option<Scheme>,
    host: Option<String>,
}

/// What the app is to be told, and what is to be kept from it.
pub(super) struct Verdict {
    pub(super) client: ClientInfo,
    is_trusted: bool,
    /// Its fields say of the scheme now this and now that.
    is_contradictory: bool,
}

/// `scheme` is the connection's. `None` where there is nothing to be told but what the connection shows, which is nearly always.
pub(super) fn judge<B>(
    request: &Request<B>,
    fields: &Fields<'_>,
    origin: &Origin,
    scheme: Scheme,
    settings: &Settings,
) -> Option<Box<Verdict>> {
    let has_own_fields = !settings.secure_scheme_headers.is_empty();
    (fields.forwarding || origin.is_secured || has_own_fields || !settings.root_path.is_empty()).then(|| {
        let (uri, headers) = (request.uri(), request.headers());
        let mut client = ClientInfo::of_connection(origin.peer, uri, headers);
        client.scheme = scheme;
        client.root_path.clone_from(&settings.root_path);
        let mut is_contradictory = false;
        if origin.is_trusted {
            let mut claim = read(headers, settings);
            is_contradictory = claim.add_schemes(headers, &settings.secure_scheme_headers).is_err();
            claim.tell(&mut client);
        }
        Box::new(Verdict { client, is_trusted: origin.is_trusted, is_contradictory })
    })
}

impl Verdict {
    /// As the access log has it.
    pub(super) fn name(&self) -> String {
        self.client.address.map_or_else(|| "-".to_owned(), |address| address.to_string())
    }

    /// As the access log has it, too.
    pub(super) fn asked(&self) -> Asked<'_> {
        Asked { scheme: self.client.scheme, host: self.client.host() }
    }

    /// # Errors
    /// Where it cannot be told whether the client came by https. Gunicorn refuses such requests, too.
    pub(super) fn check(&self) -> Result<(), Refusal> {
        if self.is_contradictory { Err(Refusal::SCHEMES) } else { Ok(()) }
    }

    /// Puts the request before the app: who asks, the path below `root_path`, and no field of the kind but those that were
    /// believed. An app that reads one by itself, or a library of it, could not know whose word it is.
    pub(super) fn apply<B>(self, request: &mut Request<B>, settings: &Settings) {
        let headers = request.headers_mut();
        let hidden: Vec<HeaderName> =
            headers.keys().filter(|name| self.hides(name, settings)).cloned().collect();
        for name in hidden {
            headers.remove(name);
        }
        if let Some(uri) = below(request.uri(), &self.client.root_path) {
            *request.uri_mut() = uri;
        }
        request.extensions_mut().insert(self.client);
    }

    fn hides(&self, name: &HeaderName, settings: &Settings) -> bool {
        let is_named = settings.secure_scheme_headers.names(name.as_str());
        if !self.is_trusted {
            return is_named || is_field(name.as_str());
        }
        let believed = settings.forwarded_fields;
        // What a trusted proxy does not write itself it may pass on as the client sent it.
        (*name == header::FORWARDED && !believed.rfc7239)
            || (*name == FOR && !believed.address)
            || (*name == PROTO && !believed.scheme && !is_named)
            || (*name == HOST && !believed.host)
    }
}

/// The fields that tell the scheme do not agree.
#[derive(Debug, PartialEq, Eq)]
struct Contradiction;

impl Claim {
    /// What the fields say that the settings name, each line of them: https with their value, and http with any other.
    fn add_schemes(&mut self, headers: &HeaderMap, named: &SchemeHeaders) -> Result<(), Contradiction> {
        for (name, secure) in named.iter() {
            for value in headers.get_all(name) {
                let said = Scheme::of_connection(value.as_bytes() == secure.as_bytes());
                if self.scheme.replace(said).is_some_and(|before| before != said) {
                    self.scheme = None;
                    return Err(Contradiction);
                }
            }
        }
        Ok(())
    }

    fn tell(self, client: &mut ClientInfo) {
        client.is_forwarded = self != Claim::default();
        if let Some(hop) = self.hop {
            client.address = hop.map(|hop| hop.address);
            client.port = hop.and_then(|hop| hop.port);
        }
        client.scheme = self.scheme.unwrap_or(client.scheme);
        client.host = self.host.or(client.host.take());
    }
}

/// What the fields of `forwarded_fields` say.
fn read(headers: &HeaderMap, settings: &Settings) -> Claim {
    let (believed, trust) = (settings.forwarded_fields, &settings.forwarded_allow_ips);
    if believed.rfc7239 {
        return rfc7239::read(headers, trust);
    }
    let mut claim = Claim::default();
    if believed.address {
        let hops = from_last(headers, &FOR).map(|entry| entry.and_then(node));
        claim.hop = client_of(hops, trust).map(|(_, hop)| hop);
    }
    // Where it is named with a value, that is what it is held against.
    if believed.scheme && !settings.secure_scheme_headers.names(PROTO.as_str()) {
        claim.scheme = from_last(headers, &PROTO).next().flatten().and_then(Scheme::parse);
    }
    if believed.host {
        let host = from_last(headers, &HOST).next().flatten();
        claim.host = host.filter(|host| !host.is_empty() && is_host(host.as_bytes())).map(str::to_owned);
    }
    claim
}

/// The values of a list field, the last one first, and none that are empty (RFC 9110, 5.6.1); `None` for what is no text.
fn from_last<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = Option<&'a str>> {
    let lines: Vec<_> = headers.get_all(name).iter().map(|line| line.to_str().ok()).collect();
    let pieces = lines.into_iter().rev().flat_map(|line| {
        let cut = |line: &'a str| line.rsplit(',').map(|piece| Some(piece.trim_matches([' ', '\t'])));
        let unread = line.is_none().then_some(None);
        line.map(cut).into_iter().flatten().chain(unread)
    });
    pieces.filter(|piece| *piece != Some(""))
}

/// The right-most hop that is not itself a trusted proxy, and its number from the right: each entry was written by the hop to
/// its right, and the right-most one by the peer. Where all are trusted it is the left-most. `Some((_, None))`: that hop is not
/// known, and what stands to the left of it is nobody's word. `None`: there is no entry.
fn client_of(hops: impl Iterator<Item = Option<Hop>>, trust: &Trust) -> Option<(usize, Option<Hop>)> {
    let mut last = None;
    for (number, hop) in hops.enumerate() {
        let hop = hop.filter(|_| number < MAX_HOPS);
        last = Some((number, hop));
        if hop.is_none_or(|hop| !trust.covers(hop.address)) {
            break;
        }
    }
    last
}

/// An address, perhaps with a port. What stands for one that is not told, such as `unknown`, is none.
fn node(text: &str) -> Option<Hop> {
    let hop = |address: IpAddr, port| Hop { address: address.to_canonical(), port };
    if let Ok(address) = text.parse() {
        return Some(hop(address, None));
    }
    let address_at = |end| text.get(..end)?.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok();
    let (end, port) = match text.rsplit_once(':') {
        // Within brackets a colon is the address's.
        Some((before, port)) if !port.ends_with(']') => (before.len(), Some(port_of(port)?)),
        Some(_) | None => (text.len(), None),
    };
    let v4 = || text.get(..end)?.parse::<Ipv4Addr>().ok();
    let address = address_at(end).map(IpAddr::from).or_else(|| v4().map(IpAddr::from))?;
    Some(hop(address, port))
}

/// One to five digits, as RFC 7239, 6.3, has them.
fn port_of(text: &str) -> Option<u16> {
    let is_number = (1..=5).contains(&text.len()) && text.bytes().all(|digit| digit.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

/// The target without the prefix. `None` where it does not begin with it: a proxy may have taken it away.
fn below(uri: &Uri, prefix: &str) -> Option<Uri> {
    if prefix.is_empty() {
        return None;
    }
    let target = uri.path_and_query()?.as_str();
    let rest = target.strip_prefix(prefix)?;
    let target = match rest.as_bytes() {
        [b'/', ..] => PathAndQuery::try_from(rest),
        [] | [b'?', ..] => PathAndQuery::try_from(format!("/{rest}")),
        // `/shopping` is not below `/shop`.
        [_, ..] => return None,
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(target.ok()?);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests;

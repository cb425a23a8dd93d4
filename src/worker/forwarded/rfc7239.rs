//! The `Forwarded` field (RFC 7239, 4): elements by commas, pairs by semicolons, values that may be quoted. Read strictly: a
//! line that is not written so says nothing. Not here: whom to believe.

use super::{Claim, Hop, Trust, client_of, node, port_of};
use crate::app::Scheme;
use crate::worker::gate::is_host;
use http::{HeaderMap, header};

/// What one proxy said.
#[derive(Debug, Default, PartialEq, Eq)]
struct Element {
    hop: Option<Hop>,
    scheme: Option<Scheme>,
    host: Option<String>,
}

/// What the proxy said that saw the client: address, scheme and host are all of one element.
pub(super) fn read(headers: &HeaderMap, trust: &Trust) -> Claim {
    let lines = headers.get_all(header::FORWARDED);
    let mut elements: Vec<Element> = lines
        .iter()
        .flat_map(|line| {
            // What a client wrote may have been lengthened by a proxy, so that the whole of a bad line is in doubt.
            let parsed = line.to_str().ok().and_then(parse);
            parsed.unwrap_or_else(|| vec![Element::default()])
        })
        .collect();
    elements.reverse();
    let Some((number, hop)) = client_of(elements.iter().map(|element| element.hop), trust) else {
        return Claim::default();
    };
    let Element { scheme, host, .. } = elements.swap_remove(number);
    Claim { hop: Some(hop), scheme, host }
}

fn parse(line: &str) -> Option<Vec<Element>> {
    let mut elements = Vec::new();
    let mut rest = skip_space(line);
    loop {
        // An empty element is read over (RFC 9110, 5.6.1).
        if !rest.is_empty() && !rest.starts_with(',') {
            let (element, after) = element(rest)?;
            elements.push(element);
            rest = after;
        }
        match rest.strip_prefix(',') {
            Some(after) => rest = skip_space(after),
            None if rest.is_empty() => return Some(elements),
            None => return None,
        }
    }
}

/// One element and what stands behind it, white space removed.
fn element(line: &str) -> Option<(Element, &str)> {
    let (mut element, mut seen) = (Element::default(), [false; 3]);
    let mut rest = line;
    loop {
        if let Some((name, value, after)) = pair(rest)? {
            let known = ["for", "proto", "host"].iter().position(|known| name.eq_ignore_ascii_case(known));
            // Each at most once (RFC 7239, 4).
            if known.is_some_and(|known| std::mem::replace(&mut seen[known], true)) {
                return None;
            }
            match known {
                Some(0) => element.hop = for_node(&value)?,
                Some(1) => element.scheme = Scheme::parse(&value),
                Some(_) => element.host = (!value.is_empty() && is_host(value.as_bytes())).then_some(value),
                None => {}
            }
            rest = after;
        }
        match rest.strip_prefix(';') {
            Some(after) => rest = after,
            None => return Some((element, skip_space(rest))),
        }
    }
}

/// A name, its value, and what stands behind; `Some(None)` for an empty pair, which the grammar allows.
#[allow(clippy::option_option, reason = "an empty pair is not a bad one")]
fn pair(line: &str) -> Option<Option<(&str, String, &str)>> {
    if line.is_empty() || line.starts_with([';', ',']) {
        return Some(None);
    }
    let name_end = line.bytes().position(|byte| !is_token(byte))?;
    let (name, rest) = line.split_at(name_end);
    let rest = rest.strip_prefix('=').filter(|_| !name.is_empty())?;
    let (value, rest) = match rest.strip_prefix('"') {
        Some(quoted) => unquote(quoted)?,
        None => {
            let end = rest.bytes().position(|byte| !is_token(byte)).unwrap_or(rest.len());
            (rest.get(..end).filter(|token| !token.is_empty())?.to_owned(), &rest[end..])
        }
    };
    Some(Some((name, value, rest)))
}

/// What stands before the closing quote, and what behind it.
fn unquote(line: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = line.char_indices();
    loop {
        match characters.next()? {
            (at, '"') => return Some((value, &line[at + 1..])),
            (_, '\\') => value.push(characters.next()?.1),
            (_, character) => value.push(character),
        }
    }
}

/// An address; none for `unknown` and for a name that is made up (RFC 7239, 6.2 and 6.3). `None` for anything else.
#[allow(clippy::option_option, reason = "one that is not told is not a bad one")]
fn for_node(value: &str) -> Option<Option<Hop>> {
    let hop = node(value);
    // A bare IPv6 address is no node: it has to be in brackets.
    if hop.is_some_and(|hop| hop.address.is_ipv4() || value.starts_with('[')) {
        return Some(hop);
    }
    let is_made_up = |name: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        name.strip_prefix('_').is_some_and(|rest| !rest.is_empty() && rest.bytes().all(plain))
    };
    let (name, port) = value.split_once(':').map_or((value, None), |(name, port)| (name, Some(port)));
    let is_name = name.eq_ignore_ascii_case("unknown") || is_made_up(name);
    let is_port = port.is_none_or(|port| port_of(port).is_some() || is_made_up(port));
    // An address may stand before a port that is made up.
    let with_hidden_port = port.is_some_and(is_made_up).then(|| node(name)).flatten();
    match with_hidden_port {
        Some(hop) => Some(Some(hop)),
        None => (is_name && is_port).then_some(None),
    }
}

/// RFC 9110, 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn skip_space(line: &str) -> &str {
    line.trim_start_matches([' ', '\t'])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The elements as text; `None` where the line is refused.
    fn read_line(line: &str) -> Option<Vec<String>> {
        let shown = |element: Element| {
            let Element { hop, scheme, host } = element;
            let hop = hop.map_or("-".to_owned(), |hop| match hop.port {
                Some(port) => format!("{} {port}", hop.address),
                None => hop.address.to_string(),
            });
            [Some(hop), scheme.map(|scheme| scheme.to_string()), host]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
                .join(" ")
        };
        Some(parse(line)?.into_iter().map(shown).collect())
    }

    #[test]
    fn lines_are_read_as_the_grammar_has_them() {
        let table: &[(&str, &[&str])] = &[
            ("", &[]),
            (" , ,", &[]),
            ("for=192.0.2.60;proto=http;by=203.0.113.43", &["192.0.2.60 http"]),
            ("For=\"[2001:db8:cafe::17]:4711\"", &["2001:db8:cafe::17 4711"]),
            ("for=192.0.2.43, for=198.51.100.17", &["192.0.2.43", "198.51.100.17"]),
            ("for=192.0.2.43,FOR=\"[::1]\" ;PROTO=x", &[]),
            ("for=\"192.0.2.43:80\";host=\"a.example:1\";proto=HTTPS", &["192.0.2.43 80 https a.example:1"]),
            ("for=\"1\\92.0.2.1\";;x=y;", &["192.0.2.1"]),
            ("for=unknown, for=_hidden, for=\"_SEVKISEK:_p\", for=\"unknown:80\"", &["-", "-", "-", "-"]),
            ("for=\"1.2.3.4:_port\"", &["1.2.3.4"]),
            ("secret=\"a, for=6.6.6.6;\\\"\";for=1.2.3.4", &["1.2.3.4"]),
            ("proto=ftp;host=\"a b\";by=_x", &["-"]),
            ("\tfor=1.2.3.4\t", &["1.2.3.4"]),
        ];
        for (line, elements) in table {
            // White space is allowed around elements, not around pairs.
            let wanted = (!line.contains(" ;")).then(|| elements.iter().map(ToString::to_string).collect());
            assert_eq!(read_line(line), wanted, "{line:?}");
        }
    }

    #[test]
    fn what_is_written_otherwise_is_refused_whole() {
        for line in [
            "for",
            "for=",
            "=1",
            "for =1.2.3.4",
            "for= 1.2.3.4",
            "for=1.2.3.4 for=1.2.3.5",
            "for=1.2.3.4;for=1.2.3.5",
            "for=[::1]",
            "for=\"::1\"",
            "for=1.2.3.4:80",
            "for=\"1.2.3.4:\"",
            "for=\"1.2.3.4:999999\"",
            "for=\"[::1\"",
            "for=\"[::1]80\"",
            "for=localhost",
            "for=_",
            "for=\"1.2.3.4",
            "for=\"evil, for=1.2.3.4",
            "for=1.2.3.4;x=\"\\",
            "for=\"1.2.3.4\"x",
            "for=1.2.3.4; proto=http",
        ] {
            assert_eq!(read_line(line), None, "{line:?}");
        }
    }
}

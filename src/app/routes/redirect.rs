//! A route that sends to another address. Not here: whether the address makes sense in itself, which `check` saw.

use super::refusal::Refusal;
use axum::extract::{FromRequestParts, RawPathParams, Request};
use axum::response::{IntoResponse, Response};
use http::header::LOCATION;
use http::{HeaderValue, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// What stands for itself in a segment (RFC 3986, 2.3, "unreserved").
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// The rest of a path keeps its slashes.
const REST: &AsciiSet = &SEGMENT.remove(b'/');

pub(super) struct Redirect {
    status: StatusCode,
    pieces: Vec<Piece>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Plain(String),
    /// A part of the request's path.
    Name {
        name: String,
        is_rest: bool,
    },
}

/// Takes `/new/{id}` apart; an error says what is wrong.
pub(super) fn pieces(to: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut rest = to;
    while let Some((plain, after)) = rest.split_once('{') {
        let (name, after) = after.split_once('}').ok_or("has a { that is never closed")?;
        let is_rest = name.starts_with('*');
        pieces.push(Piece::Plain(plain.into()));
        pieces.push(Piece::Name { name: name.trim_start_matches('*').into(), is_rest });
        rest = after;
    }
    pieces.push(Piece::Plain(rest.into()));
    pieces.retain(|piece| *piece != Piece::Plain(String::new()));
    Ok(pieces)
}

/// Why nobody should be sent to this address, whatever the request's path: what a browser takes for the host must be the
/// operator's own words.
pub(super) fn complaint(to: &str) -> Option<&'static str> {
    let path = match to.strip_prefix("https://").or(to.strip_prefix("http://")) {
        Some(absolute) => {
            let (host, path) = absolute.split_at(absolute.find(['/', '?', '#']).unwrap_or(absolute.len()));
            if host.is_empty() || host.contains(['{', '\\']) {
                return Some("must name its host in full");
            }
            path
        }
        None if !to.starts_with('/') || to.starts_with("//") || to.starts_with("/\\") => {
            return Some("must start with one /, or with https:// or http://");
        }
        None => to,
    };
    let is_plain = path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    (!is_plain).then_some("must be printable ASCII without backslashes; write anything else percent-encoded")
}

impl Redirect {
    /// `check` has seen the address.
    pub(super) fn new(status: StatusCode, to: &str) -> Redirect {
        Redirect { status, pieces: pieces(to).expect("check read the address") }
    }

    pub(super) async fn answer(&self, request: Request) -> Result<Response, Refusal> {
        let (mut parts, _) = request.into_parts();
        let params = RawPathParams::from_request_parts(&mut parts, &())
            .await
            .map_err(|rejection| Refusal::Malformed(rejection.body_text()))?;
        let given: Vec<(&str, &str)> = params.iter().collect();
        let location = HeaderValue::try_from(self.location(&given)).expect("it is encoded");
        Ok((self.status, [(LOCATION, location)]).into_response())
    }

    fn location(&self, given: &[(&str, &str)]) -> String {
        let mut location = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Plain(plain) => location.push_str(plain),
                Piece::Name { name, is_rest } => {
                    let value = given.iter().find(|(given, _)| given == name).map_or("", |(_, value)| value);
                    location.extend(utf8_percent_encode(value, if *is_rest { REST } else { SEGMENT }));
                }
            }
        }
        // Two slashes would begin a host (RFC 3986, 4.2).
        match location.trim_start_matches('/') {
            rest if location.starts_with("//") => format!("/{rest}"),
            _ => location,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_the_path_are_encoded_and_never_a_host() {
        let table = [
            ("/new/{id}", vec![("id", "7")], "/new/7"),
            ("/new/{id}?a=b#c", vec![("id", "a/b c?d=ä#\r\n")], "/new/a%2Fb%20c%3Fd%3D%C3%A4%23%0D%0A?a=b#c"),
            ("/{*rest}", vec![("rest", "a/b c")], "/a/b%20c"),
            ("/{*rest}", vec![("rest", "/evil.example/x")], "/evil.example/x"),
            ("/{*rest}", vec![("rest", "//evil.example")], "/evil.example"),
            ("/{*rest}", vec![("rest", "\\evil.example")], "/%5Cevil.example"),
            ("/{id}", vec![("id", "/evil.example")], "/%2Fevil.example"),
            ("https://a.example/{b}-{c}", vec![("b", "1"), ("c", "@x")], "https://a.example/1-%40x"),
        ];
        for (to, given, expected) in table {
            assert_eq!(complaint(to), None, "{to}");
            assert_eq!(Redirect::new(StatusCode::FOUND, to).location(&given), expected, "{to} {given:?}");
        }
    }

    #[test]
    fn addresses_that_could_lead_anywhere_are_refused() {
        let host = Some("must name its host in full");
        let start = Some("must start with one /, or with https:// or http://");
        let plain = Some("must be printable ASCII without backslashes; write anything else percent-encoded");
        let table = [
            ("https://{host}/", host),
            ("https://a.{host}/", host),
            ("http://", host),
            ("https:///x", host),
            ("//a.example", start),
            ("/\\a.example", start),
            ("a", start),
            ("{id}", start),
            ("javascript:alert(1)", start),
            ("", start),
            ("/ä", plain),
            ("/a b", plain),
            ("/a\\b", plain),
            ("https://a.example", None),
            ("/", None),
        ];
        for (to, expected) in table {
            assert_eq!(complaint(to), expected, "{to}");
        }
        assert!(pieces("/{a").is_err());
    }
}

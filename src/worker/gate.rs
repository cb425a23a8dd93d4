//! What a request must be before the app sees it: hyper has read it, but is laxer than RFC 9110 and RFC 9112 allow a
//! server behind or beside others to be. Not here: where it ends (framing), timeouts.

use super::{forwarded, target};
use crate::config::{self, Settings};
use http::{HeaderMap, HeaderName, Method, Request, StatusCode, Version, header};

/// Why a request was not given to the app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) reason: &'static str,
}

impl Refusal {
    pub(super) const BODY: Refusal = Refusal {
        status: StatusCode::PAYLOAD_TOO_LARGE,
        reason: "the body is larger than this server takes\n",
    };
    /// Found by the time the app read it.
    pub(super) const BAD_BODY: Refusal = Refusal::bad("the body breaks off or is invalid\n");
    pub(super) const FAILED: Refusal =
        Refusal { status: StatusCode::INTERNAL_SERVER_ERROR, reason: "the application failed\n" };
    pub(super) const LATE: Refusal =
        Refusal { status: StatusCode::GATEWAY_TIMEOUT, reason: "the application did not answer in time\n" };
    /// Of a body; on a connection that is for one request at a time it is written below hyper.
    pub(super) const SLOW: Refusal =
        Refusal { status: StatusCode::REQUEST_TIMEOUT, reason: "the body came too slowly\n" };
    pub(super) const SPACE: Refusal = Refusal::bad("a header field begins or ends with white space\n");
    pub(super) const LINE: Refusal = Refusal {
        status: StatusCode::URI_TOO_LONG,
        reason: "the request line is longer than this server takes\n",
    };
    pub(super) const FIELDS: Refusal = Refusal {
        status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        reason: "the header fields are more or larger than this server takes\n",
    };
    pub(super) const SCHEMES: Refusal =
        Refusal::bad("the fields that tell whether the client came by https contradict each other\n");
    const EXPECTATION: Refusal = Refusal {
        status: StatusCode::EXPECTATION_FAILED,
        reason: "this server meets no expectation but 100-continue\n",
    };
    const METHOD: Refusal = Refusal {
        status: StatusCode::NOT_IMPLEMENTED,
        reason: "this server does not implement the method\n",
    };

    pub(super) const fn bad(reason: &'static str) -> Refusal {
        Refusal { status: StatusCode::BAD_REQUEST, reason }
    }
}

/// # Errors
/// The first rule that the request breaks.
pub(super) fn check<B>(
    request: &Request<B>,
    fields: &Fields<'_>,
    settings: &Settings,
) -> Result<(), Refusal> {
    // The scanner has measured the others, on the wire.
    if request.version() > Version::HTTP_11 {
        check_sizes(request, settings)?;
    }
    check_target(request)?;
    check_host(&fields.host, request.version())?;
    check_expectation(&fields.expectation, request.version())?;
    if fields.has_underscore && settings.header_map == config::HeaderMap::Refuse {
        return Err(Refusal::bad("the name of a field has an underscore\n"));
    }
    check_length(fields.length, settings.limit_request_body)
}

/// As if it had come in lines.
fn check_sizes<B>(request: &Request<B>, settings: &Settings) -> Result<(), Refusal> {
    let target = request.uri().path_and_query().map_or(1, |target| target.as_str().len());
    let line = request.method().as_str().len() + target + " HTTP/1.1".len() + 1;
    if line > settings.limit_request_line {
        return Err(Refusal::LINE);
    }
    let fields = request.headers();
    let sizes = fields.iter().map(|(name, value)| name.as_str().len() + ": ".len() + value.len());
    if fields.len() > settings.limit_request_fields
        || sizes.max().is_some_and(|largest| largest > settings.limit_request_field_size)
    {
        return Err(Refusal::FIELDS);
    }
    Ok(())
}

/// What the server itself has to know of a request's fields, found in one pass: a lookup for each costs more.
#[derive(Default)]
pub(super) struct Fields<'a> {
    host: Found<'a>,
    length: Option<&'a [u8]>,
    expectation: Found<'a>,
    /// The first of its name, for the access log, as `user_agent`; empty where there is none.
    pub(super) referer: &'a [u8],
    pub(super) user_agent: &'a [u8],
    /// There is a name with `_`.
    has_underscore: bool,
    /// There is a field by which proxies speak of clients.
    pub(super) forwarding: bool,
}

/// A field that should be there once at the most.
#[derive(Default)]
enum Found<'a> {
    #[default]
    Not,
    Once(&'a [u8]),
    Often,
}

impl<'a> Fields<'a> {
    pub(super) fn of(headers: &'a HeaderMap) -> Fields<'a> {
        let mut fields = Fields::default();
        for (name, value) in headers {
            let value = value.as_bytes();
            match *name {
                header::HOST => fields.host.one_more(value),
                header::CONTENT_LENGTH => fields.length = Some(value),
                header::EXPECT => fields.expectation.one_more(value),
                header::REFERER if fields.referer.is_empty() => fields.referer = value,
                header::USER_AGENT if fields.user_agent.is_empty() => fields.user_agent = value,
                _ => {
                    let name = name.as_str();
                    fields.forwarding |= forwarded::is_field(name);
                    // No name that has a constant has one.
                    fields.has_underscore |= name.contains('_');
                }
            }
        }
        fields
    }
}

impl<'a> Found<'a> {
    fn one_more(&mut self, value: &'a [u8]) {
        *self = if let Found::Not = self { Found::Once(value) } else { Found::Often };
    }
}

impl Fields<'_> {
    /// Whether the client sends its body when it is told to; with HTTP/1.0 there is no such thing.
    pub(super) fn waits_for_word(&self, version: Version) -> bool {
        version == Version::HTTP_11 && matches!(self.expectation, Found::Once(_))
    }

    /// Whether fields have to go before the app sees the others.
    pub(super) fn has_some_to_drop(&self, settings: &Settings) -> bool {
        self.has_underscore && settings.header_map == config::HeaderMap::Drop
    }
}

/// Takes out what the app must not see.
pub(super) fn drop_underscored(headers: &mut HeaderMap) {
    let names: Vec<HeaderName> = headers.keys().filter(|name| name.as_str().contains('_')).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

/// Origin form or absolute form; `*` with OPTIONS (RFC 9112, 3.2). This is no proxy, and TRACE shows credentials.
fn check_target<B>(request: &Request<B>) -> Result<(), Refusal> {
    let (method, uri) = (request.method(), request.uri());
    if method == Method::CONNECT || method == Method::TRACE {
        return Err(Refusal::METHOD);
    }
    match (uri.scheme_str(), uri.authority(), uri.path()) {
        (None, None, "*") if method == Method::OPTIONS => Ok(()),
        (None, None, path) if path.starts_with('/') && target::has_valid_bytes(uri) => Ok(()),
        (Some("http" | "https"), Some(host), _)
            if is_host(host.as_str().as_bytes()) && target::has_valid_bytes(uri) =>
        {
            Ok(())
        }
        (_, _, _) => Err(Refusal::bad("the request target is invalid\n")),
    }
}

/// Exactly one valid Host with HTTP/1.1, at most one with HTTP/1.0 (RFC 9112, 3.2).
fn check_host(host: &Found<'_>, version: Version) -> Result<(), Refusal> {
    match host {
        Found::Not if version == Version::HTTP_10 => Ok(()),
        Found::Not => Err(Refusal::bad("the Host field is missing\n")),
        Found::Once(host) if is_plain_host(host) || is_host(host) => Ok(()),
        Found::Once(_) => Err(Refusal::bad("the Host field is invalid\n")),
        Found::Often => Err(Refusal::bad("there is more than one Host field\n")),
    }
}

/// Letters, digits, dot and hyphen: looked up, as this runs over every request's Host.
const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        plain[byte] = (byte as u8).is_ascii_alphanumeric() || matches!(byte as u8, b'.' | b'-');
        byte += 1;
    }
    plain
};

/// What nearly every request has: a name or an IPv4 address, with or without a port.
fn is_plain_host(value: &[u8]) -> bool {
    let name = value.iter().take_while(|byte| PLAIN[usize::from(**byte)]).count();
    match &value[name..] {
        // An empty value is valid (RFC 9110, 7.2), and so is an empty port, but not a port alone.
        [] => true,
        [b':', port @ ..] => name > 0 && is_port(port),
        [..] => false,
    }
}

/// Five digits are spelt out, since a port that the kernel chose has five.
fn is_port(digits: &[u8]) -> bool {
    digits.iter().all(u8::is_ascii_digit)
        && (digits.len() < 5 || digits.len() == 5 && digits <= &b"65535"[..])
}

/// Host and perhaps port, and no user.
pub(super) fn is_host(value: &[u8]) -> bool {
    !value.contains(&b'@')
        && http::uri::Authority::try_from(value).is_ok_and(|host| {
            let port = host.as_str().rsplit_once(':').filter(|(_, port)| !port.ends_with(']'));
            !host.host().is_empty()
                && port.is_none_or(|(_, port)| port.is_empty() || host.port_u16().is_some())
        })
}

/// RFC 9110, 10.1.1. hyper says `100 Continue` when the app asks for the body.
fn check_expectation(expectation: &Found<'_>, version: Version) -> Result<(), Refusal> {
    match expectation {
        Found::Not => Ok(()),
        Found::Once(value) if value.eq_ignore_ascii_case(b"100-continue") => Ok(()),
        // It knew none, and a proxy may have passed on what it does not understand.
        Found::Once(_) | Found::Often if version == Version::HTTP_10 => Ok(()),
        Found::Once(_) | Found::Often => Err(Refusal::EXPECTATION),
    }
}

/// A length that is no number, or none, is found before: by the scanner, or by the reader of another version of HTTP.
fn check_length(length: Option<&[u8]>, limit: u64) -> Result<(), Refusal> {
    let Some(length) = length else { return Ok(()) };
    let length = std::str::from_utf8(length).ok().and_then(|digits| digits.parse::<u64>().ok());
    if length.is_some_and(|length| length <= limit) { Ok(()) } else { Err(Refusal::BODY) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(version: Version, method: &str, target: &str, fields: &[(&str, &str)]) -> u16 {
        let mut request = Request::builder().version(version).method(method).uri(target);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let settings = Settings {
            limit_request_line: 100,
            limit_request_fields: 4,
            limit_request_field_size: 60,
            limit_request_body: 1000,
            header_map: config::HeaderMap::Refuse,
            ..Settings::default()
        };
        let request = request.body(()).unwrap();
        check(&request, &Fields::of(request.headers()), &settings)
            .map_or_else(|refusal| refusal.status.as_u16(), |()| 200)
    }

    #[test]
    fn each_rule_has_its_status() {
        let host = ("host", "a.example:8000");
        type Given<'a> = &'a [(&'a str, &'a str)];
        let table: &[(&str, &str, Given<'_>, u16)] = &[
            ("GET", "/", &[host], 200),
            ("GET", "http://a.example/", &[host], 200),
            ("GET", "http://user@a.example/", &[host], 400),
            ("GET", "http://a.example:99999/", &[host], 400),
            ("GET", "http://a.example/\"", &[host], 400),
            ("GET", "/a|[]?b=|[]^`{}\\", &[host], 200),
            ("GET", "/a\\", &[host], 400),
            ("GET", "/a\"", &[host], 400),
            ("GET", "/\u{e4}", &[host], 400),
            ("GET", "/?\u{e4}", &[host], 400),
            ("OPTIONS", "*", &[host], 200),
            ("GET", "*", &[host], 400),
            ("GET", "a.example:80", &[host], 400),
            ("CONNECT", "a.example:80", &[host], 501),
            ("TRACE", "/", &[host], 501),
            ("GET", "/", &[], 400),
            ("GET", "/", &[host, host], 400),
            ("GET", "/", &[("host", "")], 200),
            ("GET", "/", &[("host", "[::1]:80")], 200),
            ("GET", "/", &[("host", "[::1]")], 200),
            ("GET", "/", &[("host", "a.example:")], 200),
            ("GET", "/", &[("host", "a.example:65535")], 200),
            ("GET", "/", &[("host", "a_b.example")], 200),
            ("GET", "/", &[("host", ":80")], 400),
            ("GET", "/", &[("host", "a b")], 400),
            ("GET", "/", &[("host", "user@a.example")], 400),
            ("GET", "/", &[("host", "a.example/x")], 400),
            ("GET", "/", &[("host", "a.example:65536")], 400),
            ("GET", "/", &[("host", "a.example:065536")], 400),
            ("POST", "/", &[host, ("expect", "100-Continue")], 200),
            ("POST", "/", &[host, ("expect", "100-continue"), ("expect", "x")], 417),
            ("POST", "/", &[host, ("expect", "200-ok")], 417),
            ("GET", "/", &[host, ("x_y", "")], 400),
            ("POST", "/", &[host, ("content-length", "1000")], 200),
            ("POST", "/", &[host, ("content-length", "1001")], 413),
            ("POST", "/", &[host, ("content-length", "99999999999999999999")], 413),
        ];
        for (method, target, fields, wanted) in table {
            let status = verdict(Version::HTTP_11, method, target, fields);
            assert_eq!(status, *wanted, "{method} {target} {fields:?}");
        }
    }

    #[test]
    fn what_did_not_come_in_lines_is_measured_all_the_same() {
        let host = ("host", "a.example");
        let get = |target: &str, fields: &[(&str, &str)]| verdict(Version::HTTP_2, "GET", target, fields);
        assert_eq!(get(&format!("/{}", "x".repeat(86)), &[host]), 200);
        assert_eq!(get(&format!("/{}", "x".repeat(87)), &[host]), 414);
        assert_eq!(get("/", &[host, ("a", &"x".repeat(57))]), 200);
        assert_eq!(get("/", &[host, ("a", &"x".repeat(58))]), 431);
        assert_eq!(get("/", &[host, ("a", ""), ("b", ""), ("c", "")]), 200);
        assert_eq!(get("/", &[host, ("a", ""), ("b", ""), ("c", ""), ("d", "")]), 431);
    }
}

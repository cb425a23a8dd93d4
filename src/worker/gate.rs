//! What a request must be before the app sees it: hyper has read it, but is laxer than RFC 9110 and RFC 9112 allow a
//! server behind or beside others to be. Not here: timeouts.

use super::{forwarded, target};
use crate::config::Settings;
use http::{HeaderMap, Method, Request, StatusCode, Version, header};

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
    const LINE: Refusal = Refusal {
        status: StatusCode::URI_TOO_LONG,
        reason: "the request line is longer than this server takes\n",
    };
    pub(super) const FIELDS: Refusal = Refusal {
        status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        reason: "the header fields are more or larger than this server takes\n",
    };
    const METHOD: Refusal = Refusal {
        status: StatusCode::NOT_IMPLEMENTED,
        reason: "this server does not implement the method\n",
    };

    const fn bad(reason: &'static str) -> Refusal {
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
    check_line(request, settings)?;
    if fields.count > settings.limit_request_fields || fields.largest > settings.limit_request_field_size {
        return Err(Refusal::FIELDS);
    }
    check_target(request)?;
    check_host(&fields.host, request.version())?;
    check_framing(fields, request.version(), settings.limit_request_body)
}

fn check_line<B>(request: &Request<B>, settings: &Settings) -> Result<(), Refusal> {
    // As Gunicorn counts: the line without its end.
    let target = request.uri().path_and_query().map_or(1, |target| target.as_str().len());
    let line = request.method().as_str().len() + target + " HTTP/1.1".len() + 1;
    if line > settings.limit_request_line { Err(Refusal::LINE) } else { Ok(()) }
}

/// What the server itself has to know of a request's fields, found in one pass: a lookup for each costs more.
#[derive(Default)]
pub(super) struct Fields<'a> {
    host: Found<'a>,
    length: Found<'a>,
    encoding: Found<'a>,
    /// The first of its name, for the access log, as `user_agent`; empty where there is none.
    pub(super) referer: &'a [u8],
    pub(super) user_agent: &'a [u8],
    /// There is a field by which proxies speak of clients.
    pub(super) forwarding: bool,
    count: usize,
    /// The bytes of the largest one, as on its line.
    largest: usize,
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
        let mut fields = Fields { count: headers.len(), ..Fields::default() };
        for (name, value) in headers {
            fields.largest = fields.largest.max(name.as_str().len() + ": ".len() + value.len());
            let value = value.as_bytes();
            match *name {
                header::HOST => fields.host.one_more(value),
                header::CONTENT_LENGTH => fields.length.one_more(value),
                header::TRANSFER_ENCODING => fields.encoding.one_more(value),
                header::REFERER if fields.referer.is_empty() => fields.referer = value,
                header::USER_AGENT if fields.user_agent.is_empty() => fields.user_agent = value,
                _ => fields.forwarding |= forwarded::is_field(name.as_str()),
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

/// The body's length must be beyond doubt (RFC 9112, 6.3): where two servers differ, requests are smuggled.
fn check_framing(fields: &Fields<'_>, version: Version, limit: u64) -> Result<(), Refusal> {
    match (&fields.length, &fields.encoding) {
        (Found::Not, Found::Not) => Ok(()),
        (Found::Not, Found::Once(encoding))
            if version != Version::HTTP_10 && encoding.eq_ignore_ascii_case(b"chunked") =>
        {
            Ok(())
        }
        (Found::Once(value), Found::Not) => match length(value) {
            Some(length) if length > limit => Err(Refusal::BODY),
            Some(_) => Ok(()),
            None => Err(Refusal::bad("the Content-Length field is invalid\n")),
        },
        (Found::Often, Found::Not) => Err(Refusal::bad("there is more than one Content-Length field\n")),
        (_, Found::Once(_) | Found::Often) => {
            Err(Refusal::bad("the Transfer-Encoding field is not a single chunked\n"))
        }
    }
}

fn length(value: &[u8]) -> Option<u64> {
    let digits = value.iter().all(u8::is_ascii_digit);
    digits.then(|| std::str::from_utf8(value).ok()?.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(method: &str, target: &str, fields: &[(&str, &str)]) -> u16 {
        let mut request = Request::builder().method(method).uri(target);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let settings = Settings {
            limit_request_line: 100,
            limit_request_fields: 4,
            limit_request_field_size: 60,
            limit_request_body: 1000,
            ..Settings::default()
        };
        let request = request.body(()).unwrap();
        check(&request, &Fields::of(request.headers()), &settings)
            .map_or_else(|refusal| refusal.status.as_u16(), |()| 200)
    }

    #[test]
    fn each_rule_has_its_status() {
        let host = ("host", "a.example:8000");
        let long = "x".repeat(100);
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
            ("GET", &format!("/{long}"), &[host], 414),
            ("GET", "/", &[host, ("a", &long)], 431),
            ("GET", "/", &[host, ("a", "1"), ("b", "1"), ("c", "1"), ("d", "1")], 431),
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
            ("POST", "/", &[host, ("content-length", "1000")], 200),
            ("POST", "/", &[host, ("content-length", "1001")], 413),
            ("POST", "/", &[host, ("content-length", "+1")], 400),
            ("POST", "/", &[host, ("content-length", "1"), ("content-length", "1")], 400),
            ("POST", "/", &[host, ("transfer-encoding", "chunked")], 200),
            ("POST", "/", &[host, ("transfer-encoding", "Chunked")], 200),
            ("POST", "/", &[host, ("transfer-encoding", "gzip, chunked")], 400),
            ("POST", "/", &[host, ("transfer-encoding", "chunked, chunked")], 400),
            ("POST", "/", &[host, ("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")], 400),
            ("POST", "/", &[host, ("transfer-encoding", "chunked"), ("content-length", "3")], 400),
        ];
        for (method, target, fields, wanted) in table {
            assert_eq!(verdict(method, target, fields), *wanted, "{method} {target} {fields:?}");
        }
    }
}

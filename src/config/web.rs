//! What is put around answers: compression, CORS, fields for security. Not here: who does it.

use super::Settings;
use super::error::Problem;
use super::log_format::is_token;
use super::values::{Raw, list_or_none, quoted};
use std::time::Duration;

/// The encodings that answers may be compressed with; none: they are not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Encodings {
    pub gzip: bool,
    pub brotli: bool,
    pub zstd: bool,
}

/// Which pages of other sites may ask, and for what. No origins: nothing is said of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorsSettings {
    /// `*` alone is everybody.
    pub origins: Vec<String>,
    pub methods: Vec<String>,
    pub headers: Vec<String>,
    pub expose: Vec<String>,
    pub credentials: bool,
    pub max_age: Duration,
}

/// Fields that tell browsers to be careful. Empty: not sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecuritySettings {
    pub nosniff: bool,
    pub referrer_policy: String,
    pub frame_options: String,
    pub content_security_policy: String,
    pub permissions_policy: String,
    /// Sent only where the client came by TLS.
    pub hsts: String,
}

/// What stands for everybody or everything.
pub(crate) const ALL: &str = "*";

pub(super) const ENCODINGS: &str =
    "some of gzip, br and zstd, in an array or one comma-separated string; empty: none";
pub(super) const FIELDS: &str =
    "names of fields in an array or one comma-separated string, or * for all; empty: none";

/// The tokens of the field Referrer-Policy.
const REFERRER_POLICIES: [&str; 8] = [
    "no-referrer",
    "no-referrer-when-downgrade",
    "origin",
    "origin-when-cross-origin",
    "same-origin",
    "strict-origin",
    "strict-origin-when-cross-origin",
    "unsafe-url",
];

/// Of the framing of a message, of one connection, or of the server: no route sets them.
const NOT_A_ROUTES: [&str; 9] = [
    "connection",
    "content-encoding",
    "content-length",
    "date",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

impl Encodings {
    pub fn is_none(self) -> bool {
        self == Encodings::default()
    }
}

impl CorsSettings {
    pub(super) fn blank() -> CorsSettings {
        CorsSettings {
            origins: Vec::new(),
            methods: Vec::new(),
            headers: Vec::new(),
            expose: Vec::new(),
            credentials: false,
            max_age: Duration::ZERO,
        }
    }
}

impl SecuritySettings {
    pub(super) fn blank() -> SecuritySettings {
        SecuritySettings {
            nosniff: false,
            referrer_policy: String::new(),
            frame_options: String::new(),
            content_security_policy: String::new(),
            permissions_policy: String::new(),
            hsts: String::new(),
        }
    }
}

impl Settings {
    /// With credentials `*` would be a name like any other (Fetch, 3.3.5): everybody who is meant has to be named.
    pub(super) fn check_cors(&self, problems: &mut Vec<Problem>) {
        let CorsSettings { origins, headers, expose, credentials, .. } = &self.cors;
        if *credentials && [origins, headers, expose].into_iter().any(|names| is_all(names)) {
            let allowed = "false where cors.origins, cors.headers or cors.expose is *";
            problems.push(self.problem("cors.credentials", "true", allowed));
        }
    }
}

pub(crate) fn is_all(names: &[String]) -> bool {
    names.first().is_some_and(|name| name == ALL)
}

pub(super) fn encodings(raw: &Raw) -> Option<Encodings> {
    let mut found = Encodings::default();
    for name in list_or_none(raw)? {
        let place = match name.as_str() {
            "gzip" => &mut found.gzip,
            "br" => &mut found.brotli,
            "zstd" => &mut found.zstd,
            _ => return None,
        };
        if std::mem::replace(place, true) {
            return None;
        }
    }
    Some(found)
}

pub(super) fn show_encodings(encodings: &Encodings) -> String {
    let Encodings { gzip, brotli, zstd } = *encodings;
    let named = [(zstd, "\"zstd\""), (brotli, "\"br\""), (gzip, "\"gzip\"")];
    let names: Vec<&str> = named.into_iter().filter(|(is_used, _)| *is_used).map(|(_, name)| name).collect();
    format!("[{}]", names.join(", "))
}

/// `text/html`, `text/*`, `application/*+json`, in lower case.
pub(super) fn media_types(raw: &Raw) -> Option<Vec<String>> {
    let is_type = |text: &String| {
        let Some((kind, rest)) = text.split_once('/') else { return false };
        let rest = rest.strip_prefix("*+").or((rest == ALL).then_some("x")).unwrap_or(rest);
        let is_name = |part: &str| {
            is_token(part) && !part.contains('*') && !part.bytes().any(|byte| byte.is_ascii_uppercase())
        };
        is_name(kind) && is_name(rest)
    };
    list_or_none(raw).filter(|types| types.iter().all(is_type))
}

/// `https://shop.example`, as browsers write it; `*` alone is everybody.
pub(super) fn origins(raw: &Raw) -> Option<Vec<String>> {
    let is_origin = |text: &String| {
        let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        rest.is_some_and(|host| {
            let is_part =
                |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-:[]_".contains(&byte);
            !host.is_empty() && host.bytes().all(is_part)
        })
    };
    list_or_none(raw).filter(|origins| *origins == [ALL] || origins.iter().all(is_origin))
}

pub(super) fn methods(raw: &Raw) -> Option<Vec<String>> {
    let is_method = |name: &String| is_token(name) && name.bytes().all(|byte| byte.is_ascii_uppercase());
    list_or_none(raw).filter(|names| !names.is_empty() && names.iter().all(is_method))
}

pub(super) fn fields(raw: &Raw) -> Option<Vec<String>> {
    let names = list_or_none(raw)?;
    (names == [ALL] || names.iter().all(|name| is_token(name) && !name.contains('*'))).then_some(names)
}

/// One policy, or several of which a browser takes the last that it knows.
pub(super) fn referrer_policy(raw: &Raw) -> Option<String> {
    let text = raw.text()?;
    let is_known = text.split(',').all(|policy| REFERRER_POLICIES.contains(&policy.trim()));
    (text.is_empty() || is_known).then(|| text.to_owned())
}

pub(super) fn frame_options(raw: &Raw) -> Option<String> {
    raw.text().filter(|text| ["", "DENY", "SAMEORIGIN"].contains(text)).map(str::to_owned)
}

/// The value of a field.
pub(super) fn field_value(raw: &Raw) -> Option<String> {
    let is_value =
        |text: &&str| text.trim() == *text && text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    raw.text().filter(is_value).map(str::to_owned)
}

/// `max-age=SECONDS`, and behind it `includeSubDomains` and `preload` (RFC 6797, 6.1).
pub(super) fn hsts(raw: &Raw) -> Option<String> {
    let text = raw.text()?;
    let mut parts = text.split(';').map(str::trim);
    let age = parts.next()?.strip_prefix("max-age=").unwrap_or_default();
    let is_age = !age.is_empty() && age.len() <= 10 && age.bytes().all(|digit| digit.is_ascii_digit());
    let is_rest = parts.all(|part| ["includeSubDomains", "preload"].contains(&part));
    (text.is_empty() || is_age && is_rest).then(|| text.to_owned())
}

/// The fields that a route sets, by their names in lower case; what is wrong with one, in words.
pub(super) fn route_field(name: &str, value: &Raw) -> Result<(String, String), String> {
    let lower = name.to_ascii_lowercase();
    if !is_token(name) || NOT_A_ROUTES.contains(&lower.as_str()) {
        return Err(format!("{}; allowed: names of fields, but none of the message itself", quoted(name)));
    }
    let value = field_value(value).filter(|value| !value.is_empty());
    value.map(|value| (lower, value)).ok_or_else(|| format!("{name}; allowed: a text in ASCII, on one line"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Raw {
        Raw::Text(text.to_owned())
    }

    #[test]
    fn each_takes_what_a_browser_would() {
        type Is = fn(&Raw) -> bool;
        let table: [(Is, &[&str], &[&str]); 8] = [
            (|raw| encodings(raw).is_some(), &["", "gzip", "zstd, br"], &["deflate", "gzip,gzip", "GZIP"]),
            (
                |raw| media_types(raw).is_some(),
                &["", "text/*", "application/*+json, text/html"],
                &["text", "*/*", "text/", "Text/html", "text/html; charset=utf-8", "a/*b"],
            ),
            (
                |raw| origins(raw).is_some(),
                &["", "*", "https://a.example,http://[::1]:80"],
                &["a.example", "https://a.example/", "https://A.example", "*, https://a", "null", "https://"],
            ),
            (|raw| methods(raw).is_some(), &["GET", "GET,PATCH"], &["", "get", "*", "G T"]),
            (|raw| fields(raw).is_some(), &["", "*", "x-a, content-type"], &["a b", "*, a", "a:"]),
            (
                |raw| referrer_policy(raw).is_some(),
                &["", "origin", "no-referrer, strict-origin"],
                &["never", "origin,", "Origin"],
            ),
            (|raw| field_value(raw).is_some(), &["", "default-src 'self'"], &["a\nb", " a", "ä"]),
            (
                |raw| hsts(raw).is_some(),
                &["", "max-age=0", "max-age=63072000; includeSubDomains; preload"],
                &["31536000", "max-age=", "max-age=-1", "max-age=1; other", "includeSubDomains"],
            ),
        ];
        for (number, (is_allowed, good, bad)) in table.into_iter().enumerate() {
            for given in good {
                assert!(is_allowed(&text(given)), "{number}: {given:?}");
            }
            for given in bad {
                assert!(!is_allowed(&text(given)), "{number}: {given:?}");
            }
        }
    }

    #[test]
    fn a_route_sets_any_field_but_those_of_the_message() {
        assert_eq!(route_field("X-A", &text("b")), Ok(("x-a".into(), "b".into())));
        for (name, value) in [("content-length", "1"), ("Date", "now"), ("a b", "c"), ("a", "b\n"), ("a", "")]
        {
            assert!(route_field(name, &text(value)).is_err(), "{name}: {value:?}");
        }
    }
}

//! What a stored response is found by. Not here: which fields of the request count (ask, policy).
//!
//! A key is looked up by its parts where they stand in the request, so that a hit need not put a text together.

use http::header::HeaderName;
use http::uri::PathAndQuery;
use http::{HeaderMap, Uri};
use percent_encoding::percent_decode_str;
use std::borrow::{Borrow, Cow};
use std::hash::{Hash, Hasher};

/// Who is asked, for what, and the values of the fields by which the response varies.
pub(super) trait Parts {
    fn host(&self) -> &[u8];
    fn target(&self) -> &str;
    fn variant(&self) -> &[u8];
}

#[derive(Clone, Debug)]
pub(super) struct Key {
    host: Box<[u8]>,
    target: Box<str>,
    variant: Box<[u8]>,
}

/// A key in the making; as such it is looked up.
#[derive(Clone, Copy)]
pub(super) struct Probe<'a> {
    pub(super) host: &'a [u8],
    pub(super) target: &'a str,
    pub(super) variant: &'a [u8],
}

impl Parts for Key {
    fn host(&self) -> &[u8] {
        &self.host
    }
    fn target(&self) -> &str {
        &self.target
    }
    fn variant(&self) -> &[u8] {
        &self.variant
    }
}

impl Parts for Probe<'_> {
    fn host(&self) -> &[u8] {
        self.host
    }
    fn target(&self) -> &str {
        self.target
    }
    fn variant(&self) -> &[u8] {
        self.variant
    }
}

impl Key {
    pub(super) fn new(probe: Probe<'_>) -> Key {
        Key { host: probe.host.into(), target: probe.target.into(), variant: probe.variant.into() }
    }

    pub(super) fn with_variant(&self, variant: Vec<u8>) -> Key {
        Key { variant: variant.into(), ..self.clone() }
    }

    pub(super) fn bytes(&self) -> usize {
        self.host.len() + self.target.len() + self.variant.len()
    }

    pub(super) fn is_of_target(&self) -> bool {
        self.variant.is_empty()
    }

    /// The same target, whatever the response varies by.
    pub(super) fn of_target(&self) -> Probe<'_> {
        Probe { host: &self.host, target: &self.target, variant: b"" }
    }
}

impl<'a> Borrow<dyn Parts + 'a> for Key {
    fn borrow(&self) -> &(dyn Parts + 'a) {
        self
    }
}

impl Hash for dyn Parts + '_ {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.target().hash(state);
        self.host().hash(state);
        self.variant().hash(state);
    }
}

impl PartialEq for dyn Parts + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.target() == other.target() && self.host() == other.host() && self.variant() == other.variant()
    }
}

impl Eq for dyn Parts + '_ {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self as &dyn Parts).hash(state);
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        (self as &dyn Parts) == (other as &dyn Parts)
    }
}

impl Eq for Key {}

/// The target with its parameters in the order of their names; those of one name stay in theirs.
pub(super) fn normal_target(uri: &Uri) -> Cow<'_, str> {
    let target = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    match uri.query() {
        Some(query) if !is_in_order(query) => {
            let mut parameters: Vec<&str> = query.split('&').collect();
            parameters.sort_by_key(|parameter| name(parameter));
            Cow::Owned(format!("{}?{}", uri.path(), parameters.join("&")))
        }
        Some(_) | None => Cow::Borrowed(target),
    }
}

/// The same URI with these parameters only; `None` where it has no others.
pub(super) fn only(uri: &Uri, chosen: &[String]) -> Option<Uri> {
    let query = uri.query()?;
    let is_chosen = |parameter: &&str| {
        let name = name(parameter).replace('+', " ");
        let name = percent_decode_str(&name).collect::<Vec<u8>>();
        chosen.iter().any(|chosen| chosen.as_bytes() == name)
    };
    if query.split('&').all(|parameter| is_chosen(&parameter)) {
        return None;
    }
    let kept: Vec<&str> = query.split('&').filter(is_chosen).collect();
    let target =
        if kept.is_empty() { uri.path().to_owned() } else { format!("{}?{}", uri.path(), kept.join("&")) };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(target.parse().expect("a part of a valid target is valid"));
    Some(Uri::from_parts(parts).expect("only the query has become shorter"))
}

fn is_in_order(query: &str) -> bool {
    !query.as_bytes().contains(&b'&') || query.split('&').is_sorted_by_key(name)
}

fn name(parameter: &str) -> &str {
    parameter.split_once('=').map_or(parameter, |(name, _)| name)
}

/// The values that these fields have in a request, unmistakably.
pub(super) fn variant(names: &[HeaderName], fields: &HeaderMap) -> Vec<u8> {
    let mut variant = Vec::new();
    for name in names {
        // How many, and how long each is: else two requests could look alike.
        let values = fields.get_all(name);
        variant.extend((values.iter().count() as u32).to_le_bytes());
        for value in values {
            variant.extend((value.len() as u32).to_le_bytes());
            variant.extend(value.as_bytes());
        }
    }
    variant
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_put_in_order_and_chosen() {
        // (uri, in order, with a and b alone)
        let table = [
            ("/", "/", "/"),
            ("/a?", "/a?", "/a"),
            ("/a?b=1", "/a?b=1", "/a?b=1"),
            ("/a?b=1&a=2", "/a?a=2&b=1", "/a?b=1&a=2"),
            ("/a?b=2&a=1&b=1", "/a?a=1&b=2&b=1", "/a?b=2&a=1&b=1"),
            ("/a?c=1&a=2&aa=3", "/a?a=2&aa=3&c=1", "/a?a=2"),
            ("/a?%61=1&x", "/a?%61=1&x", "/a?%61=1"),
            ("/a?c", "/a?c", "/a"),
            ("http://h/a?c&a", "/a?a&c", "http://h/a?a"),
        ];
        let chosen = ["a".to_owned(), "b".to_owned()];
        for (uri, in_order, chosen_only) in table {
            let uri: Uri = uri.parse().unwrap();
            assert_eq!(normal_target(&uri), in_order, "{uri}");
            let left = only(&uri, &chosen).unwrap_or_else(|| uri.clone());
            assert_eq!(left.to_string(), chosen_only, "{uri}");
        }
    }

    #[test]
    fn variants_cannot_be_mistaken_for_each_other() {
        let names = [http::header::ACCEPT, http::header::ACCEPT_LANGUAGE];
        let rows: [&[(&str, &str)]; 7] = [
            &[],
            &[("accept", "")],
            &[("accept", "a")],
            &[("accept-language", "a")],
            &[("accept", "a"), ("accept", "b")],
            &[("accept", "ab")],
            &[("accept", "a"), ("accept-language", "b")],
        ];
        let variants = rows.map(|row| {
            let mut fields = HeaderMap::new();
            for (name, value) in row {
                fields.append(*name, value.parse().unwrap());
            }
            variant(&names, &fields)
        });
        for (index, one) in variants.iter().enumerate() {
            assert!(!variants[..index].contains(one), "row {index}");
        }
    }

    #[test]
    fn a_key_is_found_by_its_parts() {
        let probe = Probe { host: b"h", target: "/a", variant: b"v" };
        let key = Key::new(probe);
        let hash = |parts: &dyn Parts| crate::scoreboard::SlotHasher::default().with(parts).slot();
        assert!(hash(&key) == hash(&probe) && *(&key as &dyn Parts) == *(&probe as &dyn Parts));
        for other in
            [Probe { host: b"i", ..probe }, Probe { target: "/b", ..probe }, Probe { variant: b"", ..probe }]
        {
            assert!(*(&key as &dyn Parts) != *(&other as &dyn Parts));
        }
    }
}

//! The fields by which proxies say that a client came by https. Not here: who reads them, whose word counts.

use super::values::{self, Raw, quoted};

/// Names in lower case, each with the value that means https. As in Gunicorn, but for the default: here there is none, since
/// every field that is believed is one that a client may write where the proxy does not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SchemeHeaders(Vec<(String, String)>);

/// Each is looked for in each request.
const MAX_FIELDS: usize = 16;
/// The longest name and the longest value.
const MAX_BYTES: usize = 100;

/// Fields that say something else. Those that are named are taken away from peers that are not believed, so that they must
/// not be any that HTTP itself needs either.
const OTHERS: [&str; 12] = [
    "connection",
    "content-length",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-forwarded-for",
    "x-forwarded-host",
];

pub(super) const ALLOWED: &str = "a table of field names (letters, digits and hyphens) and values, such as \
                                  { X-Forwarded-Ssl = \"on\" }, at most 16, and none that says something else, such as Host; \
                                  as a flag NAME=VALUE, several by commas or by flags; empty: none";

impl SchemeHeaders {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Names and values.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// `name` is in lower case.
    pub(crate) fn names(&self, name: &str) -> bool {
        self.iter().any(|(named, _)| named == name)
    }
}

pub(super) fn read(raw: &Raw) -> Option<SchemeHeaders> {
    let pairs: Vec<(String, String)> = match raw {
        Raw::Table(pairs) => {
            let text = |(name, value): &(String, Raw)| Some((name.clone(), values::text(value)?));
            pairs.iter().map(text).collect::<Option<_>>()?
        }
        _ => {
            let parted =
                |pair: &String| pair.split_once('=').map(|(name, value)| (name.into(), value.into()));
            values::list_or_none(raw)?.iter().map(parted).collect::<Option<_>>()?
        }
    };
    let mut headers = SchemeHeaders::default();
    for (name, value) in pairs {
        let name = name.to_ascii_lowercase();
        if headers.names(&name) || !is_name(&name) || !is_value(&value) {
            return None;
        }
        headers.0.push((name, value));
    }
    (headers.0.len() <= MAX_FIELDS).then_some(headers)
}

pub(super) fn show(headers: &SchemeHeaders) -> String {
    let pairs: Vec<String> =
        headers.iter().map(|(name, value)| format!("{name} = {}", quoted(value))).collect();
    if pairs.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", pairs.join(", ")) }
}

/// One that needs no quotes in TOML; and no underscore, which `header_map` has dropped.
fn is_name(name: &str) -> bool {
    (1..=MAX_BYTES).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !OTHERS.contains(&name)
}

/// What can come as the value of a field: there is no white space around it.
fn is_value(value: &str) -> bool {
    (1..=MAX_BYTES).contains(&value.len())
        && value.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ')
        && value.trim_matches(' ') == value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Option<String> {
        read(&Raw::Text(text.to_owned())).as_ref().map(show)
    }

    fn of_table(pairs: &[(&str, &str)]) -> Option<String> {
        let pairs = pairs.iter().map(|(name, value)| (name.to_string(), Raw::Text(value.to_string())));
        read(&Raw::Table(pairs.collect())).as_ref().map(show)
    }

    #[test]
    fn fields_are_named_with_the_value_that_means_https() {
        let gunicorn =
            [("X-FORWARDED-PROTOCOL", "ssl"), ("X-FORWARDED-PROTO", "https"), ("X-FORWARDED-SSL", "on")];
        let shown =
            "{ x-forwarded-protocol = \"ssl\", x-forwarded-proto = \"https\", x-forwarded-ssl = \"on\" }";
        assert_eq!(of_table(&gunicorn).unwrap(), shown);
        assert_eq!(
            of("X-Forwarded-Protocol=ssl, X-Forwarded-Proto=https,X-Forwarded-Ssl=on").unwrap(),
            shown
        );
        assert_eq!((of("").unwrap(), of_table(&[]).unwrap()), ("{}".to_owned(), "{}".to_owned()));
        let quoted = of_table(&[("CF-Visitor", "{\"scheme\":\"https\"}")]).unwrap();
        assert_eq!(quoted, "{ cf-visitor = \"{\\\"scheme\\\":\\\"https\\\"}\" }");
    }

    #[test]
    fn what_says_something_else_or_nothing_is_refused() {
        for text in [
            "x-forwarded-ssl",
            "x-forwarded-ssl=",
            "=on",
            "x_forwarded_ssl=on",
            "a=b,A=c",
            "a=b,",
            "host=a",
            "Forwarded=proto",
            "a b=c",
            "a=\u{e4}",
        ] {
            assert_eq!(of(text), None, "{text}");
        }
        assert_eq!(of_table(&[("a", " b")]), None);
        assert_eq!(read(&Raw::Table(vec![("a".to_owned(), Raw::Boolean(true))])), None);
        assert_eq!(read(&Raw::Integer(1)), None);
        let many: Vec<String> = (0..17).map(|number| format!("a{number}=b")).collect();
        assert_eq!((of(&many.join(",")), of(&many[1..].join(",")).is_some()), (None, true));
    }
}

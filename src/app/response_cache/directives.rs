//! The field `Cache-Control` (RFC 9111, 5.2), of requests and of responses. Not here: what follows from it.

use http::header::{CACHE_CONTROL, HeaderMap};
use std::time::Duration;

/// RFC 9111, 1.2.2: what is larger is taken for this, some 68 years.
const MAX_SECONDS: u64 = 1 << 31;

/// Those that are obeyed; all others are ignored, as RFC 9111, 5.2.3 asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Directives {
    pub(super) no_store: bool,
    /// With a list of fields as well: it is taken for the unlimited form, which RFC 9111, 5.2.2.4 allows.
    pub(super) no_cache: bool,
    pub(super) private: bool,
    /// Or `proxy-revalidate`.
    pub(super) must_revalidate: bool,
    pub(super) only_if_cached: bool,
    pub(super) max_age: Option<Duration>,
    pub(super) s_maxage: Option<Duration>,
    pub(super) min_fresh: Option<Duration>,
    pub(super) stale_while_revalidate: Option<Duration>,
}

impl Directives {
    pub(super) fn read(fields: &HeaderMap) -> Directives {
        let mut directives = Directives::default();
        for value in fields.get_all(CACHE_CONTROL) {
            for directive in split(value.as_bytes()) {
                directives.take(directive);
            }
        }
        directives
    }

    fn take(&mut self, directive: &[u8]) {
        let at = directive.iter().position(|byte| *byte == b'=').unwrap_or(directive.len());
        let (name, argument) = (directive[..at].trim_ascii(), directive.get(at + 1..).unwrap_or_default());
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        let flag = if is("no-store") {
            &mut self.no_store
        } else if is("no-cache") {
            &mut self.no_cache
        } else if is("private") {
            &mut self.private
        } else if is("must-revalidate") || is("proxy-revalidate") {
            &mut self.must_revalidate
        } else if is("only-if-cached") {
            &mut self.only_if_cached
        } else {
            let time = if is("max-age") {
                &mut self.max_age
            } else if is("s-maxage") {
                &mut self.s_maxage
            } else if is("min-fresh") {
                &mut self.min_fresh
            } else if is("stale-while-revalidate") {
                &mut self.stale_while_revalidate
            } else {
                return;
            };
            // What cannot be read is no time at all, and of two the shorter one counts (RFC 9111, 4.2.1).
            let given = seconds(argument).unwrap_or_default();
            *time = Some(time.map_or(given, |before| before.min(given)));
            return;
        };
        *flag = true;
    }
}

/// Digits, perhaps in quotes.
fn seconds(argument: &[u8]) -> Option<Duration> {
    let argument = argument.trim_ascii();
    let quoted = argument.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
    let digits = quoted.unwrap_or(argument);
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let seconds = std::str::from_utf8(digits).ok()?.parse().unwrap_or(MAX_SECONDS);
    Some(Duration::from_secs(seconds.min(MAX_SECONDS)))
}

/// The members of a list, at commas that stand outside of quotes.
pub(super) fn split(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    value
        .split(move |byte| {
            let was_escaped = std::mem::replace(&mut is_escaped, false);
            match byte {
                b'\\' if is_quoted && !was_escaped => is_escaped = true,
                b'"' if !was_escaped => is_quoted = !is_quoted,
                _ => {}
            }
            *byte == b',' && !is_quoted
        })
        .map(<[u8]>::trim_ascii)
        .filter(|member| !member.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(values: &[&str]) -> Directives {
        let mut fields = HeaderMap::new();
        for value in values {
            fields.append(CACHE_CONTROL, value.parse().unwrap());
        }
        Directives::read(&fields)
    }

    #[test]
    fn directives_are_read() {
        let none = Directives::default();
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        let table: [(&[&str], Directives); 17] = [
            (&[], none),
            (&["", " , ,", "immutable, community=\"UCI\""], none),
            (&["no-store"], Directives { no_store: true, ..none }),
            (&["NO-Store ,Private"], Directives { no_store: true, private: true, ..none }),
            (&["no-cache", "max-age=5"], Directives { no_cache: true, max_age: seconds(5), ..none }),
            (&["no-cache=\"a, no-store\""], Directives { no_cache: true, ..none }),
            (&["private=\"x\\\", no-store\""], Directives { private: true, ..none }),
            (&["x=\"no-store\", y=\"a,private\""], none),
            (&["proxy-revalidate"], Directives { must_revalidate: true, ..none }),
            (&["must-revalidate"], Directives { must_revalidate: true, ..none }),
            (&["max-age=\"60\""], Directives { max_age: seconds(60), ..none }),
            (&["max-age=60, max-age=30"], Directives { max_age: seconds(30), ..none }),
            (&["max-age=-1"], Directives { max_age: seconds(0), ..none }),
            (&["max-age"], Directives { max_age: seconds(0), ..none }),
            (&["s-maxage=1.5"], Directives { s_maxage: seconds(0), ..none }),
            (&["max-age=99999999999999999999"], Directives { max_age: seconds(MAX_SECONDS), ..none }),
            (
                &["only-if-cached, min-fresh=3, stale-while-revalidate=4"],
                Directives {
                    only_if_cached: true,
                    min_fresh: seconds(3),
                    stale_while_revalidate: seconds(4),
                    ..none
                },
            ),
        ];
        for (values, wanted) in table {
            assert_eq!(read(values), wanted, "{values:?}");
        }
    }
}

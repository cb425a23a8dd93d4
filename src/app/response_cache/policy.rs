//! Whether a response may be kept, for how long, and what it varies by: RFC 9111, 3 and 4.2, for a shared cache that never
//! validates. Judged once, when the response is made. Not here: what a request wants (ask).

use super::ResponseCacheOptions;
use super::date::Date;
use super::directives::{Directives, split};
use crate::app::cache::Lifetime;
use http::header::{AGE, CONTENT_RANGE, CONTENT_TYPE, DATE, EXPIRES, HeaderName, SET_COOKIE, VARY};
use http::{HeaderMap, HeaderValue, StatusCode};
use std::time::Duration;

/// How many fields a response that is kept can vary by.
const MAX_VARY: usize = 8;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) lifetime: Lifetime,
    /// What it has behind it already: the app may itself have it from a cache.
    pub(super) age: Duration,
}

/// `None`: it is not to be kept.
pub(super) fn judge(
    status: StatusCode,
    fields: &HeaderMap,
    options: &ResponseCacheOptions,
    now: Date,
) -> Option<Verdict> {
    let directives = Directives::read(fields);
    let is_barred = directives.no_store
        || directives.private
        // It would have to be validated at each use.
        || directives.no_cache
        || (fields.contains_key(SET_COOKIE) && !options.set_cookie)
        || fields.contains_key(CONTENT_RANGE)
        || is_endless(fields);
    if is_barred {
        return None;
    }
    let date = single(fields, DATE).and_then(Date::read);
    let said = directives.s_maxage.or(directives.max_age).or_else(|| expiry(fields, date.unwrap_or(now)));
    let apparent = date.map(|date| now.since(date)).unwrap_or_default();
    let age = apparent.max(age(fields));
    let ttl = match (said, status.as_u16()) {
        (Some(said), 200 | 203 | 204 | 300..=303 | 307 | 308 | 404 | 405 | 410 | 414 | 501) => {
            said.saturating_sub(age)
        }
        (None, 200 | 203 | 301 | 308) => options.ttl,
        (Some(_) | None, _) => return None,
    };
    let stale = if directives.must_revalidate {
        Duration::ZERO
    } else {
        // `s-maxage` alone forbids a stale use (RFC 9111, 5.2.2.10).
        let unsaid = if directives.s_maxage.is_some() { Duration::ZERO } else { options.stale };
        directives.stale_while_revalidate.unwrap_or(unsaid)
    };
    (!ttl.is_zero()).then_some(Verdict { lifetime: Lifetime { ttl, stale }, age })
}

/// The fields of the request that `Vary` names, in order; `None` where that is everything, too much or unreadable.
pub(super) fn vary(fields: &HeaderMap) -> Option<Vec<HeaderName>> {
    let mut names = Vec::new();
    for value in fields.get_all(VARY) {
        for name in value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            match name {
                b"" => {}
                b"*" => return None,
                _ => names.push(HeaderName::from_bytes(name).ok()?),
            }
        }
    }
    names.sort_by(|one, other| one.as_str().cmp(other.as_str()));
    names.dedup();
    (names.len() <= MAX_VARY).then_some(names)
}

/// A stream of events has no end that could be waited for.
fn is_endless(fields: &HeaderMap) -> bool {
    let kind = fields.get(CONTENT_TYPE).and_then(|value| value.as_bytes().split(|byte| *byte == b';').next());
    kind.is_some_and(|kind| kind.trim_ascii().eq_ignore_ascii_case(b"text/event-stream"))
}

/// How long it is fresh by `Expires`, which counts as over where it cannot be read, or is there twice.
fn expiry(fields: &HeaderMap, date: Date) -> Option<Duration> {
    fields.get(EXPIRES)?;
    let expires = single(fields, EXPIRES).and_then(Date::read);
    Some(expires.map(|expires| expires.since(date)).unwrap_or_default())
}

/// The field `Age`; one that cannot be read is ignored (RFC 9111, 5.1).
fn age(fields: &HeaderMap) -> Duration {
    let members = fields.get(AGE).map(|value| split(value.as_bytes()).next().unwrap_or_default());
    let seconds = members.and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<u32>().ok());
    Duration::from_secs(seconds.unwrap_or(0).into())
}

fn single(fields: &HeaderMap, name: HeaderName) -> Option<&HeaderValue> {
    let mut values = fields.get_all(name).iter();
    let value = values.next()?;
    values.next().is_none().then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000;

    fn at(offset: i64) -> Date {
        Date::at(NOW.checked_add_signed(offset).unwrap())
    }

    fn map(fields: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            let value = match value.strip_prefix("now") {
                Some(offset) => at(offset.parse().unwrap()).field(),
                None => value.parse().unwrap(),
            };
            map.append(name.parse::<HeaderName>().unwrap(), value);
        }
        map
    }

    /// The time to live, the time stale and the age, in seconds.
    fn verdict(status: u16, fields: &[(&str, &str)]) -> Option<(u64, u64, u64)> {
        let options = ResponseCacheOptions::new(Duration::from_secs(30)).stale(Duration::from_secs(7));
        let status = StatusCode::from_u16(status).unwrap();
        let Verdict { lifetime, age } = judge(status, &map(fields), &options, at(0))?;
        Some((lifetime.ttl.as_secs(), lifetime.stale.as_secs(), age.as_secs()))
    }

    const CONTROL: &str = "cache-control";

    #[test]
    fn what_may_be_kept_and_for_how_long() {
        type Fields<'a> = &'a [(&'a str, &'a str)];
        // (status, fields, time to live, stale, age)
        type Times = Option<(u64, u64, u64)>;
        let table: &[(u16, Fields<'_>, Times)] = &[
            // RFC 9111, 3: storing.
            (200, &[], Some((30, 7, 0))),
            (203, &[], Some((30, 7, 0))),
            (301, &[], Some((30, 7, 0))),
            (404, &[], None),
            (302, &[], None),
            (500, &[], None),
            (404, &[(CONTROL, "max-age=9")], Some((9, 7, 0))),
            (302, &[(CONTROL, "max-age=9")], Some((9, 7, 0))),
            (206, &[(CONTROL, "max-age=9")], None),
            (304, &[(CONTROL, "max-age=9")], None),
            (500, &[(CONTROL, "max-age=9")], None),
            (503, &[(CONTROL, "max-age=9")], None),
            (401, &[(CONTROL, "max-age=9")], None),
            (200, &[("content-range", "bytes 0-1/2"), (CONTROL, "max-age=9")], None),
            (200, &[(CONTROL, "no-store, max-age=9")], None),
            (200, &[(CONTROL, "max-age=9"), (CONTROL, "no-store")], None),
            (200, &[(CONTROL, "private")], None),
            (200, &[(CONTROL, "private=\"x\", max-age=9")], None),
            (200, &[(CONTROL, "no-cache")], None),
            (200, &[(CONTROL, "no-cache=\"set-cookie\"")], None),
            (200, &[("set-cookie", "a=b")], None),
            (200, &[("set-cookie", "a=b"), (CONTROL, "public, max-age=9")], None),
            (200, &[("content-type", "text/event-stream; charset=utf-8")], None),
            (200, &[("content-type", "text/html")], Some((30, 7, 0))),
            // 4.2.1: freshness, the most specific first.
            (200, &[(CONTROL, "s-maxage=5, max-age=9"), ("expires", "now+99")], Some((5, 0, 0))),
            (200, &[(CONTROL, "max-age=9"), ("expires", "now+99")], Some((9, 7, 0))),
            (200, &[("expires", "now+99")], Some((99, 7, 0))),
            (200, &[("expires", "now+99"), ("date", "now-10")], Some((99, 7, 10))),
            (200, &[("expires", "now-1")], None),
            (200, &[("expires", "0")], None),
            (200, &[("expires", "now+9"), ("expires", "now+9")], None),
            (200, &[(CONTROL, "max-age=0")], None),
            (200, &[(CONTROL, "s-maxage=0, max-age=9")], None),
            (200, &[(CONTROL, "max-age=x")], None),
            (200, &[(CONTROL, "max-age=9, max-age=5")], Some((5, 7, 0))),
            (200, &[(CONTROL, "public")], Some((30, 7, 0))),
            // 4.2.3: age.
            (200, &[(CONTROL, "max-age=9"), ("age", "4")], Some((5, 7, 4))),
            (200, &[(CONTROL, "max-age=9"), ("age", "4, 5")], Some((5, 7, 4))),
            (200, &[(CONTROL, "max-age=9"), ("age", "x")], Some((9, 7, 0))),
            (200, &[(CONTROL, "max-age=9"), ("age", "9")], None),
            (200, &[(CONTROL, "max-age=9"), ("date", "now-3")], Some((6, 7, 3))),
            (200, &[(CONTROL, "max-age=9"), ("date", "now-3"), ("age", "4")], Some((5, 7, 4))),
            (200, &[(CONTROL, "max-age=9"), ("date", "now+3")], Some((9, 7, 0))),
            // 4.2.4 and RFC 5861: stale.
            (200, &[(CONTROL, "max-age=9, must-revalidate")], Some((9, 0, 0))),
            (200, &[(CONTROL, "max-age=9, proxy-revalidate, stale-while-revalidate=3")], Some((9, 0, 0))),
            (200, &[(CONTROL, "max-age=9, stale-while-revalidate=3")], Some((9, 3, 0))),
            (200, &[(CONTROL, "s-maxage=9, stale-while-revalidate=3")], Some((9, 3, 0))),
        ];
        for (status, fields, wanted) in table {
            assert_eq!(verdict(*status, fields), *wanted, "{status} {fields:?}");
        }
        let silent = ResponseCacheOptions::new(Duration::ZERO);
        assert_eq!(judge(StatusCode::OK, &map(&[]), &silent, at(0)), None);
        let told = silent.keep_set_cookie();
        let fields = map(&[("set-cookie", "a=b"), (CONTROL, "max-age=9")]);
        assert!(judge(StatusCode::OK, &fields, &told, at(0)).is_some());
    }

    #[test]
    fn vary_names_fields_or_everything() {
        let table: [(&[&str], Option<&[&str]>); 7] = [
            (&[], Some(&[])),
            (&["Accept"], Some(&["accept"])),
            (&["b, a ,,b", "c"], Some(&["a", "b", "c"])),
            (&["*"], None),
            (&["a, *"], None),
            (&["a b"], None),
            (&["a,b,c,d,e,f,g,h,i"], None),
        ];
        for (values, wanted) in table {
            let fields: Vec<_> = values.iter().map(|value| ("vary", *value)).collect();
            let names = vary(&map(&fields));
            let names = names.as_ref().map(|names| names.iter().map(HeaderName::as_str).collect::<Vec<_>>());
            assert_eq!(names.as_deref(), wanted, "{values:?}");
        }
    }
}

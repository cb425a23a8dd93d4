//! Dates in fields, which are the wall clock's (RFC 9110, 5.6.7). Not here: how long something is kept, which no clock that
//! can be set decides.

use http::HeaderValue;
use std::time::{Duration, SystemTime};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Date(SystemTime);

impl Date {
    pub(super) fn now() -> Date {
        Date(SystemTime::now())
    }

    /// `None`: it is no date.
    pub(super) fn read(value: &HeaderValue) -> Option<Date> {
        httpdate::parse_http_date(value.to_str().ok()?).ok().map(Date)
    }

    pub(super) fn field(self) -> HeaderValue {
        let text = httpdate::fmt_http_date(self.0);
        HeaderValue::from_str(&text).expect("a date is printable ASCII")
    }

    /// Zero, where this comes first.
    pub(super) fn since(self, other: Date) -> Duration {
        self.0.duration_since(other.0).unwrap_or_default()
    }

    #[cfg(test)]
    pub(super) fn at(seconds: u64) -> Date {
        Date(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
    }
}

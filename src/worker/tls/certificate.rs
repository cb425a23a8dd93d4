//! From when to when a certificate is valid (RFC 5280, 4.1.2.5), for a warning. Not here: whether it is to be trusted, which
//! is its reader's affair.

use std::time::{SystemTime, UNIX_EPOCH};
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime};

const SEQUENCE: u8 = 0x30;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const VERSION: u8 = 0xa0;

const DATE: &[BorrowedFormatItem<'_>] = format_description!("[year]-[month]-[day]");
const STAMP: &[BorrowedFormatItem<'_>] = format_description!("[year][month][day][hour][minute][second]Z");

/// What is wrong with its dates today, if anything.
pub(super) fn is_out_of_date(der: &[u8]) -> Option<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
    judge(validity(der)?, i64::try_from(now).ok()?)
}

fn judge((from, to): (i64, i64), now: i64) -> Option<String> {
    let date = |seconds| OffsetDateTime::from_unix_timestamp(seconds).ok()?.format(DATE).ok();
    if now > to {
        Some(format!("expired on {}", date(to)?))
    } else if now < from {
        Some(format!("is not valid before {}", date(from)?))
    } else {
        None
    }
}

/// In seconds of Unix time.
fn validity(der: &[u8]) -> Option<(i64, i64)> {
    let (certificate, _) = within(der, SEQUENCE)?;
    let (mut tbs, _) = within(certificate, SEQUENCE)?;
    if tbs.first() == Some(&VERSION) {
        tbs = element(tbs)?.2;
    }
    // Serial number, signature, issuer.
    for _ in 0..3 {
        tbs = element(tbs)?.2;
    }
    let (validity, _) = within(tbs, SEQUENCE)?;
    let (kind, from, rest) = element(validity)?;
    let (other, to, _) = element(rest)?;
    Some((seconds(kind, from)?, seconds(other, to)?))
}

fn seconds(kind: u8, digits: &[u8]) -> Option<i64> {
    let digits = std::str::from_utf8(digits).ok()?;
    let whole = match kind {
        // Two digits of the year: 1950 to 2049.
        UTC_TIME => format!("{}{digits}", if digits.get(..2)? < "50" { "20" } else { "19" }),
        GENERALIZED_TIME => digits.to_owned(),
        _ => return None,
    };
    Some(PrimitiveDateTime::parse(&whole, STAMP).ok()?.assume_utc().unix_timestamp())
}

fn within(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, contents, rest) = element(der)?;
    (found == tag).then_some((contents, rest))
}

/// The first element's tag and contents, and what follows it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, der) = der.split_first()?;
    let (&first, mut der) = der.split_first()?;
    let length = if first < 0x80 {
        usize::from(first)
    } else {
        let (bytes, rest) = der.split_at_checked(usize::from(first & 0x7f))?;
        der = rest;
        if bytes.len() > 4 {
            return None;
        }
        bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte))
    };
    let (contents, rest) = der.split_at_checked(length)?;
    Some((tag, contents, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_says_from_when_to_when_it_is_valid() {
        let mut params = rcgen::CertificateParams::new(["a.example".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2020, 2, 29);
        params.not_after = rcgen::date_time_ymd(2055, 1, 2);
        let made = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        let (from, to) = validity(made.der()).unwrap();
        let day = 24 * 3600;
        assert_eq!((from, to), (1_582_934_400, 2_682_460_800), "both forms of a date");
        assert_eq!(judge((from, to), from), None);
        assert_eq!(judge((from, to), to), None);
        assert_eq!(judge((from, to), to + day).as_deref(), Some("expired on 2055-01-02"));
        assert_eq!(judge((from, to), from - 1).as_deref(), Some("is not valid before 2020-02-29"));
        for cut in 0..made.der().len().min(200) {
            let _ = validity(&made.der()[..cut]);
        }
    }
}

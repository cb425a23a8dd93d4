//! PostgreSQL's `numeric` between its wire format and decimal text, digit by digit: no float in between, nothing lost.
//!
//! The format: how many digits follow, the weight of the first, the sign, how many decimals to show, each 16 bits; then
//! the digits, 16 bits each, of base 10,000. Source: numeric_send in PostgreSQL's src/backend/utils/adt/numeric.c.

use std::fmt::Write;

const POSITIVE: u16 = 0x0000;
const NEGATIVE: u16 = 0x4000;
/// NaN and the two infinities have signs of their own.
const SPECIAL: [u16; 3] = [0xC000, 0xD000, 0xF000];

/// Decimal digits in one digit of the wire.
const GROUP: usize = 4;

/// Encodes `[-]digits[.digits]`, at most a few hundred digits.
pub(super) fn encode(decimal: &str) -> Vec<u8> {
    let (sign, unsigned) = match decimal.strip_prefix('-') {
        Some(rest) => (NEGATIVE, rest),
        None => (POSITIVE, decimal),
    };
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    // Groups are counted from the point, so the whole part is filled up on its left and the fraction on its right.
    let left = whole.len().next_multiple_of(GROUP);
    let right = fraction.len().next_multiple_of(GROUP);
    let padded = format!("{whole:0>left$}{fraction:0<right$}");
    let digits: Vec<u16> = padded.as_bytes().chunks(GROUP).map(group).collect();
    let weight = (left / GROUP) as i16 - 1;

    let mut bytes = Vec::with_capacity(8 + 2 * digits.len());
    for field in [digits.len() as u16, weight as u16, sign, fraction.len() as u16].iter().chain(&digits) {
        bytes.extend_from_slice(&field.to_be_bytes());
    }
    bytes
}

fn group(digits: &[u8]) -> u16 {
    digits.iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'))
}

/// The decimal text; `Some(None)` for NaN and the infinities, `None` for bytes that are no numeric.
pub(super) fn decode(bytes: &[u8]) -> Option<Option<String>> {
    let mut fields = bytes.chunks(2).map(|pair| pair.try_into().ok().map(u16::from_be_bytes));
    let mut field = || fields.next().flatten();
    let (count, weight, sign, decimals) = (field()?, field()? as i16, field()?, field()?);
    if SPECIAL.contains(&sign) {
        return Some(None);
    }
    let digits: Vec<u16> = fields.collect::<Option<_>>()?;
    let sound = digits.len() == usize::from(count) && digits.iter().all(|&digit| digit < 10_000);
    if !sound || ![POSITIVE, NEGATIVE].contains(&sign) {
        return None;
    }
    // A digit before the first or after the last is zero, and is not sent.
    let digit =
        |place: i32| usize::try_from(place).ok().and_then(|place| digits.get(place)).copied().unwrap_or(0);

    let weight = i32::from(weight);
    let mut text = String::from(if sign == NEGATIVE { "-" } else { "" });
    write!(text, "{}", digit(if weight < 0 { -1 } else { 0 })).ok()?;
    for place in 1..=weight {
        write!(text, "{:04}", digit(place)).ok()?;
    }
    if decimals > 0 {
        let groups = usize::from(decimals).div_ceil(GROUP) as i32;
        let mut fraction = String::new();
        for place in weight + 1..=weight + groups {
            write!(fraction, "{:04}", digit(place)).ok()?;
        }
        fraction.truncate(decimals.into());
        text.push('.');
        text.push_str(&fraction);
    }
    Some(Some(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(fields: &[u16]) -> Vec<u8> {
        fields.iter().flat_map(|field| field.to_be_bytes()).collect()
    }

    #[test]
    fn decimals_survive_the_way_out_and_back() {
        let long = format!("{}.{}", "9".repeat(309), "123456789".repeat(30));
        for decimal in ["0", "1", "-1", "10000", "12345678", "0.5", "-0.0001", "1.10", "100000.00001", &long]
        {
            assert_eq!(decode(&encode(decimal)), Some(Some(decimal.into())));
        }
    }

    #[test]
    fn what_the_server_sends_is_read() {
        let minus_one = -1i16 as u16;
        let minus_two = -2i16 as u16;
        let table: &[(&[u16], Option<Option<&str>>)] = &[
            (&[0, 0, POSITIVE, 0], Some(Some("0"))),
            (&[0, 0, POSITIVE, 2], Some(Some("0.00"))),
            (&[1, 1, POSITIVE, 0, 3], Some(Some("30000"))),
            (&[2, 0, NEGATIVE, 2, 12, 3400], Some(Some("-12.34"))),
            (&[1, minus_one, POSITIVE, 4, 5], Some(Some("0.0005"))),
            (&[1, minus_two, POSITIVE, 8, 5], Some(Some("0.00000005"))),
            (&[1, minus_two, POSITIVE, 6, 500], Some(Some("0.000005"))),
            (&[0, 0, 0xC000, 0], Some(None)),
            (&[0, 0, 0xD000, 0], Some(None)),
            (&[1, 0, POSITIVE, 0], None),
            (&[1, 0, POSITIVE, 0, 10_000], None),
            (&[0, 0, 0x1234, 0], None),
            (&[0, 0, POSITIVE], None),
        ];
        for (fields, expected) in table {
            assert_eq!(decode(&wire(fields)), expected.map(|text| text.map(String::from)), "{fields:?}");
        }
        assert_eq!(decode(&[0; 9]), None);
    }
}

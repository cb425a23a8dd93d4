//! The way of most requests: a head that is there at once, good, and followed by no body. It costs half of what the scanner
//! takes. Not here: anything else, which is left to the scanner.

use super::Limits;
use super::head::value_of;

/// How many times eight bytes of a line are looked at in place.
const SHORT: usize = 5;

/// Where such a head ends; `None` does not mean that anything is wrong.
#[inline]
pub(super) fn end(bytes: &[u8], limits: &Limits) -> Option<usize> {
    let (request_line, mut left) = line(bytes)?;
    let is_known = request_line.ends_with(b" HTTP/1.1") || request_line.ends_with(b" HTTP/1.0");
    if !is_known || request_line.len() > limits.line {
        return None;
    }
    let mut room = limits.fields;
    loop {
        let (field, rest) = line(left)?;
        left = rest;
        let Some(first) = field.first() else { break };
        if room == 0 || field.len() > limits.field {
            return None;
        }
        room -= 1;
        // A field about the length of the body?
        match first {
            b'c' | b'C' if value_of(b"content-length", field).is_some() => return None,
            b't' | b'T' if value_of(b"transfer-encoding", field).is_some() => return None,
            _ => {}
        }
    }
    let end = bytes.len() - left.len();
    (end <= limits.head).then_some(end)
}

/// Up to the next line end, and what follows it.
#[inline]
fn line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (line, rest) = bytes.split_at_checked(line_end(bytes)?)?;
    Some((line.strip_suffix(b"\r")?, &rest[1..]))
}

/// Where the next LF is. Most lines are short: their bytes are looked at here, eight at a time; a long line is worth a call.
#[inline]
fn line_end(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::MAX / 255;
    let words = bytes.as_chunks::<8>().0;
    let words = words.first_chunk::<SHORT>().map_or(words, |short| &short[..]);
    for (index, word) in words.iter().enumerate() {
        let other = u64::from_le_bytes(*word) ^ (ONES * b'\n' as u64);
        // The lowest of the top bits that are set is that of the first byte that was an LF.
        let zeros = other.wrapping_sub(ONES) & !other & (ONES << 7);
        if zeros != 0 {
            return Some(index * 8 + zeros.trailing_zeros() as usize / 8);
        }
    }
    let rest = &bytes[words.len() * 8..];
    let found = if words.len() < SHORT {
        rest.iter().position(|byte| *byte == b'\n')
    } else {
        memchr::memchr(b'\n', rest)
    };
    found.map(|index| words.len() * 8 + index)
}

//! Bytes in shared memory, which anybody may have written: kept as words, read as escaped text of bounded length.
//! Not here: what they say.

use std::array;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// At most 8 × `WORDS` bytes, ended by a NUL where there are fewer.
pub(super) struct Text<const WORDS: usize> {
    words: [AtomicU64; WORDS],
}

impl<const WORDS: usize> Default for Text<WORDS> {
    fn default() -> Text<WORDS> {
        Text { words: array::from_fn(|_| AtomicU64::new(0)) }
    }
}

impl<const WORDS: usize> Text<WORDS> {
    const BYTES: usize = 8 * WORDS;

    /// Keeps the beginning of `text`; touches no more words than it fills.
    #[inline]
    pub(super) fn write(&self, text: &str) {
        let mut rest = text.as_bytes();
        for word in &self.words {
            let Some((whole, more)) = rest.split_first_chunk() else {
                return word.store(short(rest), Relaxed);
            };
            word.store(u64::from_ne_bytes(*whole), Relaxed);
            rest = more;
        }
    }

    pub(super) fn copy_from(&self, other: &Text<WORDS>) {
        for (word, from) in self.words.iter().zip(&other.words) {
            word.store(from.load(Relaxed), Relaxed);
        }
    }

    /// What stands here, in printable ASCII without quotes and backslashes of its own; `...` behind what fills its room.
    pub(super) fn read(&self) -> String {
        self.read_but(|byte| matches!(byte, b' '..=b'~'))
    }

    /// What stands here, whatever that is.
    pub(super) fn read_raw(&self) -> String {
        let bytes = self.words.iter().flat_map(|word| word.load(Relaxed).to_ne_bytes());
        let bytes: Vec<u8> = bytes.take_while(|byte| *byte != 0).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Like `read`, and without spaces.
    pub(super) fn read_word(&self) -> String {
        self.read_but(|byte| matches!(byte, b'!'..=b'~'))
    }

    fn read_but(&self, is_plain: impl Fn(u8) -> bool) -> String {
        let bytes = self.words.iter().flat_map(|word| word.load(Relaxed).to_ne_bytes());
        let mut text = String::new();
        let mut count = 0;
        for byte in bytes.take_while(|byte| *byte != 0) {
            count += 1;
            if is_plain(byte) && byte != b'"' && byte != b'\\' {
                text.push(char::from(byte));
            } else {
                let _ = write!(text, "\\x{byte:02x}");
            }
        }
        if count == Self::BYTES {
            text.push_str("...");
        }
        text
    }
}

/// Fewer than eight bytes as a word, behind them zeros. It is for each request, and a copy of a length that only runtime knows is a call:
/// parts of fixed length are put together, which overlap.
#[inline]
fn short(bytes: &[u8]) -> u64 {
    let count = bytes.len();
    let word = match bytes {
        [] => 0,
        [one] => u64::from(*one),
        [one, .., last] if count < 4 => {
            u64::from(*one)
                | u64::from(bytes[count / 2]) << (8 * (count / 2))
                | u64::from(*last) << (8 * (count - 1))
        }
        _ => match (bytes.first_chunk(), bytes.last_chunk()) {
            (Some(first), Some(last)) => {
                u64::from(u32::from_le_bytes(*first))
                    | u64::from(u32::from_le_bytes(*last)) << (8 * (count - 4))
            }
            (None, _) | (_, None) => 0,
        },
    };
    word.to_le()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_longer_text_is_cut() {
        let text = Text::<2>::default();
        for (written, read) in [
            ("/a/longer/path", "/a/longer/path"),
            ("/exactly", "/exactly"),
            ("/", "/"),
            ("", ""),
            ("/fifteen/bytes/", "/fifteen/bytes/"),
            ("/sixteen/bytes/x", "/sixteen/bytes/x..."),
            ("/more/than/sixteen", "/more/than/sixte..."),
        ] {
            text.write(written);
            assert_eq!(text.read(), read);
        }
    }

    #[test]
    fn text_of_every_length_is_kept() {
        let text = Text::<2>::default();
        for length in (0..16).chain([3, 0]) {
            let written = &"abcdefghijklmnop"[..length];
            text.write(written);
            assert_eq!(text.read(), written);
        }
    }

    #[test]
    fn hostile_bytes_stay_within_their_quotes_and_their_line() {
        let text = Text::<1>::default();
        for (bytes, read, word) in [
            (*b"a\"b\\c\nd\0", "a\\x22b\\x5cc\\x0ad", "a\\x22b\\x5cc\\x0ad"),
            (*b"a b=\x1b[1m", "a b=\\x1b[1m...", "a\\x20b=\\x1b[1m..."),
            (
                [0xff; 8],
                "\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff...",
                "\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff...",
            ),
            (*b"a\0hidden", "a", "a"),
        ] {
            text.words[0].store(u64::from_ne_bytes(bytes), Relaxed);
            assert_eq!((text.read().as_str(), text.read_word().as_str()), (read, word));
        }
    }
}

//! What a program says on its standard error, as lines of the error log. Not here: what it answers.

use std::io::Read;
use std::time::{Duration, Instant};

/// A longer line is logged in pieces of this many bytes.
const MAX_LINE: usize = 2048;

/// How many lines of one child are logged within `WINDOW`; of those beyond only the number is told.
const MAX_LINES: u32 = 500;
const WINDOW: Duration = Duration::from_secs(10);

/// Logs until the other end is closed.
pub(super) fn log(who: &str, mut from: impl Read) {
    let (mut lines, mut limit) = (Lines::default(), Limit::new(Instant::now()));
    let mut piece = [0; MAX_LINE];
    let mut say = |line: &[u8]| {
        let dropped = limit.pass(Instant::now());
        if let Some(dropped @ 1..) = dropped {
            log::warn!("program lines were dropped {who} count={dropped}");
        }
        if dropped.is_some() {
            log::info!("program said {who} line={:?}", String::from_utf8_lossy(line));
        }
    };
    loop {
        match from.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => lines.take(&piece[..count], &mut say),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    lines.finish(&mut say);
    if limit.dropped > 0 {
        log::warn!("program lines were dropped {who} count={}", limit.dropped);
    }
}

/// Cuts bytes into lines.
#[derive(Default)]
struct Lines {
    begun: Vec<u8>,
}

impl Lines {
    fn take(&mut self, bytes: &[u8], say: &mut impl FnMut(&[u8])) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, is_whole) = piece.strip_suffix(b"\n").map_or((piece, false), |text| (text, true));
            let mut text = text;
            while self.begun.len() + text.len() > MAX_LINE {
                let (fits, rest) = text.split_at(MAX_LINE - self.begun.len());
                self.begun.extend_from_slice(fits);
                say(&std::mem::take(&mut self.begun));
                text = rest;
            }
            self.begun.extend_from_slice(text);
            if is_whole {
                say(&std::mem::take(&mut self.begun));
            }
        }
    }

    fn finish(&mut self, say: &mut impl FnMut(&[u8])) {
        if !self.begun.is_empty() {
            say(&std::mem::take(&mut self.begun));
        }
    }
}

struct Limit {
    since: Instant,
    passed: u32,
    dropped: u32,
}

impl Limit {
    fn new(now: Instant) -> Limit {
        Limit { since: now, passed: 0, dropped: 0 }
    }

    /// Whether one more may pass, and how many were dropped before it.
    fn pass(&mut self, now: Instant) -> Option<u32> {
        if now - self.since >= WINDOW {
            (self.since, self.passed) = (now, 0);
        }
        if self.passed == MAX_LINES {
            self.dropped = self.dropped.saturating_add(1);
            return None;
        }
        self.passed += 1;
        Some(std::mem::take(&mut self.dropped))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_become_lines_of_a_bounded_length() {
        let long = "x".repeat(MAX_LINE + 5);
        let rows: [(&[&str], &[&str]); 5] = [
            (&["one\ntwo\n"], &["one", "two"]),
            (&["o", "ne\nt", "wo"], &["one", "two"]),
            (&["\n\n"], &["", ""]),
            (&[&long, "\n"], &[&long[5..], "xxxxx"]),
            (&[], &[]),
        ];
        for (pieces, wanted) in rows {
            let (mut lines, mut said) = (Lines::default(), Vec::new());
            let mut say = |line: &[u8]| said.push(String::from_utf8_lossy(line).into_owned());
            pieces.iter().for_each(|piece| lines.take(piece.as_bytes(), &mut say));
            lines.finish(&mut say);
            assert_eq!(said, wanted);
        }
    }

    #[test]
    fn a_flood_is_cut_and_counted() {
        let start = Instant::now();
        let mut limit = Limit::new(start);
        let passed = (0..MAX_LINES + 7).filter(|_| limit.pass(start).is_some()).count();
        assert_eq!(passed, MAX_LINES as usize);
        assert_eq!(limit.pass(start + WINDOW), Some(7));
        assert_eq!(limit.pass(start + WINDOW), Some(0));
    }
}

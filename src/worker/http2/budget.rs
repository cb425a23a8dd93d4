//! How many frames a client may send that ask for work and bring none: pings, settings, resets and the like. Each costs, and
//! time and answers that the client takes bring in what may be spent. Not here: what hyper and h2 limit by themselves, which is
//! streams, the size and the pieces of a head, and small pieces of a body.

use super::frames::{Frame, Kind};

/// What a client begins with, and the most that it can have: 1,000 pings or 200 resets at once.
const MOST: u64 = 1000;
/// What each second brings in.
const PER_SECOND: u64 = 50;
/// What an answer's head brings in: more than a reset costs, so that who takes half of what he asked for may cancel the rest.
const PER_ANSWER: u64 = 8;
/// A frame of an answer's body brings in one for so many bytes, and so much at the most: for the two updates of windows by
/// which most clients answer it, but nothing to who opens his window by a few bytes at a time.
const BYTES_PER_UPDATE: u64 = 64;
const PER_DATA: u64 = 4;

#[derive(Debug)]
pub(super) struct Budget {
    left: u64,
    /// Up to when time was counted, in milliseconds.
    counted_to: u64,
}

/// The client has spent more than it had.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Overspent;

impl Budget {
    pub(super) fn new(now: u64) -> Budget {
        Budget { left: MOST, counted_to: now }
    }

    pub(super) fn count_time(&mut self, now: u64) {
        let seconds = now.saturating_sub(self.counted_to) / 1000;
        if seconds > 0 {
            self.counted_to += seconds * 1000;
            self.earn(seconds.saturating_mul(PER_SECOND));
        }
    }

    /// # Errors
    /// There is not so much left.
    pub(super) fn spend(&mut self, frame: &Frame) -> Result<(), Overspent> {
        self.left = self.left.checked_sub(cost(frame)).ok_or(Overspent)?;
        Ok(())
    }

    /// The client took this.
    pub(super) fn earn_by(&mut self, frame: &Frame) {
        match frame.kind {
            Kind::Headers => self.earn(PER_ANSWER),
            Kind::Data => self.earn(PER_DATA.min(u64::from(frame.length) / BYTES_PER_UPDATE)),
            Kind::Priority
            | Kind::Reset
            | Kind::Settings
            | Kind::PushPromise
            | Kind::Ping
            | Kind::GoAway
            | Kind::WindowUpdate
            | Kind::Continuation
            | Kind::Unknown => {}
        }
    }

    fn earn(&mut self, amount: u64) {
        self.left = self.left.saturating_add(amount).min(MOST);
    }
}

fn cost(frame: &Frame) -> u64 {
    match frame.kind {
        // h2 has all streams look at their windows anew.
        Kind::Settings if !frame.is_ack() => 20,
        Kind::GoAway | Kind::PushPromise => 20,
        // What was begun is thrown away.
        Kind::Reset => 5,
        Kind::Continuation => 5,
        Kind::Ping | Kind::Settings | Kind::Priority | Kind::WindowUpdate | Kind::Unknown => 1,
        Kind::Data if frame.length == 0 && !frame.ends_stream() => 1,
        Kind::Data | Kind::Headers => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PING: u8 = 6;
    const RESET: u8 = 3;
    const SETTINGS: u8 = 4;
    const WINDOW_UPDATE: u8 = 8;
    const DATA: u8 = 0;
    const HEADERS: u8 = 1;

    fn frame(kind: u8, length: u8) -> Frame {
        Frame::read(&[0, 0, length, kind, 0, 0, 0, 0, 1])
    }

    /// How many rounds of this a client is let send, at most a million.
    fn rounds(sent: &[u8], taken: &[Frame]) -> usize {
        let mut budget = Budget::new(0);
        (0..1_000_000)
            .take_while(|_| {
                let is_spent = sent.iter().all(|kind| budget.spend(&frame(*kind, 8)).is_ok());
                taken.iter().for_each(|frame| budget.earn_by(frame));
                is_spent
            })
            .count()
    }

    #[test]
    fn a_flood_is_spent_soon_and_work_is_not() {
        assert_eq!(rounds(&[PING], &[]), 1000);
        assert_eq!(rounds(&[RESET], &[]), 200);
        assert_eq!(rounds(&[SETTINGS], &[]), 50);
        assert_eq!(rounds(&[HEADERS, RESET], &[]), 200, "rapid reset");
        assert_eq!(rounds(&[WINDOW_UPDATE], &[frame(DATA, 1)]), 1000, "byte by byte");
        let unlimited = 1_000_000;
        assert_eq!(rounds(&[HEADERS, HEADERS, RESET], &[frame(HEADERS, 9)]), unlimited, "half are cancelled");
        assert_eq!(rounds(&[WINDOW_UPDATE, WINDOW_UPDATE], &[frame(DATA, 200)]), unlimited, "a download");
    }

    #[test]
    fn time_brings_it_back_but_no_more_than_there_was() {
        let mut budget = Budget::new(5_000);
        let mut pings = |now| {
            budget.count_time(now);
            (0..).take_while(|_| budget.spend(&frame(PING, 8)).is_ok()).count()
        };
        assert_eq!(pings(5_000), 1000);
        assert_eq!(pings(5_999), 0);
        assert_eq!(pings(6_000), 50);
        assert_eq!(pings(8_500), 100);
        assert_eq!(pings(9_000), 50);
        assert_eq!(pings(4_000), 0);
        assert_eq!(pings(1_000_000), 1000);
    }
}

//! How long a program that died stays down. Not here: the waiting.

use std::time::Duration;

/// One that lived for so long is started again at once.
const STEADY: Duration = Duration::from_secs(10);
const FIRST: Duration = Duration::from_millis(100);
/// The longest delay after a life with an answer.
const MAX_ANSWERED: Duration = Duration::from_millis(500);
const MAX: Duration = Duration::from_secs(30);

/// The last delay; zero where all is well.
#[derive(Debug, Default)]
pub(super) struct BackOff(Duration);

impl BackOff {
    /// The delay before the next start, after a life that lasted `age`.
    pub(super) fn after(&mut self, age: Duration, has_answered: bool) -> Duration {
        let max = if has_answered { MAX_ANSWERED } else { MAX };
        self.0 = if age >= STEADY { Duration::ZERO } else { (self.0 * 2).clamp(FIRST, max) };
        self.0
    }

    /// Whether calls should rather be refused than wait for so long.
    pub(super) fn is_long(delay: Duration) -> bool {
        delay > MAX_ANSWERED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_and_a_long_life_forgives() {
        let (short, long) = (Duration::from_millis(1), STEADY);
        let mut back_off = BackOff::default();
        let mut delays = |age, answered, count| -> Vec<u128> {
            (0..count).map(|_| back_off.after(age, answered).as_millis()).collect()
        };
        assert_eq!(delays(short, false, 4), [100, 200, 400, 800]);
        assert_eq!(delays(short, true, 2), [500, 500]);
        assert_eq!(delays(long, false, 2), [0, 0]);
        assert_eq!(delays(short, true, 4), [100, 200, 400, 500]);
        assert_eq!(delays(short, false, 8)[5..], [30_000, 30_000, 30_000]);
        assert!(
            BackOff::is_long(Duration::from_millis(800)) && !BackOff::is_long(Duration::from_millis(400))
        );
    }
}

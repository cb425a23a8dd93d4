//! When requests begin and end, with one reading of the clock for each and not two: a request begins, to a few
//! microseconds, when the event loop woke or when the request before it ended. What it waited for its turn is counted in.
//! Not here: timeouts, for which the sweep's coarse time is enough.

#[cfg(feature = "guards")]
use crate::scoreboard::blindfold;
use crate::scoreboard::now_micros;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A worker's. The event loop alone uses it, so it is in no thread-local.
#[derive(Default)]
pub(super) struct Clock {
    /// The last reading since the event loop woke, in `now_micros`; 0: there is none.
    last: AtomicU64,
}

impl Clock {
    /// The event loop slept: what was read before is old.
    pub(super) fn woke(&self) {
        self.last.store(0, Relaxed);
    }

    /// When the request that is here now began.
    #[inline]
    pub(super) fn begin(&self) -> u64 {
        #[cfg(feature = "guards")]
        if blindfold::is_on() {
            return 0;
        }
        match self.last.load(Relaxed) {
            0 => self.read(),
            last => last,
        }
    }

    #[inline]
    pub(super) fn end(&self) -> u64 {
        #[cfg(feature = "guards")]
        if blindfold::is_on() {
            return 0;
        }
        self.read()
    }

    #[inline]
    fn read(&self) -> u64 {
        let now = now_micros();
        self.last.store(now, Relaxed);
        now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_begins_where_the_last_one_ended_unless_the_loop_slept() {
        let clock = Clock::default();
        let first = clock.begin();
        assert_eq!(clock.begin(), first);
        let ended = clock.end();
        assert_eq!((clock.begin(), ended >= first), (ended, true));
        clock.woke();
        while now_micros() == ended {}
        assert!(clock.begin() > ended);
    }
}

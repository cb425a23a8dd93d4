//! When requests begin and end, with one reading of the clock for each and not two: a request begins, to a few
//! microseconds, when the event loop woke or when the request before it ended. What it waited for its turn is counted in.
//! Not here: timeouts, for which the sweep's coarse time is enough.

use crate::scoreboard::now_micros;
use std::cell::Cell;

thread_local! {
    /// The last reading since the event loop woke, in `now_micros`; 0: there is none.
    static LAST: Cell<u64> = const { Cell::new(0) };
}

/// The event loop slept: what was read before is old.
pub(super) fn woke() {
    LAST.set(0);
}

/// When the request that is here now began.
pub(super) fn begin() -> u64 {
    match LAST.get() {
        0 => read(),
        last => last,
    }
}

pub(super) fn end() -> u64 {
    read()
}

fn read() -> u64 {
    let now = now_micros();
    LAST.set(now);
    now
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_begins_where_the_last_one_ended_unless_the_loop_slept() {
        let first = begin();
        assert_eq!(begin(), first);
        let ended = end();
        assert_eq!((begin(), ended >= first), (ended, true));
        woke();
        while now_micros() == ended {}
        assert!(begin() > ended);
    }
}

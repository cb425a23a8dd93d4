//! For benches/guard alone: requests go unseen, so that what it costs to see them is the difference. Not here: the count.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

static IS_ON: AtomicBool = AtomicBool::new(false);

/// From now on no request of this process, or of its children, is noted on the board or timed.
pub(crate) fn put_on() {
    IS_ON.store(true, Relaxed);
}

#[inline(always)]
pub(crate) fn is_on() -> bool {
    IS_ON.load(Relaxed)
}

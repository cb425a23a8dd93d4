//! The arbiter with a full house, for benches/guard to count what a decision takes. Not here: any decision.

use super::{Arbiter, Event, Policy};
use std::time::{Duration, Instant};

/// One turn of the master's loop where nothing happens: everybody has beaten, somebody looks. `workers` serve.
pub(crate) fn calm(workers: u32) -> impl FnMut() {
    let minute = Duration::from_secs(60);
    let policy = Policy {
        workers,
        timeout: minute,
        graceful_timeout: minute,
        boot_timeout: minute,
        lame_duck: Duration::ZERO,
        upgrade_is_manual: false,
    };
    let mut now = Instant::now();
    let mut arbiter = Arbiter::new(policy, workers, 2 * workers, false, now);
    assert!(!arbiter.decide(now).is_empty(), "it has workers started");
    for slot in 0..workers {
        arbiter.observe(Event::Ready(slot), now);
    }
    while !arbiter.decide(now).is_empty() {}
    assert_eq!(arbiter.fresh(), workers);
    move || {
        now += Duration::from_millis(1);
        for slot in 0..workers {
            arbiter.observe(Event::Beat(slot), now);
        }
        assert!(arbiter.decide(now).is_empty() && arbiter.next_deadline().is_some());
    }
}

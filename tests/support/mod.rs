//! What the system tests stand on: the real program started and watched, a strict HTTP client, a client that
//! accounts for every request, and what /proc tells. Not here: any claim about the server.

pub mod cgroup;
#[allow(dead_code, reason = "the soak asks for nothing")]
pub mod ctl;
pub mod dice;
#[allow(dead_code, reason = "the soak has none")]
pub mod front;
pub mod http;
#[allow(dead_code, reason = "the soak speaks HTTP/1")]
pub mod http2;
pub mod load;
#[allow(dead_code, reason = "the soak has none")]
pub mod pgbouncer;
pub mod ports;
pub mod postgres;
pub mod proc;
pub mod program;
#[allow(dead_code, reason = "the soak has none")]
pub mod proxy;
#[allow(dead_code, reason = "the soak reads none of it")]
pub mod repository;
pub mod said;
pub mod server;
pub mod spread;
#[allow(dead_code, reason = "the soak uses little of it")]
pub mod tls;

pub use dice::Dice;
pub use http::{Connection, Failure, Response, Target};
pub use load::Load;
pub use program::{Outcome, Program};
pub use said::Said;
pub use server::Server;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long a test waits for what should come at once. Only a failing test ever waits that long.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Several tests share two cores: a promise of a second is held to this many.
const SLACK: u32 = 3;

const POLL_EVERY: Duration = Duration::from_millis(5);

/// The time that a test grants where the server promises `promise`.
pub fn busy(promise: Duration) -> Duration {
    promise * SLACK
}

pub fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

pub fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// Polls until `condition` holds and returns how long that took; panics at the deadline, naming `what`.
#[track_caller]
pub fn eventually(deadline: Duration, what: &str, mut condition: impl FnMut() -> bool) -> Duration {
    let begin = Instant::now();
    loop {
        if condition() {
            return begin.elapsed();
        }
        assert!(begin.elapsed() < deadline, "not within {deadline:?}: {what}");
        thread::sleep(POLL_EVERY);
    }
}

/// Watches for `period` that `condition` never breaks: for promises that something does not happen.
#[track_caller]
pub fn holds_for(period: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while begin.elapsed() < period {
        assert!(condition(), "broken after {:?}: {what}", begin.elapsed());
        thread::sleep(POLL_EVERY);
    }
}

/// Held by a test that loads both cores or measures time, so that two of them do not disturb each other.
pub fn alone() -> MutexGuard<'static, ()> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    // Another test's failure says nothing about this one.
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

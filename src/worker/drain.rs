//! A worker that drains lets its connections go one after the other. Their clients open new ones elsewhere: all of them at once
//! would keep everybody else waiting. Not here: when idle ones are closed (the sweep).

use super::{Floor, IDLE_LINGER};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// So many are no burst.
const AT_ONCE: u32 = 8;
/// Then, from one connection to the next, where there are not too many for that.
const STEP: Duration = Duration::from_millis(2);

/// Has all that are open end behind their next answer, each in its turn.
pub(super) async fn dismiss_all(floor: &Arc<Floor>) {
    let mut open = Vec::new();
    // Whoever held one would hold its socket open.
    floor.connections.each(|watched| open.push(Arc::downgrade(watched)));
    let step = step(open.len(), floor.settings.graceful_timeout);
    let began = Instant::now();
    for (at, watched) in (0_u32..).zip(open) {
        if at >= AT_ONCE {
            sleep_until(began + step * (at - AT_ONCE + 1)).await;
        }
        if let Some(watched) = Weak::upgrade(&watched) {
            watched.dismiss();
        }
    }
}

/// All have their turn within the time that idle ones are kept for anyhow, and within half of what the drain may take.
fn step(count: usize, graceful_timeout: Duration) -> Duration {
    let count = u32::try_from(count.max(1)).unwrap_or(u32::MAX);
    STEP.min(IDLE_LINGER.min(graceful_timeout / 2) / count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_connections_take_no_longer_than_idle_ones_are_kept() {
        let (half_a_minute, fifth) = (Duration::from_secs(30), Duration::from_millis(200));
        for (count, graceful_timeout, wanted) in [
            (0, half_a_minute, STEP),
            (1, half_a_minute, STEP),
            (500, half_a_minute, STEP),
            (1000, half_a_minute, Duration::from_millis(1)),
            (100_000, half_a_minute, Duration::from_micros(10)),
            (50, fifth, STEP),
            (100, fifth, Duration::from_millis(1)),
            (100, Duration::ZERO, Duration::ZERO),
        ] {
            assert_eq!(step(count, graceful_timeout), wanted, "{count} connections, {graceful_timeout:?}");
        }
    }
}

//! What a worker has done so far: answers, how long they took, bytes, connections. Not here: caches, sums over workers.

use std::iter;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// The upper bounds of the buckets in which answers are counted by the time they took, in microseconds. Behind them is one
/// more, without a bound.
const LATENCY_BOUNDS: [u64; 14] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000,
];

/// Counters that only grow. The worker's event loop alone writes them, so an addition need not be one atomic step.
#[derive(Default)]
#[repr(C, align(64))]
pub(crate) struct Tally {
    /// By the status's first digit; at 0, requests whose client left before there was an answer.
    answers: [AtomicU64; 6],
    body_bytes: AtomicU64,
    latency_micros: AtomicU64,
    latencies: [AtomicU64; LATENCY_BOUNDS.len() + 1],
    accepted: AtomicU64,
    accept_errors: AtomicU64,
    proxy_refusals: AtomicU64,
    handshake_failures: AtomicU64,
    /// Of clients that had too many.
    connections_refused: AtomicU64,
    floods: AtomicU64,
    /// Clients that were cut off, in the order of `Slow`.
    cut: [AtomicU64; 3],
}

/// What a client that was cut off was too slow with.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Slow {
    Head,
    Body,
    /// Taking its answer.
    Answer,
}

/// How long something took, each time; any thread may add to it.
#[derive(Default)]
#[repr(C, align(64))]
pub(crate) struct Waits {
    micros: AtomicU64,
    times: [AtomicU64; LATENCY_BOUNDS.len() + 1],
}

/// What became of blocking calls before a thread took them; any thread may add to it.
#[derive(Default)]
#[repr(C, align(64))]
pub(crate) struct Shed {
    /// How long those waited that one took, but for those that wanted a database connection.
    pub(crate) waits: Waits,
    /// `blocking_queue` calls waited already.
    pub(crate) queue_full: AtomicU64,
    /// The call had waited for `max_wait`.
    pub(crate) waited: AtomicU64,
}

impl Shed {
    pub(super) fn counters(&self) -> impl Iterator<Item = &AtomicU64> {
        self.waits.counters().chain([&self.queue_full, &self.waited])
    }
}

impl Waits {
    pub(crate) fn record(&self, time: Duration) {
        let micros = time.as_micros() as u64;
        let within = LATENCY_BOUNDS.iter().position(|bound| micros <= *bound);
        self.micros.fetch_add(micros, Relaxed);
        self.times[within.unwrap_or(LATENCY_BOUNDS.len())].fetch_add(1, Relaxed);
    }

    pub(super) fn counters(&self) -> impl Iterator<Item = &AtomicU64> {
        self.times.iter().chain([&self.micros])
    }

    /// As `Tally::latencies`.
    pub(crate) fn read(&self) -> (Vec<(Option<u64>, u64)>, Duration) {
        (add_up(&LATENCY_BOUNDS, &self.times), Duration::from_micros(self.micros.load(Relaxed)))
    }
}

impl Tally {
    /// A request is over: `class` is the first digit of its status, 0 where there was none; it took so many microseconds.
    #[inline]
    pub(crate) fn answered(&self, class: u8, micros: u64, body_bytes: u64) {
        #[cfg(feature = "guards")]
        if super::blindfold::is_on() {
            return;
        }
        let within = LATENCY_BOUNDS.iter().position(|bound| micros <= *bound);
        // Bytes and times first: who reads an answer's count finds them.
        add(&self.body_bytes, body_bytes);
        add(&self.latency_micros, micros);
        add(&self.latencies[within.unwrap_or(LATENCY_BOUNDS.len())], 1);
        add(self.answers.get(usize::from(class)).unwrap_or(&self.answers[0]), 1);
    }

    pub(crate) fn accepted(&self) {
        add(&self.accepted, 1);
    }

    pub(crate) fn accept_failed(&self) {
        add(&self.accept_errors, 1);
    }

    /// A connection was closed for its PROXY protocol header.
    pub(crate) fn proxy_refused(&self) {
        add(&self.proxy_refusals, 1);
    }

    /// An HTTP/2 connection was ended for what its client sent too much of.
    pub(crate) fn flooded(&self) {
        add(&self.floods, 1);
    }

    pub(crate) fn handshake_failed(&self) {
        add(&self.handshake_failures, 1);
    }

    /// A client has too many connections.
    pub(crate) fn connection_refused(&self) {
        add(&self.connections_refused, 1);
    }

    pub(crate) fn cut(&self, slow: Slow) {
        add(&self.cut[slow as usize], 1);
    }

    pub(super) fn counters(&self) -> impl Iterator<Item = &AtomicU64> {
        let Tally {
            answers,
            body_bytes,
            latency_micros,
            latencies,
            accepted,
            accept_errors,
            proxy_refusals,
            handshake_failures,
            connections_refused,
            floods,
            cut,
        } = self;
        let single =
            [body_bytes, latency_micros, accepted, accept_errors, proxy_refusals, handshake_failures, floods];
        answers.iter().chain(latencies).chain(cut).chain(single).chain([connections_refused])
    }

    /// Requests that are over.
    pub(crate) fn requests(&self) -> u64 {
        self.answers().iter().fold(0, |sum, count| sum.wrapping_add(*count))
    }

    /// By the status's first digit; at 0, those without an answer.
    pub(crate) fn answers(&self) -> [u64; 6] {
        self.answers.each_ref().map(|count| count.load(Relaxed))
    }

    /// Each bound with how many answers took no longer, the last one without a bound; and the sum of all times.
    pub(crate) fn latencies(&self) -> (Vec<(Option<u64>, u64)>, Duration) {
        (add_up(&LATENCY_BOUNDS, &self.latencies), Duration::from_micros(self.latency_micros.load(Relaxed)))
    }

    pub(crate) fn body_bytes(&self) -> u64 {
        self.body_bytes.load(Relaxed)
    }

    pub(crate) fn accepts(&self) -> u64 {
        self.accepted.load(Relaxed)
    }

    pub(crate) fn proxy_refusals(&self) -> u64 {
        self.proxy_refusals.load(Relaxed)
    }

    pub(crate) fn accept_errors(&self) -> u64 {
        self.accept_errors.load(Relaxed)
    }

    pub(crate) fn connections_refused(&self) -> u64 {
        self.connections_refused.load(Relaxed)
    }

    /// With a head, with a body, and with an answer.
    pub(crate) fn cuts(&self) -> [u64; 3] {
        self.cut.each_ref().map(|count| count.load(Relaxed))
    }

    pub(crate) fn floods(&self) -> u64 {
        self.floods.load(Relaxed)
    }

    pub(crate) fn handshake_failures(&self) -> u64 {
        self.handshake_failures.load(Relaxed)
    }
}

/// Each bound with how many were no larger, the last one without a bound, of counts that are each of one bucket.
pub(super) fn add_up<T: Copy>(bounds: &[T], counts: &[AtomicU64]) -> Vec<(Option<T>, u64)> {
    let bounds = bounds.iter().copied().map(Some).chain(iter::once(None));
    let counts = counts.iter().scan(0_u64, |sum, count| {
        *sum = sum.wrapping_add(count.load(Relaxed));
        Some(*sum)
    });
    bounds.zip(counts).collect()
}

#[inline]
fn add(counter: &AtomicU64, count: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(count), Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_counted_in_the_bucket_of_its_time_and_in_all_above() {
        let tally = Tally::default();
        for micros in [0, 500, 501, 10_000_000, 10_000_001] {
            tally.answered(2, micros, 0);
        }
        let (buckets, sum) = tally.latencies();
        let count = |bound| buckets.iter().find(|(upper, _)| *upper == bound).unwrap().1;
        assert_eq!([Some(500), Some(1_000), Some(10_000_000), None].map(count), [2, 3, 4, 5]);
        assert_eq!(sum, Duration::from_micros(20_001_002));
    }

    #[test]
    fn answers_are_counted_by_class_and_nonsense_counts_as_none() {
        let tally = Tally::default();
        for class in [2, 2, 4, 0, 9] {
            tally.answered(class, 0, 10);
        }
        assert_eq!((tally.answers(), tally.requests(), tally.body_bytes()), ([2, 0, 2, 0, 1, 0], 5, 50));
    }
}

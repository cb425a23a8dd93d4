//! The requests under way in a worker, on its seat: a fixed number of records, of which the master reads what a worker
//! that died left behind. Method, path and phase are all that enters one; query, fields and body never do.
//! Not here: what is concluded from them.

use super::text::Text;
use std::cell::Cell;
use std::fmt;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// How many requests of a worker are told apart; more are only counted.
pub(super) const RECORDS: usize = 32;
/// A path is cut to this many words of eight bytes.
const PATH_WORDS: usize = 12;
/// In a `Place`: the request has no record.
const UNRECORDED: u8 = u8::MAX;
const FREE: u64 = 0;
const PHASE_BITS: u32 = 8;

/// What a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum RequestPhase {
    /// The app is at work on it, on the event loop or on a handler thread.
    Handler = 1,
    /// The app waits for more of the body.
    Reading = 2,
    /// It waits for a handler thread or for a database connection.
    Queued = 3,
    /// It has a database connection.
    Database = 4,
    /// The answer has begun, and is not written out yet.
    Writing = 5,
}

impl RequestPhase {
    /// `None` where nothing is under way; something else than a phase is taken for the least that it can mean.
    fn of(state: u64) -> Option<RequestPhase> {
        Some(match state as u8 {
            0 => return None,
            2 => RequestPhase::Reading,
            3 => RequestPhase::Queued,
            4 => RequestPhase::Database,
            5 => RequestPhase::Writing,
            1 | 6.. => RequestPhase::Handler,
        })
    }
}

impl fmt::Display for RequestPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RequestPhase::Handler => "handler",
            RequestPhase::Reading => "reading",
            RequestPhase::Queued => "queued",
            RequestPhase::Database => "database",
            RequestPhase::Writing => "writing",
        })
    }
}

/// One request's record.
#[derive(Default)]
#[repr(C, align(64))]
pub(super) struct Record {
    /// The request's number within this record, and below it eight bits of phase.
    state: AtomicU64,
    /// On the clock of `now_millis`.
    began: AtomicU64,
    method: Text<2>,
    path: Text<PATH_WORDS>,
}

/// A request as its record tells it, escaped and bounded: a worker may have written anything.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SeenRequest {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) phase: RequestPhase,
    pub(crate) age: Duration,
}

impl Record {
    pub(super) fn clear(&self) {
        self.state.store(FREE, Relaxed);
    }

    #[inline]
    fn serial(&self) -> u64 {
        self.state.load(Relaxed) >> PHASE_BITS
    }

    pub(super) fn copy_from(&self, other: &Record) {
        self.state.store(other.state.load(Relaxed), Relaxed);
        self.began.store(other.began.load(Relaxed), Relaxed);
        self.method.copy_from(&other.method);
        self.path.copy_from(&other.path);
    }

    pub(super) fn see(&self, now: u64) -> Option<SeenRequest> {
        let phase = RequestPhase::of(self.state.load(Relaxed))?;
        Some(SeenRequest {
            method: self.method.read_word(),
            path: self.path.read(),
            phase,
            age: Duration::from_millis(now.saturating_sub(self.began.load(Relaxed))),
        })
    }
}

/// All of a worker's requests under way.
#[derive(Default)]
#[repr(C)]
pub(crate) struct Requests {
    /// A bit for each record in use; only the worker looks at it.
    taken: AtomicU32,
    unrecorded: AtomicU32,
    pub(super) records: [Record; RECORDS],
}

impl Requests {
    pub(super) fn clear(&self) {
        self.taken.store(0, Relaxed);
        self.unrecorded.store(0, Relaxed);
        self.records.iter().for_each(Record::clear);
    }

    /// Those with a record.
    pub(crate) fn see(&self, now: u64) -> impl Iterator<Item = SeenRequest> {
        self.records.iter().filter_map(move |record| record.see(now))
    }

    /// How many are under way, those without a record included.
    pub(crate) fn count(&self) -> u32 {
        let under_way = |record: &&Record| RequestPhase::of(record.state.load(Relaxed)).is_some();
        let recorded = self.records.iter().filter(under_way).count();
        self.unrecorded.load(Relaxed).saturating_add(recorded as u32)
    }

    // The worker's event loop alone takes and gives back, so nothing here need be one atomic step.

    #[inline]
    fn take(&self) -> u8 {
        let taken = self.taken.load(Relaxed);
        let free = taken.trailing_ones();
        if free as usize >= RECORDS {
            self.unrecorded.store(self.unrecorded.load(Relaxed).saturating_add(1), Relaxed);
            return UNRECORDED;
        }
        self.taken.store(taken | 1 << free, Relaxed);
        free as u8
    }

    #[inline]
    fn give_back(&self, held: u8) {
        match self.records.get(usize::from(held)) {
            Some(record) => {
                record.state.store(state(record.serial(), 0), Relaxed);
                self.taken.store(self.taken.load(Relaxed) & !(1 << held), Relaxed);
            }
            None => self.unrecorded.store(self.unrecorded.load(Relaxed).saturating_sub(1), Relaxed),
        }
    }
}

/// A connection's place among its worker's requests: it has one from the head of a request until its answer is
/// written out.
#[derive(Default)]
pub(crate) struct Place {
    /// The record's number plus one; 0: none.
    held: AtomicU8,
}

impl Place {
    /// A request begins. One that follows before the answer to the last was written out takes over its record.
    #[inline]
    pub(crate) fn begin(&self, requests: &'static Requests, method: &str, path: &str, now: u64) -> InFlight {
        #[cfg(feature = "guards")]
        if super::blindfold::is_on() {
            return InFlight::NONE;
        }
        let at = match self.held.load(Relaxed) {
            0 => requests.take(),
            UNRECORDED => UNRECORDED,
            held => held - 1,
        };
        let Some(record) = requests.records.get(usize::from(at)) else {
            self.held.store(UNRECORDED, Relaxed);
            return InFlight::NONE;
        };
        self.held.store(at + 1, Relaxed);
        let serial = record.serial() + 1;
        record.began.store(now, Relaxed);
        record.method.write(method);
        record.path.write(path);
        record.state.store(state(serial, RequestPhase::Handler as u8), Relaxed);
        InFlight { record: Some(record), serial }
    }

    /// Nothing is under way on the connection. Does nothing the second time.
    #[inline]
    pub(crate) fn end(&self, requests: &Requests) {
        let held = self.held.load(Relaxed);
        if held == 0 {
            return;
        }
        self.held.store(0, Relaxed);
        requests.give_back(if held == UNRECORDED { UNRECORDED } else { held - 1 });
    }
}

fn state(serial: u64, phase: u8) -> u64 {
    serial << PHASE_BITS | u64::from(phase)
}

/// One request under way, for those who know what it is about now. It outlives the request, and then does nothing.
#[derive(Clone, Copy)]
pub(crate) struct InFlight {
    record: Option<&'static Record>,
    serial: u64,
}

thread_local! {
    static CURRENT: Cell<InFlight> = const { Cell::new(InFlight::NONE) };
}

/// The request that a thread works for again when this is dropped.
pub(crate) struct Former(InFlight);

impl Drop for Former {
    #[inline]
    fn drop(&mut self) {
        CURRENT.set(self.0);
    }
}

impl InFlight {
    /// No request, or one without a record.
    const NONE: InFlight = InFlight { record: None, serial: 0 };

    /// The request that this thread works for.
    pub(crate) fn current() -> InFlight {
        CURRENT.get()
    }

    /// What this thread does until the result is dropped is for this request.
    #[inline]
    pub(crate) fn make_current(self) -> Former {
        Former(CURRENT.replace(self))
    }

    #[inline]
    pub(crate) fn enter(self, phase: RequestPhase) {
        let Some(record) = self.record else { return };
        let before = record.state.load(Relaxed);
        if before >> PHASE_BITS == self.serial && before != state(self.serial, 0) {
            // Where it fails, the request has just ended, or somebody knew better.
            let after = state(self.serial, phase as u8);
            let _ = record.state.compare_exchange(before, after, Relaxed, Relaxed);
        }
    }

    /// Enters `to`, if the request is in `from`.
    pub(crate) fn pass(self, from: RequestPhase, to: RequestPhase) {
        let Some(record) = self.record else { return };
        let [before, after] = [from, to].map(|phase| state(self.serial, phase as u8));
        let _ = record.state.compare_exchange(before, after, Relaxed, Relaxed);
    }

    /// The request is queued until the guard is dropped; then the app goes on with it.
    pub(crate) fn queued(self) -> Queued {
        self.enter(RequestPhase::Queued);
        Queued(self)
    }
}

pub(crate) struct Queued(InFlight);

impl Drop for Queued {
    fn drop(&mut self) {
        self.0.enter(RequestPhase::Handler);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scoreboard::Seat;

    fn requests() -> &'static Requests {
        &Box::leak(Box::<Seat>::default()).in_flight
    }

    fn seen(requests: &Requests, now: u64) -> Vec<String> {
        let told = requests.records.iter().filter_map(|record| record.see(now));
        told.map(|one| format!("{} {} {} {:?}", one.method, one.path, one.phase, one.age)).collect()
    }

    #[test]
    fn a_request_is_seen_from_its_head_until_it_is_written_out() {
        let requests = requests();
        let (one, other) = (Place::default(), Place::default());
        let first = one.begin(requests, "GET", "/a", 1000);
        other.begin(requests, "PROPFIND", "/b", 1500).enter(RequestPhase::Writing);
        first.enter(RequestPhase::Database);
        assert_eq!(seen(requests, 2000), ["GET /a database 1s", "PROPFIND /b writing 500ms"]);
        one.end(requests);
        one.end(requests);
        first.enter(RequestPhase::Writing);
        first.pass(RequestPhase::Handler, RequestPhase::Reading);
        assert_eq!(seen(requests, 1500), ["PROPFIND /b writing 0ns"]);
        // The next request on the record is not touched by who still knows the last.
        let next = one.begin(requests, "GET", "/c", 1500);
        first.enter(RequestPhase::Writing);
        first.pass(RequestPhase::Handler, RequestPhase::Writing);
        next.pass(RequestPhase::Reading, RequestPhase::Writing);
        assert_eq!(seen(requests, 1500)[0], "GET /c handler 0ns");
        next.pass(RequestPhase::Handler, RequestPhase::Reading);
        // One that is pipelined takes over.
        one.begin(requests, "GET", "/d", 1600);
        assert_eq!((seen(requests, 1600)[0].as_str(), requests.count()), ("GET /d handler 0ns", 2));
    }

    #[test]
    fn more_than_there_are_records_are_counted() {
        let requests = requests();
        let places: Vec<Place> = (0..RECORDS + 3).map(|_| Place::default()).collect();
        for place in &places {
            place.begin(requests, "GET", "/", 0).enter(RequestPhase::Writing);
        }
        assert_eq!((seen(requests, 0).len(), requests.count()), (RECORDS, RECORDS as u32 + 3));
        places.iter().rev().for_each(|place| place.end(requests));
        assert_eq!((seen(requests, 0).len(), requests.count()), (0, 0));
        places[0].begin(requests, "GET", "/", 0);
        assert_eq!(requests.count(), 1);
        requests.clear();
        assert_eq!(requests.count(), 0);
    }

    #[test]
    fn a_worker_may_have_written_anything() {
        let requests = requests();
        for (raw, phase) in [(0xff_u64, "handler"), (u64::MAX, "handler"), (0x102, "reading")] {
            requests.records[0].state.store(raw, Relaxed);
            requests.records[0].began.store(u64::MAX, Relaxed);
            requests.records[0].path.write("\n\" pid=1");
            assert_eq!(seen(requests, 5), [format!(" \\x0a\\x22 pid=1 {phase} 0ns")]);
        }
        requests.records[0].began.store(0, Relaxed);
        assert_eq!(requests.records[0].see(u64::MAX).unwrap().age, Duration::from_millis(u64::MAX));
        requests.unrecorded.store(u32::MAX, Relaxed);
        assert_eq!(requests.count(), u32::MAX);
    }

    #[test]
    fn a_thread_works_for_one_request_and_then_for_the_one_before() {
        let requests = requests();
        let places = [Place::default(), Place::default()];
        let [outer, inner] = [0, 1].map(|at: usize| places[at].begin(requests, "GET", "/", 0));
        let serial = |of: InFlight| of.record.map(|record| std::ptr::from_ref(record) as usize);
        let former = outer.make_current();
        let caught = std::panic::catch_unwind(|| {
            let _former = inner.make_current();
            panic!("on purpose")
        });
        assert!(caught.is_err());
        assert_eq!(serial(InFlight::current()), serial(outer));
        let queued = InFlight::current().queued();
        assert!(seen(requests, 0)[0].contains("queued"));
        drop(queued);
        assert!(seen(requests, 0)[0].contains("handler"));
        drop(former);
        assert!(InFlight::current().record.is_none());
    }
}

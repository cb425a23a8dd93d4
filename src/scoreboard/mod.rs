//! The memory that the master and its workers share: a seat for each slot. A worker writes only its own; the master
//! reads all of them, and trusts none: nothing here is an index, a length or a pid that it would act on. What the master
//! writes here itself, the last deaths, is for processes that it forks later.
//! Not here: what anybody concludes from it.

mod deaths;
mod generations;
mod in_flight;
mod text;

use text::Text;

pub(crate) use deaths::{Death, Deaths};
pub(crate) use generations::{Generations, Slot, SlotHasher};
pub(crate) use in_flight::{InFlight, Place, RequestPhase, Requests};

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};
use nix::time::{ClockId, clock_gettime};
use std::io;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// One worker's place on the board; on cache lines of its own, so that workers do not slow each other.
#[derive(Default)]
#[repr(C, align(128))]
pub(crate) struct Seat {
    phase: AtomicU32,
    /// Connections open now.
    pub(crate) connections: AtomicU32,
    /// Moves at least four times within `timeout` while the event loop turns.
    pub(crate) heartbeat: AtomicU64,
    /// Requests answered.
    pub(crate) requests: AtomicU64,
    pub(crate) cache_hits: AtomicU64,
    pub(crate) cache_misses: AtomicU64,
    /// Requests under way.
    pub(crate) in_flight: Requests,
}

/// Milliseconds on a clock that all processes of the machine share and that nobody can set (CLOCK_MONOTONIC).
pub(crate) fn now_millis() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("Linux has this clock");
    Duration::from(now).as_millis() as u64
}

/// What a worker says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Phase {
    Booting = 0,
    Serving = 1,
    /// Serves, and asks for a successor.
    Retiring = 2,
    Draining = 3,
}

impl Seat {
    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            1 => Phase::Serving,
            2 => Phase::Retiring,
            3 => Phase::Draining,
            0 | 4.. => Phase::Booting,
        }
    }

    pub(crate) fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u32, Ordering::Release);
    }

    /// Makes the seat ready for its next worker.
    pub(crate) fn clear(&self) {
        self.set_phase(Phase::Booting);
        self.connections.store(0, Ordering::Relaxed);
        for counter in [&self.heartbeat, &self.requests, &self.cache_hits, &self.cache_misses] {
            counter.store(0, Ordering::Relaxed);
        }
        self.in_flight.clear();
    }
}

/// What the master says of the whole server.
#[derive(Default)]
#[repr(C, align(128))]
struct Head {
    /// Not taken back: the server is about to stop.
    leaving: AtomicU32,
    /// Seats from here on were never taken.
    seats_used: AtomicU32,
    /// Reloads that came to an end.
    reloads: AtomicU64,
    last_reload: Text<32>,
}

/// All seats, the last deaths, and the generations of what is cached. Made by the master before its first fork; lives as long as the process.
#[derive(Clone, Copy)]
pub(crate) struct Board {
    head: &'static Head,
    seats: &'static [Seat],
    pub(crate) deaths: &'static Deaths,
    pub(crate) generations: Generations,
}

impl Board {
    /// # Errors
    /// When the kernel has no memory to map.
    pub(crate) fn new(seats: u32, generations: Generations) -> io::Result<Board> {
        let count = seats.max(1) as usize;
        // SAFETY: they are valid when zeroed: atomics only, and all access goes through them.
        let (head, seats, deaths) =
            unsafe { (shared::<Head>(1)?, shared::<Seat>(count)?, shared::<Deaths>(1)?) };
        Ok(Board { head: &head[0], seats, deaths: &deaths[0], generations })
    }

    /// A board whose cache generations nobody else will see.
    #[cfg(test)]
    pub(crate) fn stub(seats: u32) -> Board {
        let (generations, _) = Generations::make().expect("a test has memory");
        Board::new(seats, generations).expect("a test has memory")
    }

    /// Tells every worker, also those to come, that the server is about to stop.
    pub(crate) fn set_leaving(&self) {
        self.head.leaving.store(1, Ordering::Relaxed);
    }

    pub(crate) fn is_leaving(&self) -> bool {
        self.head.leaving.load(Ordering::Relaxed) != 0
    }

    /// Keeps how a reload came out, in the log's words.
    pub(crate) fn keep_reload(&self, outcome: &str) {
        self.head.last_reload.write(outcome);
        self.head.reloads.fetch_add(1, Ordering::Release);
    }

    /// How many reloads came to an end, and how the last one came out.
    pub(crate) fn reloads(&self) -> (u64, String) {
        (self.head.reloads.load(Ordering::Acquire), self.head.last_reload.read())
    }

    /// The seat, cleared for a new worker.
    ///
    /// # Panics
    /// When there is no such slot.
    pub(crate) fn take_seat(&self, slot: u32) -> &'static Seat {
        self.head.seats_used.fetch_max(slot + 1, Ordering::Relaxed);
        let seat = self.seat(slot);
        seat.clear();
        seat
    }

    /// How many connections a serving worker has open on average.
    pub(crate) fn mean_connections(&self) -> usize {
        // The others would each cost a page only to be looked at.
        let used = self.seats.iter().take(self.head.seats_used.load(Ordering::Relaxed) as usize);
        let serving = used.filter(|seat| matches!(seat.phase(), Phase::Serving | Phase::Retiring));
        let (sum, count) = serving.fold((0, 0), |(sum, count), seat| {
            (sum + seat.connections.load(Ordering::Relaxed) as usize, count + 1)
        });
        sum / count.max(1)
    }

    /// # Panics
    /// When there is no such slot.
    pub(crate) fn seat(&self, slot: u32) -> &'static Seat {
        &self.seats[slot as usize]
    }
}

/// Memory for `count` values, shared with all children, untouched until it is used.
///
/// # Safety
/// All bits zero must be a valid `T`, and `T` be made of atomics only.
unsafe fn shared<T>(count: usize) -> io::Result<&'static [T]> {
    let length = NonZeroUsize::new(count * size_of::<T>()).expect("what is shared has a size");
    // SAFETY: a fresh anonymous mapping touches no memory that is in use.
    let start = unsafe {
        mmap_anonymous(None, length, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED)?
    };
    // SAFETY: the mapping is page-aligned, `count` values long, zeroed, which the caller vouches for, and never unmapped.
    Ok(unsafe { std::slice::from_raw_parts(start.as_ptr().cast::<T>(), count) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_phase_is_nobody_ready() {
        let seat = Seat::default();
        for (raw, phase) in
            [(0, Phase::Booting), (1, Phase::Serving), (2, Phase::Retiring), (3, Phase::Draining)]
        {
            seat.phase.store(raw, Ordering::Relaxed);
            assert_eq!(seat.phase(), phase);
            seat.set_phase(phase);
            assert_eq!(seat.phase.load(Ordering::Relaxed), raw);
        }
        seat.phase.store(77, Ordering::Relaxed);
        assert_eq!(seat.phase(), Phase::Booting);
    }

    #[test]
    fn a_seat_is_cleared_for_the_next() {
        let board = Board::stub(3);
        let seat = board.take_seat(2);
        seat.set_phase(Phase::Draining);
        seat.requests.store(9, Ordering::Relaxed);
        seat.clear();
        assert_eq!(seat.phase(), Phase::Booting);
        assert_eq!(seat.requests.load(Ordering::Relaxed), 0);
    }
}

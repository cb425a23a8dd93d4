//! The memory that the master and its workers share: a seat for each slot. A worker writes only its own; the master
//! reads all of them, and trusts none: nothing here is an index, a length or a pid that it would act on. What the master
//! writes here itself, the last deaths, is for processes that it forks later.
//! Not here: what anybody concludes from it.

#[cfg(feature = "guards")]
pub(crate) mod blindfold;
mod clients;
mod deaths;
mod generations;
mod history;
mod in_flight;
mod named;
mod own;
mod reload;
mod standing;
mod tally;
mod text;
mod tokens;

use named::{Named, Registry};
use own::{Own, OwnRegistry};
use standing::Head;

pub(crate) use clients::{ClientMark, Clients};
pub(crate) use deaths::{Death, Deaths};
pub(crate) use generations::{Generations, Moment, Slot, SlotHasher};
pub(crate) use history::{EVERY as HISTORY_EVERY, History, KEPT as HISTORY_KEPT, WIDTH as HISTORY_WIDTH};
pub(crate) use in_flight::{InFlight, Place, RequestPhase, Requests, SeenRequest};
pub(crate) use named::{CacheCounts, Place as NamedPlace, ProgramCounts};
pub(crate) use own::{
    Kind as OwnKind, MAX_BOUNDS, MAX_HISTOGRAMS, MAX_TEXT, MAX_VALUES, RESERVED, Series as OwnSeries, Spread,
    is_word,
};
pub(crate) use reload::{Change, LastReload};
pub(crate) use standing::{Reason, Standing, Tenure};
pub(crate) use tally::{Shed, Slow, Tally, Waits};
pub(crate) use tokens::{Held, Lost, Tokens};

use log::LevelFilter;
use nix::libc;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};
use nix::time::{ClockId, clock_gettime};
use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
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
    /// When it last moved, on the clock of `now_millis`.
    pub(crate) beat_at: AtomicU64,
    /// Its database connections: how many there are, how many of these are idle, and who waits for one; as of the last sweep.
    pub(crate) pool_connections: AtomicU32,
    pub(crate) pool_idle: AtomicU32,
    pub(crate) pool_waiting: AtomicU32,
    pool_state: AtomicU32,
    /// Waits for one that took too long.
    pub(crate) pool_timeouts: AtomicU64,
    /// How long those waited who got one.
    pub(crate) pool_waits: Waits,
    /// How long calls waited for a handler thread, and what it refused for want of one.
    pub(crate) shed: Shed,
    /// What it has done.
    pub(crate) tally: Tally,
    /// What it counts of each cache and program.
    pub(crate) named: Named,
    /// What the app counts of its own.
    pub(crate) own: Own,
    /// Who sits here, as the master has it.
    pub(crate) tenure: Tenure,
    /// Requests under way.
    pub(crate) in_flight: Requests,
    /// Whether the worker counts connections by client; if not, nobody touches the memory of `clients`.
    counts_clients: AtomicU32,
    clients: Clients,
}

/// Milliseconds on a clock that all processes of the machine share and that nobody can set (CLOCK_MONOTONIC).
pub(crate) fn now_millis() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("Linux has this clock");
    Duration::from(now).as_millis() as u64
}

/// Microseconds on the same clock, for what is measured at each request, and so by no more than the call itself.
#[inline]
pub(crate) fn now_micros() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is what it may write to. Linux has this clock, so it does not fail.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1000
}

/// What a worker can say of its database, as of the last sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum PoolState {
    /// It has none.
    Absent = 0,
    /// There is a connection, or nobody has tried in vain to make one.
    Usable = 1,
    /// There is no connection, and the last attempt to make one failed.
    Down = 2,
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

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Phase::Booting => "booting",
            Phase::Serving => "serving",
            Phase::Retiring => "retiring",
            Phase::Draining => "draining",
        })
    }
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

    pub(crate) fn pool_state(&self) -> PoolState {
        match self.pool_state.load(Ordering::Relaxed) {
            1 => PoolState::Usable,
            2 => PoolState::Down,
            0 | 3.. => PoolState::Absent,
        }
    }

    pub(crate) fn set_pool_state(&self, state: PoolState) {
        self.pool_state.store(state as u32, Ordering::Relaxed);
    }

    pub(crate) fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u32, Ordering::Release);
    }

    /// Makes the seat ready for its next worker.
    pub(crate) fn clear(&self) {
        self.set_phase(Phase::Booting);
        let of_pool = [&self.pool_connections, &self.pool_idle, &self.pool_waiting, &self.pool_state];
        for gauge in of_pool.into_iter().chain([&self.connections]) {
            gauge.store(0, Ordering::Relaxed);
        }
        let single = [&self.heartbeat, &self.beat_at];
        for counter in
            single.into_iter().chain(self.named.gauges()).chain(self.own.gauges()).chain(self.counters())
        {
            counter.store(0, Ordering::Relaxed);
        }
        self.tenure.clear();
        self.in_flight.clear();
        if self.counts_clients.swap(0, Ordering::Relaxed) != 0 {
            self.clients.clear();
        }
    }

    /// For its worker, which counts its connections by client from now on.
    pub(crate) fn count_clients(&self) -> &Clients {
        self.counts_clients.store(1, Ordering::Relaxed);
        &self.clients
    }

    /// What only grows while somebody sits here.
    fn counters(&self) -> impl Iterator<Item = &AtomicU64> {
        let of_pool = self.pool_waits.counters().chain([&self.pool_timeouts]);
        let of_own = self.named.counters().chain(self.own.counters());
        self.tally.counters().chain(of_pool).chain(self.shed.counters()).chain(of_own)
    }

    /// Adds what was counted here to another seat's counters.
    fn add_to(&self, sum: &Seat) {
        for (counter, sum) in self.counters().zip(sum.counters()) {
            sum.fetch_add(counter.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    /// How long the event loop has been silent.
    pub(crate) fn silence(&self, now: u64) -> Duration {
        let beat = self.beat_at.load(Ordering::Relaxed).max(self.tenure.since());
        Duration::from_millis(now.saturating_sub(beat))
    }
}

/// All seats, the last deaths, and the generations of what is cached. Made by the master before its first fork; lives as long as the process.
#[derive(Clone, Copy)]
pub(crate) struct Board {
    head: &'static Head,
    seats: &'static [Seat],
    /// Nobody's seat: it has what those counted who are gone.
    gone: &'static Seat,
    registry: &'static Registry,
    own_registry: &'static OwnRegistry,
    /// Nobody outside knows it.
    client_key: u64,
    pub(crate) deaths: &'static Deaths,
    pub(crate) history: &'static History,
    pub(crate) generations: Generations,
    pub(crate) tokens: &'static Tokens,
}

impl Board {
    /// # Errors
    /// When the kernel has no memory to map.
    pub(crate) fn new(seats: u32, generations: Generations) -> io::Result<Board> {
        let count = seats.max(1) as usize;
        // SAFETY: they are valid when zeroed: atomics only, and all access goes through them.
        let (head, seats, gone, deaths) =
            unsafe { (shared::<Head>(1)?, shared::<Seat>(count)?, shared::<Seat>(1)?, shared::<Deaths>(1)?) };
        // SAFETY: as above.
        let (registry, own_registry, history) =
            unsafe { (shared::<Registry>(1)?, shared::<OwnRegistry>(1)?, shared::<History>(1)?) };
        Ok(Board {
            head: &head[0],
            seats,
            gone: &gone[0],
            registry: &registry[0],
            own_registry: &own_registry[0],
            client_key: RandomState::new().build_hasher().finish(),
            deaths: &deaths[0],
            history: &history[0],
            generations,
            tokens: generations.tokens(),
        })
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

    /// What all processes log from now on, also those to come; `None`: what their settings say.
    pub(crate) fn set_level(&self, level: Option<LevelFilter>) {
        self.head.level.store(level.map_or(0, |level| level as u32 + 1), Ordering::Relaxed);
    }

    pub(crate) fn level(&self) -> Option<LevelFilter> {
        let number = self.head.level.load(Ordering::Relaxed);
        LevelFilter::iter().find(|level| *level as u32 + 1 == number)
    }

    /// Keeps how a reload came out.
    pub(crate) fn keep_reload(&self, reload: &LastReload) {
        self.head.last_reload.keep(reload);
        self.head.reloads.fetch_add(1, Ordering::Release);
    }

    /// Counts a reload that was adopted, or refused.
    pub(crate) fn count_reload(&self, adopted: bool) {
        let counter = if adopted { &self.head.reloads_adopted } else { &self.head.reloads_refused };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Reloads adopted, and refused.
    pub(crate) fn reload_counts(&self) -> (u64, u64) {
        let Head { reloads_adopted, reloads_refused, .. } = self.head;
        (reloads_adopted.load(Ordering::Relaxed), reloads_refused.load(Ordering::Relaxed))
    }

    /// The master says how things stand, and by that that its loop turns.
    pub(crate) fn stand(&self, standing: &Standing) {
        self.head.write_standing(standing);
    }

    pub(crate) fn standing(&self) -> Standing {
        self.head.read_standing()
    }

    /// For the master: a worker is gone. What it counted is kept, and its seat cleared.
    pub(crate) fn vacate(&self, seat: &Seat, reason: Reason) {
        // A sum that is taken meanwhile would have it twice or not at all: whoever takes one sees this number change.
        let folds = self.head.folds.load(Ordering::Relaxed);
        self.head.folds.store(folds + 1, Ordering::Relaxed);
        fence(Ordering::Release);
        seat.add_to(self.gone);
        seat.clear();
        self.head.ends[reason as usize].fetch_add(1, Ordering::Relaxed);
        self.head.folds.store(folds + 2, Ordering::Release);
    }

    /// What all workers counted, those that are gone included, as the counters of a seat; `None` where a worker's end came
    /// between: to be asked again.
    pub(crate) fn sum(&self) -> Option<Box<Seat>> {
        let folds = self.head.folds.load(Ordering::Acquire);
        let sum = Box::<Seat>::default();
        self.gone.add_to(&sum);
        self.seats_used().for_each(|(_, seat)| seat.add_to(&sum));
        fence(Ordering::Acquire);
        (folds.is_multiple_of(2) && self.head.folds.load(Ordering::Relaxed) == folds).then_some(sum)
    }

    /// How many workers ended for this reason.
    pub(crate) fn ends(&self, reason: Reason) -> u64 {
        self.head.ends[reason as usize].load(Ordering::Relaxed)
    }

    /// Where the worker of this slot counts what it does with the caches of this name.
    pub(crate) fn cache_counts(&self, slot: u32, name: &str) -> &'static CacheCounts {
        self.seat(slot).named.cache(self.registry.cache(name))
    }

    /// The same for a program, and the place of its name.
    pub(crate) fn program_counts(&self, slot: u32, name: &str) -> (NamedPlace, &'static ProgramCounts) {
        let place = self.registry.program(name);
        (place, self.seat(slot).named.program(place))
    }

    /// All names of caches that there were, escaped.
    pub(crate) fn caches(&self) -> impl Iterator<Item = (NamedPlace, String)> {
        self.registry.caches()
    }

    pub(crate) fn programs(&self) -> impl Iterator<Item = (NamedPlace, String)> {
        self.registry.programs()
    }

    /// Where the worker of this slot counts for this series of the app's; `None` where there is no room for another.
    pub(crate) fn own_counter(&self, slot: u32, series: &str, help: &str) -> Option<&'static AtomicU64> {
        let place = self.own_registry.value(OwnKind::Counter, series, help)?;
        Some(self.seat(slot).own.counter(place))
    }

    pub(crate) fn own_gauge(&self, slot: u32, series: &str, help: &str) -> Option<&'static AtomicU64> {
        let place = self.own_registry.value(OwnKind::Gauge, series, help)?;
        Some(self.seat(slot).own.gauge(place))
    }

    /// The same for a histogram, with the bounds that count: those of whoever named it first.
    pub(crate) fn own_histogram(
        &self,
        slot: u32,
        series: &str,
        help: &str,
        bounds: &[f64],
    ) -> Option<(&'static Spread, Vec<f64>)> {
        let (place, bounds) = self.own_registry.histogram(series, help, bounds)?;
        Some((self.seat(slot).own.histogram(place), bounds))
    }

    /// All series that the app has, or had.
    pub(crate) fn own_series(&self) -> impl Iterator<Item = OwnSeries> {
        self.own_registry.all()
    }

    /// Each bound with how many values were no larger, the last one without a bound; and the sum of all values.
    pub(crate) fn own_spread(&self, series: &OwnSeries, own: &Own) -> (Vec<(Option<f64>, u64)>, f64) {
        self.own_registry.spread(series, own)
    }

    /// The seats that were ever taken. The others would each cost a page only to be looked at.
    pub(crate) fn seats_used(&self) -> impl Iterator<Item = (usize, &'static Seat)> {
        self.seats.iter().take(self.head.seats_used.load(Ordering::Relaxed) as usize).enumerate()
    }

    /// How many reloads came to an end, and how the last one came out.
    pub(crate) fn reloads(&self) -> (u64, String) {
        (self.head.reloads.load(Ordering::Acquire), self.head.last_reload.read_text())
    }

    /// `None` before the first one.
    pub(crate) fn last_reload(&self) -> Option<LastReload> {
        (self.head.reloads.load(Ordering::Acquire) > 0).then(|| self.head.last_reload.read())
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
        let used = self.seats_used().map(|(_, seat)| seat);
        let serving = used.filter(|seat| matches!(seat.phase(), Phase::Serving | Phase::Retiring));
        let (sum, count) = serving.fold((0, 0), |(sum, count), seat| {
            (sum + seat.connections.load(Ordering::Relaxed) as usize, count + 1)
        });
        sum / count.max(1)
    }

    pub(crate) fn client_mark(&self, addr: IpAddr) -> ClientMark {
        ClientMark::of(addr, self.client_key)
    }

    /// How many connections this client has with workers that count them, those that drain included.
    pub(crate) fn connections_of(&self, client: ClientMark) -> u64 {
        let count = |seat: &Seat| match seat.counts_clients.load(Ordering::Relaxed) {
            0 => 0,
            1.. => seat.clients.count(client),
        };
        self.seats_used().map(|(_, seat)| count(seat)).sum()
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
        seat.tally.answered(2, 3000, 100);
        seat.clear();
        assert_eq!(seat.phase(), Phase::Booting);
        assert_eq!(seat.tally.requests(), 0);
    }

    #[test]
    fn a_client_is_counted_over_all_workers_and_forgotten_with_each() {
        let board = Board::stub(3);
        let client = board.client_mark([192, 0, 2, 1].into());
        for slot in 0..3 {
            let seat = board.take_seat(slot);
            let clients = seat.count_clients();
            assert!(clients.add(client) && clients.add(client));
        }
        assert_eq!(board.connections_of(client), 6);
        assert_eq!(board.connections_of(board.client_mark([192, 0, 2, 2].into())), 0);
        board.vacate(board.seat(0), Reason::Killed);
        board.take_seat(1);
        assert_eq!(board.connections_of(client), 2, "the dead have no connections");
    }

    #[test]
    fn what_a_worker_counted_outlives_it_and_its_seat() {
        let board = Board::stub(2);
        let [seat, other] = [0, 1].map(|slot| board.take_seat(slot));
        for _ in 0..3 {
            seat.tally.answered(2, 3000, 100);
            board.cache_counts(0, "a").hits.fetch_add(1, Ordering::Relaxed);
            board.program_counts(0, "p").1.restarts.fetch_add(1, Ordering::Relaxed);
        }
        board.cache_counts(1, "a").hits.fetch_add(1, Ordering::Relaxed);
        board.cache_counts(0, "a").entries.store(7, Ordering::Relaxed);
        other.tally.answered(5, 100_000_000, 1);
        let counts = || {
            let (sum, load) = (board.sum().unwrap(), |counter: &AtomicU64| counter.load(Ordering::Relaxed));
            let [(cache, name)] = Vec::from_iter(board.caches()).try_into().unwrap();
            let [(program, _)] = Vec::from_iter(board.programs()).try_into().unwrap();
            assert_eq!(name, "a");
            let named = (load(&sum.named.cache(cache).hits), load(&sum.named.program(program).restarts));
            (sum.tally.requests(), sum.tally.body_bytes(), named)
        };
        assert_eq!(counts(), (4, 301, (4, 3)));
        board.vacate(seat, Reason::Killed);
        assert_eq!((counts(), seat.tally.requests()), ((4, 301, (4, 3)), 0));
        assert_eq!(
            board.cache_counts(0, "a").entries.load(Ordering::Relaxed),
            0,
            "it keeps nothing any more"
        );
        board.take_seat(0).tally.answered(2, 0, 0);
        board.vacate(board.seat(0), Reason::Killed);
        let ends = (board.ends(Reason::Killed), board.ends(Reason::Left));
        assert_eq!((counts(), ends), ((5, 301, (4, 3)), (2, 0)));
        board.head.folds.fetch_add(1, Ordering::Relaxed);
        assert!(board.sum().is_none(), "a worker's end is being written");
    }
}

//! What an app counts of its own, over all workers: counters and gauges, and how values spread. A series has one place in all
//! seats, for as long as the master lives. How many there can be is fixed.
//! Not here: how they are written for a reader.

use super::named::Names;
use super::tally::add_up;
use super::text::Text;
use std::array;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::*};

/// Counters and gauges together, in the life of a master, reloads included; a set of labels is one each.
pub(crate) const MAX_VALUES: usize = 127;
/// The same for histograms.
pub(crate) const MAX_HISTOGRAMS: usize = 15;
/// Of one histogram; behind them is one more, without a bound.
pub(crate) const MAX_BOUNDS: usize = 15;
/// Longer series, and helps, are not kept whole.
pub(crate) const MAX_TEXT: usize = 8 * WORDS - 1;

/// The server's own figures begin with this.
pub(crate) const RESERVED: &str = "ferricorn_";

/// The last place is that of all for whom there is no room.
const VALUES: usize = MAX_VALUES + 1;
const HISTOGRAMS: usize = MAX_HISTOGRAMS + 1;
const WORDS: usize = 24;

/// Sums are kept in millionths.
const PARTS: f64 = 1e6;

/// What kind of figure a series is. Its letter stands before the series' name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// A series as some worker has named it, escaped.
#[derive(Debug)]
pub(crate) struct Series {
    pub(crate) kind: Kind,
    /// `name|label=value|…`
    pub(crate) text: String,
    pub(crate) help: String,
    place: usize,
}

struct Table<const N: usize> {
    names: Names<N, WORDS>,
    helps: [Text<WORDS>; N],
    /// The help is whole, and so are the bounds.
    is_told: [AtomicU32; N],
}

/// Which series there are, in the memory that all share.
pub(super) struct OwnRegistry {
    values: Table<VALUES>,
    histograms: Table<HISTOGRAMS>,
    /// Ascending, as bits; what is not positive infinity or above it counts.
    bounds: [[AtomicU64; MAX_BOUNDS]; HISTOGRAMS],
    bound_counts: [AtomicU32; HISTOGRAMS],
}

/// One worker's figures, by place.
pub(crate) struct Own {
    counters: [AtomicU64; VALUES],
    gauges: [AtomicU64; VALUES],
    histograms: [Spread; HISTOGRAMS],
}

/// How many values there were up to each bound; any thread may write.
#[derive(Default)]
pub(crate) struct Spread {
    counts: [AtomicU64; MAX_BOUNDS + 1],
    /// In millionths, wrapping.
    sum: AtomicU64,
}

/// Whether Prometheus takes it for a name; a label's has no `:`.
pub(crate) fn is_word(word: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':';
    word.bytes().all(is_plain) && !word.is_empty() && !word.starts_with(|first: char| first.is_ascii_digit())
}

impl Kind {
    fn letter(self) -> char {
        match self {
            Kind::Counter => 'c',
            Kind::Gauge => 'g',
            Kind::Histogram => 'h',
        }
    }
}

impl Default for Own {
    fn default() -> Own {
        let zero = |_| AtomicU64::new(0);
        Own {
            counters: array::from_fn(zero),
            gauges: array::from_fn(zero),
            histograms: array::from_fn(|_| Spread::default()),
        }
    }
}

impl<const N: usize> Table<N> {
    /// `None`: there is no room.
    fn place(&self, kind: Kind, series: &str, help: &str) -> Option<usize> {
        let text = format!("{}{series}", kind.letter());
        if text.len() > MAX_TEXT {
            return None;
        }
        let place = self.names.place(&text);
        if place == N - 1 {
            return None;
        }
        // Whoever else writes here means the same series.
        if self.is_told[place].load(Acquire) == 0 {
            self.helps[place].write(&help[..help.floor_char_boundary(MAX_TEXT)]);
        }
        Some(place)
    }

    fn all(&self) -> impl Iterator<Item = Series> {
        self.names
            .all()
            .filter(|(place, _)| *place < N - 1 && self.is_told[*place].load(Acquire) != 0)
            .filter_map(|(place, text)| {
                let kind = [Kind::Counter, Kind::Gauge, Kind::Histogram]
                    .into_iter()
                    .find(|kind| text.starts_with(kind.letter()))?;
                Some(Series { kind, text: text[1..].into(), help: self.helps[place].read(), place })
            })
    }
}

impl OwnRegistry {
    /// The place of a counter or a gauge.
    pub(super) fn value(&self, kind: Kind, series: &str, help: &str) -> Option<usize> {
        let place = self.values.place(kind, series, help)?;
        self.values.is_told[place].store(1, Release);
        Some(place)
    }

    /// The place of a histogram, and the bounds that count: those of whoever named it first.
    pub(super) fn histogram(&self, series: &str, help: &str, bounds: &[f64]) -> Option<(usize, Vec<f64>)> {
        let table = &self.histograms;
        let place = table.place(Kind::Histogram, series, help)?;
        if table.is_told[place].load(Acquire) == 0 {
            for (kept, bound) in self.bounds[place].iter().zip(bounds) {
                kept.store(bound.to_bits(), Relaxed);
            }
            self.bound_counts[place].store(bounds.len().min(MAX_BOUNDS) as u32, Relaxed);
            table.is_told[place].store(1, Release);
        }
        Some((place, self.bounds(place)))
    }

    fn bounds(&self, place: usize) -> Vec<f64> {
        let count = (self.bound_counts[place].load(Relaxed) as usize).min(MAX_BOUNDS);
        self.bounds[place][..count].iter().map(|bits| f64::from_bits(bits.load(Relaxed))).collect()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = Series> {
        self.values.all().chain(self.histograms.all())
    }

    /// Each bound with how many values were no larger, the last one without a bound; and the sum of all.
    pub(super) fn spread(&self, series: &Series, own: &Own) -> (Vec<(Option<f64>, u64)>, f64) {
        let Spread { counts, sum } = &own.histograms[series.place];
        let buckets = add_up(&self.bounds(series.place), counts);
        (buckets, sum.load(Relaxed).cast_signed() as f64 / PARTS)
    }
}

impl Own {
    pub(super) fn counter(&self, place: usize) -> &AtomicU64 {
        &self.counters[place]
    }

    pub(super) fn gauge(&self, place: usize) -> &AtomicU64 {
        &self.gauges[place]
    }

    pub(super) fn histogram(&self, place: usize) -> &Spread {
        &self.histograms[place]
    }

    /// Of a counter.
    pub(crate) fn count(&self, series: &Series) -> u64 {
        self.counters[series.place].load(Relaxed)
    }

    /// Of a gauge, as two's complement.
    pub(crate) fn level(&self, series: &Series) -> u64 {
        self.gauges[series.place].load(Relaxed)
    }

    /// What only grows.
    pub(super) fn counters(&self) -> impl Iterator<Item = &AtomicU64> {
        let spreads = self.histograms.iter().flat_map(|spread| spread.counts.iter().chain([&spread.sum]));
        self.counters.iter().chain(spreads)
    }

    /// What goes up and down.
    pub(super) fn gauges(&self) -> impl Iterator<Item = &AtomicU64> {
        self.gauges.iter()
    }
}

impl Spread {
    /// Into the bucket of the first of `bounds` that is no less.
    pub(crate) fn record(&self, value: f64, bounds: &[f64]) {
        let bucket = bounds.iter().take(MAX_BOUNDS).position(|bound| value <= *bound);
        self.counts[bucket.unwrap_or(bounds.len().min(MAX_BOUNDS))].fetch_add(1, Relaxed);
        self.sum.fetch_add(((value * PARTS).round() as i64).cast_unsigned(), Relaxed);
    }

    /// How many values there were.
    pub(crate) fn count(&self) -> u64 {
        self.counts.iter().map(|count| count.load(Relaxed)).fold(0, u64::wrapping_add)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Board;
    use super::*;
    use crate::scoreboard::Reason;

    #[test]
    fn a_series_has_one_place_and_one_kind_and_outlives_its_workers() {
        let board = Board::stub(2);
        let [seat, _other] = [0, 1].map(|slot| board.take_seat(slot));
        for slot in [0, 1] {
            board.own_counter(slot, "sold_total|kind=book", "Sold.").unwrap().fetch_add(3, Relaxed);
            board.own_gauge(slot, "open", "Open.").unwrap().fetch_add(2, Relaxed);
            let (spread, bounds) = board.own_histogram(slot, "size", "Sizes.", &[1.0, 2.5]).unwrap();
            [0.5, 1.0, 2.0, 9.25].into_iter().for_each(|size| spread.record(size, &bounds));
        }
        let told = || {
            let sum = board.sum().unwrap();
            let tell = |series: Series| match series.kind {
                Kind::Counter => format!("{} {}", series.text, sum.own.count(&series)),
                Kind::Gauge => {
                    let levels = board.seats_used().map(|(_, seat)| seat.own.level(&series));
                    format!("{} {}", series.text, levels.fold(0, u64::wrapping_add))
                }
                Kind::Histogram => format!("{} {:?}", series.text, board.own_spread(&series, &sum.own)),
            };
            Vec::from_iter(board.own_series().map(tell))
        };
        let sizes = "size ([(Some(1.0), 4), (Some(2.5), 6), (None, 8)], 25.5)";
        assert_eq!(told(), ["sold_total|kind=book 6", "open 4", sizes]);
        board.vacate(seat, Reason::Killed);
        assert_eq!(told(), ["sold_total|kind=book 6", "open 2", sizes], "a gauge is of those who live");
    }

    #[test]
    fn there_is_room_for_so_many_and_no_more() {
        let board = Board::stub(1);
        board.take_seat(0);
        let add = |number: usize| board.own_counter(0, &format!("c{number}"), "").is_some();
        assert_eq!((0..200).filter(|number| add(*number)).count(), MAX_VALUES);
        assert!(board.own_gauge(0, "g", "").is_none() && add(0), "what has a place keeps it");
        assert_eq!(board.own_series().count(), MAX_VALUES);
        let histogram = |number: usize| board.own_histogram(0, &format!("h{number}"), "", &[1.0]).is_some();
        assert_eq!((0..30).filter(|number| histogram(*number)).count(), MAX_HISTOGRAMS);
        assert!(board.own_counter(0, &"x".repeat(MAX_TEXT), "").is_none(), "it would be cut");
    }

    #[test]
    fn the_first_bounds_count() {
        let board = Board::stub(1);
        board.take_seat(0);
        let (_, first) = board.own_histogram(0, "h", "", &[1.0, 2.0]).unwrap();
        let (_, second) = board.own_histogram(0, "h", "", &[5.0]).unwrap();
        assert_eq!((first.as_slice(), second.as_slice()), ([1.0, 2.0].as_slice(), [1.0, 2.0].as_slice()));
    }
}

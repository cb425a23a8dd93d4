//! An app's own figures, which the admin process adds up over all workers and shows in `/metrics`. Not here: where they are kept.

use crate::scoreboard::{
    Board, MAX_BOUNDS, MAX_HISTOGRAMS, MAX_TEXT, MAX_VALUES, OwnKind, OwnSeries, RESERVED, Spread, is_word,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// A label's longer value is cut.
const MAX_VALUE: usize = 64;

/// The app's own figures: counters, gauges and histograms, which are told of in `/metrics` as one figure for all workers.
///
/// A counter and a histogram go on over deaths of workers and over reloads. A gauge is the sum over the workers that there are. To
/// record something costs an atomic addition or two; to make a handle costs a look-up, so make handles in advance, as here:
///
/// ```
/// use axum::{Router, routing::post};
///
/// fn app(worker: ferricorn::Worker) -> Router {
///     let metrics = worker.metrics();
///     let sold = metrics.with("kind", "book").counter("shop_sold_total", "Things that were sold.");
///     let prices = metrics.histogram("shop_price_euros", "What they cost.", &[1.0, 10.0, 100.0]);
///     let sell = async move || {
///         sold.add(1);
///         prices.record(12.5);
///     };
///     Router::new().route("/sales", post(sell))
/// }
/// ```
///
/// Names and labels are those of Prometheus's [data model](https://prometheus.io/docs/concepts/data_model/). For each master there
/// are at most 127 counters and gauges and 15 histograms, each set of labels being one. One beyond that counts nothing, which
/// the log says once: so a label's values must be few, and never what a client makes up.
#[derive(Clone)]
pub struct Metrics {
    board: Board,
    slot: u32,
    /// `|label=value…`
    labels: String,
}

/// Something that only grows. A copy counts in the same place.
#[derive(Clone, Copy, Debug)]
pub struct Counter {
    count: Option<&'static AtomicU64>,
}

/// Something that goes up and down, as a whole number. A copy shows the same.
#[derive(Clone, Copy, Debug)]
pub struct Gauge {
    level: Option<&'static AtomicU64>,
}

/// How values spread. A clone counts in the same place.
#[derive(Clone)]
pub struct Histogram {
    spread: Option<&'static Spread>,
    bounds: Arc<[f64]>,
}

impl Metrics {
    pub(super) fn new(board: Board, slot: u32) -> Metrics {
        Metrics { board, slot, labels: String::new() }
    }

    /// The same, for figures with this label. Of `value` the first 64 bytes count; what is not printable ASCII, and `"`, `\`, and `|`,
    /// becomes `_`.
    ///
    /// # Panics
    /// When `label` is not letters, digits and `_`, begins with a digit or with `__`, is `le`, or was given before.
    #[must_use]
    pub fn with(&self, label: &str, value: &str) -> Metrics {
        let is_free = !self.labels.split('|').any(|known| known.split('=').next() == Some(label));
        let is_good = is_word(label) && !label.contains(':') && !label.starts_with("__") && label != "le";
        assert!(is_good && is_free, "no label can be called {label:?}, or it was given before");
        let plain = |byte: u8| match byte {
            b'"' | b'\\' | b'|' => '_',
            b' '..=b'~' => char::from(byte),
            _ => '_',
        };
        let value: String = value.bytes().take(MAX_VALUE).map(plain).collect();
        Metrics { labels: format!("{}|{label}={value}", self.labels), ..self.clone() }
    }

    /// Something that only grows; `name` ends in `_total`.
    ///
    /// # Panics
    /// When the name is not letters, digits, `_` and `:`, begins with a digit or with `ferricorn_`, does not end in `_total`, or is
    /// that of another kind of figure since the master started.
    pub fn counter(&self, name: &str, help: &str) -> Counter {
        assert!(name.ends_with("_total"), "the name of a counter ends in _total, not so {name:?}");
        let series = self.series(OwnKind::Counter, name);
        let count = self.board.own_counter(self.slot, &series, help);
        Counter { count: told(count, name, MAX_VALUES) }
    }

    /// Something that goes up and down.
    ///
    /// # Panics
    /// As [`counter`](Metrics::counter), but a name that ends in `_total` is a counter's.
    pub fn gauge(&self, name: &str, help: &str) -> Gauge {
        assert!(!name.ends_with("_total"), "a name that ends in _total is a counter's: {name:?}");
        let series = self.series(OwnKind::Gauge, name);
        let level = self.board.own_gauge(self.slot, &series, help);
        Gauge { level: told(level, name, MAX_VALUES) }
    }

    /// How values spread: how many were at most each of `bounds`, and their sum, to a millionth. While the master lives, the
    /// bounds that were given first count, also after a reload: after an upgrade, others may.
    ///
    /// # Panics
    /// As [`gauge`](Metrics::gauge), and when `bounds` are not 1 to 15 finite numbers, each larger than the one before.
    pub fn histogram(&self, name: &str, help: &str, bounds: &[f64]) -> Histogram {
        let is_own = ["_total", "_bucket", "_sum", "_count"].iter().all(|end| !name.ends_with(end));
        assert!(is_own, "a histogram cannot be called {name:?}: others' names end so");
        let ascends =
            bounds.iter().all(|bound| bound.is_finite()) && bounds.is_sorted_by(|one, next| one < next);
        assert!(
            ascends && (1..=MAX_BOUNDS).contains(&bounds.len()),
            "the bounds of {name:?} must be 1 to {MAX_BOUNDS} numbers, in ascending order: {bounds:?}"
        );
        let series = self.series(OwnKind::Histogram, name);
        let place = self.board.own_histogram(self.slot, &series, help, bounds);
        let (spread, bounds) = told(place, name, MAX_HISTOGRAMS).unzip();
        Histogram { spread, bounds: bounds.unwrap_or_default().into() }
    }

    fn series(&self, kind: OwnKind, name: &str) -> String {
        assert!(is_word(name) && !name.starts_with(RESERVED), "no figure of an app can be called {name:?}");
        let is_other = |known: &OwnSeries| known.kind != kind && known.text.split('|').next() == Some(name);
        if let Some(OwnSeries { kind: known, .. }) = self.board.own_series().find(is_other) {
            panic!("{name:?} cannot be a {kind:?}: since the master started it is a {known:?}");
        }
        format!("{name}{}", self.labels)
    }
}

/// What has no room is told of once in a worker.
fn told<T>(place: Option<T>, name: &str, most: usize) -> Option<T> {
    static IS_TOLD: AtomicBool = AtomicBool::new(false);
    if place.is_none() && !IS_TOLD.swap(true, Relaxed) {
        log::warn!(
            "metric not counted name={name:?} reason=\"there are {most} already, or it is longer than {MAX_TEXT} bytes with its \
             labels\""
        );
    }
    place
}

impl Counter {
    pub fn add(&self, count: u64) {
        if let Some(place) = self.count {
            place.fetch_add(count, Relaxed);
        }
    }

    /// What this worker has counted.
    pub fn count(&self) -> u64 {
        self.count.map_or(0, |place| place.load(Relaxed))
    }
}

impl Gauge {
    pub fn set(&self, level: i64) {
        if let Some(place) = self.level {
            place.store(level.cast_unsigned(), Relaxed);
        }
    }

    /// By so much more, or less.
    pub fn add(&self, change: i64) {
        if let Some(place) = self.level {
            place.fetch_add(change.cast_unsigned(), Relaxed);
        }
    }

    /// What this worker shows.
    pub fn level(&self) -> i64 {
        self.level.map_or(0, |place| place.load(Relaxed).cast_signed())
    }
}

impl Histogram {
    /// A value that is not a number is none.
    pub fn record(&self, value: f64) {
        if let Some(spread) = self.spread.filter(|_| !value.is_nan()) {
            spread.record(value, &self.bounds);
        }
    }

    /// How many values this worker has recorded.
    pub fn count(&self) -> u64 {
        self.spread.map_or(0, Spread::count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    fn metrics() -> (Board, Metrics) {
        let board = Board::stub(1);
        board.take_seat(0);
        (board, Metrics::new(board, 0))
    }

    #[test]
    fn handles_of_one_series_count_together_and_labels_apart() {
        let (board, metrics) = metrics();
        let [one, same] = [0, 1].map(|_| metrics.with("a", "x").with("b", "y").counter("c_total", ""));
        one.add(2);
        same.add(1);
        metrics.with("a", "z").counter("c_total", "").add(7);
        assert_eq!(one.count(), 3);
        let gauge = metrics.gauge("g", "");
        gauge.set(-3);
        gauge.add(1);
        assert_eq!(gauge.level(), -2);
        let histogram = metrics.histogram("h", "", &[1.0]);
        [0.5, f64::NAN, f64::INFINITY, -1.0].into_iter().for_each(|value| histogram.record(value));
        assert_eq!(histogram.count(), 3);
        let texts: Vec<_> = board.own_series().map(|series| series.text).collect();
        assert_eq!(texts, ["c_total|a=x|b=y", "c_total|a=z", "g", "h"]);
    }

    #[test]
    fn the_value_of_a_label_is_made_harmless() {
        let (board, metrics) = metrics();
        for value in ["a\"b\\c|d=e\n\u{e4}", &"x".repeat(99)] {
            metrics.with("l", value).gauge("g", "");
        }
        let texts: Vec<_> = board.own_series().map(|series| series.text).collect();
        assert_eq!(texts, ["g|l=a_b_c_d=e___".to_owned(), format!("g|l={}", "x".repeat(MAX_VALUE))]);
    }

    #[test]
    fn what_prometheus_would_not_take_is_a_panic() {
        let (_, metrics) = metrics();
        metrics.counter("known_total", "");
        metrics.gauge("known", "");
        type Make = fn(&Metrics);
        let table: [(&str, Make); 12] = [
            ("a counter without its end", |m| _ = m.counter("a", "")),
            ("a gauge with it", |m| _ = m.gauge("a_total", "")),
            ("a digit first", |m| _ = m.gauge("1a", "")),
            ("a dash", |m| _ = m.gauge("a-b", "")),
            ("nothing", |m| _ = m.gauge("", "")),
            ("the server's own", |m| _ = m.gauge("ferricorn_a", "")),
            ("another kind", |m| _ = m.histogram("known", "", &[1.0])),
            ("a label twice", |m| _ = m.with("a", "").with("b", "").with("a", "")),
            ("a label of histograms", |m| _ = m.with("le", "")),
            ("a label with a colon", |m| _ = m.with("a:b", "")),
            ("no bounds", |m| _ = m.histogram("h", "", &[])),
            ("bounds in no order", |m| _ = m.histogram("h", "", &[1.0, 1.0])),
        ];
        for (what, make) in table {
            assert!(catch_unwind(AssertUnwindSafe(|| make(&metrics))).is_err(), "{what}");
        }
    }
}

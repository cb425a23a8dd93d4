//! The figures of the last 15 minutes: what is kept of each moment, and how they are told. Counters are told as they stand, so whoever asks
//! makes rates of them as he likes. Not here: where they are kept.

use super::metrics;
use crate::health::SILENT;
use crate::scoreboard::{Board, HISTORY_EVERY, HISTORY_KEPT, HISTORY_WIDTH, Phase, Reason, Seat, now_millis};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::sleep;

const SCHEMA: u32 = 1;

type Gauge = fn(&Seat) -> &AtomicU32;

/// Keeps a row at every turn of the clock, for ever.
pub(super) async fn keep(board: Board) {
    let every = HISTORY_EVERY.as_millis() as u64;
    loop {
        let now = now_millis();
        if let Some(sum) = metrics::sum(&board) {
            let figures = figures(board, &sum, now);
            let mut row = [0; HISTORY_WIDTH];
            row.iter_mut().zip(figures).for_each(|(place, (_, figure))| *place = figure);
            board.history.keep(now, &row);
        }
        // In the middle of each turn, so that a wait that is a little short or long does not miss one.
        let next = (now_millis() / every + 1) * every + every / 2;
        sleep(Duration::from_millis(next.saturating_sub(now_millis()))).await;
    }
}

/// What is known after `since`, an `at` of a row that was told before.
pub(super) fn tell(board: Board, since: u64, now: u64) -> Option<Value> {
    let sum = metrics::sum(&board)?;
    let names: Vec<String> = figures(board, &sum, now).into_iter().map(|(name, _)| name).collect();
    let width = names.len();
    let rows = board.history.after(since, now).into_iter();
    let rows: Vec<Vec<u64>> = rows.map(|(at, row)| [&[at], &row[..width]].concat()).collect();
    let mut columns = vec!["at".to_owned()];
    columns.extend(names);
    Some(json!({
        "schema": SCHEMA,
        "now": now,
        "clock": clock(),
        "every_ms": HISTORY_EVERY.as_millis() as u64,
        "kept_ms": HISTORY_KEPT.as_millis() as u64,
        "latency_bounds": metrics::latency_bounds(&sum.tally),
        "columns": columns,
        "rows": rows,
    }))
}

/// The number that a query gives for `since`; all where it gives none.
pub(super) fn since(query: Option<&str>) -> u64 {
    let parameters = query.unwrap_or_default().split('&');
    parameters.filter_map(|parameter| parameter.strip_prefix("since=")?.parse().ok()).next().unwrap_or(0)
}

/// The same moment as `now`, on the clock that people have: milliseconds since 1970.
fn clock() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

/// All figures of this moment with their names, always in this order.
fn figures(board: Board, sum: &Seat, now: u64) -> Vec<(String, u64)> {
    let mut figures = Vec::with_capacity(HISTORY_WIDTH);
    let mut add = |name: String, figure: u64| figures.push((name, figure));
    for (class, count) in metrics::CLASSES.into_iter().zip(sum.tally.answers()) {
        add(class.to_owned(), count);
    }
    for (bucket, (_, count)) in sum.tally.latencies().0.iter().enumerate() {
        add(format!("latency_{bucket}"), *count);
    }
    let (hits, misses) = sum.named.cache_look_ups();
    add("cache_hits".to_owned(), hits);
    add("cache_misses".to_owned(), misses);
    add("pool_timeouts".to_owned(), sum.pool_timeouts.load(Relaxed));
    let of_seats: [(&str, Gauge); 4] = [
        ("pool_connections", |seat| &seat.pool_connections),
        ("pool_idle", |seat| &seat.pool_idle),
        ("pool_waiting", |seat| &seat.pool_waiting),
        ("connections", |seat| &seat.connections),
    ];
    let seats = || board.seats_used().map(|(_, seat)| seat);
    for (name, of) in of_seats {
        add(name.to_owned(), seats().map(|seat| u64::from(of(seat).load(Relaxed))).sum());
    }
    add("in_flight".to_owned(), seats().map(|seat| u64::from(seat.in_flight.count())).sum());
    let serves =
        |seat: &&Seat| matches!(seat.phase(), Phase::Serving | Phase::Retiring) && seat.silence(now) < SILENT;
    add("workers_serving".to_owned(), seats().filter(serves).count() as u64);
    add("workers_wanted".to_owned(), board.standing().workers_wanted.into());
    let (adopted, refused) = board.reload_counts();
    add("reloads_adopted".to_owned(), adopted);
    add("reloads_refused".to_owned(), refused);
    for reason in Reason::ALL {
        add(format!("ended_{reason}"), board.ends(reason));
    }
    figures
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_has_its_place_and_a_name_of_its_own() {
        let board = Board::stub(2);
        board.take_seat(0).tally.answered(2, 700, 10);
        let figures = figures(board, &board.sum().unwrap(), 0);
        assert!(figures.len() <= HISTORY_WIDTH, "{} figures have no room", figures.len());
        let mut names: Vec<&String> = figures.iter().map(|(name, _)| name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), figures.len());
        let figure = |wanted: &str| figures.iter().find(|(name, _)| name == wanted).unwrap().1;
        assert_eq!(
            [figure("2xx"), figure("latency_0"), figure("latency_1"), figure("latency_14")],
            [1, 0, 1, 1]
        );
    }

    #[test]
    fn who_hangs_does_not_serve() {
        let board = Board::stub(2);
        for (slot, beat) in [(0, 10_000), (1, 13_000)] {
            let seat = board.take_seat(slot);
            seat.set_phase(Phase::Serving);
            seat.beat_at.store(beat, Relaxed);
        }
        let serving = |now| {
            let figures = figures(board, &board.sum().unwrap(), now);
            figures.iter().find(|(name, _)| name == "workers_serving").unwrap().1
        };
        assert_eq!((serving(11_999), serving(13_000), serving(15_000)), (2, 1, 0));
    }

    #[test]
    fn what_is_told_begins_after_what_is_known() {
        let board = Board::stub(1);
        board.history.keep(10_000, &[1; HISTORY_WIDTH]);
        board.history.keep(12_000, &[2; HISTORY_WIDTH]);
        let rows = |since| tell(board, since, 13_000).unwrap()["rows"].as_array().unwrap().len();
        assert_eq!((rows(0), rows(10_000), rows(12_000)), (2, 1, 0));
        let told = tell(board, 0, 13_000).unwrap();
        assert_eq!(told["rows"][0].as_array().unwrap().len(), told["columns"].as_array().unwrap().len());
        assert_eq!((told["columns"][0].as_str(), told["rows"][1][0].as_u64()), (Some("at"), Some(12_000)));
        for (query, wanted) in [
            (None, 0),
            (Some("since=7"), 7),
            (Some("a=1&since=8"), 8),
            (Some("since=x"), 0),
            (Some("since=-1"), 0),
        ] {
            assert_eq!(since(query), wanted, "{query:?}");
        }
    }
}

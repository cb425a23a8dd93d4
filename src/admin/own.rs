//! The app's own figures, over all workers. A worker wrote their names, so what is none is left out. Not here: the server's figures.

use super::exposition::{Exposition, escaped};
use crate::scoreboard::{Board, OwnKind, OwnSeries, RESERVED, Seat, is_word};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Name and value of each label.
type Labels = Vec<(String, String)>;

pub(super) fn expose(out: &mut Exposition, board: &Board, sum: &Seat) {
    for (name, family) in families(board) {
        let (OwnSeries { kind, help, .. }, _) = &family[0];
        out.begin(&name, word(*kind), &escaped(help));
        for (series, labels) in &family {
            let labels = quoted(labels);
            match kind {
                OwnKind::Counter => out.sample(&name, &labels, sum.own.count(series)),
                OwnKind::Gauge => out.sample(&name, &labels, level(board, series)),
                OwnKind::Histogram => {
                    let (buckets, total) = board.own_spread(series, &sum.own);
                    out.buckets(&name, &labels, &buckets, total);
                }
            }
        }
    }
}

/// For `/status`: the same figures, a histogram's counts as in Prometheus up to each bound, and the last one without.
pub(super) fn tell(board: &Board, sum: &Seat) -> Vec<Value> {
    let mut told = Vec::new();
    for (name, family) in families(board) {
        for (series, labels) in family {
            let labels: Map<String, Value> =
                labels.into_iter().map(|(label, value)| (label, value.into())).collect();
            let mut one = json!({
                "name": name, "labels": labels, "kind": word(series.kind), "help": series.help,
            });
            match series.kind {
                OwnKind::Counter => one["value"] = sum.own.count(&series).into(),
                OwnKind::Gauge => one["value"] = level(board, &series).into(),
                OwnKind::Histogram => {
                    let (buckets, total) = board.own_spread(&series, &sum.own);
                    one["bounds"] = buckets.iter().filter_map(|(bound, _)| *bound).collect();
                    one["counts"] = buckets.iter().map(|(_, count)| *count).collect();
                    one["sum"] = total.into();
                }
            }
            told.push(one);
        }
    }
    told
}

/// All series by their names, those of a name together and of one kind.
fn families(board: &Board) -> BTreeMap<String, Vec<(OwnSeries, Labels)>> {
    let mut families: BTreeMap<String, Vec<(OwnSeries, Labels)>> = BTreeMap::new();
    for series in board.own_series() {
        let Some((name, labels)) = read(&series.text) else { continue };
        let family = families.entry(name).or_default();
        if family.first().is_none_or(|(first, _)| first.kind == series.kind) {
            family.push((series, labels));
        }
    }
    families.values_mut().for_each(|family| family.sort_by(|(_, one), (_, other)| one.cmp(other)));
    families
}

/// A gauge is of those who live.
fn level(board: &Board, series: &OwnSeries) -> i64 {
    let levels = board.seats_used().map(|(_, seat)| seat.own.level(series));
    levels.fold(0, u64::wrapping_add).cast_signed()
}

fn word(kind: OwnKind) -> &'static str {
    match kind {
        OwnKind::Counter => "counter",
        OwnKind::Gauge => "gauge",
        OwnKind::Histogram => "histogram",
    }
}

/// `name|label=value…` as the name, and the labels.
fn read(text: &str) -> Option<(String, Labels)> {
    let mut parts = text.split('|');
    let name = parts.next().filter(|name| is_word(name) && !name.starts_with(RESERVED))?;
    let labels = parts.map(|part| {
        let (label, value) = part.split_once('=').filter(|(label, _)| is_word(label) && *label != "le")?;
        Some((label.to_owned(), value.to_owned()))
    });
    Some((name.into(), labels.collect::<Option<Labels>>()?))
}

/// `label="value",…`
fn quoted(labels: &Labels) -> String {
    let quoted = labels.iter().map(|(label, value)| format!("{label}=\"{}\"", escaped(value)));
    quoted.collect::<Vec<String>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering::Relaxed;

    #[test]
    fn the_figures_are_told_by_name_and_label_over_all_workers() {
        let board = Board::stub(2);
        for slot in [0, 1] {
            board.take_seat(slot);
            for series in ["b_total|kind=oak", "b_total|kind=\"elm\"", "no name"] {
                board.own_counter(slot, series, "Sold.").unwrap().fetch_add(3, Relaxed);
            }
            board.own_gauge(slot, "c", "").unwrap().store((-2_i64).cast_unsigned(), Relaxed);
            // Another kind under a name that is taken.
            board.own_gauge(slot, "a", "").unwrap().store(9, Relaxed);
            let (spread, bounds) = board.own_histogram(slot, "a", "", &[1.0, 2.5]).unwrap();
            spread.record(2.0, &bounds);
        }
        let told = Value::from(tell(&board, &board.sum().unwrap()));
        let wanted = json!([
            {"name": "a", "labels": {}, "kind": "gauge", "help": "", "value": 18},
            {"name": "b_total", "labels": {"kind": "\\x22elm\\x22"}, "kind": "counter", "help": "Sold.", "value": 6},
            {"name": "b_total", "labels": {"kind": "oak"}, "kind": "counter", "help": "Sold.", "value": 6},
            {"name": "c", "labels": {}, "kind": "gauge", "help": "", "value": -4},
        ]);
        assert_eq!(told, wanted);
    }

    #[test]
    fn a_histogram_is_told_by_its_counts_up_to_each_bound() {
        let board = Board::stub(1);
        board.take_seat(0);
        let (spread, bounds) = board.own_histogram(0, "h", "Sizes.", &[1.0, 2.5]).unwrap();
        [0.5, 2.0, 9.0].into_iter().for_each(|value| spread.record(value, &bounds));
        let told = Value::from(tell(&board, &board.sum().unwrap()));
        let wanted = json!([{
            "name": "h", "labels": {}, "kind": "histogram", "help": "Sizes.",
            "bounds": [1.0, 2.5], "counts": [1, 2, 3], "sum": 11.5,
        }]);
        assert_eq!(told, wanted);
    }

    #[test]
    fn what_is_no_name_is_left_out() {
        let is = |name: &str, labels: &str| Some((name.to_owned(), labels.to_owned()));
        let table = [
            ("a_total", is("a_total", "")),
            ("a|b=c|d=e=f", is("a", "b=\"c\",d=\"e=f\"")),
            ("a|b=", is("a", "b=\"\"")),
            ("a|b=\\x0a", is("a", "b=\"\\\\x0a\"")),
            ("ferricorn_up", None),
            ("a b", None),
            ("", None),
            ("a|b", None),
            ("a|b c=d", None),
            ("a|le=1", None),
        ];
        for (text, expected) in table {
            let told = read(text).map(|(name, labels)| (name, quoted(&labels)));
            assert_eq!(told, expected, "{text}");
        }
    }
}

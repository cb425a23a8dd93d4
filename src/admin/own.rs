//! The app's own figures, over all workers. A worker wrote their names, so what is none is left out. Not here: the server's figures.

use super::exposition::{Exposition, escaped};
use crate::scoreboard::{Board, OwnKind, OwnSeries, RESERVED, Seat, is_word};
use std::collections::BTreeMap;

pub(super) fn expose(out: &mut Exposition, board: &Board, sum: &Seat) {
    // All samples of a name stand together.
    let mut families: BTreeMap<String, Vec<(OwnSeries, String)>> = BTreeMap::new();
    for series in board.own_series() {
        let Some((name, labels)) = read(&series.text) else { continue };
        families.entry(name).or_default().push((series, labels));
    }
    for (name, family) in families {
        let (OwnSeries { kind, help, .. }, _) = &family[0];
        out.begin(&name, word(*kind), &escaped(help));
        for (series, labels) in family.iter().filter(|(series, _)| series.kind == *kind) {
            match kind {
                OwnKind::Counter => out.sample(&name, labels, sum.own.count(series)),
                OwnKind::Gauge => {
                    let levels = board.seats_used().map(|(_, seat)| seat.own.level(series));
                    out.sample(&name, labels, levels.fold(0, u64::wrapping_add).cast_signed());
                }
                OwnKind::Histogram => {
                    let (buckets, total) = board.own_spread(series, &sum.own);
                    out.buckets(&name, labels, &buckets, total);
                }
            }
        }
    }
}

fn word(kind: OwnKind) -> &'static str {
    match kind {
        OwnKind::Counter => "counter",
        OwnKind::Gauge => "gauge",
        OwnKind::Histogram => "histogram",
    }
}

/// `name|label=value…` as the name, and `label="value",…`.
fn read(text: &str) -> Option<(String, String)> {
    let mut parts = text.split('|');
    let name = parts.next().filter(|name| is_word(name) && !name.starts_with(RESERVED))?;
    let labels: Option<Vec<String>> = parts
        .map(|part| {
            let (label, value) =
                part.split_once('=').filter(|(label, _)| is_word(label) && *label != "le")?;
            Some(format!("{label}=\"{}\"", escaped(value)))
        })
        .collect();
    Some((name.into(), labels?.join(",")))
}

#[cfg(test)]
mod tests {
    use super::*;

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
            assert_eq!(read(text), expected, "{text}");
        }
    }
}

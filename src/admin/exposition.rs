//! Prometheus's text format, version 0.0.4: a family of samples under its name, its help and its type.
//! Not here: which figures there are.

use std::fmt::{Display, Write};

#[derive(Default)]
pub(super) struct Exposition {
    text: String,
}

/// One figure, or one for each set of labels.
pub(super) struct Family<'a> {
    text: &'a mut String,
    name: &'static str,
}

impl Exposition {
    /// Something that goes up and down.
    pub(super) fn gauge(&mut self, name: &'static str, help: &str) -> Family<'_> {
        self.family(name, "gauge", help)
    }

    /// Something that only grows; its name ends in `_total`.
    pub(super) fn counter(&mut self, name: &'static str, help: &str) -> Family<'_> {
        self.family(name, "counter", help)
    }

    /// How often something was no larger than each bound, `None` being all of it, and the sum of it.
    pub(super) fn histogram(
        &mut self,
        name: &'static str,
        help: &str,
        buckets: &[(Option<f64>, u64)],
        sum: f64,
    ) {
        self.begin(name, "histogram", help);
        self.buckets(name, "", buckets, sum);
    }

    /// A family, whose samples follow.
    pub(super) fn begin(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// With labels as `label="value",…`, or none.
    pub(super) fn sample(&mut self, name: &str, labels: &str, value: impl Display) {
        let _ = match labels {
            "" => writeln!(self.text, "{name} {value}"),
            _ => writeln!(self.text, "{name}{{{labels}}} {value}"),
        };
    }

    /// As `histogram`.
    pub(super) fn buckets(&mut self, name: &str, labels: &str, buckets: &[(Option<f64>, u64)], sum: f64) {
        let comma = if labels.is_empty() { "" } else { "," };
        for (bound, count) in buckets {
            let bound = bound.map_or_else(|| "+Inf".to_owned(), |bound| bound.to_string());
            self.sample(&format!("{name}_bucket"), &format!("{labels}{comma}le=\"{bound}\""), count);
        }
        self.sample(&format!("{name}_sum"), labels, sum);
        self.sample(&format!("{name}_count"), labels, buckets.last().map_or(0, |(_, count)| *count));
    }

    fn family(&mut self, name: &'static str, kind: &str, help: &str) -> Family<'_> {
        self.begin(name, kind, help);
        Family { text: &mut self.text, name }
    }

    pub(super) fn finish(self) -> String {
        self.text
    }
}

impl Family<'_> {
    pub(super) fn is(self, value: impl Display) {
        let _ = writeln!(self.text, "{} {value}", self.name);
    }

    /// The labels' values are words of our own, or numbers, or escaped already.
    pub(super) fn with(&mut self, label: &str, word: impl Display, value: impl Display) {
        let _ = writeln!(self.text, "{}{{{label}=\"{word}\"}} {value}", self.name);
    }
}

/// A text off the board. The only escapes that it may have are doubled, for the format has others.
pub(super) fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\")
}

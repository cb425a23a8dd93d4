//! Measured values and how far they spread. Not here: measuring.

use std::fmt;

/// At least one value, sorted.
pub struct Figures(Vec<f64>);

impl Figures {
    pub fn of(mut values: Vec<f64>) -> Figures {
        values.sort_by(f64::total_cmp);
        Figures(values)
    }

    pub fn median(&self) -> f64 {
        let middle = self.0.len() / 2;
        if self.0.len().is_multiple_of(2) {
            (self.0[middle - 1] + self.0[middle]) / 2.0
        } else {
            self.0[middle]
        }
    }

    /// For a table: the median, and in brackets the least and the most.
    pub fn brief(&self, digits: usize) -> String {
        let (least, most) = (self.0[0], self.0[self.0.len() - 1]);
        format!("{:.digits$} ({least:.digits$} to {most:.digits$})", self.median())
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (least, most) = (self.0[0], self.0[self.0.len() - 1]);
        write!(f, "{:.3} at the median of {} ({least:.3} to {most:.3})", self.median(), self.0.len())
    }
}

//! Median, minimum and maximum of several rounds.

/// Median and range of some values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Median of the values.
    pub median: f64,
    /// Minimum of the values.
    pub min: f64,
    /// Maximum of the values.
    pub max: f64,
    /// Number of values.
    pub count: usize,
}

/// Computes the spread of values. Returns `None` if there are none.
pub fn spread(values: impl Iterator<Item = f64>) -> Option<Spread> {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    let (min, max) = (*sorted.first()?, *sorted.last()?);
    let count = sorted.len();
    let median = f64::midpoint(sorted[(count - 1) / 2], sorted[count / 2]);
    Some(Spread { median, min, max, count })
}

impl Spread {
    /// Formats as `9.2 (8.9–9.5)`; a single value has no range.
    pub fn text(&self, decimals: usize) -> String {
        let Self { median, min, max, count } = self;
        if *count == 1 {
            format!("{median:.decimals$}")
        } else {
            format!("{median:.decimals$} ({min:.decimals$}–{max:.decimals$})")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_handles_odd_and_even_counts() {
        let of = |values: &[f64]| spread(values.iter().copied());
        assert_eq!(of(&[]), None);
        assert_eq!(
            of(&[9.0, 1.0, 4.0]),
            Some(Spread { median: 4.0, min: 1.0, max: 9.0, count: 3 })
        );
        assert_eq!(of(&[4.0, 1.0, 2.0, 8.0]).unwrap().median, 3.0);
    }

    #[test]
    fn spread_text_shows_median_and_range() {
        let of = |values: &[f64]| spread(values.iter().copied()).unwrap();
        assert_eq!(of(&[9.24, 8.91, 9.55]).text(1), "9.2 (8.9–9.6)");
        assert_eq!(of(&[9876.5]).text(0), "9876");
    }
}

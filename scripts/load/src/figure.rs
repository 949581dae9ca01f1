//! What is measured: single figures, and what several rounds say of each.

use std::time::Duration;

/// Which of two figures is the better one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Better {
    Higher,
    Lower,
}

/// What a figure is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Measure {
    pub(crate) name: &'static str,
    pub(crate) better: Better,
    /// Whether the measure makes sense without a proxy.
    pub(crate) direct: bool,
}

/// A measure of the client's.
pub(crate) const fn of_client(name: &'static str, better: Better) -> Measure {
    Measure { name, better, direct: true }
}

/// A measure of the proxy's own use of the machine.
pub(crate) const fn of_proxy(name: &'static str) -> Measure {
    Measure { name, better: Better::Lower, direct: false }
}

/// One figure of one round.
pub(crate) type Figure = (Measure, f64);

/// The middle, the least and the greatest of several figures.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) greatest: f64,
}

impl Spread {
    /// None where there are no figures.
    pub(crate) fn of(figures: &[f64]) -> Option<Spread> {
        let mut sorted = figures.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (least, greatest) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 0 {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        } else {
            sorted[middle]
        };
        Some(Spread { median, least, greatest })
    }
}

/// The time below which `share` of the sorted times lie, in seconds; of no times, not a number.
pub(crate) fn percentile(sorted: &[Duration], share: f64) -> f64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an index into a list that fits into memory"
    )]
    let index = (real(sorted.len()) * share) as usize;
    let index = index.min(sorted.len().saturating_sub(1));
    sorted.get(index).map_or(f64::NAN, Duration::as_secs_f64)
}

/// A number of things as one to divide by.
#[expect(clippy::cast_precision_loss, reason = "nothing is counted as far as 2^53")]
pub(crate) fn real(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Spread, percentile};

    #[test]
    fn the_median_is_the_middle_or_between_the_two_middle_figures() {
        let spread = |median, least, greatest| Some(Spread { median, least, greatest });
        assert_eq!(Spread::of(&[]), None);
        assert_eq!(Spread::of(&[3.0, 1.0, 2.0]), spread(2.0, 1.0, 3.0));
        assert_eq!(Spread::of(&[4.0, 1.0, 2.0, 3.0]), spread(2.5, 1.0, 4.0));
    }

    #[test]
    fn percentiles_are_of_the_list() {
        let list: Vec<_> = (0..100).map(Duration::from_secs).collect();
        assert!((percentile(&list, 0.5) - 50.0).abs() < 1e-9);
        assert!((percentile(&list, 0.99) - 99.0).abs() < 1e-9);
        assert!(percentile(&[], 0.5).is_nan());
    }
}

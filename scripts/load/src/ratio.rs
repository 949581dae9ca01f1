//! How two contenders compare: each figure of the one beside the other's of the same round.

use crate::figure::{Better, Spread};

/// The interval misses the true median in at most one run of twenty.
const RISK: f64 = 0.05;

/// With fewer pairs than this no order of them says anything.
const FEWEST: usize = 3;

/// What the rounds say of one figure divided by another.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Ratio {
    pub(crate) median: f64,
    /// Where the median lies with 95 % confidence; the least and the greatest of fewer than six.
    pub(crate) low: f64,
    pub(crate) high: f64,
    pairs: usize,
}

/// What may be said of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    Better,
    Worse,
    /// The interval includes 1.
    Alike,
    /// Every pair is of two equal figures.
    Same,
    TooFew,
}

impl Ratio {
    /// None where there are no pairs.
    pub(crate) fn of(pairs: &[(f64, f64)]) -> Option<Ratio> {
        // Nothing lost beside nothing lost is no different.
        let ratio = |&(one, other): &(f64, f64)| {
            if one.total_cmp(&other).is_eq() { 1.0 } else { one / other }
        };
        let mut ratios: Vec<f64> = pairs.iter().map(ratio).collect();
        ratios.sort_by(f64::total_cmp);
        let median = Spread::of(&ratios)?.median;
        let left_out = left_out(ratios.len());
        let (low, high) = (ratios[left_out], ratios[ratios.len() - 1 - left_out]);
        Some(Ratio { median, low, high, pairs: ratios.len() })
    }

    pub(crate) fn verdict(&self, better: Better) -> Verdict {
        let (below, above) = (self.high < 1.0, self.low > 1.0);
        if [self.low, self.high].iter().all(|end| end.total_cmp(&1.0).is_eq()) {
            Verdict::Same
        } else if self.pairs < FEWEST {
            Verdict::TooFew
        } else if !below && !above {
            Verdict::Alike
        } else if above == (better == Better::Higher) {
            Verdict::Better
        } else {
            Verdict::Worse
        }
    }
}

impl Verdict {
    pub(crate) fn words(self) -> &'static str {
        match self {
            Verdict::Better => "better",
            Verdict::Worse => "worse",
            Verdict::Alike => "cannot be told apart",
            Verdict::Same => "the same",
            Verdict::TooFew => "too few rounds",
        }
    }
}

/// How many of the sorted ratios lie outside of the interval at either end.
///
/// Each ratio is above the true median or below it, as a coin falls. That more than so many fall on
/// one side is as likely as the tail of the binomial distribution says, whatever the distribution
/// of the ratios is.
fn left_out(pairs: usize) -> usize {
    // The term for none, then each from the one before it.
    let mut term = 0.5_f64.powi(i32::try_from(pairs).unwrap_or(i32::MAX));
    let mut tails = 2.0 * term;
    let mut left_out = 0;
    #[expect(clippy::cast_precision_loss, reason = "far fewer rounds than 2^53")]
    while left_out < pairs / 2 {
        term *= (pairs - left_out) as f64 / (left_out + 1) as f64;
        tails += 2.0 * term;
        if tails > RISK {
            break;
        }
        left_out += 1;
    }
    left_out
}

#[cfg(test)]
mod tests {
    use super::{Ratio, Verdict, left_out};
    use crate::figure::Better;

    /// Pairs with the given ratios.
    fn pairs(ratios: &[f64]) -> Vec<(f64, f64)> {
        ratios.iter().map(|ratio| (ratio * 40.0, 40.0)).collect()
    }

    fn verdict(ratios: &[f64], better: Better) -> Verdict {
        Ratio::of(&pairs(ratios)).unwrap().verdict(better)
    }

    #[test]
    fn each_figure_is_set_beside_the_one_of_the_same_round() {
        // The machine halves its speed in the second round, and the ratio stands.
        let ratio = Ratio::of(&[(110.0, 100.0), (55.0, 50.0), (110.0, 100.0)]).unwrap();
        assert!((ratio.low - 1.1).abs() < 1e-9 && (ratio.high - 1.1).abs() < 1e-9, "{ratio:?}");
        assert_eq!(Ratio::of(&[]), None);
    }

    #[test]
    fn a_spread_that_includes_one_cannot_be_told_apart() {
        assert_eq!(verdict(&[0.9, 0.95, 1.01], Better::Lower), Verdict::Alike);
        assert_eq!(verdict(&[0.9, 0.95, 0.99], Better::Lower), Verdict::Better);
        assert_eq!(verdict(&[0.9, 0.95, 0.99], Better::Higher), Verdict::Worse);
        assert_eq!(verdict(&[1.1, 1.2, 1.3], Better::Higher), Verdict::Better);
        assert_eq!(verdict(&[1.1, 1.2, 1.3], Better::Lower), Verdict::Worse);
    }

    #[test]
    fn one_odd_round_of_nine_decides_nothing() {
        let eight = [0.9, 0.91, 0.92, 0.93, 0.94, 0.95, 0.96, 0.97];
        let odd = [&eight[..], &[1.4]].concat();
        assert_eq!(verdict(&odd, Better::Lower), Verdict::Better);
        let two_odd = [&eight[..7], &[1.2, 1.4]].concat();
        assert_eq!(verdict(&two_odd, Better::Lower), Verdict::Alike);
    }

    #[test]
    fn equal_figures_are_the_same_and_two_rounds_are_too_few() {
        assert_eq!(Ratio::of(&[(0.0, 0.0)]).unwrap().verdict(Better::Lower), Verdict::Same);
        assert_eq!(verdict(&[0.5, 0.5], Better::Lower), Verdict::TooFew);
    }

    #[test]
    fn the_interval_is_that_of_the_sign_test() {
        // From the tables of the binomial distribution for one half.
        let table = [(1, 0), (5, 0), (6, 0), (8, 0), (9, 1), (12, 2), (15, 3), (20, 5), (30, 9)];
        for (pairs, expected) in table {
            assert_eq!(left_out(pairs), expected, "{pairs}");
        }
    }
}

//! The little statistics that comparing needs. Medians and quartiles, since the times of a
//! computer have long tails; intervals that assume nothing about their shape.

/// Quartiles of a set of numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quartiles {
    /// A quarter of the numbers is below this.
    pub lower: f64,
    /// Half of them are.
    pub median: f64,
    /// Three quarters are.
    pub upper: f64,
}

impl Quartiles {
    /// Those of `numbers`; `None` if there are none, or one is not a number.
    #[must_use]
    pub fn of(numbers: &[f64]) -> Option<Self> {
        let sorted = sorted(numbers)?;
        Some(Self {
            lower: quantile(&sorted, 0.25),
            median: quantile(&sorted, 0.5),
            upper: quantile(&sorted, 0.75),
        })
    }

    /// How far the quartiles are apart, as a part of the median.
    #[must_use]
    pub fn spread(self) -> f64 {
        (self.upper - self.lower) / self.median.abs()
    }
}

/// An interval that has the true median in it with a probability of 95 % or a little more;
/// the whole range when there are too few numbers for that (below 6), and then it promises
/// less. By the signs alone: the median lies between two of the sorted numbers with the
/// probability that a fair coin falls neither too rarely nor too often on one side.
///
/// `None` if there are no numbers, or one is not a number.
#[must_use]
pub fn median_interval(numbers: &[f64]) -> Option<(f64, f64)> {
    let sorted = sorted(numbers)?;
    let count = sorted.len();
    let mut skip = 0;
    let mut tail = 0.0;
    let mut term = std::iter::repeat_n(0.5, count).product::<f64>();
    for heads in 0..count / 2 {
        tail += term;
        if tail > 0.025 {
            break;
        }
        skip = heads + 1;
        #[allow(clippy::cast_precision_loss)] // Far below 2^52.
        {
            term *= (count - heads) as f64 / (heads + 1) as f64;
        }
    }
    // The k-th number from either end covers when fewer than k coins fall on one side.
    let at = skip.saturating_sub(1);
    Some((sorted[at], sorted[count - 1 - at]))
}

/// The median; not a number if there are none.
pub(super) fn median(numbers: &[f64]) -> f64 {
    sorted(numbers).map_or(f64::NAN, |sorted| quantile(&sorted, 0.5))
}

/// The number that a part of `sorted` is below, between the two nearest.
pub(super) fn quantile(sorted: &[f64], part: f64) -> f64 {
    #[allow(clippy::cast_precision_loss)]
    let at = part * (sorted.len() - 1) as f64;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Within the slice.
    let below = at.floor() as usize;
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + (sorted[above] - sorted[below]) * at.fract()
}

pub(super) fn sorted(numbers: &[f64]) -> Option<Vec<f64>> {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    (!sorted.is_empty() && sorted.iter().all(|number| number.is_finite())).then_some(sorted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_lie_between_the_nearest_numbers() {
        let quartiles = Quartiles::of(&[4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!(
            (quartiles.lower, quartiles.median, quartiles.upper),
            (1.75, 2.5, 3.25)
        );
        assert!((quartiles.spread() - 0.6).abs() < 1e-9);
        assert_eq!(Quartiles::of(&[]), None);
        assert_eq!(Quartiles::of(&[1.0, f64::NAN]), None);
    }

    #[test]
    fn the_interval_of_the_median_has_the_width_of_the_tables() {
        let numbers = |count: u32| (1..=count).map(f64::from).collect::<Vec<_>>();
        // As in tables for the sign test, 95 %, two-sided.
        assert_eq!(median_interval(&numbers(5)), Some((1.0, 5.0)));
        assert_eq!(median_interval(&numbers(6)), Some((1.0, 6.0)));
        assert_eq!(median_interval(&numbers(9)), Some((2.0, 8.0)));
        assert_eq!(median_interval(&numbers(15)), Some((4.0, 12.0)));
        assert_eq!(median_interval(&numbers(41)), Some((14.0, 28.0)));
        assert_eq!(median_interval(&[]), None);
    }
}

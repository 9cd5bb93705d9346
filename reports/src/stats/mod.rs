//! Means, intervals and fronts over plain numbers. Nothing here knows trials or HTML.

mod holm;
mod power;
pub(crate) mod student;
mod variance;

pub(crate) use holm::holm;
pub(crate) use power::seeds_to_show;
pub(crate) use variance::{Components, crossed, nested};

/// The level of every interval on the page.
const LEVEL: f64 = 0.95;
/// From this many values on there is an interval. Two have one on paper, 18 times as wide as their difference at least, which is
/// drawn as if it meant something.
pub(crate) const FEWEST: usize = 3;

/// A mean, or a difference of means, with its 95% confidence interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Estimate {
    /// The mean or the difference.
    pub(crate) mean: f64,
    /// Bounds of the interval; `None` of fewer than [`FEWEST`] values.
    pub(crate) interval: Option<(f64, f64)>,
    /// How many independent values it stands on; of two samples, the smaller number.
    pub(crate) n: usize,
    /// The standard error and its degrees of freedom; `None` where there is no interval.
    pub(crate) error: Option<(f64, f64)>,
}

impl Estimate {
    /// Whether the interval excludes zero; `None` without an interval.
    pub(crate) fn excludes_zero(&self) -> Option<bool> {
        self.interval.map(|(low, high)| low > 0.0 || high < 0.0)
    }

    /// The two-sided p-value of "the mean is zero"; `None` without an interval.
    pub(crate) fn p_value(&self) -> Option<f64> {
        let (error, freedom) = self.error?;
        Some(match (error > 0.0, self.mean == 0.0) {
            (true, _) => 2.0 * student::upper((self.mean / error).abs(), freedom),
            (false, equal) => f64::from(u8::from(equal)),
        })
    }

    /// Whether two one-sided tests at 5% each (Schuirmann, 1987) show the mean to lie within `margin` of zero: the 90% interval
    /// does. `None` without an interval.
    pub(crate) fn within(&self, margin: f64) -> Option<bool> {
        let (error, freedom) = self.error?;
        let half = if error > 0.0 { student::quantile(LEVEL, freedom) * error } else { 0.0 };
        Some(self.mean - half > -margin && self.mean + half < margin)
    }

    /// The mean in standard deviations of the independent values (Cohen's d of paired differences); `None` without an interval.
    pub(crate) fn standardised(&self) -> Option<f64> {
        let (error, _) = self.error?;
        let deviation = error * (self.n as f64).sqrt();
        Some(if deviation > 0.0 { self.mean / deviation } else { self.mean.signum() * f64::INFINITY })
            .filter(|size| !size.is_nan())
    }

    /// An estimate with an interval.
    pub(crate) fn new(mean: f64, standard_error: f64, freedom: f64, n: usize) -> Self {
        let half =
            if standard_error > 0.0 { student::quantile(0.5 + LEVEL / 2.0, freedom) * standard_error } else { 0.0 };
        Self { mean, interval: Some((mean - half, mean + half)), n, error: Some((standard_error, freedom)) }
    }

    /// An estimate without one: too few values.
    pub(crate) fn bare(mean: f64, n: usize) -> Self {
        Self { mean, interval: None, n, error: None }
    }

    /// The same spread about another mean.
    pub(crate) fn at(self, mean: f64) -> Self {
        let shift = mean - self.mean;
        Self { mean, interval: self.interval.map(|(low, high)| (low + shift, high + shift)), ..self }
    }
}

/// The mean of a sample with a t interval; of paired differences, this is the paired t interval. Values that are not
/// finite are left out; `None` if none is left.
pub(crate) fn mean(values: &[f64]) -> Option<Estimate> {
    let sample = Sample::of(values)?;
    if sample.n < FEWEST {
        return Some(Estimate::bare(sample.mean, sample.n));
    }
    let n = sample.n as f64;
    Some(Estimate::new(sample.mean, (sample.variance / n).sqrt(), n - 1.0, sample.n))
}

/// `mean(after) - mean(before)` of two independent samples, with Welch's interval (unequal variances, the degrees of
/// freedom after Satterthwaite). Without an interval if either side has too few values.
pub(crate) fn welch(before: &[f64], after: &[f64]) -> Option<Estimate> {
    let (a, b) = (Sample::of(before)?, Sample::of(after)?);
    let difference = b.mean - a.mean;
    let n = a.n.min(b.n);
    if n < FEWEST {
        return Some(Estimate::bare(difference, n));
    }
    let (square_a, square_b) = (a.variance / a.n as f64, b.variance / b.n as f64);
    let sum = square_a + square_b;
    let freedom = sum * sum / (square_a * square_a / (a.n as f64 - 1.0) + square_b * square_b / (b.n as f64 - 1.0));
    Some(Estimate::new(difference, sum.sqrt(), freedom, n))
}

struct Sample {
    mean: f64,
    variance: f64,
    n: usize,
}

impl Sample {
    fn of(values: &[f64]) -> Option<Self> {
        let finite: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
        if finite.is_empty() {
            return None;
        }
        let n = finite.len() as f64;
        let mean = finite.iter().sum::<f64>() / n;
        let squares: f64 = finite.iter().map(|value| (value - mean).powi(2)).sum();
        Some(Self { mean, variance: if finite.len() > 1 { squares / (n - 1.0) } else { 0.0 }, n: finite.len() })
    }
}

/// Indices of the points that no other point beats: less of the first (bits), and less of the second, or more if
/// `more_is_better`. Sorted by the first. Of equal points, the first one stands.
pub(crate) fn pareto(points: &[(f64, f64)], more_is_better: bool) -> Vec<usize> {
    let loss = |index: usize| if more_is_better { -points[index].1 } else { points[index].1 };
    let mut order: Vec<usize> =
        (0..points.len()).filter(|&index| points[index].0.is_finite() && points[index].1.is_finite()).collect();
    order.sort_by(|&a, &b| points[a].0.total_cmp(&points[b].0).then(loss(a).total_cmp(&loss(b))));
    let mut best = f64::INFINITY;
    order.retain(|&index| {
        let better = loss(index) < best;
        best = best.min(loss(index));
        better
    });
    order
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may fail loudly")]
mod tests {
    use super::*;

    fn near(found: f64, wanted: f64) {
        assert!((found - wanted).abs() < 1e-3 * wanted.abs().max(1.0), "{found} is not {wanted}");
    }

    #[test]
    fn paired_differences_give_the_textbook_interval() {
        // Differences 1, 2, 3: mean 2, standard deviation 1, standard error 1/sqrt 3, t(0.975, 2) = 4.303.
        let estimate = mean(&[1.0, 2.0, 3.0]).unwrap();
        let (low, high) = estimate.interval.unwrap();
        near(estimate.mean, 2.0);
        near(low, 2.0 - 4.3027 / 3.0_f64.sqrt());
        near(high, 2.0 + 4.3027 / 3.0_f64.sqrt());
        assert_eq!(estimate.excludes_zero(), Some(false));
    }

    #[test]
    fn one_value_has_no_interval() {
        let estimate = mean(&[4.5]).unwrap();
        assert_eq!((estimate.mean, estimate.interval, estimate.n), (4.5, None, 1));
        assert_eq!(estimate.excludes_zero(), None);
        assert_eq!(welch(&[1.0], &[2.0, 3.0]).unwrap().interval, None);
        assert!(mean(&[]).is_none());
        assert!(mean(&[f64::NAN]).is_none());
    }

    #[test]
    fn welch_agrees_with_a_worked_example() {
        // Variances 2.5 and 10 of five values each: standard error sqrt(2.5), 5.882 degrees of freedom, t = 2.4589.
        let estimate = welch(&[1.0, 2.0, 3.0, 4.0, 5.0], &[2.0, 4.0, 6.0, 8.0, 10.0]).unwrap();
        near(estimate.mean, 3.0);
        let (low, high) = estimate.interval.unwrap();
        near((high - low) / 2.0, 2.4589 * 2.5_f64.sqrt());
        near((high + low) / 2.0, 3.0);
    }

    #[test]
    fn equal_variances_and_sizes_give_welch_all_degrees_of_freedom() {
        // Two samples of variance 1, three values each: 4 degrees of freedom, t = 2.7764, standard error sqrt(2/3).
        let (low, high) = welch(&[0.0, 1.0, 2.0], &[5.0, 6.0, 7.0]).unwrap().interval.unwrap();
        near((high - low) / 2.0, 2.7764 * (2.0_f64 / 3.0).sqrt());
    }

    #[test]
    fn the_front_keeps_what_nothing_beats() {
        let points = [(8.0, 20.0), (16.0, 25.0), (16.0, 24.0), (24.0, 24.5), (32.0, 30.0), (f64::NAN, 99.0)];
        assert_eq!(pareto(&points, true), [0, 1, 4]);
        let errors = [(8.0, 0.3), (16.0, 0.1), (12.0, 0.4), (20.0, 0.1)];
        assert_eq!(pareto(&errors, false), [0, 1]);
    }

    #[test]
    fn the_t_interval_covers_the_mean_as_often_as_it_says() {
        // 4000 samples of three from a uniform-sum distribution that is close to normal; a linear congruential
        // generator (Knuth's MMIX constants) keeps the draws fixed.
        let mut state = 1_u64;
        let mut uniform = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1_u64 << 53) as f64
        };
        let mut normal = || (0..12).map(|_| uniform()).sum::<f64>() - 6.0;
        let covered = (0..4000)
            .filter(|_| {
                let (low, high) = mean(&[normal(), normal(), normal()]).unwrap().interval.unwrap();
                low <= 0.0 && 0.0 <= high
            })
            .count();
        let share = covered as f64 / 4000.0;
        assert!((share - 0.95).abs() < 0.015, "covered {share}");
    }
}

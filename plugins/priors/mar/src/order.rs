//! How many tokens are masked in training, and how many are predicted in each step of sampling.

use rqlab_sdk::prelude::*;
use std::f64::consts::FRAC_PI_2;

/// How many of `length` tokens are masked at a share: rounded up, as published.
pub fn masked_count(share: f64, length: usize) -> usize {
    ((share * length as f64).ceil() as usize).clamp(1, length)
}

/// A share of masked tokens: normal around 1 with deviation 0.25, cut to `least` and 1. Of a normal distribution cut at its
/// mean the share below is drawn by trying again.
pub(crate) fn masked_share(least: f64, rng: &Rng) -> f64 {
    // A try succeeds with a probability of 0.38 at the published 0.7; where none of them does, the least share is near 1.
    let tries = rng.whole().normal(256).into_iter().map(|x| 1.0 - 0.25 * f64::from(x.abs()));
    tries.into_iter().find(|share| *share >= least).unwrap_or(least)
}

/// How many tokens of `length` are known after each of `iterations` steps: `length - m`, where m is `length cos(pi/2 (k +
/// 1) / iterations)` rounded down, one less than before at most, one at least, and none after the last.
pub fn steps_of(length: usize, iterations: usize) -> Vec<usize> {
    let mut left = length;
    (0..iterations)
        .map(|k| {
            let wanted = (length as f64 * (FRAC_PI_2 * (k + 1) as f64 / iterations as f64).cos()).floor() as usize;
            left = if k + 1 == iterations { 0 } else { wanted.min(left.saturating_sub(1)).max(1) };
            length - left
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_the_published_ones() {
        let counts = steps_of(256, 8);
        let each: Vec<usize> =
            std::iter::once(counts[0]).chain(counts.windows(2).map(|pair| pair[1] - pair[0])).collect();
        assert_eq!(each, [5, 15, 24, 31, 39, 45, 48, 49]);
        assert_eq!(steps_of(5, 5), [1, 2, 3, 4, 5]);
        assert_eq!(steps_of(5, 1), [5]);
        assert_eq!(steps_of(256, 256), (1..=256).collect::<Vec<_>>());
    }

    /// Of a normal distribution cut to 1.2 deviations on one side of its mean: 1 - 0.25 (phi(0) - phi(1.2)) / (Phi(1.2) - 1/2).
    #[test]
    fn shares_have_the_mean_of_the_cut_distribution() {
        let shares: Vec<f64> = (0..4000).map(|step| masked_share(0.7, &Rng::new(0, "share", step))).collect();
        assert!(shares.iter().all(|share| (0.7..=1.0).contains(share)));
        let mean = shares.iter().sum::<f64>() / 4000.0;
        let phi = |x: f64| (-0.5 * x * x).exp() / std::f64::consts::TAU.sqrt();
        let wanted = 1.0 - 0.25 * (phi(0.0) - phi(1.2)) / 0.384_930;
        assert!((mean - wanted).abs() < 0.005, "{mean} {wanted}");
        assert_eq!([masked_count(0.7, 16), masked_count(1.0, 16), masked_count(0.0, 16)], [12, 16, 1]);
    }
}

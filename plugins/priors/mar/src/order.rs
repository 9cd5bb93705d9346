//! Orders of tokens, how many are masked in training, and how many are predicted in each step of sampling.

use rqlab_sdk::prelude::*;
use std::f64::consts::FRAC_PI_2;
use std::ops::Range;

/// The order in which the L tokens of each image are predicted. The first known are visible, the others masked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orders {
    /// The position of every token, image by image, in the order of prediction.
    positions: Vec<u32>,
    length: usize,
}

impl Orders {
    /// Given orders of images, `length` positions each.
    ///
    /// # Errors
    /// [`Error::Unsupported`] unless each image has every position once.
    pub fn new(positions: Vec<u32>, length: usize) -> Result<Self> {
        let is_order = |image: &[u32]| {
            let mut sorted = image.to_vec();
            sorted.sort_unstable();
            sorted.iter().enumerate().all(|(i, &position)| i as u32 == position)
        };
        if length == 0 || !positions.len().is_multiple_of(length) || !positions.chunks(length).all(is_order) {
            return Err(Error::Unsupported(format!("these are no orders of {length} positions: {positions:?}")));
        }
        Ok(Self { positions, length })
    }

    /// Row by row.
    pub fn raster(images: usize, length: usize) -> Self {
        Self { positions: (0..images).flat_map(|_| 0..length as u32).collect(), length }
    }

    /// A random order for each image.
    pub fn random(images: usize, length: usize, rng: &Rng) -> Self {
        let order = |image: usize| rng.part("order", image as u64).permutation(length).into_iter().map(|p| p as u32);
        Self { positions: (0..images).flat_map(order).collect(), length }
    }

    /// The same with the tokens of each step in raster order; the steps end where `ends` says.
    #[must_use]
    pub fn sorted_within(mut self, ends: &[usize]) -> Self {
        for image in self.positions.chunks_mut(self.length) {
            let mut from = 0;
            for &end in ends {
                image[from..end].sort_unstable();
                from = end;
            }
        }
        self
    }

    /// Every image twice in a row.
    #[must_use]
    pub fn paired(&self) -> Self {
        let positions = self.positions.chunks(self.length).flat_map(|image| [image, image].concat()).collect();
        Self { positions, length: self.length }
    }

    /// Images, B.
    pub fn images(&self) -> usize {
        self.positions.len() / self.length
    }

    /// Tokens of an image, L.
    pub fn length(&self) -> usize {
        self.length
    }

    /// The positions `[B, n]` of tokens `range` in the order of prediction.
    ///
    /// # Errors
    /// None in practice: positions have a shape.
    pub fn positions(&self, range: Range<usize>) -> Result<Codes> {
        let picked = self.positions.chunks(self.length).flat_map(|image| image[range.clone()].iter().copied());
        Ok(Codes::from_vec(picked.collect(), &[self.images(), range.len()])?)
    }

    /// The rows of tokens `range` in the order of prediction, `[B, L, C] -> [B, n, C]`.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn pick(&self, x: &Tensor, range: Range<usize>) -> Result<Tensor> {
        let rows = self.positions.chunks(self.length).enumerate();
        let rows =
            rows.flat_map(|(b, image)| image[range.clone()].iter().map(move |&p| b as u32 * self.length as u32 + p));
        let rows = Codes::from_vec(rows.collect(), &[self.images(), range.len()])?;
        Ok(x.reshape(&[self.positions.len(), x.last_dim()])?.embedding(&rows)?)
    }

    /// The inverse of [`Orders::pick`] of all tokens: from the order of prediction to raster order.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn restore(&self, x: &Tensor) -> Result<Tensor> {
        let places = self.places()?;
        Ok(x.reshape(&[self.positions.len(), x.last_dim()])?.embedding(&places)?)
    }

    /// For every position of every image, the row of its token among all in the order of prediction, `[B, L]`.
    fn places(&self) -> Result<Codes> {
        let mut places = vec![0u32; self.positions.len()];
        for (row, &position) in self.positions.iter().enumerate() {
            places[row / self.length * self.length + position as usize] = row as u32;
        }
        Ok(Codes::from_vec(places, &[self.images(), self.length])?)
    }
}

/// How many of `length` tokens are masked at a share: rounded up, as published.
pub fn masked_count(share: f64, length: usize) -> usize {
    ((share * length as f64).ceil() as usize).clamp(1, length)
}

/// A share of masked tokens: normal around 1 with deviation 0.25, cut to `least` and 1. Of a normal distribution cut at its
/// mean the share below is drawn by trying again.
pub(crate) fn masked_share(least: f64, rng: &Rng) -> f64 {
    // A try succeeds with a probability of 0.38 at the published 0.7; where none of them does, the least share is near 1.
    let tries = rng.normal(256).into_iter().map(|x| 1.0 - 0.25 * f64::from(x.abs()));
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
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
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

    #[test]
    fn restoring_undoes_picking() {
        let orders = Orders::random(3, 7, &Rng::new(1, "orders", 0));
        let x = Tensor::from_vec((0..42).map(|i| i as f32).collect(), &[3, 7, 2]).unwrap();
        assert_eq!(orders.restore(&orders.pick(&x, 0..7).unwrap()).unwrap().to_vec(), x.to_vec());
        let sorted = orders.clone().sorted_within(&[2, 7]);
        let first = sorted.positions(0..2).unwrap();
        assert!(first.as_slice().chunks(2).all(|pair| pair[0] < pair[1]));
        assert!(Orders::new(vec![0, 2, 2], 3).is_err() && Orders::new(vec![2, 0, 1], 3).is_ok());
        assert_eq!(orders.paired().images(), 6);
    }
}

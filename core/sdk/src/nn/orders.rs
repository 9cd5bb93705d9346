//! Orders in which the tokens of images are predicted.

use crate::tensor::{Codes, Rng, Tensor};
use crate::{Error, Result};
use std::ops::Range;

/// The order in which the L tokens of each image are predicted: one of each image, or one of all. Places count tokens in the
/// order of prediction, positions where they lie in the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orders {
    /// The position of every token, image by image, in the order of prediction; those of one image if `shared`.
    positions: Vec<u32>,
    length: usize,
    images: usize,
    shared: bool,
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
        Ok(Self { images: positions.len() / length, positions, length, shared: false })
    }

    /// Row by row.
    pub fn raster(images: usize, length: usize) -> Self {
        Self { positions: (0..length as u32).collect(), length, images, shared: true }
    }

    /// A random order for each image.
    pub fn random(images: usize, length: usize, rng: &Rng) -> Self {
        Self::random_at(images, length, 1.0, rng)
    }

    /// For each image, with probability `share`, a random order, and raster order else (Yu et al., "Randomized autoregressive
    /// visual generation", 2024).
    pub fn random_at(images: usize, length: usize, share: f64, rng: &Rng) -> Self {
        let draws = rng.part("is random", 0).uniform(images);
        let order = |(image, u): (usize, f32)| {
            if f64::from(u) < share {
                rng.part("order", rng.place(image, images) as u64).permutation(length)
            } else {
                (0..length).collect()
            }
        };
        let positions = draws.into_iter().enumerate().flat_map(order).map(|position| position as u32).collect();
        Self { positions, length, images, shared: false }
    }

    /// The first image's order for each of `images`.
    #[must_use]
    pub fn of_all(&self, images: usize) -> Self {
        Self { positions: self.positions[..self.length].to_vec(), length: self.length, images, shared: true }
    }

    /// Of positions that hold `depth` tokens each, which follow each other.
    #[must_use]
    pub fn with_depth(&self, depth: usize) -> Self {
        let stack = |&position: &u32| (0..depth as u32).map(move |d| position * depth as u32 + d);
        Self { positions: self.positions.iter().flat_map(stack).collect(), length: self.length * depth, ..*self }
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
        let positions = if self.shared {
            self.positions.clone()
        } else {
            self.positions.chunks(self.length).flat_map(|image| [image, image].concat()).collect()
        };
        Self { positions, images: 2 * self.images, ..*self }
    }

    /// Images, B.
    pub fn images(&self) -> usize {
        self.images
    }

    /// Tokens of an image, L.
    pub fn length(&self) -> usize {
        self.length
    }

    /// The order of all images, if they have one.
    pub fn shared(&self) -> Option<&[u32]> {
        self.shared.then_some(self.positions.as_slice())
    }

    /// Whether that is raster order.
    pub fn is_raster(&self) -> bool {
        self.shared && self.positions.iter().enumerate().all(|(place, &position)| place as u32 == position)
    }

    /// The positions `[B, n]` of tokens `range` in the order of prediction.
    ///
    /// # Errors
    /// None in practice: positions have a shape.
    pub fn positions(&self, range: Range<usize>) -> Result<Codes> {
        let picked = (0..self.images).flat_map(|image| self.of(image)[range.clone()].iter().copied());
        Ok(Codes::from_vec(picked.collect(), &[self.images, range.len()])?)
    }

    /// Rows of a table `[L, W]` for the positions of tokens `range`: `[1, n, W]` where all images have one order, `[B, n, W]` else.
    ///
    /// # Errors
    /// A table of another length.
    pub fn rows(&self, table: &Tensor, range: Range<usize>) -> Result<Tensor> {
        let [_, width] = table.dims("rows of an order")?;
        if self.is_raster() {
            return Ok(table.slice(0, range.clone())?.reshape(&[1, range.len(), width])?);
        }
        let images = if self.shared { 1 } else { self.images };
        let picked = (0..images).flat_map(|image| self.of(image)[range.clone()].iter().copied());
        Ok(table.embedding(&Codes::from_vec(picked.collect(), &[images, range.len()])?)?)
    }

    /// The rows of tokens `range` in the order of prediction, `[B, L, C] -> [B, n, C]`.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn pick(&self, x: &Tensor, range: Range<usize>) -> Result<Tensor> {
        if self.is_raster() {
            return Ok(x.slice(1, range)?);
        }
        let rows = (0..self.images).flat_map(|image| {
            self.of(image)[range.clone()].iter().map(move |&position| (image * self.length) as u32 + position)
        });
        let rows = Codes::from_vec(rows.collect(), &[self.images, range.len()])?;
        Ok(x.reshape(&[self.images * self.length, x.last_dim()])?.embedding(&rows)?)
    }

    /// The inverse of [`Orders::pick`] of all tokens: from the order of prediction to raster order.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn restore(&self, x: &Tensor) -> Result<Tensor> {
        if self.is_raster() {
            return Ok(x.clone());
        }
        let places = self.places()?;
        Ok(x.reshape(&[self.images * self.length, x.last_dim()])?.embedding(&places)?)
    }

    fn of(&self, image: usize) -> &[u32] {
        let from = if self.shared { 0 } else { image * self.length };
        &self.positions[from..from + self.length]
    }

    /// For every position of every image, the row of its token among all in the order of prediction, `[B, L]`.
    fn places(&self) -> Result<Codes> {
        let mut places = vec![0u32; self.images * self.length];
        for (image, places) in places.chunks_mut(self.length).enumerate() {
            for (place, &position) in self.of(image).iter().enumerate() {
                places[position as usize] = (image * self.length + place) as u32;
            }
        }
        Ok(Codes::from_vec(places, &[self.images, self.length])?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn restoring_undoes_picking() {
        let random = Orders::random(3, 7, &Rng::new(1, "orders", 0));
        let x = Tensor::from_vec((0..42).map(|i| i as f32).collect(), &[3, 7, 2]).unwrap();
        let all = [
            random.clone(),
            random.of_all(3),
            Orders::raster(3, 7),
            Orders::random_at(3, 7, 0.5, &Rng::new(2, "orders", 0)),
        ];
        for orders in all {
            assert_eq!(orders.restore(&orders.pick(&x, 0..7).unwrap()).unwrap().to_vec(), x.to_vec());
            let positions = orders.positions(2..5).unwrap();
            let picked = orders.pick(&x, 2..5).unwrap().to_vec();
            for (i, (pair, &position)) in picked.chunks(2).zip(positions.as_slice()).enumerate() {
                assert_eq!(pair[0], (i / 3 * 14) as f32 + 2.0 * position as f32);
            }
        }
        let sorted = random.clone().sorted_within(&[2, 7]);
        let first = sorted.positions(0..2).unwrap();
        assert!(first.as_slice().chunks(2).all(|pair| pair[0] < pair[1]));
        assert!(Orders::new(vec![0, 2, 2], 3).is_err() && Orders::new(vec![2, 0, 1], 3).is_ok());
        assert_eq!(random.paired().images(), 6);
        assert_eq!(random.of_all(2).paired().positions(0..7).unwrap().shape(), [4, 7]);
    }

    #[test]
    fn a_share_of_the_images_is_in_random_order() {
        let at = |share| Orders::random_at(1000, 9, share, &Rng::new(3, "orders", 0));
        let random = |orders: &Orders| {
            let positions = orders.positions(0..9).unwrap();
            positions.as_slice().chunks(9).filter(|order| !order.is_sorted()).count()
        };
        assert_eq!([random(&at(0.0)), random(&at(1.0))], [0, 1000]);
        // Within five standard errors.
        assert!(random(&at(0.3)).abs_diff(300) < 75);
    }

    #[test]
    fn codes_of_a_position_stay_together() {
        let orders = Orders::new(vec![1, 0, 0, 1], 2).unwrap().with_depth(3);
        assert_eq!(orders.positions(0..6).unwrap().as_slice(), [3, 4, 5, 0, 1, 2, 0, 1, 2, 3, 4, 5]);
        assert_eq!(orders.length(), 6);
    }

    #[test]
    fn rows_of_a_table_are_those_of_the_positions() {
        let table = Tensor::from_vec((0..6).map(|i| i as f32).collect(), &[3, 2]).unwrap();
        let own = Orders::new(vec![2, 0, 1, 0, 1, 2], 3).unwrap();
        assert_eq!(own.rows(&table, 0..2).unwrap().to_vec(), [4.0, 5.0, 0.0, 1.0, 0.0, 1.0, 2.0, 3.0]);
        let shared = own.of_all(4).rows(&table, 0..2).unwrap();
        assert_eq!((shared.shape(), shared.to_vec()), (&[1, 2, 2][..], vec![4.0, 5.0, 0.0, 1.0]));
        assert_eq!(Orders::raster(4, 3).rows(&table, 1..3).unwrap().to_vec(), [2.0, 3.0, 4.0, 5.0]);
    }
}

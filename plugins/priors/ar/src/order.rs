//! In which order the positions of a map are predicted.

use crate::position::TokenMap;
use rqlab_sdk::nn::Orders;
use rqlab_sdk::prelude::*;

rqlab_sdk::choice! {
    /// In which order the positions of the map are predicted. The codes of a position follow each other, depth by depth.
    pub enum Order {
        /// Row by row, from left to right.
        Raster = "raster",
        /// Row by row, every other one from right to left, so that neighbours follow each other (the "alternate" of VQGAN's
        /// ablation, Esser et al. 2021).
        Zigzag = "zigzag",
        /// Along the edge from the upper left corner, clockwise, and on inwards ("spiral in" of the same).
        Spiral = "spiral",
        /// Another random one for each image and step of training. At evaluation there is one for all, drawn once and for ever
        /// by the size of the map: samples are drawn in it, and the likelihood is that of this order.
        Random = "random",
        /// Random in the first part of training, then more and more often raster, which alone is evaluated (RAR, Yu et al.,
        /// "Randomized autoregressive visual generation", 2024).
        Annealed = "annealed",
    }
}

impl Order {
    /// Whether images of a batch may have different orders in training.
    pub(crate) fn varies(self) -> bool {
        matches!(self, Self::Random | Self::Annealed)
    }

    /// The positions of a map in the order in which they are predicted at evaluation.
    pub(crate) fn at_evaluation(self, height: usize, width: usize) -> Vec<u32> {
        let length = height * width;
        let of = |row: usize, column: usize| (row * width + column) as u32;
        match self {
            Self::Raster | Self::Annealed => (0..length as u32).collect(),
            Self::Zigzag => {
                let column = |row: usize, i: usize| if row.is_multiple_of(2) { i } else { width - 1 - i };
                (0..length).map(|i| of(i / width, column(i / width, i % width))).collect()
            }
            Self::Spiral => spiral(height, width, of),
            Self::Random => {
                let drawn = Rng::new(0, "evaluation order", length as u64).permutation(length);
                drawn.into_iter().map(|position| position as u32).collect()
            }
        }
    }
}

/// Ring after ring, each from its upper left corner, clockwise.
fn spiral(height: usize, width: usize, of: impl Fn(usize, usize) -> u32) -> Vec<u32> {
    let mut order = Vec::with_capacity(height * width);
    for ring in 0..height.min(width).div_ceil(2) {
        let (bottom, right) = (height - 1 - ring, width - 1 - ring);
        order.extend((ring..=right).map(|column| of(ring, column)));
        order.extend((ring + 1..=bottom).map(|row| of(row, right)));
        if bottom > ring {
            order.extend((ring..right).rev().map(|column| of(bottom, column)));
        }
        if right > ring {
            order.extend((ring + 1..bottom).rev().map(|row| of(row, ring)));
        }
    }
    order
}

/// The share of images in random order at a step of annealing: 1 before its `first` step, 0 from its `last` on, and in between
/// it falls linearly.
pub fn random_share(step: f64, [first, last]: [f64; 2]) -> f64 {
    if step < first {
        1.0
    } else if step >= last {
        0.0
    } else {
        1.0 - (step - first) / (last - first)
    }
}

/// The orders of a prior over one map.
#[derive(Debug)]
pub(crate) struct Reading {
    order: Order,
    /// Between which shares of the training random order gives way to raster order.
    anneal: [f32; 2],
    depth: usize,
    /// The order at evaluation, of positions.
    pub(crate) evaluation: Vec<u32>,
    /// The share of images in random order at this step of training.
    share: f64,
}

impl Reading {
    pub(crate) fn new(order: Order, anneal: [f32; 2], map: TokenMap) -> Self {
        let evaluation = order.at_evaluation(map.height, map.width);
        Self { order, anneal, depth: map.depth, evaluation, share: 1.0 }
    }

    pub(crate) fn begin_step(&mut self, step: u64, steps: u64) {
        if self.order == Order::Annealed {
            self.share = random_share(step as f64, self.anneal.map(|share| f64::from(share) * steps as f64));
        }
    }

    /// The orders of the codes of `images`.
    pub(crate) fn orders(&self, images: usize, mode: &Mode) -> Result<Orders> {
        let orders = match mode {
            Mode::Train(rng) if self.order.varies() => {
                Orders::random_at(images, self.evaluation.len(), self.share, &rng.part("orders", 0))
            }
            _ => Orders::new(self.evaluation.clone(), self.evaluation.len())?.of_all(images),
        };
        Ok(orders.with_depth(self.depth))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zigzag_turns_at_the_end_of_each_row() {
        assert_eq!(Order::Zigzag.at_evaluation(3, 3), [0, 1, 2, 5, 4, 3, 6, 7, 8]);
        assert_eq!(Order::Zigzag.at_evaluation(2, 1), [0, 1]);
    }

    #[test]
    fn a_spiral_goes_inwards_clockwise() {
        assert_eq!(Order::Spiral.at_evaluation(3, 3), [0, 1, 2, 5, 8, 7, 6, 3, 4]);
        assert_eq!(Order::Spiral.at_evaluation(2, 4), [0, 1, 2, 3, 7, 6, 5, 4]);
        assert_eq!(Order::Spiral.at_evaluation(4, 2), [0, 1, 3, 5, 7, 6, 4, 2]);
    }

    #[test]
    fn every_order_has_every_position_once() {
        for order in [Order::Raster, Order::Zigzag, Order::Spiral, Order::Random, Order::Annealed] {
            for (height, width) in [(1, 1), (1, 5), (5, 1), (2, 3), (4, 4), (5, 3)] {
                let mut positions = order.at_evaluation(height, width);
                positions.sort_unstable();
                assert_eq!(positions, (0..(height * width) as u32).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn random_order_gives_way_linearly() {
        let share = |step| random_share(step, [100.0, 300.0]);
        assert_eq!([0.0, 99.0, 100.0, 150.0, 300.0, 1e9].map(share), [1.0, 1.0, 1.0, 0.75, 0.0, 0.0]);
        assert_eq!([4.0, 5.0, 6.0].map(|step| random_share(step, [5.0, 5.0])), [1.0, 0.0, 0.0]);
    }
}

//! How many positions are masked, and which.

use rqlab_sdk::prelude::*;
use std::f64::consts::FRAC_PI_2;

rqlab_sdk::choice! {
    /// The share of masked positions at progress r in [0, 1]: from 1 to 0.
    pub enum Schedule {
        /// `arccos(r) / (pi / 2)`.
        Arccos = "arccos",
        /// `cos(pi r / 2)`.
        Cosine = "cosine",
    }
}

impl Schedule {
    /// The share at progress `r`.
    pub fn share(self, r: f64) -> f64 {
        match self {
            Self::Arccos => r.clamp(0.0, 1.0).acos() / FRAC_PI_2,
            Self::Cosine => (r * FRAC_PI_2).cos(),
        }
    }

    /// How many of `positions` positions, `masked` of them masked, are masked again after step `step`, from 0, of `steps`:
    /// `max(1, min(masked - 1, floor(positions share)))`. After the last step none is, whatever this says.
    pub fn masked_after(self, step: usize, steps: usize, positions: usize, masked: usize) -> usize {
        let share = self.share((step + 1) as f64 / steps as f64);
        ((positions as f64 * share).floor() as usize).min(masked.saturating_sub(1)).max(1)
    }
}

/// Which positions of a batch are masked.
#[derive(Debug, Clone)]
pub struct Masks {
    /// 1 where a position is masked, 0 where it is visible: `[B, T, 1]`.
    pub masked: Tensor,
}

impl Masks {
    /// Of each image `max(1, round(T share(u)))` of its T positions, with its uniform number u of `ratios` `[B]`: those
    /// positions p of which the p-th entry of the order of its numbers in `order` `[B T]` lies below that count.
    ///
    /// # Errors
    /// Not T numbers per image.
    pub fn drawn(schedule: Schedule, ratios: &[f32], order: &[f32], positions: usize) -> Result<Self> {
        let mut masked = Vec::with_capacity(order.len());
        for (&u, order) in ratios.iter().zip(order.chunks(positions.max(1))) {
            let share = schedule.share(f64::from(u)).clamp(1e-6, 1.0);
            let count = ((positions as f64 * share).round() as usize).max(1);
            let mut sorted: Vec<usize> = (0..order.len()).collect();
            sorted.sort_by(|&a, &b| order[a].total_cmp(&order[b]));
            masked.extend(sorted.into_iter().map(|at| if at < count { 1.0 } else { 0.0 }));
        }
        Ok(Self { masked: Tensor::from_vec(masked, &[ratios.len(), positions, 1])? })
    }

    /// Those that training masks of `images` images: from `rng`.
    ///
    /// # Errors
    /// None in practice: each image has its numbers.
    pub fn random(schedule: Schedule, images: usize, positions: usize, rng: &Rng) -> Result<Self> {
        let ratios = rng.part("ratio", 0).uniform(images);
        Self::drawn(schedule, &ratios, &rng.part("order", 0).uniform(images * positions), positions)
    }
}

/// The cells of a map of `height` rows and `width` columns in the order in which the points of the two-dimensional Halton
/// sequence (bases 2 for rows and 3 for columns) fall into them for the first time: cells that follow each other lie far apart.
pub(crate) fn halton_order(height: usize, width: usize) -> Vec<usize> {
    let radical_inverse = |mut index: usize, base: usize| {
        let (mut value, mut scale) = (0.0, 1.0);
        while index > 0 {
            scale /= base as f64;
            value += scale * (index % base) as f64;
            index /= base;
        }
        value
    };
    let cells = height * width;
    let mut seen = vec![false; cells];
    let mut order = Vec::with_capacity(cells);
    let mut index = 1;
    while order.len() < cells {
        let row = (radical_inverse(index, 2) * height as f64) as usize;
        let column = (radical_inverse(index, 3) * width as f64) as usize;
        let cell = row * width + column;
        if !std::mem::replace(&mut seen[cell], true) {
            order.push(cell);
        }
        index += 1;
    }
    order
}

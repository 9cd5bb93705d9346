//! Random masks.

use super::elementwise::GRAIN;
use crate::Rng;
use rayon::prelude::*;

/// Zeroes element i where word i of `rng` falls below `p`, and scales the rest by 1 / (1 - p).
pub(crate) fn dropout(x: &mut [f32], p: f32, rng: &Rng) {
    let threshold = (f64::from(p) * 4_294_967_296.0) as u32;
    let scale = 1.0 / (1.0 - p);
    x.par_chunks_mut(GRAIN).enumerate().for_each(|(piece, x)| {
        for (block, x) in x.chunks_mut(4).enumerate() {
            let words = rng.block((piece * (GRAIN / 4) + block) as u64);
            for (x, word) in x.iter_mut().zip(words) {
                *x = if word < threshold { 0.0 } else { *x * scale };
            }
        }
    });
}

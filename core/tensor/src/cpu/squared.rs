//! Squared differences.

use super::dispatch::simd;
use super::elementwise::GRAIN;
use super::sum::{LANES, fold};
use rayon::prelude::*;

simd! {
    fn squared_distance_chunk(x: &[f32], y: &[f32]) -> f64 {
        let mut sum = 0.0;
        for (x, y) in x.chunks(1 << 10).zip(y.chunks(1 << 10)) {
            let mut lanes = [0.0f32; LANES];
            let (xs, ys) = (x.chunks_exact(LANES), y.chunks_exact(LANES));
            let (x_rest, y_rest) = (xs.remainder(), ys.remainder());
            for (x, y) in xs.zip(ys) {
                for ((l, x), y) in lanes.iter_mut().zip(x).zip(y) {
                    *l += (x - y) * (x - y);
                }
            }
            for ((l, x), y) in lanes.iter_mut().zip(x_rest).zip(y_rest) {
                *l += (x - y) * (x - y);
            }
            sum += f64::from(fold(lanes));
        }
        sum
    }
}

/// The sum of `(x - y)^2`.
pub(crate) fn squared_distance(x: &[f32], y: &[f32]) -> f64 {
    let pieces: Vec<f64> =
        x.par_chunks(GRAIN).zip(y.par_chunks(GRAIN)).map(|(x, y)| squared_distance_chunk(x, y)).collect();
    pieces.iter().sum()
}

simd! {
    fn scaled_difference_chunk(x: &[f32], y: &[f32], scale: f32, out: &mut [f32], accumulate: bool) {
        if accumulate {
            for ((o, x), y) in out.iter_mut().zip(x).zip(y) {
                *o += scale * (x - y);
            }
        } else {
            for ((o, x), y) in out.iter_mut().zip(x).zip(y) {
                *o = scale * (x - y);
            }
        }
    }
}

/// `scale * (x - y)`, written or added.
pub(crate) fn scaled_difference(x: &[f32], y: &[f32], scale: f32, out: &mut [f32], accumulate: bool) {
    out.par_chunks_mut(GRAIN)
        .zip(x.par_chunks(GRAIN).zip(y.par_chunks(GRAIN)))
        .for_each(|(out, (x, y))| scaled_difference_chunk(x, y, scale, out, accumulate));
}

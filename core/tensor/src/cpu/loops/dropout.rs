//! Random masks.

use crate::Rng;
use crate::cpu::buffer;
use crate::cpu::isa::simd;
use crate::cpu::loops::elementwise::GRAIN;
use rayon::prelude::*;

/// Elements whose words [`Rng::blocks`] draws together.
const GROUP: usize = 64;

simd! {
    fn dropout_chunk(x: &mut [f32], first_block: u64, rng: &Rng, threshold: u32, scale: f32) {
        for (group, x) in x.chunks_mut(GROUP).enumerate() {
            let words = rng.blocks(first_block + (group * GROUP / 4) as u64);
            let mut factors = [0.0f32; GROUP];
            for i in 0..GROUP / 4 {
                for w in 0..4 {
                    factors[4 * i + w] = if words[w][i] < threshold { 0.0 } else { scale };
                }
            }
            for (x, factor) in x.iter_mut().zip(factors) {
                // Not a product: an infinite number is dropped too.
                *x = if factor == 0.0 { 0.0 } else { *x * factor };
            }
        }
    }
}

/// What element indices and `p` come to: one piece of the mask.
fn piece(x: &mut [f32], piece: usize, p: f32, rng: &Rng) {
    let threshold = (f64::from(p) * 4_294_967_296.0) as u32;
    dropout_chunk(x, (piece * (GRAIN / 4)) as u64, rng, threshold, 1.0 / (1.0 - p));
}

/// Zeroes element i where word i of `rng` falls below `p`, and scales the rest by 1 / (1 - p).
pub(crate) fn dropout(x: &mut [f32], p: f32, rng: &Rng) {
    x.par_chunks_mut(GRAIN).enumerate().for_each(|(i, x)| piece(x, i, p, rng));
}

/// The same on a copy.
pub(crate) fn dropped(x: &[f32], p: f32, rng: &Rng) -> Vec<f32> {
    buffer(x.len(), |out| {
        out.par_chunks(GRAIN, |i, out| {
            let x = &x[i * GRAIN..][..out.len()];
            let out = out.map(x, |x| *x);
            piece(out, i, p, rng);
            out
        })
    })
}

//! Random masks.

use crate::Rng;
use crate::cpu::buffer;
use crate::cpu::isa::simd;
use crate::cpu::loops::elementwise::GRAIN;
use rayon::prelude::*;

/// Words that [`Rng::blocks`] draws together.
const GROUP: usize = 64;

simd! {
    fn dropout_chunk(x: &mut [f32], first_word: u64, rng: &Rng, threshold: u32, scale: f32) {
        // The first of a share's words may stand within a block; a group then ends within one as well.
        let skip = (first_word % 4) as usize;
        let mut done = 0;
        while done < x.len() {
            let start = if done == 0 { skip } else { 0 };
            let words = rng.blocks((first_word - skip as u64) / 4 + ((skip + done) / 4) as u64);
            let mut factors = [0.0f32; GROUP];
            for i in 0..GROUP / 4 {
                for w in 0..4 {
                    factors[4 * i + w] = if words[w][i] < threshold { 0.0 } else { scale };
                }
            }
            let end = x.len().min(done + GROUP - start);
            for (x, factor) in x[done..end].iter_mut().zip(&factors[start..]) {
                // Not a product: an infinite number is dropped too.
                *x = if *factor == 0.0 { 0.0 } else { *x * factor };
            }
            done = end;
        }
    }
}

/// What element indices and `p` come to: one piece of the mask, whose first word is `first`.
fn piece(x: &mut [f32], first: u64, p: f32, rng: &Rng) {
    let threshold = (f64::from(p) * 4_294_967_296.0) as u32;
    dropout_chunk(x, first, rng, threshold, 1.0 / (1.0 - p));
}

/// Zeroes element i where word i of `rng` falls below `p`, and scales the rest by 1 / (1 - p).
pub(crate) fn dropout(x: &mut [f32], p: f32, rng: &Rng) {
    let first = rng.first(x.len());
    x.par_chunks_mut(GRAIN).enumerate().for_each(|(i, x)| piece(x, first + (i * GRAIN) as u64, p, rng));
}

/// The same on a copy.
pub(crate) fn dropped(x: &[f32], p: f32, rng: &Rng) -> Vec<f32> {
    let first = rng.first(x.len());
    buffer(x.len(), |out| {
        out.par_chunks(GRAIN, |i, out| {
            let x = &x[i * GRAIN..][..out.len()];
            let out = out.map(x, |x| *x);
            piece(out, first + (i * GRAIN) as u64, p, rng);
            out
        })
    })
}

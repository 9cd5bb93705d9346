//! Loops over elements.

use super::dispatch::simd;
use rayon::prelude::*;

/// Elements a task works on at least: small enough to balance, large enough to hide the hand-over.
pub(crate) const GRAIN: usize = 1 << 14;

simd! {
    fn add_assign_chunk(target: &mut [f32], other: &[f32]) {
        for (t, o) in target.iter_mut().zip(other) {
            *t += o;
        }
    }
}

/// `target += other`, element by element.
pub(crate) fn add_assign(target: &mut [f32], other: &[f32]) {
    target.par_chunks_mut(GRAIN).zip(other.par_chunks(GRAIN)).for_each(|(t, o)| add_assign_chunk(t, o));
}

//! Rotations of queries and keys.

use crate::cpu::buffer;
use crate::cpu::isa::{fma, simd};
use crate::cpu::loops::elementwise::GRAIN;
use crate::cpu::loops::reduce::LANES;

/// Which numbers are turned by which row of a table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Turned {
    /// Numbers of a head, an even number.
    pub(crate) head: usize,
    /// Numbers of a row, and the first of them that are turned.
    pub(crate) row: usize,
    pub(crate) turned: usize,
    /// Row r is turned by row `r % period` of the table.
    pub(crate) period: usize,
    /// Whether the other way round.
    pub(crate) back: bool,
}

/// The rows of `x`, turned by a `table` of rows of `2 head` numbers: cosines, then sines with their signs.
pub(crate) fn rotated(turned: Turned, x: &[f32], table: &[f32]) -> Vec<f32> {
    let Turned { head, row, period, .. } = turned;
    assert!(head > 0 && row > 0 && x.len().is_multiple_of(row) && turned.turned <= row);
    assert!(turned.turned.is_multiple_of(head) && head.is_multiple_of(2) && table.len() == period * 2 * head);
    let sign = if turned.back { -1.0 } else { 1.0 };
    let rows = (GRAIN / row).max(1);
    buffer(x.len(), |out| {
        out.par_chunks(rows * row, |i, out| {
            let x = &x[i * rows * row..][..out.len()];
            let copy = out.map(x, |x| *x);
            for (r, out) in copy.chunks_exact_mut(row).enumerate() {
                let (cos, sin) = table[(i * rows + r) % period * 2 * head..][..2 * head].split_at(head);
                for out in out[..turned.turned].chunks_exact_mut(head) {
                    turn(out, cos, sin, sign);
                }
            }
            copy
        })
    })
}

simd! {
    /// Turns one head into `x cos + swap(x) sin`, where `swap` exchanges neighbours and `sin` has the signs; the other way round
    /// with `sign` -1. On this thread.
    pub(crate) fn turn(x: &mut [f32], cos: &[f32], sin: &[f32], sign: f32) {
        let (chunks, rest) = x.as_chunks_mut::<LANES>();
        let whole = chunks.len() * LANES;
        for (i, x) in chunks.iter_mut().enumerate() {
            let at = i * LANES;
            let (cos, sin) = (&cos[at..at + LANES], &sin[at..at + LANES]);
            let swapped: [f32; LANES] = std::array::from_fn(|i| x[i ^ 1]);
            for i in 0..LANES {
                x[i] = fma::<FUSED>(x[i], cos[i], sign * swapped[i] * sin[i]);
            }
        }
        for pair in 0..rest.len() / 2 {
            let [a, b] = [0, 1].map(|i| rest[2 * pair + i]);
            let at = whole + 2 * pair;
            rest[2 * pair] = fma::<FUSED>(a, cos[at], sign * b * sin[at]);
            rest[2 * pair + 1] = fma::<FUSED>(b, cos[at + 1], sign * a * sin[at + 1]);
        }
    }
}

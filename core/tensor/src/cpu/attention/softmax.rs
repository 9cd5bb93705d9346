//! The softmax of a block of scores, and its gradient.

use crate::cpu::isa::math::exp_flushed;
use crate::cpu::isa::simd;

/// Numbers in the chunks that rows of scores are made of.
pub(crate) const LANES: usize = 16;

/// Sums the lanes pairwise.
#[inline(always)]
fn fold(mut lanes: [f32; LANES], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut n = LANES / 2;
    while n > 0 {
        for i in 0..n {
            lanes[i] = f(lanes[i], lanes[i + n]);
        }
        n /= 2;
    }
    lanes[0]
}

#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

simd! {
    /// Turns rows of scores into weights `exp(scale * score - largest)`, with zeros for keys that are not seen: row r
    /// sees `seen + r * more`. Writes each row's largest scaled score and the inverse of the sum of its weights.
    pub(crate) fn softmax(scores: &mut [f32], stride: usize, seen: usize, more: usize, scale: f32, norms: &mut [[f32; 2]]) {
        // Tiles are multiplied as far as their last row sees.
        let limit = (seen + more * (norms.len() - 1)).next_multiple_of(LANES);
        for (r, (row, norm)) in scores.chunks_exact_mut(stride).zip(norms).enumerate() {
            let seen = seen + more * r;
            row[seen..limit].fill(f32::NEG_INFINITY);
            let (row, rest) = row[..limit].split_at_mut(seen.next_multiple_of(LANES));
            rest.fill(0.0);
            let mut lanes = [f32::NEG_INFINITY; LANES];
            for chunk in row.chunks_exact(LANES) {
                for (lane, x) in lanes.iter_mut().zip(chunk) {
                    *lane = larger(*x, *lane);
                }
            }
            let largest = fold(lanes, larger) * scale;
            let mut lanes = [0.0; LANES];
            for chunk in row.chunks_exact_mut(LANES) {
                for (lane, x) in lanes.iter_mut().zip(chunk) {
                    *x = exp_flushed::<FUSED>(*x * scale - largest);
                    *lane += *x;
                }
            }
            *norm = [largest, 1.0 / fold(lanes, |a, b| a + b)];
        }
    }
}

simd! {
    /// Turns scores into probabilities `p`, and their gradient `ds` into that of the scores.
    pub(crate) fn softmax_backward(
        p: &mut [f32],
        ds: &mut [f32],
        stride: usize,
        seen: usize,
        more: usize,
        scale: f32,
        norms: &[[f32; 2]],
        head: usize,
        y: (&[f32], usize),
        dy: (&[f32], usize),
    ) {
        let limit = (seen + more * (norms.len() - 1)).next_multiple_of(LANES);
        let rows = p.chunks_exact_mut(stride).zip(ds.chunks_exact_mut(stride));
        for (r, ((p, ds), [largest, inverse])) in rows.zip(norms).enumerate() {
            let seen = seen + more * r;
            // The mean of the gradient under p is y · dy.
            let mut lanes = [0.0; LANES];
            let (y, dy) = (&y.0[r * y.1..][..head], &dy.0[r * dy.1..][..head]);
            let (whole_y, rest_y) = y.as_chunks::<LANES>();
            let (whole_dy, rest_dy) = dy.as_chunks::<LANES>();
            for (y, dy) in whole_y.iter().zip(whole_dy) {
                for i in 0..LANES {
                    lanes[i] += y[i] * dy[i];
                }
            }
            let rest: f32 = rest_y.iter().zip(rest_dy).map(|(y, dy)| y * dy).sum();
            let mean = fold(lanes, |a, b| a + b) + rest;
            p[seen..limit].fill(f32::NEG_INFINITY);
            ds[seen..limit].fill(0.0);
            let padded = seen.next_multiple_of(LANES);
            p[padded..limit].fill(0.0);
            for (p, ds) in p[..padded].as_chunks_mut::<LANES>().0.iter_mut().zip(ds[..padded].as_chunks_mut::<LANES>().0) {
                for i in 0..LANES {
                    p[i] = exp_flushed::<FUSED>(p[i] * scale - largest) * inverse;
                    ds[i] = p[i] * (ds[i] - mean) * scale;
                }
            }
        }
    }
}

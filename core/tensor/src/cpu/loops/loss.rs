//! Squared differences.

#![allow(unsafe_code)]

use crate::cpu::isa::simd;
use crate::cpu::loops::elementwise::GRAIN;
use crate::cpu::loops::reduce::{LANES, fold};
use crate::cpu::{Output, buffers};
use rayon::prelude::*;
use std::mem::MaybeUninit;

/// Numbers that are summed in f32 before they are added in f64.
const RUN: usize = 1 << 10;

/// The sum of `(x - y)^2` over at most [`RUN`] numbers.
#[inline(always)]
fn run(x: &[f32], y: &[f32]) -> f64 {
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
    f64::from(fold(lanes))
}

simd! {
    fn squared_distance_chunk(x: &[f32], y: &[f32]) -> f64 {
        x.chunks(RUN).zip(y.chunks(RUN)).map(|(x, y)| run(x, y)).sum()
    }
}

/// The sum of `(x - y)^2`.
pub(crate) fn squared_distance(x: &[f32], y: &[f32]) -> f64 {
    let pieces: Vec<f64> =
        x.par_chunks(GRAIN).zip(y.par_chunks(GRAIN)).map(|(x, y)| squared_distance_chunk(x, y)).collect();
    pieces.iter().sum()
}

simd! {
    fn scaled_difference_chunk<'a>(x: &[f32], y: &[f32], scale: f32, out: Output<'a>) -> &'a mut [f32] {
        out.zip(x, y, |x, y| scale * (x - y))
    }
}

/// `scale * (x - y)`.
pub(crate) fn scaled_difference<'a>(x: &[f32], y: &[f32], scale: f32, out: Output<'a>) -> &'a mut [f32] {
    out.par_chunks(GRAIN, |i, out| {
        let part = i * GRAIN..i * GRAIN + out.len();
        scaled_difference_chunk(&x[part.clone()], &y[part], scale, out)
    })
}

simd! {
    fn partial_sums_chunk(x: &[f32], terms: &[&[f32]], sum: &mut [MaybeUninit<f32>], squares: &mut [f64]) {
        let sum = Output::New(sum).zeros();
        for (i, (x, sum)) in x.chunks(RUN).zip(sum.chunks_mut(RUN)).enumerate() {
            for (term, square) in terms.iter().zip(&mut *squares) {
                for (s, t) in sum.iter_mut().zip(&term[i * RUN..]) {
                    *s += t;
                }
                *square += run(x, sum);
            }
        }
    }
}

/// The sum of all terms, and for each partial sum `z_d` (of the first d + 1 terms) the sum of `(x - z_d)^2`.
pub(crate) fn partial_sums(x: &[f32], terms: &[&[f32]]) -> (Vec<f32>, Vec<f64>) {
    let piece = |(i, (x, sum)): (usize, (&[f32], &mut [MaybeUninit<f32>]))| {
        let terms: Vec<&[f32]> = terms.iter().map(|term| &term[i * GRAIN..]).collect();
        let mut squares = vec![0.0; terms.len()];
        partial_sums_chunk(x, &terms, sum, &mut squares);
        squares
    };
    let mut pieces: Vec<Vec<f64>> = Vec::new();
    let [sum] = buffers([x.len()], |[sum]| {
        pieces = x.par_chunks(GRAIN).zip(sum.par_chunks_mut(GRAIN)).enumerate().map(piece).collect();
        // SAFETY: every chunk was written.
        [unsafe { sum.assume_init_mut() }]
    });
    (sum, (0..terms.len()).map(|d| pieces.iter().map(|squares| squares[d]).sum()).collect())
}

simd! {
    fn partial_differences_chunk<'a>(x: &[f32], terms: &[&[f32]], scale: f32, out: Output<'a>) -> &'a mut [f32] {
        out.chunks(LANES, |i, out| {
            let (mut sum, mut total) = ([0.0f32; LANES], [0.0f32; LANES]);
            for term in terms {
                for (((s, total), t), x) in sum.iter_mut().zip(&mut total).zip(&term[i * LANES..]).zip(&x[i * LANES..]) {
                    *s += t;
                    *total += x - *s;
                }
            }
            let total = &total[..out.len()];
            out.map(total, |total| scale * total)
        })
    }
}

/// `scale * Σ_d (x - z_d)` over the partial sums of the terms.
pub(crate) fn partial_differences<'a>(x: &[f32], terms: &[&[f32]], scale: f32, out: Output<'a>) -> &'a mut [f32] {
    out.par_chunks(GRAIN, |i, out| {
        let terms: Vec<&[f32]> = terms.iter().map(|term| &term[i * GRAIN..]).collect();
        partial_differences_chunk(&x[i * GRAIN..][..out.len()], &terms, scale, out)
    })
}

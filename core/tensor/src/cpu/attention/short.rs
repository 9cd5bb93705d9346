//! Attention over sequences of a few positions, as the depth transformer has by the thousand: one pass over each in plain
//! loops, where packing and tiles would cost more than they save.

#![allow(unsafe_code)]

use crate::cpu::isa::math::exp_flushed;
use crate::cpu::isa::{fma, simd};
use crate::cpu::loops::elementwise::GRAIN;
use crate::cpu::loops::rows::dot;
use rayon::prelude::*;
use std::mem::MaybeUninit;
use std::ops::Range;

/// The most positions that this way is for.
pub(crate) const FEW: usize = 8;
/// Numbers that are summed side by side.
const LANES: usize = 16;

/// Sizes of an attention of `length` <= [`FEW`] positions over themselves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Few {
    pub(crate) heads: usize,
    pub(crate) length: usize,
    pub(crate) head: usize,
    pub(crate) causal: bool,
}

impl Few {
    fn width(&self) -> usize {
        self.heads * self.head
    }

    /// Sequences that one task works on.
    fn together(&self) -> usize {
        (GRAIN / (3 * self.length * self.width()).max(1)).max(1)
    }

    /// The positions that position `t` sees: those before this one.
    #[inline(always)]
    fn seen(&self, t: usize) -> usize {
        if self.causal { t + 1 } else { self.length }
    }

    /// Numbers of part `which` (query, key, value) of head `h` at position `t` of a sequence of rows of `3W`.
    #[inline(always)]
    fn part<'a>(&self, qkv: &'a [f32], which: usize, t: usize, h: usize) -> &'a [f32] {
        let width = self.width();
        &qkv[(3 * t + which) * width + h * self.head..][..self.head]
    }

    /// The probabilities with which position `t` of head `h` attends; 0 where it does not see.
    #[inline(always)]
    fn probabilities<const FUSED: bool>(&self, qkv: &[f32], t: usize, h: usize, scale: f32) -> [f32; FEW] {
        let query = self.part(qkv, 0, t, h);
        let mut p = [f32::NEG_INFINITY; FEW];
        for (s, p) in p.iter_mut().enumerate().take(self.seen(t)) {
            *p = scale * dot::<FUSED>(query, self.part(qkv, 1, s, h));
        }
        let (mut largest, mut sum) = (f32::NEG_INFINITY, 0.0);
        for s in 0..FEW {
            largest = if p[s] > largest { p[s] } else { largest };
        }
        for p in &mut p {
            *p = exp_flushed::<FUSED>(*p - largest);
        }
        for s in 0..FEW {
            sum += p[s];
        }
        let inverse = 1.0 / sum;
        for p in &mut p {
            *p *= inverse;
        }
        p
    }
}

/// `out = Σ_i weights[i] row(i)` over `range`; all of it is written.
#[inline(always)]
fn combine<'a, const FUSED: bool>(
    range: Range<usize>,
    weight: impl Fn(usize) -> f32,
    row: impl Fn(usize) -> &'a [f32],
    out: &mut [MaybeUninit<f32>],
) {
    let whole = out.len() - out.len() % LANES;
    for at in (0..whole).step_by(LANES) {
        let mut sums = [0.0f32; LANES];
        for i in range.clone() {
            let (weight, row) = (weight(i), &row(i)[at..at + LANES]);
            for l in 0..LANES {
                sums[l] = fma::<FUSED>(weight, row[l], sums[l]);
            }
        }
        out[at..at + LANES].write_copy_of_slice(&sums);
    }
    for at in whole..out.len() {
        let mut sum = 0.0;
        for i in range.clone() {
            sum = fma::<FUSED>(weight(i), row(i)[at], sum);
        }
        out[at].write(sum);
    }
}

simd! {
    fn forward_one(few: Few, qkv: &[f32], out: &mut [MaybeUninit<f32>]) {
        let (width, scale) = (few.width(), 1.0 / (few.head as f32).sqrt());
        for h in 0..few.heads {
            for t in 0..few.length {
                let p = few.probabilities::<FUSED>(qkv, t, h, scale);
                let out = &mut out[t * width + h * few.head..][..few.head];
                combine::<FUSED>(0..few.seen(t), |s| p[s], |s| few.part(qkv, 2, s, h), out);
            }
        }
    }
}

/// `[B, T, 3W]` gives `[B, T, W]`.
pub(crate) fn forward<'a>(few: Few, qkv: &[f32], out: &'a mut [MaybeUninit<f32>]) -> &'a mut [f32] {
    let (one, some) = (few.length * few.width(), few.together());
    assert!(qkv.len() == 3 * out.len() && out.len().is_multiple_of(one));
    out.par_chunks_mut(one * some).zip(qkv.par_chunks(3 * one * some)).for_each(|(out, qkv)| {
        for (out, qkv) in out.chunks_exact_mut(one).zip(qkv.chunks_exact(3 * one)) {
            forward_one(few, qkv, out);
        }
    });
    // SAFETY: every head of every position of every sequence was written.
    unsafe { out.assume_init_mut() }
}

simd! {
    fn backward_one(few: Few, qkv: &[f32], dy: &[f32], grad: &mut [MaybeUninit<f32>]) {
        let (width, scale) = (few.width(), 1.0 / (few.head as f32).sqrt());
        for h in 0..few.heads {
            // Probabilities and the gradients of the scores, row by row.
            let (mut p, mut ds) = ([[0.0f32; FEW]; FEW], [[0.0f32; FEW]; FEW]);
            let dy = |t: usize| &dy[t * width + h * few.head..][..few.head];
            for t in 0..few.length {
                p[t] = few.probabilities::<FUSED>(qkv, t, h, scale);
                for s in 0..few.seen(t) {
                    ds[t][s] = dot::<FUSED>(dy(t), few.part(qkv, 2, s, h));
                }
                let mut mean = 0.0;
                for s in 0..FEW {
                    mean = fma::<FUSED>(p[t][s], ds[t][s], mean);
                }
                for s in 0..FEW {
                    ds[t][s] = p[t][s] * (ds[t][s] - mean) * scale;
                }
            }
            for t in 0..few.length {
                let sees = if few.causal { t } else { 0 }..few.length;
                let [dq, dk, dv] = [0, 1, 2].map(|which| (3 * t + which) * width + h * few.head);
                combine::<FUSED>(0..few.seen(t), |s| ds[t][s], |s| few.part(qkv, 1, s, h), &mut grad[dq..dq + few.head]);
                combine::<FUSED>(sees.clone(), |r| ds[r][t], |r| few.part(qkv, 0, r, h), &mut grad[dk..dk + few.head]);
                combine::<FUSED>(sees, |r| p[r][t], dy, &mut grad[dv..dv + few.head]);
            }
        }
    }
}

/// The gradient `[B, T, 3W]`, given that of the output, `[B, T, W]`.
pub(crate) fn backward<'a>(few: Few, qkv: &[f32], dy: &[f32], grad: &'a mut [MaybeUninit<f32>]) -> &'a mut [f32] {
    let (one, some) = (few.length * few.width(), few.together());
    assert!(grad.len() == qkv.len() && qkv.len() == 3 * dy.len() && dy.len().is_multiple_of(one));
    grad.par_chunks_mut(3 * one * some).zip(qkv.par_chunks(3 * one * some).zip(dy.par_chunks(one * some))).for_each(
        |(grad, (qkv, dy))| {
            let sequences = qkv.chunks_exact(3 * one).zip(dy.chunks_exact(one));
            for (grad, (qkv, dy)) in grad.chunks_exact_mut(3 * one).zip(sequences) {
                backward_one(few, qkv, dy, grad);
            }
        },
    );
    // SAFETY: as above, for all three parts.
    unsafe { grad.assume_init_mut() }
}

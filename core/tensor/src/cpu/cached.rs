//! Attention of new positions over keys and values gathered before.

#![allow(unsafe_code)]

use super::attention::{LANES, softmax};
use super::dispatch::simd;
use super::gemm::TASK;
use super::kernel::{DOTS, Dots, Kernels};
use super::scratch::scratch;
use rayon::prelude::*;
use std::ptr::null;

/// Sizes of a step with a cache: `new` positions, the last of `len`, of a cache of `capacity`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) heads: usize,
    pub(crate) head: usize,
    pub(crate) new: usize,
    pub(crate) len: usize,
    pub(crate) capacity: usize,
}

/// Attention of the last `new` positions over all that the cache holds up to each.
pub(crate) fn attend(sizes: &Sizes, q: &[f32], keys: &[f32], values: &[f32], out: &mut [f32]) {
    let Sizes { heads, head, new, len, capacity } = *sizes;
    if out.is_empty() {
        return;
    }
    let kernels = Kernels::best();
    let width = heads * head;
    let scale = 1.0 / (head as f32).sqrt();
    // A piece is a head of a sequence, or several where there is little to read.
    let together = ((TASK / 8) / (len * head)).clamp(1, heads);
    let one = |(i, (out, q)): (usize, (&mut [f32], &[f32]))| {
        let (h, t, b) = (i % heads, i / heads % new, i / heads / new);
        let at = b * capacity * width + h * head;
        let seen = len - new + t + 1;
        scratch(seen.next_multiple_of(LANES), |weights| {
            for s in (0..seen).step_by(DOTS[1]) {
                let (left, out) = ([q.as_ptr()], [weights[s..].as_mut_ptr()]);
                let dots = Dots {
                    left: left.as_ptr(),
                    groups: 1,
                    depth: head,
                    right: keys[at + s * width..].as_ptr(),
                    right_stride: width,
                    bias: null(),
                    out: out.as_ptr(),
                    accumulate: false,
                };
                // SAFETY: a row has `head` numbers from this head on, and the cache holds `seen` rows.
                unsafe { kernels.dots(1, (seen - s).min(DOTS[1]), &dots) };
            }
            let mut norm = [[0.0; 2]];
            let stride = weights.len();
            softmax(weights, stride, seen, 0, scale, &mut norm);
            mix(&weights[..seen], norm[0][1], &values[at..], width, out);
        });
    };
    let work = out.par_chunks_mut(head).zip(q.par_chunks(head));
    work.with_min_len(together).enumerate().for_each(one);
}

simd! {
    /// `out = scale * Σ weights[s] * rows[s]`.
    fn mix(weights: &[f32], scale: f32, rows: &[f32], stride: usize, out: &mut [f32]) {
        let at = |s: usize, from: usize| &rows[s * stride + from..];
        let mut from = 0;
        // Two cache lines at a time stay in registers over all rows.
        while from + 2 * LANES <= out.len() {
            let mut sums = [0.0; 2 * LANES];
            for (s, w) in weights.iter().enumerate() {
                for (sum, x) in sums.iter_mut().zip(at(s, from)) {
                    *sum += w * x;
                }
            }
            for (out, sum) in out[from..].iter_mut().zip(sums) {
                *out = scale * sum;
            }
            from += 2 * LANES;
        }
        out[from..].fill(0.0);
        for (s, w) in weights.iter().enumerate() {
            for (out, x) in out[from..].iter_mut().zip(at(s, from)) {
                *out += scale * w * x;
            }
        }
    }
}

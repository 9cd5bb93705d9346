//! Layer normalisation.

#![allow(unsafe_code)]

use crate::cpu::buffers;
use crate::cpu::isa::{fma, simd};
use crate::cpu::loops::elementwise::GRAIN;
use crate::cpu::loops::reduce::{LANES, add_pieces, fold, lanes_sum};
use crate::cpu::loops::rows::dot;
use rayon::prelude::*;
use std::mem::MaybeUninit;

/// A norm of rows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowNorm {
    /// What it adds to the variance.
    pub(crate) eps: f32,
    /// Whether it is around the mean, as a layer norm, or around zero, as an RMS norm.
    pub(crate) centred: bool,
}

/// Rows of a layer norm that one task works on, and one piece of the parameters' gradient is summed over.
fn layer_rows(width: usize) -> usize {
    (GRAIN / width).clamp(1, 512)
}

simd! {
    /// The norm of every row on this thread, and each row's centre and reciprocal standard deviation around it.
    pub(crate) fn layer_norm_rows(
        x: &[f32],
        weight: &[f32],
        bias: &[f32],
        norm: RowNorm,
        out: &mut [MaybeUninit<f32>],
        moments: &mut [[f32; 2]],
    ) {
        let width = weight.len();
        for ((row, o), moments) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)).zip(moments) {
            let mean = if norm.centred { lanes_sum(row) / width as f32 } else { 0.0 };
            let mut lanes = [0.0f32; LANES];
            let (chunks, rest) = row.as_chunks::<LANES>();
            for chunk in chunks {
                for i in 0..LANES {
                    lanes[i] = fma::<FUSED>(chunk[i] - mean, chunk[i] - mean, lanes[i]);
                }
            }
            let mut squares = fold(lanes);
            for &x in rest {
                squares = fma::<FUSED>(x - mean, x - mean, squares);
            }
            let scale = 1.0 / (squares / width as f32 + norm.eps).sqrt();
            for (((o, &x), &w), &b) in o.iter_mut().zip(row).zip(weight).zip(bias) {
                o.write((x - mean) * scale * w + b);
            }
            *moments = [mean, scale];
        }
    }
}

/// The norm of every row, with each row's centre and reciprocal standard deviation around it.
pub(crate) fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], norm: RowNorm) -> (Vec<f32>, Vec<[f32; 2]>) {
    let width = weight.len();
    let rows = layer_rows(width);
    assert!(x.len().is_multiple_of(width) && bias.len() == width);
    let mut moments = vec![[0.0; 2]; x.len() / width];
    let [out] = buffers([x.len()], |[out]| {
        out.par_chunks_mut(rows * width)
            .zip(moments.par_chunks_mut(rows))
            .zip(x.par_chunks(rows * width))
            .for_each(|((out, moments), x)| layer_norm_rows(x, weight, bias, norm, out, moments));
        // SAFETY: every row was written.
        [unsafe { out.assume_init_mut() }]
    });
    (out, moments)
}

simd! {
    /// Writes the gradient of the input over `grad`, or adds it to `target` if that is not empty, and sums the gradients
    /// of weight and bias.
    fn layer_norm_backward_rows(
        grad: &mut [f32],
        x: &[f32],
        moments: &[[f32; 2]],
        weight: &[f32],
        centred: bool,
        sums: &mut [f32],
        target: &mut [f32],
    ) {
        let width = weight.len();
        sums.fill(0.0);
        let (weight_sums, bias_sums) = sums.split_at_mut(width);
        for (r, ((g, x), &[mean, scale])) in
            grad.chunks_exact_mut(width).zip(x.chunks_exact(width)).zip(moments).enumerate()
        {
            let (plain, projected) = projections::<FUSED>(g, x, weight, mean, scale, weight_sums, bias_sums);
            let (plain, projected) = (if centred { plain / width as f32 } else { 0.0 }, projected / width as f32);
            let slope = |g: f32, x: f32, w: f32| {
                scale * (fma::<FUSED>(g, w, -plain) - (x - mean) * scale * projected)
            };
            if target.is_empty() {
                for ((g, &x), &w) in g.iter_mut().zip(x).zip(weight) {
                    *g = slope(*g, x, w);
                }
            } else {
                let target = &mut target[r * width..][..width];
                for (((t, &g), &x), &w) in target.iter_mut().zip(g.iter()).zip(x).zip(weight) {
                    *t += slope(g, x, w);
                }
            }
        }
    }
}

/// Over one row the sums of `g w` and `g w (x - mean) scale`; adds `g (x - mean) scale` and `g` to the sums over rows.
#[inline(always)]
fn projections<const FUSED: bool>(
    g: &[f32],
    x: &[f32],
    w: &[f32],
    mean: f32,
    scale: f32,
    weight_sums: &mut [f32],
    bias_sums: &mut [f32],
) -> (f32, f32) {
    // Three passes over a row that lies in the first-level cache: one over all four sums is not turned into vectors.
    for (((&g, &x), weight_sum), bias_sum) in g.iter().zip(x).zip(weight_sums).zip(bias_sums) {
        *weight_sum = fma::<FUSED>(g, (x - mean) * scale, *weight_sum);
        *bias_sum += g;
    }
    let mut projected = [0.0f32; LANES];
    let ((gs, g_rest), (xs, x_rest), (ws, w_rest)) =
        (g.as_chunks::<LANES>(), x.as_chunks::<LANES>(), w.as_chunks::<LANES>());
    for ((g, x), w) in gs.iter().zip(xs).zip(ws) {
        for i in 0..LANES {
            projected[i] = fma::<FUSED>(g[i] * w[i], (x[i] - mean) * scale, projected[i]);
        }
    }
    let mut projected = fold(projected);
    for ((&g, &x), &w) in g_rest.iter().zip(x_rest).zip(w_rest) {
        projected = fma::<FUSED>(g * w, (x - mean) * scale, projected);
    }
    (dot::<FUSED>(g, w), projected)
}

/// Turns `grad` into the gradient of the input, or adds that to `target`; returns those of weight and bias, one after
/// the other.
pub(crate) fn layer_norm_backward(
    grad: &mut [f32],
    x: &[f32],
    moments: &[[f32; 2]],
    weight: &[f32],
    centred: bool,
    target: Option<&mut [f32]>,
) -> Vec<f32> {
    let width = weight.len();
    let rows = layer_rows(width);
    let mut pieces = vec![0.0; moments.len().div_ceil(rows) * 2 * width];
    let tasks = grad
        .par_chunks_mut(rows * width)
        .zip(x.par_chunks(rows * width))
        .zip(moments.par_chunks(rows))
        .zip(pieces.par_chunks_mut(2 * width));
    match target {
        None => tasks.for_each(|(((g, x), moments), sums)| {
            layer_norm_backward_rows(g, x, moments, weight, centred, sums, &mut []);
        }),
        Some(target) => {
            tasks.zip(target.par_chunks_mut(rows * width)).for_each(|((((g, x), moments), sums), target)| {
                layer_norm_backward_rows(g, x, moments, weight, centred, sums, target);
            });
        }
    }
    let mut sums = vec![0.0; 2 * width];
    add_pieces(&pieces, &mut sums);
    sums
}

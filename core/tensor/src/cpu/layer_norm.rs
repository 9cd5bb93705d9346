//! Layer normalisation.

use super::buffer;
use super::dispatch::{fma, simd};
use super::elementwise::GRAIN;
use super::sum::{LANES, add_pieces, fold, lanes_sum, padded};
use rayon::prelude::*;

/// Rows of a layer norm that one task works on, and one piece of the parameters' gradient is summed over.
fn layer_rows(width: usize) -> usize {
    (GRAIN / width).clamp(1, 512)
}

simd! {
    fn layer_norm_rows(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32], moments: &mut [[f32; 2]]) {
        let width = weight.len();
        for ((row, o), moments) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)).zip(moments) {
            let mean = lanes_sum(row) / width as f32;
            let mut lanes = [0.0f32; LANES];
            let (chunks, rest) = row.as_chunks::<LANES>();
            for chunk in chunks {
                for i in 0..LANES {
                    lanes[i] = fma::<FUSED>(chunk[i] - mean, chunk[i] - mean, lanes[i]);
                }
            }
            let rest = padded(rest, mean);
            for i in 0..LANES {
                lanes[i] = fma::<FUSED>(rest[i] - mean, rest[i] - mean, lanes[i]);
            }
            let scale = 1.0 / (fold(lanes) / width as f32 + eps).sqrt();
            for (((o, &x), &w), &b) in o.iter_mut().zip(row).zip(weight).zip(bias) {
                *o = (x - mean) * scale * w + b;
            }
            *moments = [mean, scale];
        }
    }
}

/// Layer norm of every row, with each row's mean and reciprocal standard deviation.
pub(crate) fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], eps: f32) -> (Vec<f32>, Vec<[f32; 2]>) {
    let width = weight.len();
    let rows = layer_rows(width);
    let (mut out, mut moments) = (buffer(x.len()), vec![[0.0; 2]; x.len() / width]);
    out.par_chunks_mut(rows * width)
        .zip(moments.par_chunks_mut(rows))
        .zip(x.par_chunks(rows * width))
        .for_each(|((out, moments), x)| layer_norm_rows(x, weight, bias, eps, out, moments));
    (out, moments)
}

simd! {
    /// Turns `grad` into the gradient of the input, in place, and sums those of weight and bias.
    fn layer_norm_backward_rows(grad: &mut [f32], x: &[f32], moments: &[[f32; 2]], weight: &[f32], sums: &mut [f32]) {
        let width = weight.len();
        sums.fill(0.0);
        let (weight_sums, bias_sums) = sums.split_at_mut(width);
        for ((g, x), &[mean, scale]) in grad.chunks_exact_mut(width).zip(x.chunks_exact(width)).zip(moments) {
            // Three loops over a row that stays in the first cache: each alone is vectorised well.
            for (((ws, bs), &g), &x) in weight_sums.iter_mut().zip(bias_sums.iter_mut()).zip(g.iter()).zip(x) {
                *bs += g;
                *ws = fma::<FUSED>(g, (x - mean) * scale, *ws);
            }
            let (plain, projected) = projections::<FUSED>(g, x, weight, mean, scale);
            let (plain, projected) = (plain / width as f32, projected / width as f32);
            for ((g, &x), &w) in g.iter_mut().zip(x).zip(weight) {
                let normal = (x - mean) * scale;
                *g = scale * (fma::<FUSED>(*g, w, -plain) - normal * projected);
            }
        }
    }
}

/// Over one row the sums of `g w` and `g w (x - mean) scale`.
#[inline(always)]
fn projections<const FUSED: bool>(g: &[f32], x: &[f32], w: &[f32], mean: f32, scale: f32) -> (f32, f32) {
    let (mut plain, mut projected) = ([0.0f32; LANES], [0.0f32; LANES]);
    let ((gs, g_rest), (xs, x_rest), (ws, w_rest)) =
        (g.as_chunks::<LANES>(), x.as_chunks::<LANES>(), w.as_chunks::<LANES>());
    for ((g, x), w) in gs.iter().zip(xs).zip(ws) {
        for i in 0..LANES {
            let weighted = g[i] * w[i];
            plain[i] += weighted;
            projected[i] = fma::<FUSED>(weighted, (x[i] - mean) * scale, projected[i]);
        }
    }
    let (g, x, w) = (padded(g_rest, 0.0), padded(x_rest, mean), padded(w_rest, 0.0));
    for i in 0..LANES {
        let weighted = g[i] * w[i];
        plain[i] += weighted;
        projected[i] = fma::<FUSED>(weighted, (x[i] - mean) * scale, projected[i]);
    }
    (fold(plain), fold(projected))
}

/// Turns `grad` into the gradient of the input; returns those of weight and bias, one after the other.
pub(crate) fn layer_norm_backward(grad: &mut [f32], x: &[f32], moments: &[[f32; 2]], weight: &[f32]) -> Vec<f32> {
    let width = weight.len();
    let rows = layer_rows(width);
    let mut pieces = buffer(moments.len().div_ceil(rows) * 2 * width);
    grad.par_chunks_mut(rows * width)
        .zip(x.par_chunks(rows * width))
        .zip(moments.par_chunks(rows))
        .zip(pieces.par_chunks_mut(2 * width))
        .for_each(|(((g, x), moments), sums)| layer_norm_backward_rows(g, x, moments, weight, sums));
    let mut sums = buffer(2 * width);
    add_pieces(&pieces, &mut sums, false);
    sums
}

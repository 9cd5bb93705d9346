//! Kernels that treat the innermost axis as one unit: maxima, softmax, cross entropy.

use crate::cpu::isa::math::exp_flushed;
use crate::cpu::isa::{fma, simd};
use crate::cpu::loops::elementwise::GRAIN;
use crate::cpu::loops::reduce::{LANES, fold, lanes_sum};
use crate::cpu::{Output, buffer};
use rayon::prelude::*;

/// Rows that one task works on.
pub(crate) fn rows_per_task(width: usize) -> usize {
    (GRAIN / width.max(1)).max(1)
}

/// The maximum of a row; NaN is passed over.
#[inline(always)]
fn row_max(row: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = row.as_chunks::<LANES>();
    for chunk in chunks {
        for i in 0..LANES {
            lanes[i] = if chunk[i] > lanes[i] { chunk[i] } else { lanes[i] };
        }
    }
    // Lanes that are only ever indexed by constants stay in a register; here and below.
    let mut max = f32::NEG_INFINITY;
    for &x in lanes.iter().chain(rest) {
        max = if x > max { x } else { max };
    }
    max
}

simd! {
    fn argmax_rows(x: &[f32], width: usize, out: &mut [u32]) {
        for (row, o) in x.chunks_exact(width).zip(out) {
            let max = row_max(row);
            *o = row.iter().position(|&x| x == max).unwrap_or(0) as u32;
        }
    }
}

/// The index of the first maximum of every row.
pub(crate) fn argmax(x: &[f32], width: usize) -> Vec<u32> {
    let mut out = vec![0; x.len() / width];
    let rows = rows_per_task(width);
    out.par_chunks_mut(rows).zip(x.par_chunks(rows * width)).for_each(|(o, x)| argmax_rows(x, width, o));
    out
}

/// Sum of e^(x - max) over a row.
#[inline(always)]
fn exp_sum<const FUSED: bool>(row: &[f32], max: f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (chunks, rest) = row.as_chunks::<LANES>();
    for chunk in chunks {
        for i in 0..LANES {
            lanes[i] += exp_flushed::<FUSED>(chunk[i] - max);
        }
    }
    let mut sum = fold(lanes);
    for x in rest {
        sum += exp_flushed::<FUSED>(x - max);
    }
    sum
}

/// Turns x into `e^(x - max)` and returns its sum.
#[inline(always)]
fn exps<const FUSED: bool>(row: &mut [f32], max: f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (chunks, rest) = row.as_chunks_mut::<LANES>();
    for chunk in chunks {
        for i in 0..LANES {
            chunk[i] = exp_flushed::<FUSED>(chunk[i] - max);
            lanes[i] += chunk[i];
        }
    }
    let mut sum = fold(lanes);
    for x in rest {
        *x = exp_flushed::<FUSED>(*x - max);
        sum += *x;
    }
    sum
}

simd! {
    /// Softmax of one row, in place.
    pub(crate) fn softmax_row(row: &mut [f32]) {
        let scale = 1.0 / exps::<FUSED>(row, row_max(row));
        for x in row {
            *x *= scale;
        }
    }
}

/// Softmax of every row.
pub(crate) fn softmax(x: &[f32], width: usize) -> Vec<f32> {
    by_rows(x, width, |row, out| {
        let row = out.map(row, |x| *x);
        softmax_row(row);
        row
    })
}

simd! {
    fn log_softmax_row<'a>(row: &[f32], out: Output<'a>) -> &'a mut [f32] {
        let max = row_max(row);
        let log = exp_sum::<FUSED>(row, max).ln();
        out.map(row, |x| (x - max) - log)
    }
}

/// Logarithm of the softmax of every row.
pub(crate) fn log_softmax(x: &[f32], width: usize) -> Vec<f32> {
    by_rows(x, width, log_softmax_row)
}

/// What `write` makes of every row.
fn by_rows(x: &[f32], width: usize, write: impl for<'o> Fn(&[f32], Output<'o>) -> &'o mut [f32] + Sync) -> Vec<f32> {
    let task = rows_per_task(width) * width.max(1);
    buffer(x.len(), |out| {
        out.par_chunks(task, |i, out| out.chunks(width, |r, out| write(&x[i * task + r * width..][..width], out)))
    })
}

/// `x · y`.
#[inline(always)]
pub(crate) fn dot<const FUSED: bool>(x: &[f32], y: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let ((xs, x_rest), (ys, y_rest)) = (x.as_chunks::<LANES>(), y.as_chunks::<LANES>());
    for (x, y) in xs.iter().zip(ys) {
        for i in 0..LANES {
            lanes[i] = fma::<FUSED>(x[i], y[i], lanes[i]);
        }
    }
    let mut sum = fold(lanes);
    for (&x, &y) in x_rest.iter().zip(y_rest) {
        sum = fma::<FUSED>(x, y, sum);
    }
    sum
}

simd! {
    fn softmax_backward_rows(grad: &mut [f32], y: &[f32], width: usize) {
        for (g, y) in grad.chunks_exact_mut(width).zip(y.chunks_exact(width)) {
            let mean = dot::<FUSED>(g, y);
            for (g, y) in g.iter_mut().zip(y) {
                *g = y * (*g - mean);
            }
        }
    }
}

/// Turns the gradient of a softmax into that of its input, given its output.
pub(crate) fn softmax_backward(grad: &mut [f32], y: &[f32], width: usize) {
    let rows = rows_per_task(width) * width.max(1);
    grad.par_chunks_mut(rows).zip(y.par_chunks(rows)).for_each(|(g, y)| softmax_backward_rows(g, y, width));
}

simd! {
    fn log_softmax_backward_rows(grad: &mut [f32], y: &[f32], width: usize) {
        for (g, y) in grad.chunks_exact_mut(width).zip(y.chunks_exact(width)) {
            let total = lanes_sum(g);
            for (g, &y) in g.iter_mut().zip(y) {
                *g -= exp_flushed::<FUSED>(y) * total;
            }
        }
    }
}

/// The same for the logarithm of the softmax.
pub(crate) fn log_softmax_backward(grad: &mut [f32], y: &[f32], width: usize) {
    let rows = rows_per_task(width) * width.max(1);
    grad.par_chunks_mut(rows).zip(y.par_chunks(rows)).for_each(|(g, y)| log_softmax_backward_rows(g, y, width));
}

simd! {
    fn cross_entropy_rows(x: &[f32], targets: &[u32], width: usize, loss: &mut [f32], normalizer: &mut [f32]) {
        for (((row, &target), loss), normalizer) in x.chunks_exact(width).zip(targets).zip(loss).zip(normalizer) {
            let max = row_max(row);
            let log = exp_sum::<FUSED>(row, max).ln();
            *loss = log - (row[target as usize] - max);
            *normalizer = max + log;
        }
    }
}

/// Per row `-log softmax(x)[target]` and `log sum e^x`.
pub(crate) fn cross_entropy(x: &[f32], targets: &[u32], width: usize) -> (Vec<f32>, Vec<f32>) {
    let (mut loss, mut normalizer) = (vec![0.0; targets.len()], vec![0.0; targets.len()]);
    let rows = rows_per_task(width);
    loss.par_chunks_mut(rows)
        .zip(normalizer.par_chunks_mut(rows))
        .zip(x.par_chunks(rows * width).zip(targets.par_chunks(rows)))
        .for_each(|((loss, normalizer), (x, targets))| cross_entropy_rows(x, targets, width, loss, normalizer));
    (loss, normalizer)
}

simd! {
    fn cross_entropy_backward_row<'a>(row: &[f32], target: u32, normalizer: f32, grad: f32, out: Output<'a>) -> &'a mut [f32] {
        let out = out.map(row, |x| grad * exp_flushed::<FUSED>(x - normalizer));
        out[target as usize] -= grad;
        out
    }
}

/// The gradient of [`cross_entropy`] in `x`: `grad * (softmax(x) - onehot(target))`.
pub(crate) fn cross_entropy_backward<'a>(
    x: &[f32],
    targets: &[u32],
    normalizer: &[f32],
    grad: &[f32],
    width: usize,
    out: Output<'a>,
) -> &'a mut [f32] {
    let rows = rows_per_task(width);
    out.par_chunks(rows * width, |i, out| {
        out.chunks(width, |r, out| {
            let r = i * rows + r;
            cross_entropy_backward_row(&x[r * width..][..width], targets[r], normalizer[r], grad[r], out)
        })
    })
}

/// What the published soft cross entropy adds to the sum of exponentials.
const SOFT_EPS: f32 = 1e-7;

simd! {
    fn soft_cross_entropy_rows(x: &[f32], targets: &[f32], width: usize, loss: &mut [f32]) {
        for ((row, q), loss) in x.chunks_exact(width).zip(targets.chunks_exact(width)).zip(loss) {
            let max = row_max(row);
            let normalizer = max + (exp_sum::<FUSED>(row, max) + SOFT_EPS).ln();
            let mut lanes = [0.0f32; LANES];
            let ((xs, x_rest), (qs, q_rest)) = (row.as_chunks::<LANES>(), q.as_chunks::<LANES>());
            for (x, q) in xs.iter().zip(qs) {
                for i in 0..LANES {
                    lanes[i] = fma::<FUSED>(q[i], normalizer - x[i], lanes[i]);
                }
            }
            *loss = fold(lanes);
            for (&x, &q) in x_rest.iter().zip(q_rest) {
                *loss = fma::<FUSED>(q, normalizer - x, *loss);
            }
        }
    }
}

/// Per row `-sum_k q_k (x_k - M - log(sum e^(x - M) + 1e-7))` with `M = max x`.
pub(crate) fn soft_cross_entropy(x: &[f32], targets: &[f32], width: usize) -> Vec<f32> {
    let mut loss = vec![0.0; x.len() / width];
    let rows = rows_per_task(width);
    loss.par_chunks_mut(rows)
        .zip(x.par_chunks(rows * width).zip(targets.par_chunks(rows * width)))
        .for_each(|(loss, (x, targets))| soft_cross_entropy_rows(x, targets, width, loss));
    loss
}

simd! {
    fn soft_cross_entropy_backward_row<'a>(row: &[f32], targets: &[f32], grad: f32, out: Output<'a>) -> &'a mut [f32] {
        let max = row_max(row);
        let scale = lanes_sum(targets) / (exp_sum::<FUSED>(row, max) + SOFT_EPS);
        out.zip(row, targets, |x, q| grad * (exp_flushed::<FUSED>(x - max) * scale - q))
    }
}

/// The gradient of [`soft_cross_entropy`] in `x`.
pub(crate) fn soft_cross_entropy_backward<'a>(
    x: &[f32],
    targets: &[f32],
    grad: &[f32],
    width: usize,
    out: Output<'a>,
) -> &'a mut [f32] {
    let rows = rows_per_task(width);
    out.par_chunks(rows * width, |i, out| {
        out.chunks(width, |r, out| {
            let (r, at) = (i * rows + r, (i * rows + r) * width);
            soft_cross_entropy_backward_row(&x[at..][..width], &targets[at..][..width], grad[r], out)
        })
    })
}

//! Layer and group normalisation.

use super::buffer;
use super::dispatch::simd;
use super::elementwise::GRAIN;
use super::math::sigmoid;
use super::sum::{LANES, add_pieces, fold, lanes_sum};
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
            let chunks = row.chunks_exact(LANES);
            let rest = chunks.remainder();
            for chunk in chunks {
                for (l, &x) in lanes.iter_mut().zip(chunk) {
                    *l += (x - mean) * (x - mean);
                }
            }
            for (l, &x) in lanes.iter_mut().zip(rest) {
                *l += (x - mean) * (x - mean);
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
        for ((g, row), &[mean, scale]) in grad.chunks_exact_mut(width).zip(x.chunks_exact(width)).zip(moments) {
            let (mut plain, mut projected) = ([0.0f32; LANES], [0.0f32; LANES]);
            let whole = width - width % LANES;
            for at in (0..whole).step_by(LANES) {
                let (g, x, w) = (&g[at..at + LANES], &row[at..at + LANES], &weight[at..at + LANES]);
                let (ws, bs) = (&mut weight_sums[at..at + LANES], &mut bias_sums[at..at + LANES]);
                for i in 0..LANES {
                    let normal = (x[i] - mean) * scale;
                    ws[i] += g[i] * normal;
                    bs[i] += g[i];
                    plain[i] += g[i] * w[i];
                    projected[i] += g[i] * w[i] * normal;
                }
            }
            for at in whole..width {
                let normal = (row[at] - mean) * scale;
                weight_sums[at] += g[at] * normal;
                bias_sums[at] += g[at];
                plain[at - whole] += g[at] * weight[at];
                projected[at - whole] += g[at] * weight[at] * normal;
            }
            let plain = fold(plain) / width as f32;
            let projected = fold(projected) / width as f32;
            for ((g, &x), &w) in g.iter_mut().zip(row).zip(weight) {
                *g = scale * (*g * w - plain - (x - mean) * scale * projected);
            }
        }
    }
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

/// What a group norm works on: maps of `channels` at `positions` positions, in `groups` groups.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Maps {
    pub(crate) positions: usize,
    pub(crate) channels: usize,
    pub(crate) groups: usize,
    pub(crate) eps: f32,
    pub(crate) silu: bool,
}

simd! {
    /// Adds to `sums` and `squares` per channel those of `x - shift`.
    fn shifted_sums(x: &[f32], shift: &[f32], sums: &mut [f32], squares: &mut [f32]) {
        for row in x.chunks(shift.len()) {
            for (((s, q), &x), &shift) in sums.iter_mut().zip(squares.iter_mut()).zip(row).zip(shift) {
                let d = x - shift;
                *s += d;
                *q += d * d;
            }
        }
    }
}

/// What a group norm does to each channel: `(x - centre) * scale + shift`.
struct Affine {
    centre: Vec<f32>,
    scale: Vec<f32>,
    shift: Vec<f32>,
}

simd! {
    fn normalize(x: &[f32], how: &Affine, out: &mut [f32]) {
        let c = how.scale.len();
        for (x, o) in x.chunks(c).zip(out.chunks_mut(c)) {
            let channels = how.centre.iter().zip(&how.scale).zip(&how.shift);
            for ((o, &x), ((&centre, &scale), &shift)) in o.iter_mut().zip(x).zip(channels) {
                *o = (x - centre) * scale + shift;
            }
        }
    }
}

simd! {
    fn normalize_silu(x: &[f32], how: &Affine, out: &mut [f32]) {
        let c = how.scale.len();
        for (x, o) in x.chunks(c).zip(out.chunks_mut(c)) {
            let channels = how.centre.iter().zip(&how.scale).zip(&how.shift);
            for ((o, &x), ((&centre, &scale), &shift)) in o.iter_mut().zip(x).zip(channels) {
                let h = (x - centre) * scale + shift;
                *o = h * sigmoid(h);
            }
        }
    }
}

impl Maps {
    /// Mean and reciprocal standard deviation of each group of one map.
    fn moments(&self, x: &[f32], moments: &mut [[f32; 2]]) {
        let c = self.channels;
        // Sums of x less the map's first value in each channel: squares of x itself would cancel where the mean is
        // large against the deviation.
        let shift = &x[..c];
        let (mut sums, mut squares) = (vec![0.0f64; c], vec![0.0f64; c]);
        let (mut s, mut q) = (vec![0.0f32; c], vec![0.0f32; c]);
        for piece in x.chunks(256 * c) {
            s.fill(0.0);
            q.fill(0.0);
            shifted_sums(piece, shift, &mut s, &mut q);
            for i in 0..c {
                sums[i] += f64::from(s[i]);
                squares[i] += f64::from(q[i]);
            }
        }
        let (n, width) = (self.positions as f64, c / self.groups);
        for (group, moments) in moments.iter_mut().enumerate() {
            let channels = group * width..(group + 1) * width;
            let mean = channels.clone().map(|i| f64::from(shift[i]) + sums[i] / n).sum::<f64>() / width as f64;
            let variance = channels
                .map(|i| {
                    let from_mean = f64::from(shift[i]) + sums[i] / n - mean;
                    (squares[i] - sums[i] * sums[i] / n) / n + from_mean * from_mean
                })
                .sum::<f64>()
                / width as f64;
            *moments = [mean as f32, (1.0 / (variance.max(0.0) + f64::from(self.eps)).sqrt()) as f32];
        }
    }

    /// What the group norm of one map does to each channel.
    fn affine(&self, moments: &[[f32; 2]], weight: &[f32], bias: &[f32]) -> Affine {
        let width = self.channels / self.groups;
        Affine {
            centre: (0..self.channels).map(|i| moments[i / width][0]).collect(),
            scale: (0..self.channels).map(|i| weight[i] * moments[i / width][1]).collect(),
            shift: bias.to_vec(),
        }
    }
}

/// Group norm of maps `[B, positions, channels]`, with the mean and reciprocal standard deviation of every group.
pub(crate) fn group_norm(x: &[f32], weight: &[f32], bias: &[f32], maps: Maps) -> (Vec<f32>, Vec<[f32; 2]>) {
    let size = maps.positions * maps.channels;
    let (mut out, mut moments) = (buffer(x.len()), vec![[0.0; 2]; x.len() / size * maps.groups]);
    out.par_chunks_mut(size).zip(moments.par_chunks_mut(maps.groups)).zip(x.par_chunks(size)).for_each(
        |((out, moments), x)| {
            maps.moments(x, moments);
            let how = maps.affine(moments, weight, bias);
            if maps.silu { normalize_silu(x, &how, out) } else { normalize(x, &how, out) }
        },
    );
    (out, moments)
}

simd! {
    /// Adds per channel the sums of the gradient and of the gradient times (x - centre).
    fn gradient_sums(grad: &[f32], x: &[f32], centre: &[f32], plain: &mut [f32], projected: &mut [f32]) {
        for (g, x) in grad.chunks(centre.len()).zip(x.chunks(centre.len())) {
            for ((((p, q), &g), &x), &centre) in plain.iter_mut().zip(projected.iter_mut()).zip(g).zip(x).zip(centre) {
                *p += g;
                *q += g * (x - centre);
            }
        }
    }
}

simd! {
    /// Takes the gradient back through the SiLU of the normalised map.
    fn silu_backward(grad: &mut [f32], x: &[f32], how: &Affine) {
        let c = how.scale.len();
        for (g, x) in grad.chunks_mut(c).zip(x.chunks(c)) {
            let channels = how.centre.iter().zip(&how.scale).zip(&how.shift);
            for ((g, &x), ((&centre, &scale), &shift)) in g.iter_mut().zip(x).zip(channels) {
                let h = (x - centre) * scale + shift;
                let s = sigmoid(h);
                *g *= s * (1.0 + h * (1.0 - s));
            }
        }
    }
}

simd! {
    /// `grad = grad * own + (x - centre) * other + constant`, per channel.
    fn combine(grad: &mut [f32], x: &[f32], centre: &[f32], own: &[f32], other: &[f32], constant: &[f32]) {
        let c = centre.len();
        for (g, x) in grad.chunks_mut(c).zip(x.chunks(c)) {
            let channels = centre.iter().zip(own).zip(other).zip(constant);
            for ((g, &x), (((&centre, &own), &other), &constant)) in g.iter_mut().zip(x).zip(channels) {
                *g = *g * own + (x - centre) * other + constant;
            }
        }
    }
}

/// Turns `grad` into the gradient of the input; returns those of weight and bias, one after the other.
pub(crate) fn group_norm_backward(
    grad: &mut [f32],
    x: &[f32],
    moments: &[[f32; 2]],
    weight: &[f32],
    bias: &[f32],
    maps: Maps,
) -> Vec<f32> {
    let (c, size) = (maps.channels, maps.positions * maps.channels);
    let width = c / maps.groups;
    let mut pieces = buffer(x.len() / size * 2 * c);
    grad.par_chunks_mut(size)
        .zip(x.par_chunks(size))
        .zip(moments.par_chunks(maps.groups))
        .zip(pieces.par_chunks_mut(2 * c))
        .for_each(|(((grad, x), moments), sums)| {
            let how = maps.affine(moments, weight, bias);
            if maps.silu {
                silu_backward(grad, x, &how);
            }
            let (mut plain, mut projected) = (vec![0.0f64; c], vec![0.0f64; c]);
            let (mut p, mut q) = (vec![0.0f32; c], vec![0.0f32; c]);
            for (g, x) in grad.chunks(256 * c).zip(x.chunks(256 * c)) {
                p.fill(0.0);
                q.fill(0.0);
                gradient_sums(g, x, &how.centre, &mut p, &mut q);
                for i in 0..c {
                    plain[i] += f64::from(p[i]);
                    projected[i] += f64::from(q[i]);
                }
            }
            let (mut own, mut other, mut constant) = (vec![0.0f32; c], vec![0.0f32; c], vec![0.0f32; c]);
            let n = (maps.positions * width) as f64;
            for (group, &[_, scale]) in moments.iter().enumerate() {
                let scale = f64::from(scale);
                let channels = group * width..(group + 1) * width;
                let first = channels.clone().map(|i| f64::from(weight[i]) * plain[i]).sum::<f64>() / n;
                let second = channels.clone().map(|i| f64::from(weight[i]) * projected[i] * scale).sum::<f64>() / n;
                for i in channels {
                    // dx = scale * (g w - first - (x - mean) scale second)
                    own[i] = (scale * f64::from(weight[i])) as f32;
                    other[i] = (-scale * scale * second) as f32;
                    constant[i] = (-scale * first) as f32;
                    sums[i] = (projected[i] * scale) as f32;
                    sums[c + i] = plain[i] as f32;
                }
            }
            combine(grad, x, &how.centre, &own, &other, &constant);
        });
    let mut sums = buffer(2 * c);
    add_pieces(&pieces, &mut sums, false);
    sums
}

//! Group normalisation of maps with the channel last, alone or followed by SiLU.
//!
//! A map that fits the second cache is one task from statistics to result, so that memory is read once. A larger one is
//! cut into pieces.

use super::buffer;
use super::dispatch::{fma, simd};
use super::elementwise::GRAIN;
use super::math::sigmoid;
use super::sum::add_pieces;
use rayon::prelude::*;

/// What a group norm works on: maps of `channels` at `positions` positions, in `groups` groups.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Maps {
    pub(crate) positions: usize,
    pub(crate) channels: usize,
    pub(crate) groups: usize,
    pub(crate) eps: f32,
    pub(crate) silu: bool,
}

/// Maps of up to this many elements, half a mebibyte, are not cut.
const WHOLE: usize = 1 << 17;

/// Rows that f32 sums well before they are added up in f64.
const RUN: usize = 64;

/// What a group norm does to each channel: `(x - centre) * scale + shift`. The channels are repeated until a row is wide
/// enough for the vector units; a map is walked in rows of that width.
struct Affine {
    centre: Vec<f32>,
    scale: Vec<f32>,
    shift: Vec<f32>,
}

simd! {
    fn normalize(x: &[f32], how: &Affine, out: &mut [f32]) {
        let width = how.scale.len();
        for (x, o) in x.chunks(width).zip(out.chunks_mut(width)) {
            let channels = how.centre.iter().zip(&how.scale).zip(&how.shift);
            for ((o, &x), ((&centre, &scale), &shift)) in o.iter_mut().zip(x).zip(channels) {
                *o = fma::<FUSED>(x - centre, scale, shift);
            }
        }
    }
}

simd! {
    fn normalize_silu(x: &[f32], how: &Affine, out: &mut [f32]) {
        let width = how.scale.len();
        for (x, o) in x.chunks(width).zip(out.chunks_mut(width)) {
            let channels = how.centre.iter().zip(&how.scale).zip(&how.shift);
            for ((o, &x), ((&centre, &scale), &shift)) in o.iter_mut().zip(x).zip(channels) {
                let h = fma::<FUSED>(x - centre, scale, shift);
                *o = h * sigmoid::<FUSED>(h);
            }
        }
    }
}

simd! {
    /// Per column the sums of `x - centre` and of its square.
    fn moment_sums(x: &[f32], centre: &[f32], sums: &mut [f32], squares: &mut [f32]) {
        for x in x.chunks(centre.len()) {
            for (((s, q), &x), &centre) in sums.iter_mut().zip(squares.iter_mut()).zip(x).zip(centre) {
                let d = x - centre;
                *s += d;
                *q = fma::<FUSED>(d, d, *q);
            }
        }
    }
}

simd! {
    /// Per column the sums of the gradient and of the gradient times `x - centre`.
    fn gradient_sums(grad: &[f32], x: &[f32], centre: &[f32], plain: &mut [f32], projected: &mut [f32]) {
        for (g, x) in grad.chunks(centre.len()).zip(x.chunks(centre.len())) {
            for ((((p, q), &g), &x), &centre) in plain.iter_mut().zip(projected.iter_mut()).zip(g).zip(x).zip(centre) {
                *p += g;
                *q = fma::<FUSED>(g, x - centre, *q);
            }
        }
    }
}

simd! {
    /// Takes the gradient back through the SiLU of the normalised map, in place, and sums as [`gradient_sums`] does.
    fn silu_gradient_sums(grad: &mut [f32], x: &[f32], how: &Affine, plain: &mut [f32], projected: &mut [f32]) {
        let width = how.scale.len();
        for (g, x) in grad.chunks_mut(width).zip(x.chunks(width)) {
            let channels = how.centre.iter().zip(&how.scale).zip(&how.shift);
            let sums = plain.iter_mut().zip(projected.iter_mut());
            for (((g, &x), ((&centre, &scale), &shift)), (p, q)) in g.iter_mut().zip(x).zip(channels).zip(sums) {
                let d = x - centre;
                let h = fma::<FUSED>(d, scale, shift);
                let s = sigmoid::<FUSED>(h);
                let slope = s * fma::<FUSED>(h, 1.0 - s, 1.0);
                *g *= slope;
                *p += *g;
                *q = fma::<FUSED>(*g, d, *q);
            }
        }
    }
}

simd! {
    /// `grad * scale + (x - centre) * other + shift`, in place.
    fn combine(grad: &mut [f32], x: &[f32], how: &Affine, other: &[f32]) {
        let width = other.len();
        for (g, x) in grad.chunks_mut(width).zip(x.chunks(width)) {
            let channels = how.centre.iter().zip(&how.scale).zip(&how.shift).zip(other);
            for ((g, &x), (((&centre, &scale), &shift), &other)) in g.iter_mut().zip(x).zip(channels) {
                *g = fma::<FUSED>(*g, scale, fma::<FUSED>(x - centre, other, shift));
            }
        }
    }
}

impl Maps {
    fn size(&self) -> usize {
        self.positions * self.channels
    }

    /// How often the channels are repeated in a row.
    fn repeats(&self) -> usize {
        256usize.div_ceil(self.channels)
    }

    /// Elements of a piece of a map.
    fn piece(&self) -> usize {
        if self.size() <= WHOLE { self.size() } else { GRAIN.next_multiple_of(self.channels * self.repeats()) }
    }

    /// A row with `f(group, channel)` for every channel, repeated.
    fn row(&self, f: impl Fn(usize, usize) -> f32) -> Vec<f32> {
        let (len, width) = (self.channels * self.repeats(), self.channels / self.groups);
        let mut row = Vec::with_capacity(len);
        for group in 0..self.groups {
            row.extend((group * width..(group + 1) * width).map(|channel| f(group, channel)));
        }
        while row.len() < len {
            row.extend_from_within(..self.channels);
        }
        row
    }

    /// What the group norm of one map does to each channel.
    fn affine(&self, moments: &[[f32; 2]], weight: &[f32], bias: &[f32]) -> Affine {
        Affine {
            centre: self.row(|group, _| moments[group][0]),
            scale: self.row(|group, i| weight[i] * moments[group][1]),
            shift: self.row(|_, i| bias[i]),
        }
    }

    /// Two sums per channel over a piece. `add` gets the element at which a run of at most [`RUN`] rows starts and ends,
    /// and the sums of its columns, to be added to.
    fn channel_sums(&self, len: usize, mut add: impl FnMut(usize, usize, &mut [f32], &mut [f32])) -> Vec<[f64; 2]> {
        let width = self.channels * self.repeats();
        let (mut first, mut second) = (vec![0.0f32; width], vec![0.0f32; width]);
        let mut sums = vec![[0.0; 2]; self.channels];
        for start in (0..len).step_by(RUN * width) {
            first.fill(0.0);
            second.fill(0.0);
            add(start, len.min(start + RUN * width), &mut first, &mut second);
            for (first, second) in first.chunks_exact(self.channels).zip(second.chunks_exact(self.channels)) {
                for ((sum, &first), &second) in sums.iter_mut().zip(first).zip(second) {
                    *sum = [sum[0] + f64::from(first), sum[1] + f64::from(second)];
                }
            }
        }
        sums
    }

    /// Mean and reciprocal standard deviation of each group of one map.
    fn moments(&self, x: &[f32], moments: &mut [[f32; 2]]) {
        // Sums of x less the map's first value in each channel: the squares of x itself would cancel where the mean is
        // large against the deviation.
        let centre = self.row(|_, i| x[i]);
        let pieces: Vec<_> = x
            .par_chunks(self.piece())
            .map(|x| self.channel_sums(x.len(), |a, b, s, q| moment_sums(&x[a..b], &centre, s, q)))
            .collect();
        let sums = total(&pieces);
        let (n, width) = (self.positions as f64, self.channels / self.groups);
        for (group, moments) in moments.iter_mut().enumerate() {
            let channels = group * width..(group + 1) * width;
            let mean_of = |i: usize| f64::from(centre[i]) + sums[i][0] / n;
            let mean = channels.clone().map(mean_of).sum::<f64>() / width as f64;
            let variance = channels
                .map(|i| (sums[i][1] - sums[i][0] * sums[i][0] / n) / n + (mean_of(i) - mean).powi(2))
                .sum::<f64>()
                / width as f64;
            *moments = [mean as f32, (1.0 / (variance.max(0.0) + f64::from(self.eps)).sqrt()) as f32];
        }
    }
}

/// The sum of pieces, in order.
fn total(pieces: &[Vec<[f64; 2]>]) -> Vec<[f64; 2]> {
    let mut sums = vec![[0.0; 2]; pieces.first().map_or(0, Vec::len)];
    for piece in pieces {
        for (sum, piece) in sums.iter_mut().zip(piece) {
            *sum = [sum[0] + piece[0], sum[1] + piece[1]];
        }
    }
    sums
}

/// Group norm of maps [B, positions, channels], with the mean and reciprocal standard deviation of every group.
pub(crate) fn group_norm(x: &[f32], weight: &[f32], bias: &[f32], maps: Maps) -> (Vec<f32>, Vec<[f32; 2]>) {
    let (size, piece) = (maps.size(), maps.piece());
    let (mut out, mut moments) = (buffer(x.len()), vec![[0.0; 2]; x.len() / size * maps.groups]);
    out.par_chunks_mut(size).zip(moments.par_chunks_mut(maps.groups)).zip(x.par_chunks(size)).for_each(
        |((out, moments), x)| {
            maps.moments(x, moments);
            let how = maps.affine(moments, weight, bias);
            out.par_chunks_mut(piece)
                .zip(x.par_chunks(piece))
                .for_each(|(out, x)| if maps.silu { normalize_silu(x, &how, out) } else { normalize(x, &how, out) });
        },
    );
    (out, moments)
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
    let (c, size) = (maps.channels, maps.size());
    let mut pieces = buffer(x.len() / size * 2 * c);
    grad.par_chunks_mut(size)
        .zip(x.par_chunks(size))
        .zip(moments.par_chunks(maps.groups))
        .zip(pieces.par_chunks_mut(2 * c))
        .for_each(|(((grad, x), moments), sums)| map_backward(grad, x, moments, weight, bias, maps, sums));
    let mut sums = buffer(2 * c);
    add_pieces(&pieces, &mut sums, false);
    sums
}

/// The same for one map.
fn map_backward(
    grad: &mut [f32],
    x: &[f32],
    moments: &[[f32; 2]],
    weight: &[f32],
    bias: &[f32],
    maps: Maps,
    parameter_sums: &mut [f32],
) {
    let (c, width, piece) = (maps.channels, maps.channels / maps.groups, maps.piece());
    let how = maps.affine(moments, weight, bias);
    let pieces: Vec<_> = grad
        .par_chunks_mut(piece)
        .zip(x.par_chunks(piece))
        .map(|(grad, x)| {
            maps.channel_sums(x.len(), |a, b, plain, projected| {
                let (grad, x) = (&mut grad[a..b], &x[a..b]);
                if maps.silu {
                    silu_gradient_sums(grad, x, &how, plain, projected);
                } else {
                    gradient_sums(grad, x, &how.centre, plain, projected);
                }
            })
        })
        .collect();
    let sums = total(&pieces);
    // dx = scale (g w - mean(g w) - n mean(g w n)) with the normalised n = (x - centre) scale and means over the group.
    let n = (maps.positions * width) as f64;
    let (mut constant, mut slope) = (vec![0.0f32; maps.groups], vec![0.0f32; maps.groups]);
    for (group, &[_, scale]) in moments.iter().enumerate() {
        let scale = f64::from(scale);
        let channels = group * width..(group + 1) * width;
        let plain = channels.clone().map(|i| f64::from(weight[i]) * sums[i][0]).sum::<f64>() / n;
        let projected = channels.clone().map(|i| f64::from(weight[i]) * sums[i][1]).sum::<f64>() * scale / n;
        constant[group] = (-scale * plain) as f32;
        slope[group] = (-scale * scale * projected) as f32;
        for i in channels {
            parameter_sums[i] = (sums[i][1] * scale) as f32;
            parameter_sums[c + i] = sums[i][0] as f32;
        }
    }
    let other = maps.row(|group, _| slope[group]);
    let how = Affine { shift: maps.row(|group, _| constant[group]), ..how };
    grad.par_chunks_mut(piece).zip(x.par_chunks(piece)).for_each(|(grad, x)| combine(grad, x, &how, &other));
}

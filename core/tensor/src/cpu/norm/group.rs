//! Group normalisation of maps with the channel last, alone or followed by SiLU.
//!
//! A map that fits the second cache is one task from statistics to result, so that memory is read once. A larger one is
//! cut into pieces.

#![allow(unsafe_code)]

use crate::cpu::buffers;
use crate::cpu::isa::math::sigmoid;
use crate::cpu::isa::{fma, simd};
use crate::cpu::loops::elementwise::GRAIN;
use crate::cpu::loops::reduce::add_pieces;
use rayon::iter::once;
use rayon::prelude::*;
use std::mem::MaybeUninit;
use std::ops::Range;

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

/// Numbers of a row at least: enough for the vector units.
const ROW: usize = 128;

/// Rows that f32 sums well before they are added up in f64.
const RUN: usize = 64;

/// Variances between a group's mean and the value its squares are summed about, beyond which f32 loses digits of them.
const FAR: f64 = 100.0;

/// What a group norm does to each channel: `(x - centre) * scale + shift`, over rows as wide as [`Maps::row`] says.
#[derive(Clone, Copy)]
struct Affine<'a> {
    centre: &'a [f32],
    scale: &'a [f32],
    shift: &'a [f32],
}

simd! {
    fn normalize(x: &[f32], how: Affine<'_>, out: &mut [MaybeUninit<f32>]) {
        let width = how.scale.len();
        for (x, o) in x.chunks(width).zip(out.chunks_mut(width)) {
            let channels = how.centre.iter().zip(how.scale).zip(how.shift);
            for ((o, &x), ((&centre, &scale), &shift)) in o.iter_mut().zip(x).zip(channels) {
                o.write(fma::<FUSED>(x - centre, scale, shift));
            }
        }
    }
}

simd! {
    fn normalize_silu(x: &[f32], how: Affine<'_>, out: &mut [MaybeUninit<f32>]) {
        let width = how.scale.len();
        for (x, o) in x.chunks(width).zip(out.chunks_mut(width)) {
            let channels = how.centre.iter().zip(how.scale).zip(how.shift);
            for ((o, &x), ((&centre, &scale), &shift)) in o.iter_mut().zip(x).zip(channels) {
                let h = fma::<FUSED>(x - centre, scale, shift);
                o.write(h * sigmoid::<FUSED>(h));
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
    fn silu_gradient_sums(grad: &mut [f32], x: &[f32], how: Affine<'_>, plain: &mut [f32], projected: &mut [f32]) {
        let width = how.scale.len();
        for (g, x) in grad.chunks_mut(width).zip(x.chunks(width)) {
            let channels = how.centre.iter().zip(how.scale).zip(how.shift);
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
    /// `grad * scale + (x - centre) * slope + shift`, in place.
    fn combine(grad: &mut [f32], x: &[f32], how: Affine<'_>, slope: &[f32]) {
        let width = slope.len();
        for (g, x) in grad.chunks_mut(width).zip(x.chunks(width)) {
            let channels = how.centre.iter().zip(how.scale).zip(how.shift).zip(slope);
            for ((g, &x), (((&centre, &scale), &shift), &slope)) in g.iter_mut().zip(x).zip(channels) {
                *g = fma::<FUSED>(*g, scale, fma::<FUSED>(x - centre, slope, shift));
            }
        }
    }
}

simd! {
    /// Adds columns, whose channels are repeated, to sums per channel.
    fn add_columns(columns: &[f32], sums: &mut [f64]) {
        for columns in columns.chunks_exact(sums.len()) {
            for (sum, &x) in sums.iter_mut().zip(columns) {
                *sum += f64::from(x);
            }
        }
    }
}

/// Two sums per channel.
struct Sums {
    /// Of one run, per column of a row.
    columns: [Vec<f32>; 2],
    /// Of all runs.
    channels: [Vec<f64>; 2],
}

impl Sums {
    fn new(maps: &Maps) -> Self {
        Self { columns: [0, 1].map(|_| vec![0.0; maps.row()]), channels: [0, 1].map(|_| vec![0.0; maps.channels]) }
    }

    /// The sums over all pieces, each of which `add` adds. Those of a single piece need no memory of their own.
    fn gather<P: Send>(
        &mut self,
        maps: &Maps,
        pieces: impl IndexedParallelIterator<Item = P>,
        add: impl Fn(P, &mut Self) + Sync,
    ) {
        self.channels.iter_mut().for_each(|sums| sums.fill(0.0));
        if pieces.len() == 1 {
            pieces.zip(once(self)).for_each(|(piece, sums)| add(piece, sums));
        } else {
            let pieces = pieces.map(|piece| {
                let mut sums = Self::new(maps);
                add(piece, &mut sums);
                sums
            });
            pieces.collect::<Vec<_>>().iter().for_each(|piece| self.add(piece));
        }
    }

    /// Adds the sums over a run of at most [`RUN`] rows, which `add` adds to those of the columns.
    fn add_run(&mut self, add: impl FnOnce(&mut [f32], &mut [f32])) {
        let [first, second] = &mut self.columns;
        first.fill(0.0);
        second.fill(0.0);
        add(first, second);
        for (columns, sums) in self.columns.iter().zip(&mut self.channels) {
            add_columns(columns, sums);
        }
    }

    fn add(&mut self, other: &Self) {
        for (sums, other) in self.channels.iter_mut().zip(&other.channels) {
            sums.iter_mut().zip(other).for_each(|(sum, other)| *sum += other);
        }
    }
}

/// What the work on a map needs beside the map, kept from map to map: sums, and rows of numbers.
struct Scratch {
    sums: Sums,
    centre: Vec<f32>,
    scale: Vec<f32>,
    bias: Vec<f32>,
    shift: Vec<f32>,
    slope: Vec<f32>,
}

impl Scratch {
    fn new(maps: &Maps, bias: &[f32]) -> Self {
        let [centre, scale, mut repeated, shift, slope] = [0; 5].map(|_| vec![0.0; maps.row()]);
        repeated[..maps.channels].copy_from_slice(bias);
        repeat(&mut repeated, maps.channels);
        Self { sums: Sums::new(maps), centre, scale, bias: repeated, shift, slope }
    }

    /// Fills centre and scale for a map with these moments.
    fn set(&mut self, maps: &Maps, moments: &[[f32; 2]], weight: &[f32]) {
        for (channels, &[mean, scale]) in maps.groups().zip(moments) {
            self.centre[channels.clone()].fill(mean);
            for (s, w) in self.scale[channels.clone()].iter_mut().zip(&weight[channels]) {
                *s = w * scale;
            }
        }
        repeat(&mut self.centre, maps.channels);
        repeat(&mut self.scale, maps.channels);
    }
}

/// Fills a row with its first `channels` numbers.
fn repeat(row: &mut [f32], channels: usize) {
    let (first, rest) = row.split_at_mut(channels);
    rest.chunks_exact_mut(channels).for_each(|next| next.copy_from_slice(first));
}

/// The sum of the products, in four lanes.
fn dot(a: &[f64], b: &[f32]) -> f64 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<4>(), b.as_chunks::<4>());
    let mut lanes = [0.0; 4];
    for (a, b) in a.iter().zip(b) {
        for i in 0..4 {
            lanes[i] += a[i] * f64::from(b[i]);
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(a, &b)| a * f64::from(b)).sum();
    lanes.iter().sum::<f64>() + rest
}

/// The sum, in four lanes.
fn sum(x: &[f64]) -> f64 {
    let (x, rest) = x.as_chunks::<4>();
    let mut lanes = [0.0; 4];
    for x in x {
        for i in 0..4 {
            lanes[i] += x[i];
        }
    }
    lanes.iter().sum::<f64>() + rest.iter().sum::<f64>()
}

impl Maps {
    fn size(&self) -> usize {
        self.positions * self.channels
    }

    /// The channels of each group.
    fn groups(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let width = self.channels / self.groups;
        (0..self.groups).map(move |group| group * width..(group + 1) * width)
    }

    /// Elements of a group of one map.
    fn group_size(&self) -> f64 {
        (self.positions * (self.channels / self.groups)) as f64
    }

    /// Numbers of a row: the channels, repeated until there are [`ROW`]. A map is gone through in such rows.
    fn row(&self) -> usize {
        self.channels * ROW.div_ceil(self.channels)
    }

    /// Elements of a run.
    fn run(&self) -> usize {
        RUN * self.row()
    }

    /// Elements of a piece of a map.
    fn piece(&self) -> usize {
        if self.size() <= WHOLE { self.size() } else { GRAIN.next_multiple_of(self.row()) }
    }

    /// Mean and reciprocal standard deviation of each group of one map.
    fn moments(&self, x: &[f32], scratch: &mut Scratch, moments: &mut [[f32; 2]]) {
        let Scratch { sums, centre, .. } = scratch;
        // Sums of x less a value near the mean: the squares of x itself would cancel where the mean is large against the
        // deviation. A group's first value mostly is near enough; if not, the mean that it led to is.
        for channels in self.groups() {
            centre[channels.clone()].fill(x[channels.start]);
        }
        for last in [false, true] {
            repeat(centre, self.channels);
            sums.gather(self, x.par_chunks(self.piece()), |x, sums| {
                x.chunks(self.run()).for_each(|x| sums.add_run(|s, q| moment_sums(x, centre, s, q)));
            });
            let [plain, squares] = &sums.channels;
            let mut far = false;
            for (channels, moments) in self.groups().zip(moments.iter_mut()) {
                let offset = sum(&plain[channels.clone()]) / self.group_size();
                let variance = (sum(&squares[channels.clone()]) / self.group_size() - offset * offset).max(0.0);
                let mean = (f64::from(centre[channels.start]) + offset) as f32;
                *moments = [mean, (1.0 / (variance + f64::from(self.eps)).sqrt()) as f32];
                far |= offset * offset > FAR * variance;
                centre[channels].fill(mean);
            }
            if last || !far {
                break;
            }
        }
    }
}

/// Group norm of maps [B, positions, channels], with the mean and reciprocal standard deviation of every group.
pub(crate) fn group_norm(x: &[f32], weight: &[f32], bias: &[f32], maps: Maps) -> (Vec<f32>, Vec<[f32; 2]>) {
    let (size, piece) = (maps.size(), maps.piece());
    assert!(x.len().is_multiple_of(size));
    let mut moments = vec![[0.0; 2]; x.len() / size * maps.groups];
    let [out] = buffers([x.len()], |[out]| {
        out.par_chunks_mut(size).zip(moments.par_chunks_mut(maps.groups)).zip(x.par_chunks(size)).for_each_init(
            || Scratch::new(&maps, bias),
            |scratch, ((out, moments), x)| {
                maps.moments(x, scratch, moments);
                scratch.set(&maps, moments, weight);
                let how = Affine { centre: &scratch.centre, scale: &scratch.scale, shift: &scratch.bias };
                out.par_chunks_mut(piece)
                    .zip(x.par_chunks(piece))
                    .for_each(|(out, x)| if maps.silu { normalize_silu(x, how, out) } else { normalize(x, how, out) });
            },
        );
        // SAFETY: every map was written, since a row of the scratch memory has as many numbers as one of a map.
        [unsafe { out.assume_init_mut() }]
    });
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
    let mut pieces = vec![0.0; x.len() / size * 2 * c];
    grad.par_chunks_mut(size)
        .zip(x.par_chunks(size))
        .zip(moments.par_chunks(maps.groups))
        .zip(pieces.par_chunks_mut(2 * c))
        .for_each_init(
            || Scratch::new(&maps, bias),
            |scratch, (((grad, x), moments), sums)| {
                scratch.set(&maps, moments, weight);
                map_backward(grad, x, moments, weight, &maps, scratch, sums);
            },
        );
    let mut sums = vec![0.0; 2 * c];
    add_pieces(&pieces, &mut sums);
    sums
}

/// The same for one map.
fn map_backward(
    grad: &mut [f32],
    x: &[f32],
    moments: &[[f32; 2]],
    weight: &[f32],
    maps: &Maps,
    scratch: &mut Scratch,
    parameter_sums: &mut [f32],
) {
    let piece = maps.piece();
    let Scratch { sums, centre, scale, bias, shift, slope } = scratch;
    let how = Affine { centre, scale, shift: bias };
    sums.gather(maps, grad.par_chunks_mut(piece).zip(x.par_chunks(piece)), |(grad, x), sums| {
        for (grad, x) in grad.chunks_mut(maps.run()).zip(x.chunks(maps.run())) {
            sums.add_run(|plain, projected| {
                if maps.silu {
                    silu_gradient_sums(grad, x, how, plain, projected);
                } else {
                    gradient_sums(grad, x, how.centre, plain, projected);
                }
            });
        }
    });
    // dx = scale (g w - mean(g w) - n mean(g w n)) with the normalised n = (x - centre) scale and means over the group.
    let [plain, projected] = &sums.channels;
    let (weight_sums, bias_sums) = parameter_sums.split_at_mut(maps.channels);
    for (channels, &[_, scale]) in maps.groups().zip(moments) {
        let scale = f64::from(scale);
        let weight = &weight[channels.clone()];
        let (plain, projected) = (&plain[channels.clone()], &projected[channels.clone()]);
        shift[channels.clone()].fill((-scale * dot(plain, weight) / maps.group_size()) as f32);
        slope[channels.clone()].fill((-scale.powi(3) * dot(projected, weight) / maps.group_size()) as f32);
        weight_sums[channels.clone()].iter_mut().zip(projected).for_each(|(sum, &x)| *sum = (x * scale) as f32);
        bias_sums[channels].iter_mut().zip(plain).for_each(|(sum, &x)| *sum = x as f32);
    }
    repeat(shift, maps.channels);
    repeat(slope, maps.channels);
    let how = Affine { shift, ..how };
    grad.par_chunks_mut(piece).zip(x.par_chunks(piece)).for_each(|(grad, x)| combine(grad, x, how, slope));
}

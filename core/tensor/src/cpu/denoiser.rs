//! The steps of a denoiser in one parallel region. On a GPU they are run as the operations that they consist of.

#![allow(unsafe_code)]

use crate::cpu::gemm::Shared;
use crate::cpu::gemm::packed::{Operands, Weight};
use crate::cpu::isa::fma;
use crate::cpu::isa::math::{exp, sigmoid};
use crate::cpu::isa::simd;
use crate::cpu::memory::scratch::scratch;
use crate::cpu::norm::layer::{RowNorm, layer_norm_rows};
use crate::cpu::norm::rows::{stride, written};
use crate::cpu::threads::team::{Member, region};
use crate::ops::denoiser::DenoisingStep;
use std::ops::Range;

/// Scale and shift of a layer norm.
type Norm<'a> = [&'a [f32]; 2];

/// A block's weights; its modulation is a part of the network's.
pub(crate) struct Block<'a> {
    pub(crate) norm: Norm<'a>,
    pub(crate) expand: Weight<'a>,
    pub(crate) contract: Weight<'a>,
}

/// The weights of a denoiser. `modulation` gives shift, 1 + scale and gate of each block, then shift and 1 + scale of the
/// end, whose norm has ones and zeros.
pub(crate) struct Net<'a> {
    pub(crate) input: Weight<'a>,
    pub(crate) blocks: Vec<Block<'a>>,
    pub(crate) modulation: Weight<'a>,
    pub(crate) norm: Norm<'a>,
    pub(crate) output: Weight<'a>,
}

/// `vectors` of `channels` numbers, each in `group` rows of `width`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) vectors: usize,
    pub(crate) group: usize,
    pub(crate) channels: usize,
    pub(crate) width: usize,
    pub(crate) eps: f32,
}

/// What lies between two products, row by row: what modulates, its maps, the state, the modulated norm, the state inside a
/// block, what a block adds, and the outputs.
#[derive(Clone, Copy)]
struct Room {
    y: Shared,
    modulation: Shared,
    state: Shared,
    normal: Shared,
    hidden: Shared,
    added: Shared,
    out: Shared,
}

/// Takes `x [vectors, channels]` through all steps, in place. `known` is the condition `[vectors, group, width]` and the
/// time `[steps, width]`; `noise` has `[steps - 1, vectors, channels]` numbers or more, or none.
///
/// Every number is computed by one thread in one order, whatever the number of threads.
pub(crate) fn run(
    sizes: &Sizes,
    net: &Net<'_>,
    [condition, times]: [&[f32]; 2],
    steps: &[DenoisingStep],
    guidance: f32,
    noise: &[f32],
    x: &mut [f32],
) {
    let Sizes { vectors, group, channels, width, .. } = *sizes;
    let rows = vectors * group;
    assert!(x.len() == vectors * channels && condition.len() == rows * width && times.len() == steps.len() * width);
    assert!(noise.is_empty() || noise.len() + x.len() >= steps.len() * x.len());
    assert!(net.fits(sizes) && (1..=2).contains(&group));
    let (narrow, modulations) = (stride(width), net.modulation.n);
    let lengths = [narrow, modulations, width, narrow, narrow, width, net.output.n].map(|columns| rows * columns);
    scratch(lengths.iter().sum(), |memory| {
        let mut rest = memory;
        let [y, modulation, state, normal, hidden, added, out] = lengths.map(|length| {
            let (part, left) = std::mem::take(&mut rest).split_at_mut(length);
            rest = left;
            Shared::new(part.as_mut_ptr())
        });
        let room = Room { y, modulation, state, normal, hidden, added, out };
        let x = Shared::new(x.as_mut_ptr());
        region(|member| {
            for (i, step) in steps.iter().enumerate() {
                let time = &times[i * width..(i + 1) * width];
                let last = i + 1 == steps.len();
                let noise = if noise.is_empty() || last { &[] } else { &noise[i * vectors * channels..] };
                // SAFETY: all buffers have the sizes that are checked above, and a barrier lies between what one member
                // writes and another reads.
                unsafe {
                    modulator(sizes, condition, time, &room, member);
                    member.barrier();
                    predict(sizes, net, x, &room, member);
                    member.barrier();
                    update(sizes, net.output.n, step, guidance, noise, x, &room, member);
                }
            }
        });
    });
}

impl Net<'_> {
    fn fits(&self, sizes: &Sizes) -> bool {
        let (width, channels) = (sizes.width, sizes.channels);
        let is = |weight: &Weight<'_>, n: usize, k: usize| weight.n == n && weight.k == k && weight.fits();
        let block = |block: &Block<'_>| {
            is(&block.expand, width, width)
                && is(&block.contract, width, width)
                && block.norm.iter().all(|norm| norm.len() == width)
        };
        is(&self.input, width, channels)
            && self.blocks.iter().all(block)
            && is(&self.modulation, (3 * self.blocks.len() + 2) * width, width)
            && (is(&self.output, channels, width) || is(&self.output, 2 * channels, width))
            && self.norm.iter().all(|norm| norm.len() == width)
    }
}

/// A row of numbers that this member alone writes, or that nobody writes.
///
/// # Safety
/// The row lies inside the buffer.
unsafe fn row<'a>(of: Shared, at: usize, len: usize) -> &'a mut [f32] {
    // SAFETY: as the caller promises.
    unsafe { std::slice::from_raw_parts_mut(of.get().add(at), len) }
}

/// `y = silu(condition + time)` of this member's rows.
///
/// # Safety
/// As for [`predict`].
unsafe fn modulator(sizes: &Sizes, condition: &[f32], time: &[f32], room: &Room, member: &Member<'_>) {
    let width = sizes.width;
    for r in member.share(sizes.vectors * sizes.group) {
        // SAFETY: each row is one member's.
        let y = unsafe { row(room.y, r * stride(width), width) };
        silu_of_sum(&condition[r * width..(r + 1) * width], time, y);
    }
}

/// The outputs for all rows.
///
/// # Safety
/// All pointers are valid for the sizes, and every member of the region calls this.
unsafe fn predict(sizes: &Sizes, net: &Net<'_>, x: Shared, room: &Room, member: &Member<'_>) {
    let Sizes { vectors, group, channels, width, .. } = *sizes;
    let (rows, narrow, modulations) = (vectors * group, stride(width), net.modulation.n);
    let multiply = |weight: &Weight<'_>, rows, left: *const f32, left_stride, out: *mut f32, out_stride| {
        let pieces = member.share(weight.pieces());
        let operands = Operands { rows, left, left_stride, out, out_stride, accumulate: false };
        // SAFETY: the sizes fit, and these columns are this member's own.
        unsafe { weight.multiply(&operands, pieces.clone(), weight.start(pieces.start)) };
        weight.columns(pieces)
    };
    for g in 0..group {
        let out = room.state.get().wrapping_add(g * width);
        multiply(&net.input, vectors, x.get(), channels, out, group * width);
    }
    multiply(&net.modulation, rows, room.y.get(), narrow, room.modulation.get(), modulations);
    member.barrier();
    for (b, block) in net.blocks.iter().enumerate() {
        // SAFETY: as the caller promises.
        unsafe {
            modulated(sizes, block.norm, 3 * b, modulations, room, member, |left| {
                let columns = multiply(&block.expand, rows, left, narrow, room.hidden.get(), narrow);
                for r in 0..rows {
                    silu(row(room.hidden, r * narrow + columns.start, columns.len()));
                }
            });
            member.barrier();
            let columns = multiply(&block.contract, rows, room.hidden.get(), narrow, room.added.get(), width);
            for r in 0..rows {
                let at = r * width + columns.start;
                let gate = row(room.modulation, r * modulations + (3 * b + 2) * width + columns.start, columns.len());
                add_gated(row(room.state, at, columns.len()), gate, row(room.added, at, columns.len()));
            }
        }
        member.barrier();
    }
    // SAFETY: as the caller promises.
    unsafe {
        modulated(sizes, net.norm, 3 * net.blocks.len(), modulations, room, member, |left| {
            multiply(&net.output, rows, left, narrow, room.out.get(), net.output.n);
        });
    }
}

/// Hands the layer norm of all rows of the state to `f`, times the modulation's part `part + 1`, plus its part `part`.
///
/// # Safety
/// As for [`predict`]; no member writes to the state before the next barrier.
unsafe fn modulated(
    sizes: &Sizes,
    [weight, bias]: Norm<'_>,
    part: usize,
    modulations: usize,
    room: &Room,
    member: &Member<'_>,
    f: impl FnOnce(*const f32),
) {
    let (rows, width) = (sizes.vectors * sizes.group, sizes.width);
    let stride = stride(width);
    let norm = |rows: Range<usize>, out: *mut f32| {
        for r in rows {
            // SAFETY: the row lies inside the state, and inside `out` where this member alone writes.
            unsafe {
                let unwritten = std::slice::from_raw_parts_mut(out.add(r * stride).cast(), width);
                layer_norm_rows(
                    row(room.state, r * width, width),
                    weight,
                    bias,
                    RowNorm { eps: sizes.eps, centred: true },
                    unwritten,
                    &mut [[0.0; 2]],
                );
                let normal = std::slice::from_raw_parts_mut(out.add(r * stride), width);
                let at = r * modulations + part * width;
                modulate(normal, row(room.modulation, at, width), row(room.modulation, at + width, width));
            }
        }
    };
    // SAFETY: the room was made for these rows, and `norm` writes those of its range.
    unsafe { written(rows, width, room.normal, member, norm, f) };
}

/// This member's vectors after the step.
///
/// # Safety
/// As for [`predict`].
#[allow(clippy::too_many_arguments, reason = "one call")]
unsafe fn update(
    sizes: &Sizes,
    outputs: usize,
    step: &DenoisingStep,
    guidance: f32,
    noise: &[f32],
    x: Shared,
    room: &Room,
    member: &Member<'_>,
) {
    let Sizes { vectors, group, channels, .. } = *sizes;
    for n in member.share(vectors) {
        // SAFETY: each vector is one member's, and nobody writes the outputs meanwhile.
        let (x, with, without) = unsafe {
            let of = |g: usize| row(room.out, (n * group + g) * outputs, outputs);
            (row(x, n * channels, channels), of(0), of(group - 1))
        };
        let guidance = if group == 1 { 1.0 } else { guidance };
        mix(x, with, without, [step.signal, step.prediction, guidance]);
        if !noise.is_empty() {
            add_noise(x, &with[channels..], &noise[n * channels..(n + 1) * channels], step.log_variance);
        }
    }
}

simd! {
    fn silu_of_sum(a: &[f32], b: &[f32], out: &mut [f32]) {
        for ((o, &a), &b) in out.iter_mut().zip(a).zip(b) {
            let sum = a + b;
            *o = sum * sigmoid::<FUSED>(sum);
        }
    }
}

simd! {
    fn silu(x: &mut [f32]) {
        for x in x {
            *x *= sigmoid::<FUSED>(*x);
        }
    }
}

simd! {
    fn modulate(x: &mut [f32], shift: &[f32], scale: &[f32]) {
        for ((x, &shift), &scale) in x.iter_mut().zip(shift).zip(scale) {
            *x = fma::<FUSED>(*x, scale, shift);
        }
    }
}

simd! {
    fn add_gated(x: &mut [f32], gate: &[f32], added: &[f32]) {
        for ((x, &gate), &added) in x.iter_mut().zip(gate).zip(added) {
            *x = fma::<FUSED>(gate, added, *x);
        }
    }
}

simd! {
    /// `signal x + prediction (u + guidance (c - u))`.
    fn mix(x: &mut [f32], with: &[f32], without: &[f32], factors: [f32; 3]) {
        let [signal, prediction, guidance] = factors;
        for ((x, &c), &u) in x.iter_mut().zip(with).zip(without) {
            *x = fma::<FUSED>(signal, *x, prediction * fma::<FUSED>(guidance, c - u, u));
        }
    }
}

simd! {
    fn add_noise(x: &mut [f32], v: &[f32], noise: &[f32], range: [f32; 2]) {
        let [low, high] = range;
        for ((x, &v), &noise) in x.iter_mut().zip(v).zip(noise) {
            let log_variance = fma::<FUSED>(0.5 * (v + 1.0), high - low, low);
            *x = fma::<FUSED>(exp::<FUSED>(0.5 * log_variance), noise, *x);
        }
    }
}

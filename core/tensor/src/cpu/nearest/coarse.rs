//! Upper bounds of scores in scalar-quantised int8 or int16: most codes of a search are ruled out without their f32 score.
//! The integers have 8 bits where the processor multiplies and adds bytes (AVX-512 with VNNI, four times the rate of
//! f32), and 16 where it does so with pairs of words (AVX2, twice the rate): see [`Width`].
//!
//! The f32 score of a row x and a code e is `s = fl(dot + b)`: `dot` is x·e summed in order by fused multiply-adds, and
//! `b` is the code's bias, `-|e|²/2`. A row is written as `x = a (X + f)`, a code as `e = c (E + g)`, where X and E are
//! integers of at most M: 127 in 8 bits, and in 16 bits as many as keep `C M^2` below 2^31, so that no sum of C products
//! overflows. With `|f| <= ξ` and `|g| <= η`, by Cauchy and Schwarz,
//!
//! ```text
//! x·e / (a c) = X·E + (X + f)·g + f·E  <=  X·E + (|X| + ξ) η + ξ |E|.
//! ```
//!
//! Summing in f32 adds at most `γ |x| |e|`, where `γ = C u / (1 - C u)`, C is the number of channels and `u = 2^-24`
//! (Higham, "Accuracy and stability of numerical algorithms", section 3.1). So with the largest η and |E| of the codebook
//!
//! ```text
//! dot <= c (a X·E + m),    m = a ((|X| + ξ) η + ξ |E| + ε (|X| + ξ) (|E| + η)),    ε = (C + 8) 2^-23.
//! ```
//!
//! ε is twice what γ needs. The rest of it, and 1/1000 that is added to m, cover the rounding of m itself, of X·E
//! as an f32, and of `w = fl(a X·E + m)`. The last step `U = fl(c w + b)` is one fused multiply-add, and rounding is monotone:
//! `c w + b >= dot + b` gives `U >= s`, whatever b is. A code with `U < s'`, where s' is the f32 score of any other, is
//! not the nearest; every other code gets its f32 score. The result is that of the f32 search.
//!
//! X and E are made by rounding `x / a` as computed, which is within `M 2^-22` of the true quotient (of at most M, by
//! three roundings); ξ and η are the computed norm of what rounding left plus `sqrt(C) M 2^-22`; they and the norms of X and E
//! are taken for 1/1000 more than computed, which covers how they were summed for any C up to 8192. M is below 2^14, and the
//! scales a and c are at least `2^-40 / M`, so that nothing above underflows for small vectors; the sum's own underflow, at
//! most `C 2^-149`, is below `a c ξ η`. Rows beyond 2^50, infinite or NaN are left to the f32 search, so that nothing overflows.

#![allow(unsafe_code)]

use crate::cpu::isa::simd;
use crate::cpu::loops::reduce::{LANES, padded};
use rayon::prelude::*;
use std::array::from_fn;
use std::slice;

/// Codes in a panel, in lines of 16.
pub(crate) const PANEL: usize = 64;
/// Lines of a panel.
pub(crate) const LINES: usize = PANEL / 16;
/// From so many channels on, M is below 2^14.
pub(crate) const FEWEST_CHANNELS: usize = 16;
/// The largest number that a vector may hold, 2^50.
const CEILING: f32 = (1u64 << 50) as f32;
/// The largest number of a vector is taken for at least this, 2^-40.
const FLOOR: f32 = 1.0 / (1u64 << 40) as f32;

/// How wide the integers are. 32 bits of them, a step, are what an instruction multiplies and adds in each lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Width {
    /// 8 bits, four channels per step. Those of codes are shifted by 128 to be unsigned, as the instruction wants.
    Int8,
    /// 16 bits, two channels per step.
    Int16,
}

impl Width {
    /// Steps along so many channels.
    pub(crate) fn steps(self, channels: usize) -> usize {
        match self {
            Self::Int8 => channels.div_ceil(4),
            Self::Int16 => channels.div_ceil(2),
        }
    }

    /// M: the largest integer.
    fn largest(self, channels: usize) -> f32 {
        match self {
            Self::Int8 => 127.0,
            Self::Int16 => (f64::from(i32::MAX) / channels.max(FEWEST_CHANNELS) as f64).sqrt().floor() as f32,
        }
    }

    /// What is done to the steps of codes.
    fn shift(self) -> u32 {
        match self {
            Self::Int8 => 0x8080_8080,
            Self::Int16 => 0,
        }
    }

    /// Rounds a row into its steps, whose unused channels are left as they are; `None` if it holds what is not finite
    /// or too large.
    pub(crate) fn round(self, row: &[f32], out: &mut [u32]) -> Option<Rounded> {
        assert!(out.len() == self.steps(row.len()));
        let (out, largest) = (out.as_mut_ptr(), self.largest(row.len()));
        match self {
            // SAFETY: as many bytes as the steps hold, which are borrowed here; any bits are numbers.
            Self::Int8 => round(row, largest, unsafe { slice::from_raw_parts_mut(out.cast::<i8>(), row.len()) }),
            // SAFETY: as above.
            Self::Int16 => round(row, largest, unsafe { slice::from_raw_parts_mut(out.cast::<i16>(), row.len()) }),
        }
    }

    /// Where a panel has the codes of `line` at `step`.
    pub(crate) fn index(self, steps: usize, step: usize, line: usize) -> usize {
        match self {
            Self::Int8 => step * LINES + line,
            Self::Int16 => line * steps + step,
        }
    }
}

/// An integer of 8 or 16 bits.
trait Int: Copy + Default {
    /// The number whose low bits these are.
    fn low(bits: u32) -> Self;
}

impl Int for i8 {
    #[inline(always)]
    fn low(bits: u32) -> Self {
        bits as i8
    }
}

impl Int for i16 {
    #[inline(always)]
    fn low(bits: u32) -> Self {
        bits as i16
    }
}

/// Sixteen numbers in a cache line.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[repr(align(64))]
pub(crate) struct Line<T>(pub(crate) [T; 16]);

/// A scalar-quantised vector.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Rounded {
    /// a: what one stands for.
    pub(crate) scale: f32,
    /// |X|.
    pub(crate) norm: f32,
    /// ξ: no less than the norm of what rounding left, in units of `scale`.
    pub(crate) error: f32,
    /// The sum of the integers.
    pub(crate) sum: i32,
}

/// Joins the lanes as a tree.
#[inline(always)]
fn join<T: Copy>(lanes: [T; LANES], f: impl Fn(T, T) -> T) -> T {
    let eight: [T; 8] = from_fn(|i| f(lanes[i], lanes[i + 8]));
    let four: [T; 4] = from_fn(|i| f(eight[i], eight[i + 4]));
    f(f(four[0], four[2]), f(four[1], four[3]))
}

simd! {
    /// Quantises a vector into `out` of its length; `None` if it holds what is not finite or too large.
    fn round<T: Int>(row: &[f32], largest: f32, out: &mut [T]) -> Option<Rounded> {
        let (chunks, rest) = row.as_chunks::<LANES>();
        let last = (!rest.is_empty()).then(|| padded(rest, 0.0));
        let mut most = [FLOOR; LANES];
        let mut unbounded = [false; LANES];
        for chunk in chunks.iter().chain(&last) {
            for i in 0..LANES {
                let size = chunk[i].abs();
                unbounded[i] |= size > CEILING || size.is_nan();
                most[i] = if size > most[i] { size } else { most[i] };
            }
        }
        if unbounded.iter().any(|&unbounded| unbounded) {
            return None;
        }
        let most = join(most, |a, b| if a > b { a } else { b });
        let inverse = largest / most;
        let (mut squares, mut errors, mut sums) = ([0.0f32; LANES], [0.0f32; LANES], [0i32; LANES]);
        let mut one = |chunk: &[f32; LANES], out: &mut [T; LANES]| {
            for i in 0..LANES {
                // Adding 1.5 * 2^23 rounds to integers, and leaves them in the low bits.
                const WHOLE: f32 = 12_582_912.0;
                let quotient = chunk[i] * inverse;
                let shifted = quotient + WHOLE;
                let whole = shifted - WHOLE;
                let left = quotient - whole;
                out[i] = T::low(shifted.to_bits());
                squares[i] += whole * whole;
                errors[i] += left * left;
                sums[i] += shifted.to_bits() as i32 - WHOLE.to_bits() as i32;
            }
        };
        let (out_chunks, out_rest) = out[..row.len()].as_chunks_mut::<LANES>();
        for (chunk, out) in chunks.iter().zip(out_chunks) {
            one(chunk, out);
        }
        if let Some(last) = &last {
            let mut numbers = [T::default(); LANES];
            one(last, &mut numbers);
            out_rest.copy_from_slice(&numbers[..rest.len()]);
        }
        let slack = (row.len() as f32).sqrt() * largest / (1u32 << 22) as f32;
        Some(Rounded {
            scale: most / largest,
            norm: join(squares, |a, b| a + b).sqrt() * 1.001,
            error: (join(errors, |a, b| a + b).sqrt() + slack) * 1.001,
            sum: join(sums, |a, b| a + b),
        })
    }
}

/// A scalar-quantised codebook.
#[derive(Debug)]
pub(crate) struct Coarse {
    channels: usize,
    pub(crate) width: Width,
    /// The steps of codes in lines of 16: bytes `[panels][steps][4]`, words, of which fewer codes fit the registers,
    /// `[panels][4][steps]`.
    pub(crate) numbers: Vec<Line<u32>>,
    /// The scale of every code of every panel; 0 for those that pad the last.
    pub(crate) scales: Vec<Line<f32>>,
    /// The bias of every code; minus infinity for those that pad.
    pub(crate) biases: Vec<Line<f32>>,
    /// The largest |E|.
    norm: f32,
    /// The largest η.
    error: f32,
}

/// What the kernel needs to know of a row.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Terms {
    /// What X·E starts from: bytes of E come shifted by 128.
    pub(crate) start: i32,
    /// a.
    pub(crate) scale: f32,
    /// m.
    pub(crate) margin: f32,
}

impl Coarse {
    /// `None` if a code holds what is not finite or too large. `biases` has one number per code.
    pub(crate) fn new(width: Width, channels: usize, codebook: &[f32], biases: &[f32]) -> Option<Self> {
        let (steps, shift) = (width.steps(channels), width.shift());
        let panels = biases.len().div_ceil(PANEL);
        let mut numbers = vec![Line::default(); panels * steps * LINES];
        let mut scales = vec![Line::default(); panels * LINES];
        let mut padded_biases = vec![Line([f32::NEG_INFINITY; 16]); panels * LINES];
        let panels_of = numbers.par_chunks_mut(steps * LINES).zip(scales.par_chunks_mut(LINES));
        let worst = panels_of.zip(padded_biases.par_chunks_mut(LINES)).enumerate().with_min_len(4).map_init(
            || vec![0u32; steps],
            |row, (panel, ((numbers, scales), padded))| {
                let mut worst = [0.0f32; 2];
                let first = panel * PANEL;
                for lane in 0..PANEL {
                    row.fill(0);
                    if let Some(bias) = biases.get(first + lane) {
                        let code = (first + lane) * channels;
                        let rounded = width.round(&codebook[code..code + channels], row)?;
                        worst = [worst[0].max(rounded.norm), worst[1].max(rounded.error)];
                        scales[lane / 16].0[lane % 16] = rounded.scale;
                        padded[lane / 16].0[lane % 16] = *bias;
                    }
                    for (step, whole) in row.iter().enumerate() {
                        numbers[width.index(steps, step, lane / 16)].0[lane % 16] = whole ^ shift;
                    }
                }
                Some(worst)
            },
        );
        let [norm, error] = worst.try_reduce(|| [0.0; 2], |a, b| Some([a[0].max(b[0]), a[1].max(b[1])]))?;
        Some(Self { channels, width, numbers, scales, biases: padded_biases, norm, error })
    }

    /// The row's terms; see the head of this file.
    pub(crate) fn terms(&self, row: &Rounded) -> Terms {
        let length = row.norm + row.error;
        let rounding = (self.channels + 8) as f32 / (1u32 << 23) as f32;
        let units = length * self.error + row.error * self.norm + rounding * length * (self.norm + self.error);
        let start = if self.width == Width::Int8 { -128 * row.sum } else { 0 };
        Terms { start, scale: row.scale, margin: row.scale * units * 1.001 }
    }

    /// Steps along the channels.
    pub(crate) fn steps(&self) -> usize {
        self.width.steps(self.channels)
    }

    /// Panels of codes.
    pub(crate) fn panels(&self) -> usize {
        self.scales.len() * 16 / PANEL
    }
}

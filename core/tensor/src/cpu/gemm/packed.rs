//! Products with one right operand many times over, and few rows on the left.

#![allow(unsafe_code)]

use crate::cpu::buffers;
use crate::cpu::gemm::kernel::{DOTS, Dots, Kernels};
use crate::cpu::gemm::pack;
use crate::cpu::gemm::strip::{Strip, prefetch};
use crate::cpu::gemm::{Shared, TASK};
use crate::cpu::loops::reduce::LANES;
use crate::cpu::threads::split;
use crate::cpu::threads::team::{Member, region};
use std::mem::MaybeUninit;
use std::ops::Range;
use std::ptr::{null, null_mut};

/// The panels of `b [n, k]ᵀ`.
pub(crate) fn panels(n: usize, k: usize, b: &[f32]) -> Vec<f32> {
    let width = Kernels::best().width;
    let mut panels = vec![0.0; n.next_multiple_of(width) * k];
    if k > 0 {
        split::each_chunk(&mut panels, k * width, TASK / 16, |(j, panel)| {
            let first = j * width;
            pack::transposed(&b[first * k..], k, (n - first).min(width), k, width, panel);
        });
    }
    panels
}

/// The right operand `[n, k]ᵀ` of a product, with what is added to every row.
#[derive(Clone, Copy)]
pub(crate) struct Weight<'a> {
    pub(crate) n: usize,
    pub(crate) k: usize,
    pub(crate) numbers: Numbers<'a>,
    pub(crate) bias: Option<&'a [f32]>,
}

/// How a weight lies.
#[derive(Clone, Copy)]
pub(crate) enum Numbers<'a> {
    /// Rows of k, as they are.
    Rows(&'a [f32]),
    /// See [`panels`].
    Panels(&'a [f32]),
}

/// The left operand and the result, and the numbers between their rows.
#[derive(Clone, Copy)]
pub(crate) struct Operands {
    pub(crate) rows: usize,
    pub(crate) left: *const f32,
    pub(crate) left_stride: usize,
    pub(crate) out: *mut f32,
    pub(crate) out_stride: usize,
    /// Adds to what is there.
    pub(crate) accumulate: bool,
}

impl Weight<'_> {
    /// Whether there are as many numbers as the sizes say.
    pub(crate) fn fits(&self) -> bool {
        let len = match self.numbers {
            Numbers::Rows(rows) => rows.len() == self.n * self.k,
            Numbers::Panels(panels) => panels.len() == self.n.next_multiple_of(Kernels::best().width) * self.k,
        };
        len && self.bias.is_none_or(|bias| bias.len() == self.n)
    }

    /// Columns of the result that are computed together; pieces of as many are handed to threads.
    pub(crate) fn pieces(&self) -> usize {
        self.n.div_ceil(Kernels::best().width)
    }

    /// The columns that some pieces hold.
    pub(crate) fn columns(&self, pieces: Range<usize>) -> Range<usize> {
        let width = Kernels::best().width;
        pieces.start * width..(pieces.end * width).min(self.n)
    }

    /// Where a piece lies.
    pub(crate) fn start(&self, piece: usize) -> *const f32 {
        let (Numbers::Rows(numbers) | Numbers::Panels(numbers)) = self.numbers;
        numbers.as_ptr().wrapping_add(piece * Kernels::best().width * self.k)
    }

    /// `out (+)= left · weightᵀ + bias` in the columns of some pieces. `ahead`: what will be read after these.
    ///
    /// # Safety
    /// `left` is valid for rows of k numbers and `out` for as many of n, and nothing else writes to these columns
    /// meanwhile.
    pub(crate) unsafe fn multiply(&self, operands: &Operands, pieces: Range<usize>, ahead: *const f32) {
        let kernels = Kernels::best();
        match self.numbers {
            Numbers::Rows(rows) => {
                let Range { start, end } = self.columns(pieces);
                if start < end {
                    // SAFETY: passed on.
                    unsafe { self.dots(kernels, operands, &rows[start * self.k..], start..end) };
                }
                (0..AHEAD).step_by(LANES).for_each(|at| prefetch(ahead.wrapping_add(at)));
            }
            Numbers::Panels(_) => {
                for piece in pieces.clone() {
                    let Range { start, end } = self.columns(piece..piece + 1);
                    let strip = Strip {
                        left: operands.left,
                        left_stride: operands.left_stride,
                        depth: self.k,
                        panel: self.start(piece),
                        ahead: if piece + 1 < pieces.end { self.start(piece + 1) } else { ahead },
                        bias: self.bias.map_or(null(), |bias| bias[start..].as_ptr()),
                        out: operands.out.wrapping_add(start),
                        out_stride: operands.out_stride,
                        columns: end - start,
                        accumulate: operands.accumulate,
                    };
                    // SAFETY: passed on.
                    unsafe { strip.run(operands.rows) };
                }
            }
        }
    }

    /// The same where the weight's rows lie as they are; `weight` begins with that of the first column.
    ///
    /// # Safety
    /// As for [`Weight::multiply`].
    unsafe fn dots(&self, kernels: &Kernels, operands: &Operands, weight: &[f32], columns: Range<usize>) {
        let Operands { rows, left, left_stride, out, out_stride, accumulate } = *operands;
        for j in columns.clone().step_by(DOTS[1]) {
            let right = weight[(j - columns.start) * self.k..].as_ptr();
            for i in (0..rows).step_by(DOTS[0]) {
                let height = (rows - i).min(DOTS[0]);
                let (mut lefts, mut outs) = ([null(); DOTS[0]], [null_mut(); DOTS[0]]);
                for r in 0..height {
                    lefts[r] = left.wrapping_add((i + r) * left_stride);
                    outs[r] = out.wrapping_add((i + r) * out_stride + j);
                }
                let dots = Dots {
                    left: lefts.as_ptr(),
                    groups: 1,
                    depth: self.k,
                    right,
                    right_stride: self.k,
                    bias: self.bias.map_or(null(), |bias| bias[j..].as_ptr()),
                    out: outs.as_ptr(),
                    accumulate,
                };
                // SAFETY: rows of both operands have k numbers, and the block lies inside the columns.
                unsafe { kernels.dots(height, (columns.end - j).min(DOTS[1]), &dots) };
            }
        }
    }
}

/// Numbers of what comes next that are asked for at the end of a product.
const AHEAD: usize = 1 << 10;
/// Multiply-adds that are worth another thread where it is awake.
const SHARED: usize = 1 << 16;

/// `a [rows, k] · weightᵀ + bias`: `[rows, n]`.
pub(crate) fn product(weight: &Weight<'_>, rows: usize, a: &[f32]) -> Vec<f32> {
    let [c] = buffers([rows * weight.n], |[c]| [write_product(weight, rows, a, c)]);
    c
}

fn write_product<'a>(weight: &Weight<'_>, rows: usize, a: &[f32], c: &'a mut [MaybeUninit<f32>]) -> &'a mut [f32] {
    let (n, k) = (weight.n, weight.k);
    assert!(c.len() == rows * n && a.len() == rows * k && weight.fits());
    let (left, out) = (a, Shared::new(c.as_mut_ptr().cast()));
    let part = |member: Option<&Member<'_>>| {
        let operands =
            Operands { rows, left: left.as_ptr(), left_stride: k, out: out.get(), out_stride: n, accumulate: false };
        let pieces = member.map_or(0..weight.pieces(), |member| member.share(weight.pieces()));
        // SAFETY: the operands have the sizes asserted above, and each member writes its own columns.
        unsafe { weight.multiply(&operands, pieces.clone(), weight.start(pieces.start)) };
    };
    if rows * n * k < SHARED {
        part(None)
    } else {
        region(|member| part(Some(member)))
    }
    // SAFETY: the members have written all columns of all rows.
    unsafe { c.assume_init_mut() }
}

//! Copies between layouts.

#![allow(unsafe_code)]

use crate::cpu::loops::elementwise::GRAIN;
use crate::cpu::{Output, buffer};
use rayon::prelude::*;
use std::mem::MaybeUninit;

/// `out[i_0, .., i_n] = x[i . strides]` for an output of shape `shape`.
pub(crate) fn permute(x: &[f32], shape: &[usize], strides: &[usize]) -> Vec<f32> {
    let len: usize = shape.iter().product();
    if len == 0 {
        return Vec::new();
    }
    let (shape, strides) = merge(shape, strides);
    let inner = shape.len() - 1;
    buffer(len, |out| match (strides.iter().position(|&stride| stride == 1), out) {
        (Some(axis), Output::New(out)) if axis != inner => transpose(x, &shape, &strides, axis, out),
        (_, out) => gather_rows(x, &shape, &strides, out),
    })
}

/// The offset in the input of index `row` over the axes of `shape`.
fn offset(mut row: usize, shape: &[usize], strides: &[usize]) -> usize {
    let mut at = 0;
    for (size, stride) in shape.iter().zip(strides).rev() {
        at += row % size * stride;
        row /= size;
    }
    at
}

/// Copies row by row of the output.
fn gather_rows<'a>(x: &[f32], shape: &[usize], strides: &[usize], out: Output<'a>) -> &'a mut [f32] {
    let inner_axis = shape.len() - 1;
    let (inner, step) = (shape[inner_axis], strides[inner_axis]);
    let (shape, strides) = (&shape[..inner_axis], &strides[..inner_axis]);
    let rows = (GRAIN / inner).max(1);
    out.par_chunks(rows * inner, |task, out| {
        // Rows of the next axis out lie at a fixed distance until that axis ends.
        let run = shape.last().copied().unwrap_or(1);
        let distance = strides.last().copied().unwrap_or(0);
        let (mut row, mut at, mut left) = (task * rows, 0, 0);
        out.chunks(inner, |_, out| {
            if left == 0 {
                at = offset(row, shape, strides);
                left = run - row % run;
            }
            let from = at;
            row += 1;
            left -= 1;
            at += distance;
            if step == 1 { out.map(&x[from..from + inner], |x| *x) } else { out.by_index(|i| x[from + i * step]) }
        })
    })
}

/// Side of the square tiles that a transposition moves: a tile's rows are whole cache lines on both sides.
const TILE: usize = 16;

/// Copies tiles between the innermost axis of the output and its axis `line`, the innermost of the input.
fn transpose<'a>(
    x: &[f32],
    shape: &[usize],
    strides: &[usize],
    line: usize,
    out: &'a mut [MaybeUninit<f32>],
) -> &'a mut [f32] {
    let inner_axis = shape.len() - 1;
    let (lines, inner, step) = (shape[line], shape[inner_axis], strides[inner_axis]);
    let (middle_shape, middle_strides) = (&shape[line + 1..inner_axis], &strides[line + 1..inner_axis]);
    let middle: usize = middle_shape.iter().product();
    // A task takes some of the lines of one outer index: a run of the output.
    let some = (GRAIN / (middle * inner)).max(1).next_multiple_of(TILE);
    out.par_chunks_mut(lines * middle * inner).enumerate().for_each(|(outer, out)| {
        let base = offset(outer, &shape[..line], &strides[..line]);
        out.par_chunks_mut(some * middle * inner).enumerate().for_each(|(task, out)| {
            let n = out.len() / (middle * inner);
            for m in 0..middle {
                let at = base + task * some + offset(m, middle_shape, middle_strides);
                for from in (0..n).step_by(TILE) {
                    for i in (0..inner).step_by(TILE) {
                        let (height, width) = (TILE.min(n - from), TILE.min(inner - i));
                        let mut tile = [[0.0f32; TILE]; TILE];
                        for (j, row) in tile.iter_mut().enumerate().take(width) {
                            let start = at + from + (i + j) * step;
                            row[..height].copy_from_slice(&x[start..start + height]);
                        }
                        for l in 0..height {
                            let start = ((from + l) * middle + m) * inner + i;
                            for (o, row) in out[start..start + width].iter_mut().zip(&tile) {
                                o.write(row[l]);
                            }
                        }
                    }
                }
            }
        });
    });
    // SAFETY: the tiles cover all lines and inner indices of every outer and middle index, and with them the output.
    unsafe { out.assume_init_mut() }
}

/// The same elements over as few axes as possible, and at least one.
pub(crate) fn merge(shape: &[usize], strides: &[usize]) -> (Vec<usize>, Vec<usize>) {
    let mut merged: (Vec<usize>, Vec<usize>) = (vec![1], vec![0]);
    for (&size, &stride) in shape.iter().zip(strides) {
        let last = merged.0.len() - 1;
        if size == 1 {
            continue;
        }
        if merged.0[last] == 1 {
            (merged.0[last], merged.1[last]) = (size, stride);
        } else if merged.1[last] == stride * size {
            merged.0[last] *= size;
            merged.1[last] = stride;
        } else {
            merged.0.push(size);
            merged.1.push(stride);
        }
    }
    merged
}

/// Blocks of elements: of every `step` the `len` from `start` on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Blocks {
    pub(crate) start: usize,
    pub(crate) len: usize,
    pub(crate) step: usize,
}

impl Blocks {
    /// The blocks of `from`, side by side.
    pub(crate) fn gather<'a>(&self, from: &[f32], out: Output<'a>) -> &'a mut [f32] {
        let Self { start, len, step } = *self;
        let group = (GRAIN / len.max(1)).max(1);
        out.par_chunks(group * len.max(1), |i, out| {
            out.chunks(len, |j, out| out.map(&from[(i * group + j) * step + start..][..len], |x| *x))
        })
    }

    /// What lies side by side in `from`, in these blocks; beside them is 0.
    pub(crate) fn scatter<'a>(&self, from: &[f32], out: Output<'a>) -> &'a mut [f32] {
        let Self { start, len, step } = *self;
        if from.is_empty() {
            return out.zeros();
        }
        let group = (GRAIN / step).max(1);
        out.par_chunks(group * step, |i, out| {
            out.chunks(step, |j, mut out| {
                out.part(0..start).zeros();
                out.part(start..start + len).map(&from[(i * group + j) * len..][..len], |x| *x);
                out.part(start + len..step).zeros();
                // SAFETY: these are all parts.
                unsafe { out.written() }
            })
        })
    }
}

/// Blocks of each of `parts` in turn: the numbers of a part, and how many of them make a block.
pub(crate) fn join(parts: &[(&[f32], usize)]) -> Vec<f32> {
    let step: usize = parts.iter().map(|(_, len)| len).sum();
    let group = (GRAIN / step.max(1)).max(1);
    buffer(parts.iter().map(|(part, _)| part.len()).sum(), |out| {
        out.par_chunks(group * step.max(1), |i, out| {
            out.chunks(step, |j, mut out| {
                let mut start = 0;
                for (part, len) in parts {
                    out.part(start..start + len).map(&part[(i * group + j) * len..][..*len], |x| *x);
                    start += len;
                }
                // SAFETY: the blocks of all parts make a step.
                unsafe { out.written() }
            })
        })
    })
}

/// Running sums along the middle axis of [outer, n, inner]; from the end if `reverse`.
pub(crate) fn cumulative_sum(x: &[f32], n: usize, inner: usize, reverse: bool) -> Vec<f32> {
    let mut out = x.to_vec();
    let size = n * inner;
    if size == 0 {
        return out;
    }
    out.par_chunks_mut((GRAIN / size).max(1) * size).for_each(|out| {
        for out in out.chunks_exact_mut(size) {
            let mut sums = vec![0.0f64; inner];
            for i in 0..n {
                let i = if reverse { n - 1 - i } else { i };
                for (x, sum) in out[i * inner..(i + 1) * inner].iter_mut().zip(&mut sums) {
                    *sum += f64::from(*x);
                    *x = *sum as f32;
                }
            }
        }
    });
    out
}

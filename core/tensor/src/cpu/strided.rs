//! Copies between layouts.

use super::buffer;
use super::elementwise::GRAIN;
use rayon::prelude::*;

/// `out[i_0, .., i_n] = x[i . strides]` for an output of shape `shape`.
pub(crate) fn permute(x: &[f32], shape: &[usize], strides: &[usize]) -> Vec<f32> {
    let mut out = buffer(shape.iter().product());
    if out.is_empty() {
        return out;
    }
    let (shape, strides) = merge(shape, strides);
    let inner = shape.len() - 1;
    match strides.iter().position(|&stride| stride == 1) {
        Some(axis) if axis != inner => transpose(x, &shape, &strides, axis, &mut out),
        _ => gather_rows(x, &shape, &strides, &mut out),
    }
    out
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
fn gather_rows(x: &[f32], shape: &[usize], strides: &[usize], out: &mut [f32]) {
    let inner_axis = shape.len() - 1;
    let (inner, step) = (shape[inner_axis], strides[inner_axis]);
    let (shape, strides) = (&shape[..inner_axis], &strides[..inner_axis]);
    let rows = (GRAIN / inner).max(1);
    out.par_chunks_mut(rows * inner).enumerate().for_each(|(task, out)| {
        // Rows of the next axis out lie at a fixed distance until that axis ends.
        let run = shape.last().copied().unwrap_or(1);
        let distance = strides.last().copied().unwrap_or(0);
        let (mut row, mut at, mut left) = (task * rows, 0, 0);
        for o in out.chunks_exact_mut(inner) {
            if left == 0 {
                at = offset(row, shape, strides);
                left = run - row % run;
            }
            if step == 1 {
                o.copy_from_slice(&x[at..at + inner]);
            } else {
                for (i, o) in o.iter_mut().enumerate() {
                    *o = x[at + i * step];
                }
            }
            row += 1;
            left -= 1;
            at += distance;
        }
    });
}

/// Side of the square tiles that a transposition moves: a tile's rows are whole cache lines on both sides.
const TILE: usize = 16;

/// Copies tiles between the innermost axis of the output and its axis `line`, the innermost of the input.
fn transpose(x: &[f32], shape: &[usize], strides: &[usize], line: usize, out: &mut [f32]) {
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
                                *o = row[l];
                            }
                        }
                    }
                }
            }
        });
    });
}

/// The same walk with as few axes as possible, and at least one.
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

/// Copies `count` blocks of `len` numbers, one every `from_step` of `from`, to one every `to_step` of `to`.
pub(crate) fn copy_blocks(from: &[f32], from_step: usize, to: &mut [f32], to_step: usize, len: usize) {
    blocks(from, from_step, to, to_step, len, |to, from| to.copy_from_slice(from));
}

/// The same, adding.
pub(crate) fn add_blocks(from: &[f32], from_step: usize, to: &mut [f32], to_step: usize, len: usize) {
    blocks(from, from_step, to, to_step, len, |to, from| {
        for (to, from) in to.iter_mut().zip(from) {
            *to += from;
        }
    });
}

fn blocks(
    from: &[f32],
    from_step: usize,
    to: &mut [f32],
    to_step: usize,
    len: usize,
    write: impl Fn(&mut [f32], &[f32]) + Sync,
) {
    if len == 0 {
        return;
    }
    let group = (GRAIN / len).max(1);
    to.par_chunks_mut(to_step * group).zip(from.par_chunks(from_step * group)).for_each(|(to, from)| {
        for (to, from) in to.chunks_mut(to_step).zip(from.chunks(from_step)) {
            write(&mut to[..len], &from[..len]);
        }
    });
}

/// Running sums along the middle axis of [outer, n, inner]; from the end if `reverse`.
pub(crate) fn cumulative_sum(x: &[f32], n: usize, inner: usize, reverse: bool) -> Vec<f32> {
    let mut out = buffer(x.len());
    let size = n * inner;
    if size == 0 {
        return out;
    }
    let group = (GRAIN / size).max(1);
    out.par_chunks_mut(group * size).zip(x.par_chunks(group * size)).for_each(|(out, x)| {
        for (out, x) in out.chunks_exact_mut(size).zip(x.chunks_exact(size)) {
            let mut sums = vec![0.0f64; inner];
            for i in 0..n {
                let i = if reverse { n - 1 - i } else { i };
                let (o, x) = (&mut out[i * inner..(i + 1) * inner], &x[i * inner..(i + 1) * inner]);
                for ((o, &x), s) in o.iter_mut().zip(x).zip(&mut sums) {
                    *s += f64::from(x);
                    *o = *s as f32;
                }
            }
        }
    });
    out
}

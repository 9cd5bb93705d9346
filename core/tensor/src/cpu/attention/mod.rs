//! Attention, one batch entry and head at a time: a block of query rows against all keys that they see.

#![allow(unsafe_code)]

pub(crate) mod cached;
pub(crate) mod decoder;
pub(crate) mod rotary;
pub(crate) mod short;
pub(crate) mod softmax;
mod tiling;

use crate::cpu::Output;
use crate::cpu::gemm::Shared;
use softmax::{softmax, softmax_backward};
use std::mem::MaybeUninit;
use tiling::Tiling;

/// Sizes of an attention: `queries` rows attend over `keys` rows of `head` numbers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) heads: usize,
    pub(crate) queries: usize,
    pub(crate) keys: usize,
    pub(crate) head: usize,
    pub(crate) causal: bool,
}

impl Sizes {
    /// Batch entries with these norms, `[B, heads, T]`.
    fn batch(&self, norms: &[[f32; 2]]) -> usize {
        let per_entry = self.heads * self.queries;
        assert!(norms.len().is_multiple_of(per_entry.max(1)));
        norms.len().checked_div(per_entry).unwrap_or(0)
    }

    /// Asserts that operands have so many rows for each of `batch` entries.
    fn check<const N: usize>(&self, batch: usize, operands: [(Rows<'_>, usize); N]) {
        for (rows, n) in operands.into_iter().filter(|(_, n)| batch * n > 0) {
            let last = rows.start + (batch * n - 1) * rows.stride;
            assert!(rows.data.len() >= last + self.heads * self.head, "an operand of attention is too short");
        }
    }
}

/// Rows of `heads * head` numbers that start at `start` and lie `stride` apart.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) start: usize,
    pub(crate) stride: usize,
}

impl<'a> Rows<'a> {
    /// From row `row` of batch entry `b`, of `n` rows each, and head `h` on.
    fn head(&self, n: usize, b: usize, h: usize, sizes: &Sizes) -> One<'a> {
        let at = self.start + b * n * self.stride + h * sizes.head;
        One { data: &self.data[at..], stride: self.stride }
    }
}

/// Rows of one head.
#[derive(Clone, Copy)]
struct One<'a> {
    data: &'a [f32],
    stride: usize,
}

impl<'a> One<'a> {
    fn from(self, row: usize) -> &'a [f32] {
        &self.data[row * self.stride..]
    }
}

/// Where the gradient of a query, key or value goes: to rows that begin at a pointer and lie `stride` apart.
type Rows3 = ([Shared; 3], usize);

/// `out [B, T, W]`, and each row's largest score and inverse normaliser, `norms [B, heads, T]`.
pub(crate) fn forward<'a>(
    sizes: &Sizes,
    [q, k, v]: [Rows<'_>; 3],
    out: &'a mut [MaybeUninit<f32>],
    norms: &mut [[f32; 2]],
) -> &'a mut [f32] {
    let Sizes { heads, queries, keys, head, causal, .. } = *sizes;
    let width = heads * head;
    let batch = sizes.batch(norms);
    assert!(out.len() == batch * queries * width);
    sizes.check(batch, [(q, queries), (k, keys), (v, keys)]);
    if out.is_empty() {
        return Output::New(out).zeros();
    }
    let tiling = Tiling::new(sizes);
    let target = Shared::new(out.as_mut_ptr().cast());
    let size = tiling.transposed + tiling.plain + tiling.block * tiling.stride;
    tiling.each(norms, size, |b, h, norms, memory| {
        let (q, k, v) = (q.head(queries, b, h, sizes), k.head(keys, b, h, sizes), v.head(keys, b, h, sizes));
        let out = target.get().wrapping_add(b * queries * width + h * head);
        let (k_panels, memory) = memory.split_at_mut(tiling.transposed);
        let (v_panels, scores) = memory.split_at_mut(tiling.plain);
        tiling.pack_transposed(k, k_panels);
        tiling.pack_rows(v.data, v.stride, keys, v_panels);
        for first in (0..queries).step_by(tiling.block) {
            let rows = tiling.block.min(queries - first);
            tiling.scores(first, rows, q, k, k_panels, scores);
            let norms = &mut norms[first..first + rows];
            let seen = tiling.seen(first);
            softmax(scores, tiling.stride, seen, usize::from(causal), tiling.scale, norms);
            // SAFETY: this head's part of the batch entry's rows, which is this piece's own.
            unsafe { tiling.gather(first, rows, scores, v_panels, out, width) };
            for (row, [_, inverse]) in norms.iter().enumerate() {
                // SAFETY: this head's part of the row, which is this piece's own.
                let row = unsafe { std::slice::from_raw_parts_mut(out.wrapping_add((first + row) * width), head) };
                row.iter_mut().for_each(|x| *x *= inverse);
            }
        }
    });
    // SAFETY: every head of every row was written.
    unsafe { out.assume_init_mut() }
}

/// The gradients of query `[B, T, W]`, key and value `[B, S, W]`. `[y, dy]`: the output and its gradient.
pub(crate) fn backward<'a>(
    sizes: &Sizes,
    operands: [Rows<'_>; 3],
    outputs: [Rows<'_>; 2],
    norms: &mut [[f32; 2]],
    gradients: [&'a mut [MaybeUninit<f32>]; 3],
) -> [&'a mut [f32]; 3] {
    let (width, batch) = (sizes.heads * sizes.head, sizes.batch(norms));
    let lens = [sizes.queries, sizes.keys, sizes.keys].map(|rows| batch * rows * width);
    assert!(gradients.each_ref().map(|gradient| gradient.len()) == lens);
    if norms.is_empty() {
        return gradients.map(|gradient| Output::New(gradient).zeros());
    }
    let [dq, dk, dv] = gradients;
    let starts = [&mut *dq, &mut *dk, &mut *dv].map(|gradient| Shared::new(gradient.as_mut_ptr().cast()));
    // SAFETY: the gradients have as many rows as the operands, and are written whole.
    unsafe {
        write_gradients(sizes, operands, outputs, norms, (starts, width));
        [dq.assume_init_mut(), dk.assume_init_mut(), dv.assume_init_mut()]
    }
}

/// The same for query, key and value of one tensor `[B, T, 3W]`.
pub(crate) fn backward_packed<'a>(
    sizes: &Sizes,
    operands: [Rows<'_>; 3],
    outputs: [Rows<'_>; 2],
    norms: &mut [[f32; 2]],
    gradient: &'a mut [MaybeUninit<f32>],
) -> &'a mut [f32] {
    let (width, batch) = (sizes.heads * sizes.head, sizes.batch(norms));
    assert!(sizes.queries == sizes.keys && gradient.len() == batch * sizes.queries * 3 * width);
    if norms.is_empty() {
        return Output::New(gradient).zeros();
    }
    let start: *mut f32 = gradient.as_mut_ptr().cast();
    let starts = [0, 1, 2].map(|third| Shared::new(start.wrapping_add(third * width)));
    // SAFETY: the gradient has as many rows as the operands, and all thirds of it are written.
    unsafe {
        write_gradients(sizes, operands, outputs, norms, (starts, 3 * width));
        gradient.assume_init_mut()
    }
}

/// Writes the gradients of query, key and value.
///
/// # Safety
/// At each pointer are as many rows as the operand has, `width` numbers of each of which are ours alone.
unsafe fn write_gradients(
    sizes: &Sizes,
    [q, k, v]: [Rows<'_>; 3],
    [y, dy]: [Rows<'_>; 2],
    norms: &mut [[f32; 2]],
    (targets, stride): Rows3,
) {
    let tiling = Tiling::new(sizes);
    let Sizes { queries, keys, head, causal, .. } = *sizes;
    sizes.check(sizes.batch(norms), [(q, queries), (k, keys), (v, keys), (y, queries), (dy, queries)]);
    let row_panels = head.next_multiple_of(tiling.kernels.width) * tiling.block;
    let scores = tiling.block * tiling.stride;
    let size = 2 * tiling.transposed + tiling.plain + 2 * row_panels + 2 * scores;
    tiling.each(norms, size, |b, h, norms, memory| {
        let (q, y, dy) = (q.head(queries, b, h, sizes), y.head(queries, b, h, sizes), dy.head(queries, b, h, sizes));
        let (k, v) = (k.head(keys, b, h, sizes), v.head(keys, b, h, sizes));
        let [dq, dk, dv] = [(0, queries), (1, keys), (2, keys)]
            .map(|(which, n)| targets[which].get().wrapping_add(b * n * stride + h * head));
        let (k_transposed, memory) = memory.split_at_mut(tiling.transposed);
        let (v_transposed, memory) = memory.split_at_mut(tiling.transposed);
        let (k_rows, memory) = memory.split_at_mut(tiling.plain);
        let (q_rows, memory) = memory.split_at_mut(row_panels);
        let (dy_rows, memory) = memory.split_at_mut(row_panels);
        let (p, ds) = memory.split_at_mut(scores);
        tiling.pack_transposed(k, k_transposed);
        tiling.pack_transposed(v, v_transposed);
        tiling.pack_rows(k.data, k.stride, keys, k_rows);
        for first in (0..queries).step_by(tiling.block) {
            let rows = tiling.block.min(queries - first);
            tiling.scores(first, rows, q, k, k_transposed, p);
            tiling.scores(first, rows, dy, v, v_transposed, ds);
            let (norms, seen) = (&norms[first..first + rows], tiling.seen(first));
            let (y, dy) = ((y.from(first), y.stride), (dy.from(first), dy.stride));
            softmax_backward(p, ds, tiling.stride, seen, usize::from(causal), tiling.scale, norms, head, y, dy);
            tiling.pack_rows(dy.0, dy.1, rows, dy_rows);
            tiling.pack_rows(q.from(first), q.stride, rows, q_rows);
            // SAFETY: this head's part of the batch entry's rows, which is this piece's own.
            unsafe {
                tiling.gather(first, rows, ds, k_rows, dq, stride);
                tiling.scatter(first, rows, p, dy_rows, dv, stride);
                tiling.scatter(first, rows, ds, q_rows, dk, stride);
            }
        }
    });
}

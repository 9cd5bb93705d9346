//! Attention, one batch entry and head at a time: a block of query rows against all keys that they see.

#![allow(unsafe_code)]

pub(crate) mod cached;
pub(crate) mod decoder;
pub(crate) mod short;

use crate::cpu::Output;
use crate::cpu::gemm::kernel::{DOTS, Dots, Kernels};
use crate::cpu::gemm::pack;
use crate::cpu::gemm::product::{Product, tiles};
use crate::cpu::gemm::{Shared, TASK};
use crate::cpu::isa::math::exp_flushed;
use crate::cpu::isa::simd;
use crate::cpu::memory::scratch::scratch;
use rayon::prelude::*;
use std::mem::MaybeUninit;
use std::ptr::{null, null_mut};

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

/// Numbers in the chunks that rows of scores are made of.
pub(crate) const LANES: usize = 16;
/// Query rows in a block, and keys above which it has a quarter of them, so that its scores stay in the cache.
const BLOCK: usize = 64;
const MANY_KEYS: usize = 512;
/// Up to so many keys, scores are dot products: packing the keys would cost more.
const FEW_KEYS: usize = 8;

/// How one attention is cut into tiles, and the sizes of what is packed for them.
struct Tiling {
    kernels: &'static Kernels,
    sizes: Sizes,
    scale: f32,
    /// Query rows in a block.
    block: usize,
    /// Numbers between two rows of scores.
    stride: usize,
    /// Numbers in the panels of transposed keys or values, and in those of their rows.
    transposed: usize,
    plain: usize,
}

impl Tiling {
    fn new(sizes: &Sizes) -> Self {
        let kernels = Kernels::best();
        let width = kernels.width;
        let block = if sizes.keys > MANY_KEYS { BLOCK / 4 } else { BLOCK };
        Self {
            kernels,
            sizes: *sizes,
            scale: 1.0 / (sizes.head as f32).sqrt(),
            block: block.min(sizes.queries),
            stride: sizes.keys.next_multiple_of(width.max(LANES)),
            transposed: sizes.keys.next_multiple_of(width) * sizes.head,
            plain: sizes.head.next_multiple_of(width) * sizes.keys,
        }
    }

    /// Runs `f(batch entry, head, norms, memory)` for every pair over all threads, with `size` numbers of scratch memory.
    fn each(&self, norms: &mut [[f32; 2]], size: usize, f: impl Fn(usize, usize, &mut [[f32; 2]], &mut [f32]) + Sync) {
        let Sizes { heads, queries, keys, head, .. } = self.sizes;
        // Softmax and packing cost about as much as a few more products.
        let together = (TASK / (queries * (keys + LANES) * (head + LANES))).max(1);
        norms.par_chunks_mut(queries * together).enumerate().for_each(|(piece, norms)| {
            scratch(size, |memory| {
                for (i, norms) in norms.chunks_exact_mut(queries).enumerate() {
                    let pair = piece * together + i;
                    f(pair / heads, pair % heads, norms, memory);
                }
            });
        });
    }

    /// The keys that row `t` sees, and that rows up to `t` see.
    fn seen(&self, t: usize) -> usize {
        if self.sizes.causal { t + 1 } else { self.sizes.keys }
    }

    /// Panels of the transpose of `rows`, if products with them are to go by panels.
    fn pack_transposed(&self, rows: One<'_>, panels: &mut [f32]) {
        let (width, Sizes { keys, head, .. }) = (self.kernels.width, self.sizes);
        if keys <= FEW_KEYS {
            return;
        }
        for (j, panel) in panels.chunks_exact_mut(head * width).enumerate() {
            let first = j * width;
            pack::transposed(rows.from(first), rows.stride, (keys - first).min(width), head, width, panel);
        }
    }

    /// Panels of `n` rows.
    fn pack_rows(&self, rows: &[f32], stride: usize, n: usize, panels: &mut [f32]) {
        let (width, head) = (self.kernels.width, self.sizes.head);
        for (j, panel) in panels.chunks_exact_mut(n * width).enumerate().take(head.div_ceil(width)) {
            pack::rows(rows, stride, j * width, (head - j * width).min(width), n, width, panel);
        }
    }

    /// `scores[row] = left[row] · right` for `rows` rows from query `first` on, over the keys that each tile sees.
    /// `right`: the rows themselves, and their transpose in panels.
    fn scores(&self, first: usize, rows: usize, left: One<'_>, right: One<'_>, panels: &[f32], scores: &mut [f32]) {
        let Sizes { head, keys, .. } = self.sizes;
        let by_dots = keys <= FEW_KEYS;
        for (row, height) in tiles(rows, if by_dots { DOTS[0] } else { self.kernels.rows }) {
            let n = self.seen(first + row + height - 1);
            let from = left.from(first + row);
            let out = &mut scores[row * self.stride..];
            if by_dots {
                for column in (0..n).step_by(DOTS[1]) {
                    let (mut lefts, mut outs) = ([null(); DOTS[0]], [null_mut(); DOTS[0]]);
                    for r in 0..height {
                        lefts[r] = from[r * left.stride..].as_ptr();
                        outs[r] = out[r * self.stride + column..].as_mut_ptr();
                    }
                    let dots = Dots {
                        left: lefts.as_ptr(),
                        groups: 1,
                        depth: head,
                        right: right.from(column).as_ptr(),
                        right_stride: right.stride,
                        bias: null(),
                        out: outs.as_ptr(),
                        accumulate: false,
                    };
                    // SAFETY: rows of a head have `head` numbers, and those of the scores `stride` >= n.
                    unsafe { self.kernels.dots(height, (n - column).min(DOTS[1]), &dots) };
                }
                continue;
            }
            let product = Product {
                m: height,
                n,
                k: head,
                left: from.as_ptr(),
                left_stride: left.stride,
                by_columns: false,
                panels: panels.as_ptr(),
                panel_stride: head * self.kernels.width,
                bias: null(),
                out: out.as_mut_ptr(),
                out_stride: self.stride,
                accumulate: false,
            };
            // SAFETY: as above; the panels hold the transpose of all keys.
            unsafe { product.run(self.kernels) };
        }
    }

    /// `out[row] = weights[row] · panels`, over the keys that each tile sees.
    ///
    /// # Safety
    /// At `out` are rows of this head that nothing else touches meanwhile.
    unsafe fn gather(
        &self,
        first: usize,
        rows: usize,
        weights: &[f32],
        panels: &[f32],
        out: *mut f32,
        out_stride: usize,
    ) {
        let Sizes { head, keys, .. } = self.sizes;
        for (row, height) in tiles(rows, self.kernels.rows) {
            let product = Product {
                m: height,
                n: head,
                k: self.seen(first + row + height - 1),
                left: weights[row * self.stride..].as_ptr(),
                left_stride: self.stride,
                by_columns: false,
                panels: panels.as_ptr(),
                panel_stride: keys * self.kernels.width,
                bias: null(),
                out: out.wrapping_add((first + row) * out_stride),
                out_stride,
                accumulate: false,
            };
            // SAFETY: the panels hold a row for every key; `out` is a head's part, which is one piece's own.
            unsafe { product.run(self.kernels) };
        }
    }

    /// `out[key] (+)= Σ_row weights[row][key] * rows[row]` over the block from query `first` on; `panels` hold its rows.
    ///
    /// # Safety
    /// As for [`Tiling::gather`].
    unsafe fn scatter(
        &self,
        first: usize,
        rows: usize,
        weights: &[f32],
        panels: &[f32],
        out: *mut f32,
        out_stride: usize,
    ) {
        let Sizes { head, causal, .. } = self.sizes;
        let keys = self.seen(first + rows - 1);
        // Keys in blocks like those of the queries: with a causal mask, the block on the diagonal is the first to reach
        // its keys, and rows before a key do not reach it.
        for start in (0..keys).step_by(self.block) {
            for (key, height) in tiles((keys - start).min(self.block), self.kernels.rows) {
                let key = start + key;
                let skip = if causal { key.saturating_sub(first) } else { 0 };
                let product = Product {
                    m: height,
                    n: head,
                    k: rows - skip,
                    left: weights[skip * self.stride + key..].as_ptr(),
                    left_stride: self.stride,
                    by_columns: true,
                    panels: panels[skip * self.kernels.width..].as_ptr(),
                    panel_stride: rows * self.kernels.width,
                    bias: null(),
                    out: out.wrapping_add(key * out_stride),
                    out_stride,
                    accumulate: if causal { start < first } else { first > 0 },
                };
                // SAFETY: the panels hold the block's rows; `out` is a head's part, which is one piece's own.
                unsafe { product.run(self.kernels) };
            }
        }
    }
}

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

/// Sums the lanes pairwise.
#[inline(always)]
fn fold(mut lanes: [f32; LANES], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut n = LANES / 2;
    while n > 0 {
        for i in 0..n {
            lanes[i] = f(lanes[i], lanes[i + n]);
        }
        n /= 2;
    }
    lanes[0]
}

#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

simd! {
    /// Turns rows of scores into weights `exp(scale * score - largest)`, with zeros for keys that are not seen: row r
    /// sees `seen + r * more`. Writes each row's largest scaled score and the inverse of the sum of its weights.
    pub(crate) fn softmax(scores: &mut [f32], stride: usize, seen: usize, more: usize, scale: f32, norms: &mut [[f32; 2]]) {
        // Tiles are multiplied as far as their last row sees.
        let limit = (seen + more * (norms.len() - 1)).next_multiple_of(LANES);
        for (r, (row, norm)) in scores.chunks_exact_mut(stride).zip(norms).enumerate() {
            let seen = seen + more * r;
            row[seen..limit].fill(f32::NEG_INFINITY);
            let (row, rest) = row[..limit].split_at_mut(seen.next_multiple_of(LANES));
            rest.fill(0.0);
            let mut lanes = [f32::NEG_INFINITY; LANES];
            for chunk in row.chunks_exact(LANES) {
                for (lane, x) in lanes.iter_mut().zip(chunk) {
                    *lane = larger(*x, *lane);
                }
            }
            let largest = fold(lanes, larger) * scale;
            let mut lanes = [0.0; LANES];
            for chunk in row.chunks_exact_mut(LANES) {
                for (lane, x) in lanes.iter_mut().zip(chunk) {
                    *x = exp_flushed::<FUSED>(*x * scale - largest);
                    *lane += *x;
                }
            }
            *norm = [largest, 1.0 / fold(lanes, |a, b| a + b)];
        }
    }
}

simd! {
    /// Turns scores into probabilities `p`, and their gradient `ds` into that of the scores.
    fn softmax_backward(
        p: &mut [f32],
        ds: &mut [f32],
        stride: usize,
        seen: usize,
        more: usize,
        scale: f32,
        norms: &[[f32; 2]],
        head: usize,
        y: (&[f32], usize),
        dy: (&[f32], usize),
    ) {
        let limit = (seen + more * (norms.len() - 1)).next_multiple_of(LANES);
        let rows = p.chunks_exact_mut(stride).zip(ds.chunks_exact_mut(stride));
        for (r, ((p, ds), [largest, inverse])) in rows.zip(norms).enumerate() {
            let seen = seen + more * r;
            // The mean of the gradient under p is y · dy.
            let mut lanes = [0.0; LANES];
            let (y, dy) = (&y.0[r * y.1..][..head], &dy.0[r * dy.1..][..head]);
            let (whole_y, rest_y) = y.as_chunks::<LANES>();
            let (whole_dy, rest_dy) = dy.as_chunks::<LANES>();
            for (y, dy) in whole_y.iter().zip(whole_dy) {
                for i in 0..LANES {
                    lanes[i] += y[i] * dy[i];
                }
            }
            let rest: f32 = rest_y.iter().zip(rest_dy).map(|(y, dy)| y * dy).sum();
            let mean = fold(lanes, |a, b| a + b) + rest;
            p[seen..limit].fill(f32::NEG_INFINITY);
            ds[seen..limit].fill(0.0);
            let padded = seen.next_multiple_of(LANES);
            p[padded..limit].fill(0.0);
            for (p, ds) in p[..padded].as_chunks_mut::<LANES>().0.iter_mut().zip(ds[..padded].as_chunks_mut::<LANES>().0) {
                for i in 0..LANES {
                    p[i] = exp_flushed::<FUSED>(p[i] * scale - largest) * inverse;
                    ds[i] = p[i] * (ds[i] - mean) * scale;
                }
            }
        }
    }
}

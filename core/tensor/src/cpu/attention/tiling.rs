//! The products of attention: how one batch entry and head is cut into tiles.

#![allow(unsafe_code)]

use super::softmax::LANES;
use super::{One, Sizes};
use crate::cpu::gemm::TASK;
use crate::cpu::gemm::kernel::{DOTS, Dots, Kernels};
use crate::cpu::gemm::pack;
use crate::cpu::gemm::product::{Product, tiles};
use crate::cpu::memory::scratch::scratch;
use rayon::prelude::*;
use std::ptr::{null, null_mut};

/// Query rows in a block, and keys above which it has a quarter of them, so that its scores stay in the cache.
const BLOCK: usize = 64;
const MANY_KEYS: usize = 512;
/// Up to so many keys, scores are dot products: packing the keys would cost more.
const FEW_KEYS: usize = 8;

/// How one attention is cut into tiles, and the sizes of what is packed for them.
pub(super) struct Tiling {
    pub(super) kernels: &'static Kernels,
    sizes: Sizes,
    pub(super) scale: f32,
    /// Query rows in a block.
    pub(super) block: usize,
    /// Numbers between two rows of scores.
    pub(super) stride: usize,
    /// Numbers in the panels of transposed keys or values, and in those of their rows.
    pub(super) transposed: usize,
    pub(super) plain: usize,
}

impl Tiling {
    pub(super) fn new(sizes: &Sizes) -> Self {
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
    pub(super) fn each(
        &self,
        norms: &mut [[f32; 2]],
        size: usize,
        f: impl Fn(usize, usize, &mut [[f32; 2]], &mut [f32]) + Sync,
    ) {
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
    pub(super) fn seen(&self, t: usize) -> usize {
        if self.sizes.causal { t + 1 } else { self.sizes.keys }
    }

    /// Panels of the transpose of `rows`, if products with them are to go by panels.
    pub(super) fn pack_transposed(&self, rows: One<'_>, panels: &mut [f32]) {
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
    pub(super) fn pack_rows(&self, rows: &[f32], stride: usize, n: usize, panels: &mut [f32]) {
        let (width, head) = (self.kernels.width, self.sizes.head);
        for (j, panel) in panels.chunks_exact_mut(n * width).enumerate().take(head.div_ceil(width)) {
            pack::rows(rows, stride, j * width, (head - j * width).min(width), n, width, panel);
        }
    }

    /// `scores[row] = left[row] · right` for `rows` rows from query `first` on, over the keys that each tile sees.
    /// `right`: the rows themselves, and their transpose in panels.
    pub(super) fn scores(
        &self,
        first: usize,
        rows: usize,
        left: One<'_>,
        right: One<'_>,
        panels: &[f32],
        scores: &mut [f32],
    ) {
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
    pub(super) unsafe fn gather(
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
    pub(super) unsafe fn scatter(
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

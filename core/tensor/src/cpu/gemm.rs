//! Products of row-major matrices over all threads.

#![allow(unsafe_code)]

use super::dispatch::simd;
use super::elementwise::{Map, Sloped, map_in_place, sloped_in_place};
pub(crate) use super::gemm_tn::{tn, tn_and_sums};
use super::kernel::{DOTS, Dots, Kernels};
use super::product::Product;
use super::scratch::scratch;
use super::{pack, split};
use rayon::prelude::*;
use std::ptr::null;

/// Multiply-adds that are worth handing to another thread (about 20 microseconds).
pub(crate) const TASK: usize = 1 << 19;
/// Up to so many rows, a product reads the right operand in place: packing it would cost more.
const FEW_ROWS: usize = 16;
/// Up to so many columns, likewise: a panel would be nearly empty.
const FEW_COLUMNS: usize = 4;

/// A pointer that pieces of work write through, each to its own part.
#[derive(Clone, Copy)]
pub(crate) struct Shared(*mut f32);
// SAFETY: only a way to pass the pointer; those who write through it say why that is sound.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    pub(crate) fn new(data: &mut [f32]) -> Self {
        Self(data.as_mut_ptr())
    }

    pub(crate) fn get(self) -> *mut f32 {
        self.0
    }
}

/// `c [m, n] (+)= a [m, k] · b [n, k]ᵀ + bias [n]`.
pub(crate) fn nt(n: usize, k: usize, a: &[f32], b: &[f32], bias: Option<&[f32]>, c: &mut [f32], accumulate: bool) {
    nt_around(n, k, a, b, bias, c, accumulate, Around { before: |_, _: &mut [f32]| {}, after: |_, _: &mut [f32]| {} });
}

/// `c [m, n] = residual [m, n] + a [m, k] · b [n, k]ᵀ + bias [n]`.
pub(crate) fn nt_add(n: usize, k: usize, a: &[f32], b: &[f32], bias: Option<&[f32]>, residual: &[f32], c: &mut [f32]) {
    let before = |at: usize, c: &mut [f32]| c.copy_from_slice(&residual[at..at + c.len()]);
    nt_around(n, k, a, b, bias, c, true, Around { before, after: |_, _: &mut [f32]| {} });
}

/// `c [m, n] = f(a [m, k] · b [n, k]ᵀ + bias [n])`, and f' there if `slope` of as many numbers is given.
pub(crate) fn nt_then<F: Map + Sloped>(
    f: F,
    n: usize,
    k: usize,
    a: &[f32],
    b: &[f32],
    bias: Option<&[f32]>,
    c: &mut [f32],
    slope: Option<&mut [f32]>,
) {
    let before = |_, _: &mut [f32]| {};
    let Some(slope) = slope else {
        let after = |_, c: &mut [f32]| map_in_place(f, c);
        return nt_around(n, k, a, b, bias, c, false, Around { before, after });
    };
    assert!(slope.len() == c.len());
    let slope = Shared::new(slope);
    let after = |at: usize, c: &mut [f32]| {
        // SAFETY: the part of `slope` that belongs to this piece of `c`, which has as many numbers.
        let slope = unsafe { std::slice::from_raw_parts_mut(slope.get().add(at), c.len()) };
        sloped_in_place(f, c, slope);
    };
    nt_around(n, k, a, b, bias, c, false, Around { before, after });
}

/// What happens to pieces of a product's result, each some whole rows, while they are in the cache. Both get the index
/// of the piece's first number.
pub(crate) struct Around<B, A> {
    /// Before the product is written, or added.
    pub(crate) before: B,
    /// Once it is complete.
    pub(crate) after: A,
}

/// [`nt`] with something done around it.
pub(crate) fn nt_around<B, A>(
    n: usize,
    k: usize,
    a: &[f32],
    b: &[f32],
    bias: Option<&[f32]>,
    c: &mut [f32],
    accumulate: bool,
    around: Around<B, A>,
) where
    B: Fn(usize, &mut [f32]) + Sync,
    A: Fn(usize, &mut [f32]) + Sync,
{
    if c.is_empty() {
        return;
    }
    let m = c.len() / n;
    assert!(a.len() >= m * k && b.len() >= n * k && bias.is_none_or(|bias| bias.len() == n));
    let kernels = Kernels::best();
    if k > 0 && (m <= FEW_ROWS || n <= FEW_COLUMNS) {
        (around.before)(0, c);
        dots(kernels, n, k, a, b, bias, c, accumulate);
        (around.after)(0, c);
        return;
    }
    let width = kernels.width;
    let pack = |j: usize, panel: &mut [f32]| {
        let first = j * width;
        pack::transposed(&b[first * k..], k, (n - first).min(width), k, width, panel);
    };
    rows_by_panels(kernels, n, k, a, pack, bias, c, accumulate, around);
}

/// `c [m, n] (+)= a [m, k] · b [k, n]`.
pub(crate) fn nn(n: usize, k: usize, a: &[f32], b: &[f32], c: &mut [f32], accumulate: bool) {
    if c.is_empty() {
        return;
    }
    assert!(a.len() >= c.len() / n * k && b.len() >= n * k);
    let kernels = Kernels::best();
    let width = kernels.width;
    let pack = |j: usize, panel: &mut [f32]| {
        let first = j * width;
        pack::rows(b, n, first, (n - first).min(width), k, width, panel);
    };
    let around = Around { before: |_, _: &mut [f32]| {}, after: |_, _: &mut [f32]| {} };
    rows_by_panels(kernels, n, k, a, pack, None, c, accumulate, around);
}

/// Rows in place times panels that `pack(index, panel)` writes.
fn rows_by_panels<B, A>(
    kernels: &Kernels,
    n: usize,
    k: usize,
    a: &[f32],
    pack: impl Fn(usize, &mut [f32]) + Sync,
    bias: Option<&[f32]>,
    c: &mut [f32],
    accumulate: bool,
    around: Around<B, A>,
) where
    B: Fn(usize, &mut [f32]) + Sync,
    A: Fn(usize, &mut [f32]) + Sync,
{
    let (m, width) = (c.len() / n, kernels.width);
    let panels = n.div_ceil(width);
    // Four tiles or more, so that panels are read often while they are in the cache.
    let rows = (TASK / (n * k).max(1)).max(4 * kernels.rows).next_multiple_of(kernels.rows);
    let run = |c: *mut f32, first: usize, m: usize, panel: usize, count: usize, packed: &[f32]| {
        let column = panel * width;
        let product = Product {
            m,
            n: (n - column).min(count * width),
            k,
            left: a[first * k..].as_ptr(),
            left_stride: k,
            by_columns: false,
            panels: packed.as_ptr(),
            panel_stride: k * width,
            bias: bias.map_or(null(), |bias| bias[column..].as_ptr()),
            out: c.wrapping_add(column),
            out_stride: n,
            accumulate,
        };
        // SAFETY: `a` has k numbers for every row of the result, `packed` holds `count` panels, and these columns of
        // `m` rows at `c` are written by this piece alone.
        unsafe { product.run(kernels) };
    };
    if m <= rows {
        // Cut by columns; every piece packs what it needs.
        let count = (TASK / 2 / (m * k * width).max(1)).clamp(1, panels);
        (around.before)(0, c);
        let out = Shared::new(c);
        split::each(panels.div_ceil(count), |piece| {
            let panel = piece * count;
            let count = count.min(panels - panel);
            scratch(count * width * k, |packed| {
                if k > 0 {
                    packed.chunks_exact_mut(k * width).enumerate().for_each(|(j, packed)| pack(panel + j, packed));
                }
                run(out.get(), 0, m, panel, count, packed);
            });
        });
        (around.after)(0, c);
        return;
    }
    scratch(panels * width * k, |packed| {
        if k > 0 {
            split::each_chunk(packed, k * width, TASK / 16, |(j, packed)| pack(j, packed));
        }
        c.par_chunks_mut(rows * n).with_max_len(1).enumerate().for_each(|(piece, c)| {
            let first = piece * rows;
            (around.before)(first * n, c);
            run(c.as_mut_ptr(), first, rows.min(m - first), 0, panels, packed);
            (around.after)(first * n, c);
        });
    });
}

/// `nt` for few rows or few columns: both operands are read where they lie.
fn dots(
    kernels: &Kernels,
    n: usize,
    k: usize,
    a: &[f32],
    b: &[f32],
    bias: Option<&[f32]>,
    c: &mut [f32],
    accumulate: bool,
) {
    let m = c.len() / n;
    let [tall, wide] = DOTS;
    // Pieces of the longer side; a multiple of the block's sides.
    let (rows, columns) = if m > n {
        (((TASK / 4) / (n * k)).max(1).next_multiple_of(tall).min(m), n)
    } else {
        (m, ((TASK / 4) / (m * k)).max(1).next_multiple_of(wide).min(n))
    };
    let (down, across) = (m.div_ceil(rows), n.div_ceil(columns));
    let out = Shared::new(c);
    split::each(down * across, |piece| {
        let (row, column) = (piece / across * rows, piece % across * columns);
        let (row_end, column_end) = ((row + rows).min(m), (column + columns).min(n));
        for j in (column..column_end).step_by(wide) {
            for i in (row..row_end).step_by(tall) {
                let (rows, columns) = ((row_end - i).min(tall), (column_end - j).min(wide));
                let mut left = [null(); DOTS[0]];
                let mut to = [std::ptr::null_mut(); DOTS[0]];
                for r in 0..rows {
                    left[r] = a[(i + r) * k..].as_ptr();
                    // SAFETY: row i + r and column j are inside `c`.
                    to[r] = unsafe { out.get().add((i + r) * n + j) };
                }
                let block = Dots {
                    left: left.as_ptr(),
                    groups: 1,
                    depth: k,
                    right: b[j * k..].as_ptr(),
                    right_stride: k,
                    bias: bias.map_or(null(), |bias| bias[j..].as_ptr()),
                    out: to.as_ptr(),
                    accumulate,
                };
                // SAFETY: the rows of both operands have k numbers, and each piece writes its own rows and columns.
                unsafe { kernels.dots(rows, columns, &block) };
            }
        }
    });
}

/// `sums [n] (+)=` the sum of the rows of `a [.., n]`.
pub(crate) fn column_sums(a: &[f32], sums: &mut [f32], accumulate: bool) {
    let n = sums.len();
    if n == 0 {
        return;
    }
    // Pieces by size alone, so that the order of summation is always the same.
    let rows = (super::elementwise::GRAIN / n).max(1);
    let parts: Vec<Vec<f32>> = a
        .par_chunks(rows * n)
        .map(|piece| {
            let mut part = vec![0.0; n];
            add_rows(piece, &mut part);
            part
        })
        .collect();
    if !accumulate {
        sums.fill(0.0);
    }
    for part in parts {
        sums.iter_mut().zip(part).for_each(|(sum, x)| *sum += x);
    }
}

simd! {
    pub(super) fn add_rows(rows: &[f32], sums: &mut [f32]) {
        for row in rows.chunks_exact(sums.len()) {
            for (sum, x) in sums.iter_mut().zip(row) {
                *sum += x;
            }
        }
    }
}

/// Sizes of `batch` products of `[m, k]` with `[k, n]`.
#[derive(Clone, Copy)]
pub(crate) struct Batch {
    pub(crate) batch: usize,
    pub(crate) m: usize,
    pub(crate) n: usize,
    pub(crate) k: usize,
}

/// [`nt`] of each pair of matrices.
pub(crate) fn batched_nt(sizes: Batch, a: &[f32], b: &[f32], c: &mut [f32], accumulate: bool) {
    pairs(sizes, a, b, c, |a, b, c| nt(sizes.n, sizes.k, a, b, None, c, accumulate));
}

/// [`nn`] of each pair of matrices.
pub(crate) fn batched_nn(sizes: Batch, a: &[f32], b: &[f32], c: &mut [f32], accumulate: bool) {
    pairs(sizes, a, b, c, |a, b, c| nn(sizes.n, sizes.k, a, b, c, accumulate));
}

/// [`tn`] of each pair of matrices; those on the left are `[k, m]`.
pub(crate) fn batched_tn(sizes: Batch, a: &[f32], b: &[f32], c: &mut [f32], accumulate: bool) {
    pairs(sizes, a, b, c, |a, b, c| tn(sizes.m, sizes.n, sizes.k, a, b, c, accumulate));
}

fn pairs(sizes: Batch, a: &[f32], b: &[f32], c: &mut [f32], f: impl Fn(&[f32], &[f32], &mut [f32]) + Sync) {
    let Batch { batch, m, n, k } = sizes;
    let one = |(t, c): (usize, &mut [f32])| f(&a[t * m * k..(t + 1) * m * k], &b[t * k * n..(t + 1) * k * n], c);
    if m * n == 0 {
        return;
    }
    if batch == 1 || m * n * k >= 16 * TASK {
        // Large ones one after the other, each over all threads: what is packed is then packed once.
        c.chunks_exact_mut(m * n).enumerate().for_each(one);
    } else {
        let together = (TASK / (m * n * k).max(1)).max(1);
        c.par_chunks_exact_mut(m * n).with_min_len(together.min(batch)).enumerate().for_each(one);
    }
}

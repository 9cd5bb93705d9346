//! Products of row-major matrices over all threads.

#![allow(unsafe_code)]

pub(crate) mod kernel;
pub(crate) mod pack;
pub(crate) mod packed;
pub(crate) mod product;
pub(crate) mod strip;
pub(crate) mod tn;

use crate::cpu::Output;
use crate::cpu::gemm::kernel::{DOTS, Dots, Kernels};
use crate::cpu::gemm::product::Product;
pub(crate) use crate::cpu::gemm::tn::{tn, tn_and_sums};
use crate::cpu::isa::simd;
use crate::cpu::loops::elementwise::{Map, Sloped, map_in_place, sloped_in_place};
use crate::cpu::memory::scratch::scratch;
use crate::cpu::threads::split;
use rayon::prelude::*;
use std::mem::MaybeUninit;
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
    pub(crate) fn new(at: *mut f32) -> Self {
        Self(at)
    }

    pub(crate) fn get(self) -> *mut f32 {
        self.0
    }
}

/// `c [m, n] = a [m, k] · b [n, k]ᵀ + bias [n]`.
pub(crate) fn nt<'a>(n: usize, k: usize, a: &[f32], b: &[f32], bias: Option<&[f32]>, c: Output<'a>) -> &'a mut [f32] {
    nt_around(n, k, a, b, bias, c, Around { before: None, after: |_, _: &mut [f32]| {} })
}

/// `c [m, n] = residual [m, n] + a [m, k] · b [n, k]ᵀ + bias [n]`.
pub(crate) fn nt_add<'a>(
    n: usize,
    k: usize,
    a: &[f32],
    b: &[f32],
    bias: Option<&[f32]>,
    residual: &[f32],
    c: Output<'a>,
) -> &'a mut [f32] {
    nt_around(n, k, a, b, bias, c, Around { before: Some(residual), after: |_, _: &mut [f32]| {} })
}

/// `c [m, n] = f(a [m, k] · b [n, k]ᵀ + bias [n])`.
pub(crate) fn nt_then<'a, F: Map>(
    f: F,
    n: usize,
    k: usize,
    a: &[f32],
    b: &[f32],
    bias: Option<&[f32]>,
    c: Output<'a>,
) -> &'a mut [f32] {
    assert!(!c.accumulates(), "a function of a sum is not a sum");
    let after = |_, c: &mut [f32]| map_in_place(f, c);
    nt_around(n, k, a, b, bias, c, Around { before: None, after })
}

/// [`nt_then`] and, into `slope [m, n]`, f' there.
pub(crate) fn nt_then_sloped<'a, F: Sloped>(
    f: F,
    n: usize,
    k: usize,
    a: &[f32],
    b: &[f32],
    bias: Option<&[f32]>,
    [c, slope]: [&'a mut [MaybeUninit<f32>]; 2],
) -> [&'a mut [f32]; 2] {
    assert!(slope.len() == c.len());
    let slopes = Shared::new(slope.as_mut_ptr().cast());
    let after = |at: usize, c: &mut [f32]| {
        // SAFETY: the part of `slope` that belongs to this piece of `c`, which has as many numbers.
        let slope = unsafe { std::slice::from_raw_parts_mut(slopes.get().add(at).cast(), c.len()) };
        sloped_in_place(f, c, slope);
    };
    let c = nt_around(n, k, a, b, bias, Output::New(c), Around { before: None, after });
    // SAFETY: the pieces make the whole.
    [c, unsafe { slope.assume_init_mut() }]
}

/// What happens to pieces of a product's result, each some whole rows, while they are in the cache.
struct Around<'r, A> {
    /// What the product is added to, if not to what is there.
    before: Option<&'r [f32]>,
    /// Done once a piece is complete; gets the index of its first number.
    after: A,
}

/// [`nt`] with something done around it.
fn nt_around<'a>(
    n: usize,
    k: usize,
    a: &[f32],
    b: &[f32],
    bias: Option<&[f32]>,
    c: Output<'a>,
    around: Around<'_, impl Fn(usize, &mut [f32]) + Sync>,
) -> &'a mut [f32] {
    if c.is_empty() {
        return c.zeros();
    }
    let m = c.len() / n;
    assert!(c.len() == m * n && a.len() >= m * k && b.len() >= n * k && bias.is_none_or(|bias| bias.len() == n));
    let kernels = Kernels::best();
    if k > 0 && (m <= FEW_ROWS || n <= FEW_COLUMNS) {
        let c = match around.before {
            Some(before) => dots(kernels, n, k, a, b, bias, Output::Add(c.map(before, |x| *x))),
            None => dots(kernels, n, k, a, b, bias, c),
        };
        (around.after)(0, c);
        return c;
    }
    let width = kernels.width;
    let pack = |j: usize, panel: &mut [f32]| {
        let first = j * width;
        pack::transposed(&b[first * k..], k, (n - first).min(width), k, width, panel);
    };
    rows_by_panels(kernels, n, k, a, pack, bias, c, around)
}

/// `c [m, n] = a [m, k] · b [k, n]`.
pub(crate) fn nn<'a>(n: usize, k: usize, a: &[f32], b: &[f32], c: Output<'a>) -> &'a mut [f32] {
    if c.is_empty() {
        return c.zeros();
    }
    assert!(c.len().is_multiple_of(n) && a.len() >= c.len() / n * k && b.len() >= n * k);
    let kernels = Kernels::best();
    let width = kernels.width;
    let pack = |j: usize, panel: &mut [f32]| {
        let first = j * width;
        pack::rows(b, n, first, (n - first).min(width), k, width, panel);
    };
    rows_by_panels(kernels, n, k, a, pack, None, c, Around { before: None, after: |_, _: &mut [f32]| {} })
}

/// Rows in place times panels that `pack(index, panel)` writes. `c` is whole rows, `a` has k numbers for each of them.
fn rows_by_panels<'a>(
    kernels: &Kernels,
    n: usize,
    k: usize,
    a: &[f32],
    pack: impl Fn(usize, &mut [f32]) + Sync,
    bias: Option<&[f32]>,
    c: Output<'a>,
    around: Around<'_, impl Fn(usize, &mut [f32]) + Sync>,
) -> &'a mut [f32] {
    // SAFETY: only numbers are written below.
    let (c, accumulate) = unsafe { c.into_parts() };
    assert!(around.before.is_none_or(|before| before.len() == c.len() && !accumulate));
    let accumulate = accumulate || around.before.is_some();
    let before = |at: usize, c: &mut [MaybeUninit<f32>]| {
        if let Some(before) = around.before {
            c.write_copy_of_slice(&before[at..at + c.len()]);
        }
    };
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
        before(0, c);
        let out = Shared::new(c.as_mut_ptr().cast());
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
        // SAFETY: the pieces have written all columns of all rows.
        let c = unsafe { c.assume_init_mut() };
        (around.after)(0, c);
        return c;
    }
    scratch(panels * width * k, |packed| {
        if k > 0 {
            split::each_chunk(packed, k * width, TASK / 16, |(j, packed)| pack(j, packed));
        }
        c.par_chunks_mut(rows * n).with_max_len(1).enumerate().for_each(|(piece, c)| {
            let first = piece * rows;
            before(first * n, c);
            run(c.as_mut_ptr().cast(), first, rows.min(m - first), 0, panels, packed);
            // SAFETY: all panels have written their columns of these rows.
            (around.after)(first * n, unsafe { c.assume_init_mut() });
        });
    });
    // SAFETY: the pieces have written all rows.
    unsafe { c.assume_init_mut() }
}

/// `nt` for few rows or few columns: both operands are read where they lie.
fn dots<'a>(
    kernels: &Kernels,
    n: usize,
    k: usize,
    a: &[f32],
    b: &[f32],
    bias: Option<&[f32]>,
    c: Output<'a>,
) -> &'a mut [f32] {
    // SAFETY: only numbers are written below.
    let (c, accumulate) = unsafe { c.into_parts() };
    let m = c.len() / n;
    let [tall, wide] = DOTS;
    // Pieces of the longer side; a multiple of the block's sides.
    let (rows, columns) = if m > n {
        (((TASK / 4) / (n * k)).max(1).next_multiple_of(tall).min(m), n)
    } else {
        (m, ((TASK / 4) / (m * k)).max(1).next_multiple_of(wide).min(n))
    };
    let (down, across) = (m.div_ceil(rows), n.div_ceil(columns));
    let out = Shared::new(c.as_mut_ptr().cast());
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
    // SAFETY: the pieces have written all rows and columns.
    unsafe { c.assume_init_mut() }
}

/// `sums [n] =` the sum of the rows of `a [.., n]`.
pub(crate) fn column_sums(a: &[f32], sums: &mut [f32]) {
    let n = sums.len();
    if n == 0 {
        return;
    }
    // Pieces by size alone, so that the order of summation is always the same.
    let rows = (crate::cpu::loops::elementwise::GRAIN / n).max(1);
    let parts: Vec<Vec<f32>> = a
        .par_chunks(rows * n)
        .map(|piece| {
            let mut part = vec![0.0; n];
            add_rows(piece, &mut part);
            part
        })
        .collect();
    sums.fill(0.0);
    for part in parts {
        sums.iter_mut().zip(part).for_each(|(sum, x)| *sum += x);
    }
}

simd! {
    pub(crate) fn add_rows(rows: &[f32], sums: &mut [f32]) {
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
pub(crate) fn batched_nt<'a>(sizes: Batch, a: &[f32], b: &[f32], c: Output<'a>) -> &'a mut [f32] {
    pairs(sizes, a, b, c, |a, b, c| nt(sizes.n, sizes.k, a, b, None, c))
}

/// [`nn`] of each pair of matrices.
pub(crate) fn batched_nn<'a>(sizes: Batch, a: &[f32], b: &[f32], c: Output<'a>) -> &'a mut [f32] {
    pairs(sizes, a, b, c, |a, b, c| nn(sizes.n, sizes.k, a, b, c))
}

/// [`tn`] of each pair of matrices; those on the left are `[k, m]`.
pub(crate) fn batched_tn<'a>(sizes: Batch, a: &[f32], b: &[f32], c: Output<'a>) -> &'a mut [f32] {
    pairs(sizes, a, b, c, |a, b, c| tn(sizes.m, sizes.n, sizes.k, a, b, c))
}

fn pairs<'a>(
    sizes: Batch,
    a: &[f32],
    b: &[f32],
    c: Output<'a>,
    f: impl for<'c> Fn(&[f32], &[f32], Output<'c>) -> &'c mut [f32] + Sync,
) -> &'a mut [f32] {
    let Batch { batch, m, n, k } = sizes;
    if m * n == 0 {
        return c.zeros();
    }
    let pair = |t: usize| (&a[t * m * k..(t + 1) * m * k], &b[t * k * n..(t + 1) * k * n]);
    if batch == 1 || m * n * k >= 16 * TASK {
        // Large ones one after the other, each over all threads: what is packed is then packed once.
        return c.chunks(m * n, |t, c| f(pair(t).0, pair(t).1, c));
    }
    let together = (TASK / (m * n * k).max(1)).clamp(1, batch);
    c.par_chunks(together * m * n, |i, c| {
        c.chunks(m * n, |j, c| f(pair(i * together + j).0, pair(i * together + j).1, c))
    })
}

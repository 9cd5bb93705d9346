//! Products `aᵀ b` over all threads: gradients of weights, sums over the rows of a batch.

#![allow(unsafe_code)]

use crate::cpu::Output;
use crate::cpu::gemm::kernel::Kernels;
use crate::cpu::gemm::pack;
use crate::cpu::gemm::product::{Product, tiles};
use crate::cpu::gemm::{Shared, TASK, column_sums};
use crate::cpu::isa::simd;
use crate::cpu::loops::elementwise::add_assign;
use crate::cpu::memory::scratch::scratch;
use crate::cpu::threads::split;
use rayon::prelude::*;
use std::ptr::null;

/// `c [m, n] = a [k, m]ᵀ · b [k, n]`.
pub(crate) fn tn<'a>(m: usize, n: usize, k: usize, a: &[f32], b: &[f32], c: Output<'a>) -> &'a mut [f32] {
    tn_and_sums(m, n, k, a, b, c, None)
}

/// Results of up to so many numbers are worth one copy per thread.
const SMALL: usize = 1 << 15;

/// [`tn`], and `sums [m] =` the sums of the rows of `a`, which are in the cache then. A small result is cut over k into
/// as many pieces as there are threads, a larger one along its longer side.
pub(crate) fn tn_and_sums<'a>(
    m: usize,
    n: usize,
    k: usize,
    a: &[f32],
    b: &[f32],
    mut c: Output<'a>,
    mut sums: Option<&mut [f32]>,
) -> &'a mut [f32] {
    assert!(sums.as_ref().is_none_or(|sums| sums.len() == m));
    if let Some(sums) = &mut sums {
        sums.fill(0.0);
    }
    if m * n == 0 {
        if let Some(sums) = sums {
            column_sums(a, sums);
        }
        return c.zeros();
    }
    assert!(a.len() >= k * m && b.len() >= k * n && c.len() == m * n);
    let (kernels, accumulate) = (Kernels::best(), c.accumulates());
    let threads = rayon::current_num_threads();
    let block = |rows: (usize, usize), columns: (usize, usize)| Block { m, n, k, rows, columns };
    let tasks = m * n * k / TASK;
    if tasks <= 1 || threads == 1 {
        // SAFETY: the block is the whole of `c`, and writes all of it.
        return unsafe {
            block((0, m), (0, n)).run(kernels, a, b, c.as_mut_ptr(), sums, accumulate);
            c.written()
        };
    }
    if m * n <= SMALL {
        let pieces = tasks.min(k / 64).clamp(1, threads);
        // The first piece goes to `c` itself.
        let out = Shared::new(c.as_mut_ptr());
        return scratch((pieces - 1) * m * n + pieces * m, |memory| {
            let (others, piece_sums) = memory.split_at_mut((pieces - 1) * m * n);
            piece_sums.fill(0.0);
            let parts: Vec<_> = std::iter::once(out)
                .chain(others.chunks_exact_mut(m * n).map(|part| Shared::new(part.as_mut_ptr())))
                .zip(piece_sums.chunks_exact_mut(m))
                .enumerate()
                .collect();
            let wanted = sums.is_some();
            parts.into_par_iter().with_max_len(1).for_each(|(i, (part, sums))| {
                let (from, to) = (i * k / pieces, (i + 1) * k / pieces);
                let block = Block { k: to - from, ..block((0, m), (0, n)) };
                let sums = wanted.then_some(sums);
                // SAFETY: the block is the whole of `part`.
                unsafe {
                    block.run(kernels, &a[from * m..], &b[from * n..], part.get(), sums, accumulate && i == 0);
                }
            });
            // SAFETY: the first piece has written all of it.
            let c = unsafe { c.written() };
            for part in others.chunks_exact(m * n) {
                add_assign(c, part);
            }
            if let Some(sums) = sums {
                for part in piece_sums.chunks_exact(m) {
                    add_assign(sums, part);
                }
            }
            c
        });
    }
    let out = Shared::new(c.as_mut_ptr());
    // Panels stay whole; tiles are cut to nearly equal heights anyway.
    let (side, unit) = if m >= n { (m, 1) } else { (n, kernels.width) };
    let each = side.div_ceil(threads).next_multiple_of(unit);
    let sums = sums.map(|sums| Shared::new(sums.as_mut_ptr()));
    split::each(side.div_ceil(each), |piece| {
        let range = (piece * each, ((piece + 1) * each).min(side));
        let (rows, columns) = if m >= n { (range, (0, n)) } else { ((0, m), range) };
        let sums = sums.filter(|_| m >= n || piece == 0).map(|sums| {
            // SAFETY: the sums of these rows, which this piece alone writes, lie in `sums`.
            unsafe { std::slice::from_raw_parts_mut(sums.get().add(rows.0), rows.1 - rows.0) }
        });
        // SAFETY: each piece writes its own rows and columns of `c`.
        unsafe { block(rows, columns).run(kernels, a, b, out.get(), sums, accumulate) };
    });
    // SAFETY: the pieces have written all of it.
    unsafe { c.written() }
}

/// Depth of a block of [`Block::run`], and the panels that are packed together: half a megabyte at the widest level.
const DEPTH: usize = 256;
const PANELS: usize = 16;

/// Some rows and columns of `a [k, m]ᵀ · b [k, n]`, on one thread.
#[derive(Clone, Copy)]
struct Block {
    m: usize,
    n: usize,
    k: usize,
    rows: (usize, usize),
    columns: (usize, usize),
}

impl Block {
    /// Blocks of both operands are packed as they are needed. `sums`, if given, holds a number for each of `rows`, and
    /// is added to.
    ///
    /// # Safety
    /// `c` is valid for `m * n` numbers, and nothing else touches these rows and columns of it meanwhile.
    unsafe fn run(
        self,
        kernels: &Kernels,
        a: &[f32],
        b: &[f32],
        c: *mut f32,
        mut sums: Option<&mut [f32]>,
        accumulate: bool,
    ) {
        let Self { m, n, k, rows: (first_row, end_row), columns: (first_column, end_column) } = self;
        if k == 0 && !accumulate {
            for row in first_row..end_row {
                // SAFETY: a row of the block, as the caller vouches.
                unsafe { c.add(row * n + first_column).write_bytes(0, end_column - first_column) };
            }
        }
        let (packed_rows, width) = (kernels.packed_rows(), kernels.width);
        let depth = DEPTH.min(k);
        let heights: Vec<(usize, usize)> = tiles(end_row - first_row, kernels.rows).collect();
        let panels: Vec<(usize, usize)> = (first_column..end_column)
            .step_by(width)
            .map(|column| (column, (end_column - column).min(width)))
            .collect();
        let (tile_size, panel_size) = (depth * packed_rows, depth * width);
        scratch(heights.len() * tile_size + panels.len().min(PANELS) * panel_size, |memory| {
            let (left, right) = memory.split_at_mut(heights.len() * tile_size);
            for from in (0..k).step_by(depth.max(1)) {
                let depth_here = depth.min(k - from);
                let parts = heights.iter().map(|&(row, height)| (first_row + row, height));
                side_by_side(&a[from * m..], m, depth_here, parts, packed_rows, left, tile_size);
                if let Some(sums) = &mut sums {
                    for (&(row, height), tile) in heights.iter().zip(left.chunks_exact(tile_size)) {
                        add_packed(&tile[..depth_here * packed_rows], packed_rows, &mut sums[row..row + height]);
                    }
                }
                for panels in panels.chunks(PANELS) {
                    side_by_side(&b[from * n..], n, depth_here, panels.iter().copied(), width, right, panel_size);
                    // A tile stays in the first-level cache while the panels pass by.
                    let column = panels.first().map_or(0, |&(column, _)| column);
                    let columns = panels.iter().map(|&(_, columns)| columns).sum();
                    for (&(row, height), tile) in heights.iter().zip(left.chunks_exact(tile_size)) {
                        let product = Product {
                            m: height,
                            n: columns,
                            k: depth_here,
                            left: tile.as_ptr(),
                            left_stride: packed_rows,
                            by_columns: true,
                            panels: right.as_ptr(),
                            panel_stride: panel_size,
                            bias: null(),
                            out: c.wrapping_add((first_row + row) * n + column),
                            out_stride: n,
                            accumulate: accumulate || from > 0,
                        };
                        // SAFETY: the packed tile and panels hold `depth_here` rows, and the tile of `c` lies in the
                        // block that is the caller's own.
                        unsafe { product.run(kernels) };
                    }
                }
            }
        });
    }
}

/// Packs `parts` (first column and number of columns) of `k` rows of `from`, each to one piece of `size` numbers of
/// `out`. A few rows are packed for all parts before the next ones: they are then read from end to end, where reading
/// one part after another would jump from page to page.
fn side_by_side(
    from: &[f32],
    stride: usize,
    k: usize,
    parts: impl Iterator<Item = (usize, usize)> + Clone,
    width: usize,
    out: &mut [f32],
    size: usize,
) {
    const STRIP: usize = 16;
    for p in (0..k).step_by(STRIP) {
        for ((first, columns), out) in parts.clone().zip(out.chunks_exact_mut(size)) {
            pack::rows(&from[p * stride..], stride, first, columns, STRIP.min(k - p), width, &mut out[p * width..]);
        }
    }
}

/// `sums +=` the sums of the columns of a packed tile, whose rows of `width` numbers hold `sums.len()` that count.
fn add_packed(tile: &[f32], width: usize, sums: &mut [f32]) {
    match width {
        16 => add_packed_16(tile, sums),
        8 => add_packed_8(tile, sums),
        _ => {
            for row in tile.chunks_exact(width) {
                sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
            }
        }
    }
}

/// Four rows side by side, so that additions need not wait for one another.
#[inline(always)]
fn add_packed_rows<const W: usize>(tile: &[f32], sums: &mut [f32]) {
    let mut lanes = [[0.0f32; W]; 4];
    let (rows, _) = tile.as_chunks::<W>();
    let (fours, rest) = rows.as_chunks::<4>();
    for four in fours {
        for r in 0..4 {
            for i in 0..W {
                lanes[r][i] += four[r][i];
            }
        }
    }
    for row in rest {
        for i in 0..W {
            lanes[0][i] += row[i];
        }
    }
    for (i, sum) in sums.iter_mut().enumerate() {
        *sum += (lanes[0][i] + lanes[1][i]) + (lanes[2][i] + lanes[3][i]);
    }
}

simd! {
    fn add_packed_16(tile: &[f32], sums: &mut [f32]) {
        add_packed_rows::<16>(tile, sums);
    }
}
simd! {
    fn add_packed_8(tile: &[f32], sums: &mut [f32]) {
        add_packed_rows::<8>(tile, sums);
    }
}

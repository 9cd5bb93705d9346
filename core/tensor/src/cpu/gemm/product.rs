//! A product on one thread: tiles in an order that keeps what is read again in the caches.

#![allow(unsafe_code)]

use crate::cpu::gemm::kernel::{Kernels, MAX_ROWS, Tile};

/// Depth of a block: a panel's part of a block is then 32 KiB at the widest level and stays in the first-level cache.
const DEPTH: usize = 256;
/// Numbers of packed panels that are gone through for all rows before the next ones: a quarter of the smallest
/// second-level cache of the day.
const GROUP: usize = 48 << 10;

/// `out [m, n] (+)= left [m, k] · panels [k, n] + bias [n]`.
#[derive(Clone, Copy)]
pub(crate) struct Product {
    pub(crate) m: usize,
    pub(crate) n: usize,
    pub(crate) k: usize,
    /// Row r begins `r * left_stride` further; with `by_columns` number p of row r is at `p * left_stride + r`.
    pub(crate) left: *const f32,
    pub(crate) left_stride: usize,
    pub(crate) by_columns: bool,
    /// Panels of at least `k` rows, each `panel_stride` numbers behind the one before.
    pub(crate) panels: *const f32,
    pub(crate) panel_stride: usize,
    /// `n` numbers, or null.
    pub(crate) bias: *const f32,
    pub(crate) out: *mut f32,
    pub(crate) out_stride: usize,
    pub(crate) accumulate: bool,
}

impl Product {
    /// # Safety
    /// The pointers are valid for the sizes, and nothing else writes to the rows and columns of `out` meanwhile.
    pub(crate) unsafe fn run(&self, kernels: &Kernels) {
        let Self { m, n, k, .. } = *self;
        if m == 0 || n == 0 {
            return;
        }
        let width = kernels.width;
        if m <= kernels.rows && k <= DEPTH {
            // One tile high: attention makes many of these, and would notice the divisions below.
            // SAFETY: the sizes that the caller vouches for.
            return unsafe { self.tile(kernels, (0, m), (0, n), (0, k)) };
        }
        let blocks = k.div_ceil(DEPTH).max(1);
        let group = (GROUP / (k.div_ceil(blocks).max(1) * width)).max(1) * width;
        for block in 0..blocks {
            let depth = (block * k / blocks, (block + 1) * k / blocks);
            for first in (0..n).step_by(group) {
                for rows in tiles(m, kernels.rows) {
                    // SAFETY: as above.
                    unsafe { self.tile(kernels, rows, (first, (first + group).min(n)), depth) };
                }
            }
        }
    }

    /// One tile: `rows` rows from `row` on, columns `first..end` of which the first begins a panel, depth `from..to`.
    ///
    /// # Safety
    /// As for [`Product::run`].
    unsafe fn tile(
        &self,
        kernels: &Kernels,
        (row, rows): (usize, usize),
        (first, end): (usize, usize),
        (from, to): (usize, usize),
    ) {
        // A panel is the quotient by a power of two.
        let panel = first >> kernels.width.trailing_zeros();
        let mut left = [std::ptr::null(); MAX_ROWS];
        let mut out = [std::ptr::null_mut(); MAX_ROWS];
        // SAFETY: within the sizes that the caller vouches for.
        unsafe {
            for (r, out) in out[..rows].iter_mut().enumerate() {
                *out = self.out.add((row + r) * self.out_stride);
            }
            if self.by_columns {
                left[0] = self.left.add(from * self.left_stride + row);
            } else {
                for (r, left) in left[..rows].iter_mut().enumerate() {
                    *left = self.left.add((row + r) * self.left_stride + from);
                }
            }
            let tile = Tile {
                left: left.as_ptr(),
                groups: 1,
                depth: to - from,
                step: self.left_stride,
                panel: self.panels.add(panel * self.panel_stride + from * kernels.width),
                panel_stride: self.panel_stride,
                bias: if from > 0 { std::ptr::null() } else { self.bias },
                out: out.as_ptr(),
                first,
                columns: end,
                accumulate: self.accumulate || from > 0,
            };
            kernels.tile(rows, self.by_columns, &tile);
        }
    }
}

/// Cuts `m` rows into tiles of nearly equal height, at most `most`: first row and number of rows of each.
pub(crate) fn tiles(m: usize, most: usize) -> impl Iterator<Item = (usize, usize)> {
    let count = m.div_ceil(most);
    (0..count).map(move |i| {
        let first = i * m / count;
        (first, (i + 1) * m / count - first)
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests stop at the first failure")]
mod tests {
    use super::*;
    use crate::Rng;
    use crate::cpu::gemm::kernel::{DOTS, Dots};
    use crate::cpu::gemm::pack;
    use crate::cpu::isa::{Level, level};
    use std::ptr::null;

    fn levels() -> impl Iterator<Item = Level> {
        [Level::Baseline, Level::Avx2, Level::Avx512].into_iter().filter(|&l| l <= level())
    }

    /// Small integers: every order of summation gives the same bits.
    fn whole(n: usize, seed: u64) -> Vec<f32> {
        Rng::new(seed, "test", 0).below(n, 9).into_iter().map(|x| x as f32 - 4.0).collect()
    }

    /// `Σ_p a[i][p] b[p][j] + bias[j] (+ c[i][j])` where the operands are `[m, k]` and `[k, n]`.
    fn twin(sizes: [usize; 3], a: &[f32], b: &[f32], bias: Option<&[f32]>, c: Option<&[f32]>) -> Vec<f32> {
        let [m, n, k] = sizes;
        let one = |i: usize, j: usize| -> f32 {
            let sum: f32 = (0..k).map(|p| a[i * k + p] * b[p * n + j]).sum();
            sum + bias.map_or(0.0, |bias| bias[j]) + c.map_or(0.0, |c| c[i * n + j])
        };
        (0..m * n).map(|at| one(at / n, at % n)).collect()
    }

    fn transpose(a: &[f32], rows: usize, columns: usize) -> Vec<f32> {
        (0..rows * columns).map(|at| a[at % rows * columns + at / rows]).collect()
    }

    #[test]
    fn every_level_multiplies_tiles_of_every_size() {
        let mut sizes: Vec<[usize; 3]> = (1..=15).flat_map(|m| (1..=33).map(move |n| [m, n, (m * n) % 7])).collect();
        sizes.extend([[29, 70, 600], [5, 300, 257], [100, 9, 256]]);
        for (level, [m, n, k]) in levels().flat_map(|l| sizes.iter().map(move |&s| (l, s))) {
            let kernels = Kernels::of(level);
            let (a, b, bias, c) = (whole(m * k, 1), whole(k * n, 2), whole(n, 3), whole(m * n, 4));
            let width = kernels.width;
            let mut panels = vec![f32::NAN; n.next_multiple_of(width) * k];
            let b_transposed = transpose(&b, k, n);
            for case in 0..8 {
                let (by_columns, with_bias, accumulate) = (case & 1 > 0, case & 2 > 0, case & 4 > 0);
                if k > 0 {
                    // Both ways of packing give the same panels.
                    for (j, panel) in panels.chunks_mut(k * width).enumerate() {
                        let columns = (n - j * width).min(width);
                        match with_bias {
                            true => pack::rows(&b, n, j * width, columns, k, width, panel),
                            false => pack::transposed(&b_transposed[j * width * k..], k, columns, k, width, panel),
                        }
                    }
                }
                let left = if by_columns { transpose(&a, m, k) } else { a.clone() };
                let mut out = c.clone();
                let product = Product {
                    m,
                    n,
                    k,
                    left: left.as_ptr(),
                    left_stride: if by_columns { m } else { k },
                    by_columns,
                    panels: panels.as_ptr(),
                    panel_stride: k * width,
                    bias: if with_bias { bias.as_ptr() } else { null() },
                    out: out.as_mut_ptr(),
                    out_stride: n,
                    accumulate,
                };
                // SAFETY: the operands have the sizes that are said.
                unsafe { product.run(kernels) };
                let wanted = twin([m, n, k], &a, &b, with_bias.then_some(&bias[..]), accumulate.then_some(&c[..]));
                assert_eq!(out, wanted, "{level:?}, {m} x {n} x {k}, case {case}");
            }
        }
    }

    #[test]
    fn every_level_takes_dot_products_in_groups() {
        for (level, m, n) in
            levels().flat_map(|l| (1..=DOTS[0]).flat_map(move |m| (1..=DOTS[1]).map(move |n| (l, m, n))))
        {
            for (groups, depth) in [(1, 1), (1, 16), (3, 7), (2, 33), (9, 64)] {
                let k = groups * depth;
                let (a, b, bias, c) = (whole(m * k, 1), whole(n * k, 2), whole(n, 3), whole(m * n, 4));
                let left: Vec<*const f32> =
                    (0..groups * m).map(|at| a[at % m * k + at / m * depth..].as_ptr()).collect();
                for accumulate in [false, true] {
                    let mut found = c.clone();
                    let out: Vec<*mut f32> = found.chunks_mut(n).map(<[f32]>::as_mut_ptr).collect();
                    let dots = Dots {
                        left: left.as_ptr(),
                        groups,
                        depth,
                        right: b.as_ptr(),
                        right_stride: k,
                        bias: bias.as_ptr(),
                        out: out.as_ptr(),
                        accumulate,
                    };
                    // SAFETY: the operands have the sizes that are said.
                    unsafe { Kernels::of(level).dots(m, n, &dots) };
                    let wanted = twin([m, n, k], &a, &transpose(&b, n, k), Some(&bias), accumulate.then_some(&c));
                    assert_eq!(found, wanted, "{level:?}, {m} x {n}, {groups} groups of {depth}");
                }
            }
        }
    }
}

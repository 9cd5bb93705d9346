//! A product on one thread: tiles in an order that keeps what is read again in the caches.

#![allow(unsafe_code)]

use super::kernel::{Kernels, MAX_ROWS, Tile};

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
        let panels = n.div_ceil(width);
        let blocks = k.div_ceil(DEPTH).max(1);
        let depth_of = |block: usize| (block * k / blocks, (block + 1) * k / blocks);
        let group = (GROUP / (k.div_ceil(blocks).max(1) * width)).max(1);
        for block in 0..blocks {
            let (from, to) = depth_of(block);
            for first in (0..panels).step_by(group) {
                for (row, rows) in tiles(m, kernels.rows) {
                    for panel in first..(first + group).min(panels) {
                        // SAFETY: within the sizes that the caller vouches for.
                        unsafe {
                            let mut left = [std::ptr::null(); MAX_ROWS];
                            let mut out = [std::ptr::null_mut(); MAX_ROWS];
                            let column = panel * width;
                            for r in 0..rows {
                                out[r] = self.out.add((row + r) * self.out_stride + column);
                            }
                            if self.by_columns {
                                left[0] = self.left.add(from * self.left_stride + row);
                            } else {
                                for (r, left) in left[..rows].iter_mut().enumerate() {
                                    *left = self.left.add((row + r) * self.left_stride + from);
                                }
                            }
                            kernels.tile(
                                rows,
                                self.by_columns,
                                &Tile {
                                    left: left.as_ptr(),
                                    groups: 1,
                                    depth: to - from,
                                    step: self.left_stride,
                                    panel: self.panels.add(panel * self.panel_stride + from * width),
                                    bias: if self.bias.is_null() || block > 0 {
                                        std::ptr::null()
                                    } else {
                                        self.bias.add(column)
                                    },
                                    out: out.as_ptr(),
                                    columns: (n - column).min(width),
                                    accumulate: self.accumulate || block > 0,
                                },
                            );
                        }
                    }
                }
            }
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

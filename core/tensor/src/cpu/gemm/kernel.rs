//! The innermost loops of all matrix products: a tile of the result held in registers.
//!
//! `tile`: rows of the left operand are broadcast number by number, so they are read where they lie; the right operand
//! is packed in panels `[k][width]` (see [`crate::cpu::gemm::pack`]). `dots`: both operands are read along k where they lie, for
//! products with few rows or few columns, where packing would cost more than it saves.

#![allow(unsafe_code)]
#![allow(
    clippy::needless_range_loop,
    reason = "loops of known length over arrays stay in registers; iterators may not"
)]

use crate::cpu::isa::Level;
#[cfg(target_arch = "x86_64")]
use crate::cpu::isa::vector::{Avx2, Avx512};
use crate::cpu::isa::vector::{Plain, Vector};

/// The most rows that a tile has at any level.
pub(crate) const MAX_ROWS: usize = 14;
/// Rows and columns of a block of [`Kernels::dots`].
pub(crate) const DOTS: [usize; 2] = [4, 4];

/// Some rows of a product against one panel after another: for each row, `out (+)= Σ_g Σ_p left[g][row][p] * panel[g][p] +
/// bias`.
#[derive(Clone, Copy)]
pub(crate) struct Tile {
    /// `groups` times one pointer per row: where that row's `depth` numbers of the group begin. With `columns`, one
    /// pointer per group: row r's numbers begin r further and lie `step` apart.
    pub(crate) left: *const *const f32,
    pub(crate) groups: usize,
    pub(crate) depth: usize,
    pub(crate) step: usize,
    /// `groups * depth` rows of a full panel's width: that of column `first`.
    pub(crate) panel: *const f32,
    /// From one panel to the next.
    pub(crate) panel_stride: usize,
    /// One number per column, or null.
    pub(crate) bias: *const f32,
    /// One pointer per row, to its column 0.
    pub(crate) out: *const *mut f32,
    /// Columns to write: from `first` on, where a panel begins, to before `columns`. The last panel has (unspecified)
    /// numbers up to its width.
    pub(crate) first: usize,
    pub(crate) columns: usize,
    /// Adds to what is there.
    pub(crate) accumulate: bool,
}

/// Dot products of rows with rows: `out[r][c] (+)= Σ_g Σ_p left[g][r][p] * right[c][g * depth + p] + bias[c]`.
#[derive(Clone, Copy)]
pub(crate) struct Dots {
    /// As in [`Tile`].
    pub(crate) left: *const *const f32,
    pub(crate) groups: usize,
    pub(crate) depth: usize,
    pub(crate) right: *const f32,
    pub(crate) right_stride: usize,
    pub(crate) bias: *const f32,
    pub(crate) out: *const *mut f32,
    pub(crate) accumulate: bool,
}

type TileFn = unsafe fn(&Tile);
type DotsFn = unsafe fn(&Dots);

/// The kernels of one level.
pub(crate) struct Kernels {
    /// Rows of a full tile.
    pub(crate) rows: usize,
    /// Columns of a panel: two vectors.
    pub(crate) width: usize,
    /// Indexed by rows - 1, vectors - 1, and whether the left operand is read by columns.
    tiles: &'static [[[TileFn; 2]; 2]],
    /// Indexed by rows - 1 and columns - 1.
    dots: [[DotsFn; 4]; 4],
}

impl Kernels {
    /// # Safety
    /// The pointers of `tile` are valid for what its fields say, for `rows` rows of 1..=[`Kernels::rows`].
    #[inline]
    pub(crate) unsafe fn tile(&self, rows: usize, by_columns: bool, tile: &Tile) {
        let [one, two] = self.tiles[rows - 1].map(|tiles| tiles[usize::from(by_columns)]);
        let rest = (tile.columns - tile.first) % self.width;
        // SAFETY: passed on; `of` hands out only what the processor has.
        unsafe {
            if rest == 0 || rest > self.width / 2 {
                return two(tile);
            }
            // A last panel of one vector.
            let whole = tile.columns - rest;
            if whole > tile.first {
                two(&Tile { columns: whole, ..*tile });
            }
            let panel = tile.panel.add((whole - tile.first) / self.width * tile.panel_stride);
            one(&Tile { first: whole, panel, ..*tile });
        }
    }

    /// # Safety
    /// The pointers of `dots` are valid for what its fields say, for rows and columns within [`DOTS`].
    #[inline]
    pub(crate) unsafe fn dots(&self, rows: usize, columns: usize, dots: &Dots) {
        // SAFETY: passed on; `of` hands out only what the processor has.
        unsafe { self.dots[rows - 1][columns - 1](dots) }
    }

    /// Numbers between two rows of a packed tile of the left operand: copies of a power of two are quick.
    pub(crate) fn packed_rows(&self) -> usize {
        self.rows.next_power_of_two()
    }

    /// The kernels of a level that the processor has.
    pub(crate) fn of(level: Level) -> &'static Self {
        debug_assert!(level <= crate::cpu::isa::level());
        match level {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => &AVX512,
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => &AVX2,
            _ => &PLAIN,
        }
    }

    /// The kernels of the level in use.
    pub(crate) fn best() -> &'static Self {
        Self::of(crate::cpu::isa::level())
    }
}

#[inline(always)]
unsafe fn tile<V: Vector, const M: usize, const N: usize, const COLUMNS: bool>(t: &Tile) {
    // SAFETY: the caller's promise about the fields of `t`; a panel is two vectors wide and N is 1 or 2.
    unsafe {
        let (mut column, mut from) = (t.first, t.panel);
        while column < t.columns {
            let sums = products::<V, M, N, COLUMNS>(t, from);
            let last = (t.columns - column).min(N * V::LANES) - (N - 1) * V::LANES;
            if last == V::LANES {
                for j in 0..N {
                    let at = column + j * V::LANES;
                    let bias = if t.bias.is_null() { V::zero() } else { V::load(t.bias.add(at)) };
                    for r in 0..M {
                        let out = (*t.out.add(r)).add(at);
                        let mut sum = sums[r][j].add(bias);
                        if t.accumulate {
                            sum = sum.add(V::load(out));
                        }
                        sum.store(out);
                    }
                }
            } else {
                for j in 0..N {
                    let (at, n) = (column + j * V::LANES, if j + 1 < N { V::LANES } else { last });
                    let bias = if t.bias.is_null() { V::zero() } else { first::<V>(t.bias.add(at), n) };
                    for r in 0..M {
                        let out = (*t.out.add(r)).add(at);
                        let mut sum = sums[r][j].add(bias);
                        if t.accumulate {
                            sum = sum.add(first::<V>(out, n));
                        }
                        if n == V::LANES { sum.store(out) } else { sum.store_first(out, n) }
                    }
                }
            }
            column += 2 * V::LANES;
            from = from.wrapping_add(t.panel_stride);
        }
    }
}

/// The sums of products with one panel.
#[inline(always)]
unsafe fn products<V: Vector, const M: usize, const N: usize, const COLUMNS: bool>(
    t: &Tile,
    mut panel: *const f32,
) -> [[V; N]; M] {
    // SAFETY: as for `tile`.
    unsafe {
        let mut sums = [[V::zero(); N]; M];
        for g in 0..t.groups {
            if COLUMNS {
                let mut left = *t.left.add(g);
                for _ in 0..t.depth {
                    let mut right = [V::zero(); N];
                    for (j, right) in right.iter_mut().enumerate() {
                        *right = V::load(panel.add(j * V::LANES));
                    }
                    for r in 0..M {
                        let x = V::splat(*left.add(r));
                        for j in 0..N {
                            sums[r][j] = sums[r][j].fma(x, right[j]);
                        }
                    }
                    left = left.wrapping_add(t.step);
                    panel = panel.add(2 * V::LANES);
                }
            } else {
                let mut left = [std::ptr::null::<f32>(); M];
                for (r, left) in left.iter_mut().enumerate() {
                    *left = *t.left.add(g * M + r);
                }
                for p in 0..t.depth {
                    let mut right = [V::zero(); N];
                    for (j, right) in right.iter_mut().enumerate() {
                        *right = V::load(panel.add(j * V::LANES));
                    }
                    for r in 0..M {
                        let x = V::splat(*left[r].add(p));
                        for j in 0..N {
                            sums[r][j] = sums[r][j].fma(x, right[j]);
                        }
                    }
                    panel = panel.add(2 * V::LANES);
                }
            }
        }
        // A copy, so that the loop above need not keep the array in memory for the caller.
        let mut done = [[V::zero(); N]; M];
        for r in 0..M {
            for j in 0..N {
                done[r][j] = sums[r][j];
            }
        }
        done
    }
}

#[inline(always)]
unsafe fn first<V: Vector>(from: *const f32, n: usize) -> V {
    // SAFETY: the caller's pointer is valid for n numbers.
    unsafe { if n == V::LANES { V::load(from) } else { V::load_first(from, n) } }
}

#[inline(always)]
unsafe fn dots<V: Vector, const M: usize, const N: usize>(d: &Dots) {
    // SAFETY: the caller's promise about the fields of `d`.
    unsafe {
        let mut sums = [[V::zero(); N]; M];
        let whole = d.depth - d.depth % V::LANES;
        for g in 0..d.groups {
            let mut left = [std::ptr::null::<f32>(); M];
            for (r, left) in left.iter_mut().enumerate() {
                *left = *d.left.add(g * M + r);
            }
            let mut right = [std::ptr::null::<f32>(); N];
            for (c, right) in right.iter_mut().enumerate() {
                *right = d.right.add(c * d.right_stride + g * d.depth);
            }
            let mut p = 0;
            while p < whole {
                let mut y = [V::zero(); N];
                for c in 0..N {
                    y[c] = V::load(right[c].add(p));
                }
                for r in 0..M {
                    let x = V::load(left[r].add(p));
                    for c in 0..N {
                        sums[r][c] = sums[r][c].fma(x, y[c]);
                    }
                }
                p += V::LANES;
            }
            let rest = d.depth - whole;
            if rest > 0 {
                let mut y = [V::zero(); N];
                for c in 0..N {
                    y[c] = V::load_first(right[c].add(whole), rest);
                }
                for r in 0..M {
                    let x = V::load_first(left[r].add(whole), rest);
                    for c in 0..N {
                        sums[r][c] = sums[r][c].fma(x, y[c]);
                    }
                }
            }
        }
        for r in 0..M {
            let out = *d.out.add(r);
            for c in 0..N {
                let mut sum = sums[r][c].sum();
                if !d.bias.is_null() {
                    sum += *d.bias.add(c);
                }
                if d.accumulate {
                    sum += *out.add(c);
                }
                out.add(c).write(sum);
            }
        }
    }
}

/// The kernels of one level: `rows` lists 1 to the most rows of a tile.
macro_rules! kernels {
    ($name:ident, $vector:ty, [$($row:literal),*], $(#[$enable:meta])*) => {
        static $name: Kernels = {
            $(#[$enable])*
            unsafe fn tile_of<const M: usize, const N: usize, const COLUMNS: bool>(t: &Tile) {
                // SAFETY: passed on to the caller.
                unsafe { tile::<$vector, M, N, COLUMNS>(t) }
            }
            $(#[$enable])*
            unsafe fn dots_of<const M: usize, const N: usize>(d: &Dots) {
                // SAFETY: passed on to the caller.
                unsafe { dots::<$vector, M, N>(d) }
            }
            const TILES: &[[[TileFn; 2]; 2]] = &[$([
                [tile_of::<$row, 1, false>, tile_of::<$row, 1, true>],
                [tile_of::<$row, 2, false>, tile_of::<$row, 2, true>],
            ]),*];
            Kernels {
                rows: TILES.len(),
                width: 2 * <$vector as Vector>::LANES,
                tiles: TILES,
                dots: [
                    [dots_of::<1, 1>, dots_of::<1, 2>, dots_of::<1, 3>, dots_of::<1, 4>],
                    [dots_of::<2, 1>, dots_of::<2, 2>, dots_of::<2, 3>, dots_of::<2, 4>],
                    [dots_of::<3, 1>, dots_of::<3, 2>, dots_of::<3, 3>, dots_of::<3, 4>],
                    [dots_of::<4, 1>, dots_of::<4, 2>, dots_of::<4, 3>, dots_of::<4, 4>],
                ],
            }
        };
    };
}

#[cfg(target_arch = "x86_64")]
kernels!(
    AVX512,
    Avx512,
    [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14],
    #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
);
#[cfg(target_arch = "x86_64")]
kernels!(
    AVX2,
    Avx2,
    [1, 2, 3, 4, 5, 6],
    #[target_feature(enable = "avx2,fma")]
);
kernels!(PLAIN, Plain, [1, 2, 3, 4],);

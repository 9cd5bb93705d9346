//! Products of few rows with a packed panel, at the pace at which panels come from memory.
//!
//! With few rows a panel is used a few times and its successor is waited for. Processors fetch too few lines ahead on
//! their own, so that each step through a panel also asks for a line of the next one.

#![allow(unsafe_code)]
#![allow(
    clippy::needless_range_loop,
    reason = "loops of known length over arrays stay in registers; iterators may not"
)]

#[cfg(target_arch = "x86_64")]
use crate::cpu::isa::vector::{Avx2, Avx512};
use crate::cpu::isa::vector::{Plain, Vector};
use crate::cpu::isa::{Level, level};

/// `out [rows, columns] (+)= left [rows, depth] · panel [depth, width] + bias`.
#[derive(Clone, Copy)]
pub(crate) struct Strip {
    pub(crate) left: *const f32,
    pub(crate) left_stride: usize,
    pub(crate) depth: usize,
    pub(crate) panel: *const f32,
    /// Where the panel lies that follows.
    pub(crate) ahead: *const f32,
    /// One number per column, or null.
    pub(crate) bias: *const f32,
    pub(crate) out: *mut f32,
    pub(crate) out_stride: usize,
    /// Columns to write; the panel has (unspecified) numbers up to its width.
    pub(crate) columns: usize,
    /// Adds to what is there.
    pub(crate) accumulate: bool,
}

type StripFn = unsafe fn(&Strip);

/// Asks for the cache line of `at`, which need not be valid.
#[inline(always)]
pub(crate) fn prefetch(at: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing that the program sees, and every x86-64 has it.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T1>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

#[inline(always)]
unsafe fn strip<V: Vector, const M: usize>(s: &Strip) {
    // SAFETY: the caller's promise about the fields of `s`; a panel is two vectors wide.
    unsafe {
        let mut sums = [[V::zero(); 2]; M];
        let mut left = [s.left; M];
        for r in 0..M {
            left[r] = s.left.add(r * s.left_stride);
        }
        for p in 0..s.depth {
            let at = p * 2 * V::LANES;
            let right = [V::load(s.panel.add(at)), V::load(s.panel.add(at + V::LANES))];
            for j in 0..2 {
                prefetch(s.ahead.wrapping_add(at + j * V::LANES));
            }
            for r in 0..M {
                let x = V::splat(*left[r].add(p));
                for j in 0..2 {
                    sums[r][j] = sums[r][j].fma(x, right[j]);
                }
            }
        }
        // A copy, so that the loop above need not keep the array in memory for the loops below.
        let mut done = [[V::zero(); 2]; M];
        for r in 0..M {
            for j in 0..2 {
                done[r][j] = sums[r][j];
            }
        }
        for j in 0..2 {
            let at = j * V::LANES;
            let n = s.columns.saturating_sub(at).min(V::LANES);
            if n == 0 {
                break;
            }
            let bias = if s.bias.is_null() { V::zero() } else { first::<V>(s.bias.add(at), n) };
            for r in 0..M {
                let out = s.out.add(r * s.out_stride + at);
                let mut sum = done[r][j].add(bias);
                if s.accumulate {
                    sum = sum.add(first::<V>(out, n));
                }
                if n == V::LANES { sum.store(out) } else { sum.store_first(out, n) }
            }
        }
    }
}

#[inline(always)]
unsafe fn first<V: Vector>(from: *const f32, n: usize) -> V {
    // SAFETY: the caller's pointer is valid for n numbers.
    unsafe { if n == V::LANES { V::load(from) } else { V::load_first(from, n) } }
}

/// The functions of one level, indexed by rows - 1.
macro_rules! strips {
    ($name:ident, $vector:ty, [$($row:literal),*], $(#[$enable:meta])*) => {
        static $name: &[StripFn] = {
            $(#[$enable])*
            unsafe fn of<const M: usize>(s: &Strip) {
                // SAFETY: passed on to the caller.
                unsafe { strip::<$vector, M>(s) }
            }
            &[$(of::<$row>),*]
        };
    };
}

#[cfg(target_arch = "x86_64")]
strips!(
    AVX512,
    Avx512,
    [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14],
    #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
);
#[cfg(target_arch = "x86_64")]
strips!(
    AVX2,
    Avx2,
    [1, 2, 3, 4, 5, 6],
    #[target_feature(enable = "avx2,fma")]
);
strips!(PLAIN, Plain, [1, 2, 3, 4],);

fn of(level: Level) -> &'static [StripFn] {
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => AVX512,
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => AVX2,
        _ => PLAIN,
    }
}

impl Strip {
    /// Computes `rows` rows, which lie as far apart as the fields say.
    ///
    /// # Safety
    /// The pointers but `ahead` are valid for what the fields say, and nothing else writes to these columns meanwhile.
    pub(crate) unsafe fn run(&self, rows: usize) {
        // SAFETY: passed on; the processor has what `level` found.
        unsafe { self.run_at(level(), rows) };
    }

    /// # Safety
    /// As for [`Strip::run`], and the processor has the level.
    unsafe fn run_at(&self, level: Level, rows: usize) {
        let strips = of(level);
        for (first, height) in crate::cpu::gemm::product::tiles(rows, strips.len()) {
            let strip = Self {
                left: self.left.wrapping_add(first * self.left_stride),
                out: self.out.wrapping_add(first * self.out_stride),
                // Asked for once; what is in use is near already.
                ahead: if first == 0 { self.ahead } else { self.panel },
                ..*self
            };
            // SAFETY: rows first..first + height of what the caller vouches for.
            unsafe { strips[height - 1](&strip) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rng;
    use crate::cpu::gemm::kernel::Kernels;
    use crate::cpu::gemm::pack;
    use std::ptr::null;

    /// Small integers: every order of summation gives the same bits.
    fn whole(n: usize, seed: u64) -> Vec<f32> {
        Rng::new(seed, "test", 0).below(n, 9).into_iter().map(|x| x as f32 - 4.0).collect()
    }

    #[test]
    fn every_level_multiplies_any_number_of_rows_with_a_panel() {
        for level in [Level::Baseline, Level::Avx2, Level::Avx512].into_iter().filter(|&l| l <= level()) {
            let width = Kernels::of(level).width;
            for (rows, columns) in (1..=30).flat_map(|rows| (1..=width).map(move |columns| (rows, columns))) {
                let depth = rows * columns % 19;
                let (stride, out_stride) = (depth + 3, columns + 2);
                let (a, b, bias) = (whole(rows * stride, 1), whole(columns * depth, 2), whole(columns, 3));
                let mut panel = vec![f32::NAN; depth * width];
                if depth > 0 {
                    pack::transposed(&b, depth, columns, depth, width, &mut panel);
                }
                for case in 0..4 {
                    let (with_bias, accumulate) = (case & 1 > 0, case & 2 > 0);
                    let before = whole(rows * out_stride, 4);
                    let mut out = before.clone();
                    let strip = Strip {
                        left: a.as_ptr(),
                        left_stride: stride,
                        depth,
                        panel: panel.as_ptr(),
                        ahead: null(),
                        bias: if with_bias { bias.as_ptr() } else { null() },
                        out: out.as_mut_ptr(),
                        out_stride,
                        columns,
                        accumulate,
                    };
                    // SAFETY: the operands have the sizes that are said.
                    unsafe { strip.run_at(level, rows) };
                    let wanted = |at: usize| -> f32 {
                        let (i, j) = (at / out_stride, at % out_stride);
                        if j >= columns {
                            return before[at];
                        }
                        let dot: f32 = (0..depth).map(|p| a[i * stride + p] * b[j * depth + p]).sum();
                        dot + if with_bias { bias[j] } else { 0.0 } + if accumulate { before[at] } else { 0.0 }
                    };
                    let wanted: Vec<f32> = (0..out.len()).map(wanted).collect();
                    assert_eq!(out, wanted, "{level:?}, {rows} x {columns} x {depth}, case {case}");
                }
            }
        }
    }
}

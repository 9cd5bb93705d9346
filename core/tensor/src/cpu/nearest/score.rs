//! The innermost loop of the f32 search: a tile of scores in registers, of which each lane keeps its best.

#![allow(unsafe_code)]

use crate::cpu::gemm::kernel::Kernels;
#[cfg(target_arch = "x86_64")]
use crate::cpu::isa::vector::{Avx2, Avx512};
use crate::cpu::isa::vector::{Plain, Vector};

/// Some rows against one panel of codes.
pub(crate) struct Scores<'a> {
    /// Rows of `channels` numbers.
    pub(crate) x: &'a [f32],
    pub(crate) channels: usize,
    /// `[channels][width]`.
    pub(crate) panel: &'a [f32],
    /// One for each column of the panel.
    pub(crate) biases: &'a [f32],
    /// For each row the best score of each column so far, `[rows][width]`, and the panel that it came from. Of equal
    /// scores the first stays.
    pub(crate) best: &'a mut [f32],
    pub(crate) best_panel: &'a mut [u32],
    /// Which panel this is.
    pub(crate) index: u32,
}

impl Scores<'_> {
    /// Runs on as many rows as `x` has, up to those of a tile.
    pub(crate) fn run(&mut self, kernels: &Kernels) {
        let (rows, width) = (self.x.len() / self.channels, kernels.width);
        assert!((1..=kernels.rows).contains(&rows) && self.panel.len() >= self.channels * width);
        assert!(self.biases.len() >= width && self.best.len().min(self.best_panel.len()) >= rows * width);
        // The level has the width of two of its vectors.
        let tiles: &[unsafe fn(&mut Scores<'_>)] = match width {
            #[cfg(target_arch = "x86_64")]
            32 => AVX512,
            #[cfg(target_arch = "x86_64")]
            16 => AVX2,
            _ => PLAIN,
        };
        // SAFETY: the slices have the lengths that the sizes need, and kernels are of a level that the processor has.
        unsafe { tiles[rows - 1](self) }
    }
}

/// Sums run in the order of the channels, as in [`crate::cpu::gemm::kernel`].
#[inline(always)]
unsafe fn tile<V: Vector, const M: usize>(s: &mut Scores<'_>) {
    // SAFETY: the checks of `run`, for M rows.
    unsafe {
        let mut sums = [[V::zero(); 2]; M];
        let mut left = [std::ptr::null::<f32>(); M];
        for r in 0..M {
            left[r] = s.x.as_ptr().add(r * s.channels);
        }
        let mut panel = s.panel.as_ptr();
        for p in 0..s.channels {
            let right = [V::load(panel), V::load(panel.add(V::LANES))];
            for r in 0..M {
                let x = V::splat(*left[r].add(p));
                for j in 0..2 {
                    sums[r][j] = sums[r][j].fma(x, right[j]);
                }
            }
            panel = panel.add(2 * V::LANES);
        }
        // A copy, so that the loop above need not keep the array in memory for the loops below.
        let mut done = [[V::zero(); 2]; M];
        for r in 0..M {
            for j in 0..2 {
                done[r][j] = sums[r][j];
            }
        }
        for j in 0..2 {
            let bias = V::load(s.biases.as_ptr().add(j * V::LANES));
            for r in 0..M {
                let at = (2 * r + j) * V::LANES;
                let (best, from) = (s.best.as_mut_ptr().add(at), s.best_panel.as_mut_ptr().add(at));
                done[r][j].add(bias).keep_larger(best, from, s.index);
            }
        }
    }
}

/// The tiles of one level, from 1 row to the most.
macro_rules! tiles {
    ($name:ident, $vector:ty, [$($row:literal),*], $(#[$enable:meta])*) => {
        static $name: &[unsafe fn(&mut Scores<'_>)] = {
            $(#[$enable])*
            unsafe fn tile_of<const M: usize>(s: &mut Scores<'_>) {
                // SAFETY: passed on to the caller.
                unsafe { tile::<$vector, M>(s) }
            }
            &[$(tile_of::<$row>),*]
        };
    };
}

#[cfg(target_arch = "x86_64")]
tiles!(
    AVX512,
    Avx512,
    [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14],
    #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
);
#[cfg(target_arch = "x86_64")]
tiles!(
    AVX2,
    Avx2,
    [1, 2, 3, 4, 5, 6],
    #[target_feature(enable = "avx2,fma")]
);
tiles!(PLAIN, Plain, [1, 2, 3, 4],);

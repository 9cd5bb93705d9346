//! What the search does with int8 or int16 bounds: it finds the largest, and those that reach a threshold, and sums
//! the products of the pairs that are left.

#![allow(unsafe_code)]

use crate::cpu::isa::{Level, level};
use crate::cpu::nearest::coarse::{LINES, Line};

/// The largest of a row's bounds and where the first of them is. `tops` has a line for each panel, `bounds` four.
pub(crate) fn leader(tops: &[Line<f32>], bounds: &[Line<f32>]) -> (f32, u32) {
    assert!((1..=64).contains(&tops.len()) && bounds.len() >= tops.len() * LINES);
    match level() {
        // SAFETY: the processor has the instructions.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => unsafe { x86::leader_avx512(tops, bounds) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => unsafe { x86::leader_avx2(tops, bounds) },
        // SAFETY: plain Rust needs nothing.
        _ => unsafe { leader_by::<Plain>(tops, bounds) },
    }
}

/// Tells `found` in order where a row's bounds are at least `threshold`, until it says that it has heard enough.
pub(crate) fn rivals(tops: &[Line<f32>], bounds: &[Line<f32>], threshold: f32, found: impl FnMut(u32) -> bool) {
    assert!(tops.len() <= 64 && bounds.len() >= tops.len() * LINES);
    match level() {
        // SAFETY: the processor has the instructions.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => unsafe { x86::rivals_avx512(tops, bounds, threshold, found) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => unsafe { x86::rivals_avx2(tops, bounds, threshold, found) },
        // SAFETY: plain Rust needs nothing.
        _ => unsafe { rivals_by::<Plain>(tops, bounds, threshold, found) },
    }
}

/// What a level's instructions find in lines.
trait Scan {
    /// The largest number of some lines; minus infinity of none.
    ///
    /// # Safety
    /// A processor of the level, here and below.
    unsafe fn largest(lines: &[Line<f32>]) -> f32;

    /// A bit for each number of a line that is at least `threshold`.
    ///
    /// # Safety
    /// As above.
    unsafe fn at_least(line: &Line<f32>, threshold: f32) -> u16;
}

/// A bit for each of up to 64 lines that has a number of at least `threshold`.
#[inline(always)]
unsafe fn lines_at_least<S: Scan>(lines: &[Line<f32>], threshold: f32) -> u64 {
    let mut bits = 0;
    for (i, line) in lines.iter().enumerate() {
        // SAFETY: the caller's promise.
        bits |= u64::from(unsafe { S::at_least(line, threshold) } != 0) << i;
    }
    bits
}

/// A bit for each number of a panel's lines that is at least `threshold`.
#[inline(always)]
unsafe fn numbers_at_least<S: Scan>(lines: &[Line<f32>; LINES], threshold: f32) -> u64 {
    let mut bits = 0;
    for (i, line) in lines.iter().enumerate() {
        // SAFETY: the caller's promise.
        bits |= u64::from(unsafe { S::at_least(line, threshold) }) << (16 * i);
    }
    bits
}

#[inline(always)]
unsafe fn leader_by<S: Scan>(tops: &[Line<f32>], bounds: &[Line<f32>]) -> (f32, u32) {
    // SAFETY: the caller's promise.
    unsafe {
        let most = S::largest(tops);
        let panels = bounds.as_chunks::<LINES>().0;
        let panel = (lines_at_least::<S>(tops, most).trailing_zeros() as usize).min(panels.len() - 1);
        let lane = numbers_at_least::<S>(&panels[panel], most).trailing_zeros();
        (most, (panel * 16 * LINES) as u32 + lane)
    }
}

#[inline(always)]
unsafe fn rivals_by<S: Scan>(
    tops: &[Line<f32>],
    bounds: &[Line<f32>],
    threshold: f32,
    mut found: impl FnMut(u32) -> bool,
) {
    let panels = bounds.as_chunks::<LINES>().0;
    // SAFETY: the caller's promise.
    let mut lines = unsafe { lines_at_least::<S>(tops, threshold) };
    while lines != 0 {
        let panel = lines.trailing_zeros() as usize;
        lines &= lines - 1;
        // SAFETY: the caller's promise.
        let mut lanes = unsafe { numbers_at_least::<S>(&panels[panel], threshold) };
        while lanes != 0 {
            if !found((panel * 16 * LINES) as u32 + lanes.trailing_zeros()) {
                return;
            }
            lanes &= lanes - 1;
        }
    }
}

struct Plain;

impl Scan for Plain {
    unsafe fn largest(lines: &[Line<f32>]) -> f32 {
        lines.iter().flat_map(|line| line.0).fold(f32::NEG_INFINITY, f32::max)
    }

    unsafe fn at_least(line: &Line<f32>, threshold: f32) -> u16 {
        line.0.iter().enumerate().fold(0, |bits, (i, x)| bits | u16::from(*x >= threshold) << i)
    }
}

/// Pairs whose dot products are summed side by side: as many as there are registers for their addresses.
pub(crate) const PAIRS: usize = 6;

/// The dot products of pairs of rows of one length, each summed in order by fused multiply-adds.
pub(crate) fn dots(pairs: [(&[f32], &[f32]); PAIRS]) -> [f32; PAIRS] {
    let length = pairs[0].0.len();
    assert!(pairs.iter().all(|(x, e)| x.len() == length && e.len() == length));
    #[cfg(target_arch = "x86_64")]
    if level() >= Level::Avx2 {
        // SAFETY: the processor has the instructions, and all rows have `length` numbers.
        return unsafe { x86::dots(length, pairs.map(|(x, e)| (x.as_ptr(), e.as_ptr()))) };
    }
    pairs.map(|(x, e)| x.iter().zip(e).fold(0.0, |sum: f32, (x, e)| x.mul_add(*e, sum)))
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Line, PAIRS, Scan, leader_by, rivals_by};
    use std::arch::x86_64::*;

    struct Avx512;

    impl Scan for Avx512 {
        #[inline(always)]
        unsafe fn largest(lines: &[Line<f32>]) -> f32 {
            // SAFETY: the caller's processor; a line is 16 numbers at an address that 64 divides.
            unsafe {
                let mut most = _mm512_set1_ps(f32::NEG_INFINITY);
                for line in lines {
                    most = _mm512_max_ps(most, _mm512_load_ps(line.0.as_ptr()));
                }
                _mm512_reduce_max_ps(most)
            }
        }

        #[inline(always)]
        unsafe fn at_least(line: &Line<f32>, threshold: f32) -> u16 {
            // SAFETY: as above.
            unsafe { _mm512_cmp_ps_mask::<_CMP_GE_OQ>(_mm512_load_ps(line.0.as_ptr()), _mm512_set1_ps(threshold)) }
        }
    }

    struct Avx2;

    impl Scan for Avx2 {
        #[inline(always)]
        unsafe fn largest(lines: &[Line<f32>]) -> f32 {
            // SAFETY: the caller's processor; a line is 16 numbers at an address that 64 divides.
            unsafe {
                let mut most = [_mm256_set1_ps(f32::NEG_INFINITY); 2];
                for line in lines {
                    for (j, most) in most.iter_mut().enumerate() {
                        *most = _mm256_max_ps(*most, _mm256_load_ps(line.0.as_ptr().add(8 * j)));
                    }
                }
                let most = _mm256_max_ps(most[0], most[1]);
                let four = _mm_max_ps(_mm256_castps256_ps128(most), _mm256_extractf128_ps::<1>(most));
                let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
                _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
            }
        }

        #[inline(always)]
        unsafe fn at_least(line: &Line<f32>, threshold: f32) -> u16 {
            // SAFETY: as above.
            unsafe {
                let half = |j: usize| {
                    let numbers = _mm256_load_ps(line.0.as_ptr().add(8 * j));
                    _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_GE_OQ>(numbers, _mm256_set1_ps(threshold)))
                };
                (half(0) | half(1) << 8) as u16
            }
        }
    }

    macro_rules! at_level {
        ($scan:ty, $leader:ident, $rivals:ident, $features:literal) => {
            /// # Safety
            /// A processor of the level.
            #[target_feature(enable = $features)]
            pub(crate) unsafe fn $leader(tops: &[Line<f32>], bounds: &[Line<f32>]) -> (f32, u32) {
                // SAFETY: the caller's promise.
                unsafe { leader_by::<$scan>(tops, bounds) }
            }

            /// # Safety
            /// A processor of the level.
            #[target_feature(enable = $features)]
            pub(crate) unsafe fn $rivals(
                tops: &[Line<f32>],
                bounds: &[Line<f32>],
                threshold: f32,
                found: impl FnMut(u32) -> bool,
            ) {
                // SAFETY: the caller's promise.
                unsafe { rivals_by::<$scan>(tops, bounds, threshold, found) }
            }
        };
    }
    at_level!(Avx512, leader_avx512, rivals_avx512, "avx512f");
    at_level!(Avx2, leader_avx2, rivals_avx2, "avx2");

    /// # Safety
    /// A processor with FMA; rows of `length` numbers.
    #[target_feature(enable = "fma")]
    pub(crate) unsafe fn dots(length: usize, pairs: [(*const f32, *const f32); PAIRS]) -> [f32; PAIRS] {
        let mut sums = [0.0f32; PAIRS];
        for k in 0..length {
            for p in 0..PAIRS {
                // SAFETY: the caller's promise.
                let (x, e) = unsafe { (*pairs[p].0.add(k), *pairs[p].1.add(k)) };
                sums[p] = x.mul_add(e, sums[p]);
            }
        }
        sums
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests stop at the first failure")]
mod tests {
    use super::*;
    use crate::Rng;

    fn lines(n: usize, seed: u64) -> Vec<Line<f32>> {
        Rng::new(seed, "test", 0).normal(n * 16).as_chunks().0.iter().map(|&line| Line(line)).collect()
    }

    #[test]
    fn leaders_and_rivals_are_where_they_are() {
        for panels in [1, 2, 7, 64] {
            let bounds = lines(panels * LINES, 4);
            let all: Vec<f32> = bounds.iter().flat_map(|line| line.0).collect();
            let top = |four: &[Line<f32>; LINES]| {
                Line(std::array::from_fn(|i| four.iter().fold(f32::MIN, |m, l| m.max(l.0[i]))))
            };
            let tops: Vec<_> = bounds.as_chunks().0.iter().map(top).collect();
            let (most, at) = leader(&tops, &bounds);
            assert_eq!(most, all.iter().copied().fold(f32::MIN, f32::max));
            assert_eq!(all.iter().position(|&x| x == most), Some(at as usize));
            for threshold in [f32::NEG_INFINITY, 0.0, 1.5, most, 99.0] {
                let wanted: Vec<u32> = (0..all.len() as u32).filter(|&i| all[i as usize] >= threshold).collect();
                for enough in [1, 10, usize::MAX] {
                    let mut found = Vec::new();
                    rivals(&tops, &bounds, threshold, |at| {
                        found.push(at);
                        found.len() < enough
                    });
                    assert_eq!(found, wanted[..wanted.len().min(enough)]);
                }
            }
        }
    }

    #[test]
    fn dot_products_are_summed_in_order() {
        for length in [0, 1, 2, 63, 100] {
            let numbers = Rng::new(5, "test", 0).normal(2 * PAIRS * length.max(1));
            let row = |i: usize| &numbers[i * length..(i + 1) * length];
            let got = dots(std::array::from_fn(|p| (row(2 * p), row(2 * p + 1))));
            for p in 0..PAIRS {
                let mut sum = 0.0f32;
                for (x, e) in row(2 * p).iter().zip(row(2 * p + 1)) {
                    sum = x.mul_add(*e, sum);
                }
                assert_eq!(got[p], sum);
            }
        }
    }
}

//! What the processor can do at most: the rate that the fractions of a benchmark are of.

#![allow(unsafe_code)]

use crate::cpu::isa::vector::{Plain, Vector};
use crate::cpu::isa::{Level, level};
use std::time::Instant;

/// Sums that are carried side by side: two multiply-adds a cycle, each ready after four or five, need ten.
const CHAINS: usize = 12;
/// Multiply-adds of a chain in one timing: some milliseconds.
const ROUNDS: usize = 1 << 21;
/// Timings, of which the best counts: what disturbs a processor only ever slows it.
const TIMINGS: usize = 12;

/// Floating-point operations per second, two per multiply-add, of all threads that the kernels share, each running
/// independent fused multiply-adds on registers of the widest vectors that the kernels use: no kernel can be faster.
/// Takes about a tenth of a second.
pub fn peak_flops() -> f64 {
    (0..TIMINGS).map(|_| timing()).fold(0.0, f64::max)
}

/// One timing: the work of all threads over the time of the slowest.
fn timing() -> f64 {
    let threads = rayon::broadcast(|_| {
        let started = Instant::now();
        let flop = run();
        (flop, started.elapsed().as_secs_f64())
    });
    let flop: f64 = threads.iter().map(|(flop, _)| flop).sum();
    flop / threads.iter().map(|(_, seconds)| *seconds).fold(f64::MIN_POSITIVE, f64::max)
}

/// The chains on this thread; returns the operations done.
fn run() -> f64 {
    #[cfg(target_arch = "x86_64")]
    {
        use crate::cpu::isa::vector::{Avx2, Avx512};
        #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
        unsafe fn avx512() -> f64 {
            // SAFETY: the caller promises the instruction set.
            unsafe { chains::<Avx512>() }
        }
        #[target_feature(enable = "avx2,fma")]
        unsafe fn avx2() -> f64 {
            // SAFETY: the caller promises the instruction set.
            unsafe { chains::<Avx2>() }
        }
        match level() {
            // SAFETY: `level` has checked that the processor has the features.
            Level::Avx512 => return unsafe { avx512() },
            // SAFETY: as above.
            Level::Avx2 => return unsafe { avx2() },
            Level::Baseline => {}
        }
    }
    // SAFETY: plain lanes need no feature.
    unsafe { chains::<Plain>() }
}

/// `x = 1 + x / 2` in every lane of every chain: it stays between 1 and 2.
#[inline(always)]
unsafe fn chains<V: Vector>() -> f64 {
    // SAFETY: the caller promises the instruction set; nothing is read or written but registers.
    unsafe {
        let (half, one) = (V::splat(std::hint::black_box(0.5)), V::splat(std::hint::black_box(1.0)));
        let mut x = [V::splat(1.0); CHAINS];
        for _ in 0..ROUNDS {
            for x in &mut x {
                *x = one.fma(*x, half);
            }
        }
        let sum: f32 = x.into_iter().map(|x| x.sum()).sum();
        std::hint::black_box(sum);
    }
    (2 * CHAINS * V::LANES * ROUNDS) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_does_the_operations_that_it_counts() {
        let flop = run();
        assert!(flop >= (2 * CHAINS * ROUNDS) as f64 && flop % (2 * CHAINS * ROUNDS) as f64 == 0.0);
    }

    #[test]
    fn the_chains_stay_finite() {
        let mut x = 1.0f32;
        for _ in 0..1000 {
            x = 1.0 + x * 0.5;
            assert!((1.0..=2.0).contains(&x));
        }
    }
}

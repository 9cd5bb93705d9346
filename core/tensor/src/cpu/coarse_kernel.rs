//! The innermost loops of the 8-bit search: for AVX-512 with VNNI, which multiplies and adds 64 pairs of bytes at once,
//! and in plain Rust, for comparison.

#![allow(unsafe_code)]

use super::coarse::{Line, STEP, Terms};

/// Vectors of a panel.
const N: usize = 4;
/// The most rows of a tile.
pub(crate) const ROWS: usize = 6;

/// Whether the processor has the instructions that make an 8-bit search worth while.
pub(crate) fn available() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        super::dispatch::level() == super::dispatch::Level::Avx512 && is_x86_feature_detected!("avx512vnni")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

/// Upper bounds of the scores of some rows and the 64 codes of a panel.
pub(crate) struct Tile<'a> {
    /// The whole numbers of the rows, `steps * 4` each.
    pub(crate) left: &'a [i8],
    /// One for each row, up to [`ROWS`].
    pub(crate) terms: &'a [Terms],
    pub(crate) steps: usize,
    pub(crate) panel: &'a [Line<u32>],
    pub(crate) scales: &'a [Line<f32>],
    pub(crate) biases: &'a [Line<f32>],
    /// Where the first row's bounds go, and from there to the next row's.
    pub(crate) bounds: &'a mut [Line<f32>],
    pub(crate) bounds_stride: usize,
    /// Where the largest of each four bounds of the first row go, and from there to the next row's.
    pub(crate) tops: &'a mut [Line<f32>],
    pub(crate) tops_stride: usize,
}

impl Tile<'_> {
    pub(crate) fn run(&mut self) {
        let rows = self.terms.len();
        assert!((1..=ROWS).contains(&rows));
        assert!(self.left.len() >= rows * self.steps * STEP && self.panel.len() >= self.steps * N);
        assert!(self.scales.len() >= N && self.biases.len() >= N);
        assert!(self.bounds.len() >= (rows - 1) * self.bounds_stride + N);
        assert!(self.tops.len() > (rows - 1) * self.tops_stride);
        #[cfg(target_arch = "x86_64")]
        if available() {
            // SAFETY: the processor has the instructions, and all slices the lengths that the sizes need.
            return unsafe {
                match rows {
                    1 => x86::tile::<1>(self),
                    2 => x86::tile::<2>(self),
                    3 => x86::tile::<3>(self),
                    4 => x86::tile::<4>(self),
                    5 => x86::tile::<5>(self),
                    _ => x86::tile::<6>(self),
                }
            };
        }
        self.run_plain();
    }

    fn run_plain(&mut self) {
        for (r, terms) in self.terms.iter().enumerate() {
            let row = self.left[r * self.steps * STEP..].as_chunks::<STEP>().0;
            let mut top = [f32::NEG_INFINITY; 16];
            for j in 0..N {
                for lane in 0..16 {
                    let mut sum = terms.start;
                    for (x, line) in row.iter().zip(self.panel[..self.steps * N].chunks_exact(N)) {
                        for (x, e) in x.iter().zip(line[j].0[lane].to_le_bytes()) {
                            sum += i32::from(*x) * i32::from(e);
                        }
                    }
                    let own = (sum as f32).mul_add(terms.scale, terms.margin);
                    let bound = own.mul_add(self.scales[j].0[lane], self.biases[j].0[lane]);
                    self.bounds[r * self.bounds_stride + j].0[lane] = bound;
                    top[lane] = top[lane].max(bound);
                }
            }
            self.tops[r * self.tops_stride] = Line(top);
        }
    }
}

/// The largest of a row's bounds and where the first of them is. `tops` has a line for each panel, `bounds` four.
pub(crate) fn leader(tops: &[Line<f32>], bounds: &[Line<f32>]) -> (f32, u32) {
    assert!((1..=64).contains(&tops.len()) && bounds.len() >= tops.len() * N);
    #[cfg(target_arch = "x86_64")]
    if available() {
        // SAFETY: the processor has the instructions.
        return unsafe { x86::leader(tops, bounds) };
    }
    let numbers = || bounds[..tops.len() * N].iter().flat_map(|line| line.0);
    let most = numbers().fold(f32::NEG_INFINITY, f32::max);
    (most, numbers().position(|x| x == most).unwrap_or(0) as u32)
}

/// Tells `found` in order where a row's bounds are at least `threshold`, until it says that it has heard enough.
pub(crate) fn rivals(tops: &[Line<f32>], bounds: &[Line<f32>], threshold: f32, found: impl FnMut(u32) -> bool) {
    assert!(tops.len() <= 64 && bounds.len() >= tops.len() * N);
    #[cfg(target_arch = "x86_64")]
    if available() {
        // SAFETY: the processor has the instructions.
        return unsafe { x86::rivals(tops, bounds, threshold, found) };
    }
    let numbers = bounds[..tops.len() * N].iter().flat_map(|line| line.0).enumerate();
    numbers.filter(|(_, x)| *x >= threshold).map(|(i, _)| i as u32).all(found);
}

/// Pairs whose dot products are summed side by side: as many as there are registers for their addresses.
pub(crate) const PAIRS: usize = 6;

/// The dot products of pairs of rows of one length, each summed in order by fused multiply-adds.
pub(crate) fn dots(pairs: [(&[f32], &[f32]); PAIRS]) -> [f32; PAIRS] {
    let length = pairs[0].0.len();
    assert!(pairs.iter().all(|(x, e)| x.len() == length && e.len() == length));
    #[cfg(target_arch = "x86_64")]
    if available() {
        // SAFETY: the processor has the instructions, and all rows have `length` numbers.
        return unsafe { x86::dots(length, pairs.map(|(x, e)| (x.as_ptr(), e.as_ptr()))) };
    }
    pairs.map(|(x, e)| x.iter().zip(e).fold(0.0, |sum: f32, (x, e)| x.mul_add(*e, sum)))
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Line, N, PAIRS, STEP, Tile};
    use std::arch::x86_64::*;

    /// # Safety
    /// The checks of [`Tile::run`], for M rows.
    #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx512vnni,avx2,fma")]
    pub(super) unsafe fn tile<const M: usize>(t: &mut Tile) {
        // SAFETY: the caller's promise.
        unsafe {
            let mut sums = [[_mm512_setzero_si512(); N]; M];
            let mut left = [std::ptr::null::<i32>(); M];
            for r in 0..M {
                sums[r] = [_mm512_set1_epi32(t.terms[r].start); N];
                left[r] = t.left.as_ptr().add(r * t.steps * STEP).cast();
            }
            let panel: *const __m512i = t.panel.as_ptr().cast();
            for step in 0..t.steps {
                let mut right = [_mm512_setzero_si512(); N];
                for j in 0..N {
                    right[j] = _mm512_load_si512(panel.add(step * N + j));
                }
                for r in 0..M {
                    let x = _mm512_set1_epi32(left[r].add(step).read_unaligned());
                    for j in 0..N {
                        sums[r][j] = _mm512_dpbusd_epi32(sums[r][j], right[j], x);
                    }
                }
            }
            // A copy, so that the loop above need not keep the array in memory for the loops below.
            let mut done = [[_mm512_setzero_si512(); N]; M];
            for r in 0..M {
                for j in 0..N {
                    done[r][j] = sums[r][j];
                }
            }
            for r in 0..M {
                let (scale, margin) = (_mm512_set1_ps(t.terms[r].scale), _mm512_set1_ps(t.terms[r].margin));
                let mut bounds = [_mm512_setzero_ps(); N];
                for j in 0..N {
                    let own = _mm512_fmadd_ps(_mm512_cvtepi32_ps(done[r][j]), scale, margin);
                    bounds[j] = _mm512_fmadd_ps(own, load(&t.scales[j]), load(&t.biases[j]));
                    let to = t.bounds.as_mut_ptr().add(r * t.bounds_stride + j);
                    _mm512_store_ps(to.cast(), bounds[j]);
                }
                let top = _mm512_max_ps(_mm512_max_ps(bounds[0], bounds[1]), _mm512_max_ps(bounds[2], bounds[3]));
                _mm512_store_ps(t.tops.as_mut_ptr().add(r * t.tops_stride).cast(), top);
            }
        }
    }

    /// # Safety
    /// A processor with AVX-512.
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn load(line: &Line<f32>) -> __m512 {
        // SAFETY: a line is 16 numbers at an address that 64 divides.
        unsafe { _mm512_load_ps(line.0.as_ptr()) }
    }

    /// A bit for each line that has a number of at least `threshold`.
    ///
    /// # Safety
    /// A processor with AVX-512.
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn lines_at_least(lines: &[Line<f32>], threshold: f32) -> u64 {
        let threshold = _mm512_set1_ps(threshold);
        let mut bits = 0;
        for (i, line) in lines.iter().enumerate() {
            // SAFETY: the caller's promise.
            let mask = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(unsafe { load(line) }, threshold);
            bits |= u64::from(mask != 0) << i;
        }
        bits
    }

    /// A bit for each number of a panel's lines that is at least `threshold`.
    ///
    /// # Safety
    /// A processor with AVX-512.
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn numbers_at_least(lines: &[Line<f32>; N], threshold: f32) -> u64 {
        let threshold = _mm512_set1_ps(threshold);
        let mut bits = 0;
        for (i, line) in lines.iter().enumerate() {
            // SAFETY: the caller's promise.
            let mask = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(unsafe { load(line) }, threshold);
            bits |= u64::from(mask) << (16 * i);
        }
        bits
    }

    /// # Safety
    /// A processor with AVX-512.
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn leader(tops: &[Line<f32>], bounds: &[Line<f32>]) -> (f32, u32) {
        // SAFETY: the caller's promise.
        unsafe {
            let mut most = _mm512_set1_ps(f32::NEG_INFINITY);
            for line in tops {
                most = _mm512_max_ps(most, load(line));
            }
            let most = _mm512_reduce_max_ps(most);
            let panels = bounds.as_chunks::<N>().0;
            let panel = (lines_at_least(tops, most).trailing_zeros() as usize).min(panels.len() - 1);
            let lane = numbers_at_least(&panels[panel], most).trailing_zeros();
            (most, (panel * 16 * N) as u32 + lane)
        }
    }

    /// # Safety
    /// A processor with AVX-512.
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn rivals(
        tops: &[Line<f32>],
        bounds: &[Line<f32>],
        threshold: f32,
        mut found: impl FnMut(u32) -> bool,
    ) {
        let panels = bounds.as_chunks::<N>().0;
        // SAFETY: the caller's promise.
        let mut lines = unsafe { lines_at_least(tops, threshold) };
        while lines != 0 {
            let panel = lines.trailing_zeros() as usize;
            lines &= lines - 1;
            // SAFETY: the caller's promise.
            let mut lanes = unsafe { numbers_at_least(&panels[panel], threshold) };
            while lanes != 0 {
                if !found((panel * 16 * N) as u32 + lanes.trailing_zeros()) {
                    return;
                }
                lanes &= lanes - 1;
            }
        }
    }

    /// # Safety
    /// A processor with FMA; rows of `length` numbers.
    #[target_feature(enable = "fma")]
    pub(super) unsafe fn dots(length: usize, pairs: [(*const f32, *const f32); PAIRS]) -> [f32; PAIRS] {
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
    fn the_instructions_give_the_bits_of_plain_rust() {
        for (rows, steps) in (1..=ROWS).flat_map(|rows| [0, 1, 7, 64].map(|steps| (rows, steps))) {
            let bytes = Rng::new(1, "test", 0).below((rows + N * 16) * steps * STEP, 255);
            let left: Vec<i8> = bytes.iter().map(|&x| x as u8 as i8).collect();
            let words = bytes[rows * steps * STEP..].as_chunks::<STEP>().0;
            let words: Vec<u32> = words.iter().map(|four| u32::from_le_bytes(four.map(|x| x as u8))).collect();
            let panel: Vec<Line<u32>> = words.as_chunks().0.iter().map(|&line| Line(line)).collect();
            let terms: Vec<Terms> =
                (0..rows).map(|r| Terms { start: r as i32 * -999, scale: 0.1 + r as f32, margin: 3.3 }).collect();
            let (scales, biases) = (lines(N, 2), lines(N, 3));
            let run = |plain: bool| {
                let (mut bounds, mut tops) = (vec![Line([7.0; 16]); rows * 5], vec![Line([7.0; 16]); rows * 2]);
                let mut tile = Tile {
                    left: &left,
                    terms: &terms,
                    steps,
                    panel: &panel,
                    scales: &scales,
                    biases: &biases,
                    bounds: &mut bounds,
                    bounds_stride: 5,
                    tops: &mut tops,
                    tops_stride: 2,
                };
                if plain {
                    tile.run_plain()
                } else {
                    tile.run()
                }
                (bounds, tops)
            };
            assert_eq!(run(false), run(true), "{rows} rows, {steps} steps");
        }
    }

    #[test]
    fn leaders_and_rivals_are_where_they_are() {
        for panels in [1, 2, 7, 64] {
            let bounds = lines(panels * N, 4);
            let all: Vec<f32> = bounds.iter().flat_map(|line| line.0).collect();
            let top =
                |four: &[Line<f32>; N]| Line(std::array::from_fn(|i| four.iter().fold(f32::MIN, |m, l| m.max(l.0[i]))));
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

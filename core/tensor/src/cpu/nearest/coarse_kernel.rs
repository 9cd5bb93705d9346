//! The innermost loop of the search by int8 or int16 bounds: upper bounds of the scores of a few rows and a panel of codes. For
//! AVX-512 with VNNI, which multiplies and adds 64 pairs of bytes at once, for AVX2, which does so with 16 pairs of words,
//! and in plain Rust, for comparison.

#![allow(unsafe_code)]

use crate::cpu::isa::{Level, level};
use crate::cpu::nearest::coarse::{LINES, Line, Terms, Width};

/// The most rows of a tile.
pub(crate) const ROWS: usize = 6;

/// The integers that this processor multiplies faster than f32, if it does.
pub(crate) fn quick() -> Option<Width> {
    [Width::Int8, Width::Int16].into_iter().find(|width| width.is_quick())
}

impl Width {
    /// Whether the processor has the instructions that make a search in these numbers worth while.
    fn is_quick(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return match self {
            Self::Int8 => level() == Level::Avx512 && is_x86_feature_detected!("avx512vnni"),
            Self::Int16 => level() >= Level::Avx2,
        };
        #[cfg(not(target_arch = "x86_64"))]
        return false;
    }
}

/// Upper bounds of the scores of some rows and the 64 codes of a panel.
pub(crate) struct Tile<'a> {
    pub(crate) width: Width,
    /// The quantised rows, `steps` each.
    pub(crate) left: &'a [u32],
    /// One for each row, up to [`ROWS`].
    pub(crate) terms: &'a [Terms],
    pub(crate) steps: usize,
    /// As [`crate::cpu::nearest::coarse::Coarse`] has it.
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
        assert!(self.left.len() >= rows * self.steps && self.panel.len() >= self.steps * LINES);
        assert!(self.scales.len() >= LINES && self.biases.len() >= LINES);
        assert!(self.bounds.len() >= (rows - 1) * self.bounds_stride + LINES);
        assert!(self.tops.len() > (rows - 1) * self.tops_stride);
        #[cfg(target_arch = "x86_64")]
        if self.width.is_quick() {
            let tiles = match self.width {
                Width::Int8 => &vnni::TILES,
                Width::Int16 => &avx2::TILES,
            };
            // SAFETY: the processor has the instructions, and all slices the lengths that the sizes need.
            return unsafe { tiles[rows - 1](self) };
        }
        self.run_plain();
    }

    fn run_plain(&mut self) {
        let product = |x: u32, e: u32| -> i32 {
            let words = |x: u32| [x as i16, (x >> 16) as i16].map(i32::from);
            match self.width {
                Width::Int8 => {
                    x.to_ne_bytes().iter().zip(e.to_ne_bytes()).map(|(x, e)| i32::from(*x as i8) * i32::from(e)).sum()
                }
                Width::Int16 => words(x).iter().zip(words(e)).map(|(x, e)| x * e).sum(),
            }
        };
        for (r, terms) in self.terms.iter().enumerate() {
            let row = &self.left[r * self.steps..][..self.steps];
            let mut top = [f32::NEG_INFINITY; 16];
            for line in 0..LINES {
                for lane in 0..16 {
                    let code = |step| self.panel[self.width.index(self.steps, step, line)].0[lane];
                    let products = row.iter().enumerate().map(|(step, x)| product(*x, code(step)));
                    let sum = products.fold(terms.start, |sum, product| sum + product);
                    let own = (sum as f32).mul_add(terms.scale, terms.margin);
                    let bound = own.mul_add(self.scales[line].0[lane], self.biases[line].0[lane]);
                    self.bounds[r * self.bounds_stride + line].0[lane] = bound;
                    top[lane] = top[lane].max(bound);
                }
            }
            self.tops[r * self.tops_stride] = Line(top);
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod vnni {
    use super::{ROWS, Tile};
    use crate::cpu::nearest::coarse::{LINES as N, Line};
    use std::arch::x86_64::*;

    pub(crate) const TILES: [unsafe fn(&mut Tile<'_>); ROWS] =
        [tile::<1>, tile::<2>, tile::<3>, tile::<4>, tile::<5>, tile::<6>];

    /// # Safety
    /// The checks of [`Tile::run`], for M rows.
    #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx512vnni,avx2,fma")]
    unsafe fn tile<const M: usize>(t: &mut Tile<'_>) {
        // SAFETY: the caller's promise.
        unsafe {
            let mut sums = [[_mm512_setzero_si512(); N]; M];
            let mut left = [std::ptr::null::<i32>(); M];
            for r in 0..M {
                sums[r] = [_mm512_set1_epi32(t.terms[r].start); N];
                left[r] = t.left.as_ptr().add(r * t.steps).cast();
            }
            let panel: *const __m512i = t.panel.as_ptr().cast();
            for step in 0..t.steps {
                let mut right = [_mm512_setzero_si512(); N];
                for j in 0..N {
                    right[j] = _mm512_load_si512(panel.add(step * N + j));
                }
                for r in 0..M {
                    let x = _mm512_set1_epi32(*left[r].add(step));
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
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::{ROWS, Tile};
    use crate::cpu::nearest::coarse::LINES;
    use std::arch::x86_64::*;

    /// Vectors of a line.
    const N: usize = 2;

    pub(crate) const TILES: [unsafe fn(&mut Tile<'_>); ROWS] =
        [tile::<1>, tile::<2>, tile::<3>, tile::<4>, tile::<5>, tile::<6>];

    /// A line of codes after another, since the sums of more would not fit the registers.
    ///
    /// # Safety
    /// The checks of [`Tile::run`], for M rows.
    #[target_feature(enable = "avx2,fma")]
    unsafe fn tile<const M: usize>(t: &mut Tile<'_>) {
        // SAFETY: the caller's promise.
        unsafe {
            let mut tops = [[_mm256_set1_ps(f32::NEG_INFINITY); N]; M];
            for line in 0..LINES {
                let done = products::<M>(t, line);
                let at = |from: *const f32, j: usize| _mm256_load_ps(from.add(j * 8));
                for j in 0..N {
                    let scales = at(t.scales[line].0.as_ptr(), j);
                    let biases = at(t.biases[line].0.as_ptr(), j);
                    for r in 0..M {
                        let (scale, margin) = (_mm256_set1_ps(t.terms[r].scale), _mm256_set1_ps(t.terms[r].margin));
                        let own = _mm256_fmadd_ps(_mm256_cvtepi32_ps(done[r][j]), scale, margin);
                        let bounds = _mm256_fmadd_ps(own, scales, biases);
                        let to: *mut f32 = t.bounds.as_mut_ptr().add(r * t.bounds_stride + line).cast();
                        _mm256_store_ps(to.add(j * 8), bounds);
                        tops[r][j] = _mm256_max_ps(bounds, tops[r][j]);
                    }
                }
            }
            for r in 0..M {
                let to: *mut f32 = t.tops.as_mut_ptr().add(r * t.tops_stride).cast();
                for j in 0..N {
                    _mm256_store_ps(to.add(j * 8), tops[r][j]);
                }
            }
        }
    }

    /// The sums of products of M rows and the codes of a line.
    ///
    /// # Safety
    /// As for [`tile`].
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn products<const M: usize>(t: &Tile<'_>, line: usize) -> [[__m256i; N]; M] {
        // SAFETY: the caller's promise.
        unsafe {
            let mut sums = [[_mm256_setzero_si256(); N]; M];
            let mut left = [std::ptr::null::<i32>(); M];
            for r in 0..M {
                sums[r] = [_mm256_set1_epi32(t.terms[r].start); N];
                left[r] = t.left.as_ptr().add(r * t.steps).cast();
            }
            let panel: *const __m256i = t.panel.as_ptr().add(line * t.steps).cast();
            for step in 0..t.steps {
                let right = [_mm256_load_si256(panel.add(step * N)), _mm256_load_si256(panel.add(step * N + 1))];
                for r in 0..M {
                    let x = _mm256_set1_epi32(*left[r].add(step));
                    for j in 0..N {
                        sums[r][j] = _mm256_add_epi32(sums[r][j], _mm256_madd_epi16(right[j], x));
                    }
                }
            }
            // A copy, so that the loop above need not keep the array in memory for the caller.
            let mut done = [[_mm256_setzero_si256(); N]; M];
            for r in 0..M {
                for j in 0..N {
                    done[r][j] = sums[r][j];
                }
            }
            done
        }
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

    /// Steps of any bytes, or of words of up to 2^11, whose products sum up without overflow.
    fn steps(width: Width, n: usize) -> Vec<u32> {
        let below = if width == Width::Int8 { 1 << 8 } else { 1 << 12 };
        let parts = Rng::new(1, "test", 0).below(4 * n, below);
        let step = |four: &[u32; 4]| match width {
            Width::Int8 => u32::from_ne_bytes(four.map(|x| x as u8)),
            Width::Int16 => {
                let [low, high] = [four[0], four[1]].map(|x| u32::from((x as i16 - (1 << 11)) as u16));
                low | high << 16
            }
        };
        parts.as_chunks().0.iter().map(step).collect()
    }

    #[test]
    fn the_instructions_give_the_bits_of_plain_rust() {
        for (width, rows, n) in [Width::Int8, Width::Int16]
            .into_iter()
            .flat_map(|width| (1..=ROWS).flat_map(move |rows| [0, 1, 7, 64].map(|n| (width, rows, n))))
        {
            let numbers = steps(width, (rows + LINES * 16) * n);
            let (left, panel) = numbers.split_at(rows * n);
            let panel: Vec<Line<u32>> = panel.as_chunks().0.iter().map(|&line| Line(line)).collect();
            let terms: Vec<Terms> =
                (0..rows).map(|r| Terms { start: r as i32 * -999, scale: 0.1 + r as f32, margin: 3.3 }).collect();
            let (scales, biases) = (lines(LINES, 2), lines(LINES, 3));
            let run = |plain: bool| {
                let (mut bounds, mut tops) = (vec![Line([7.0; 16]); rows * 5], vec![Line([7.0; 16]); rows * 2]);
                let mut tile = Tile {
                    width,
                    left,
                    terms: &terms,
                    steps: n,
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
            assert_eq!(run(false), run(true), "{width:?}, {rows} rows, {n} steps");
        }
    }
}

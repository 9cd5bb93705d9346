//! Nearest rows of a codebook, and distances to all of them.

#![allow(unsafe_code)]

pub(crate) mod averages;
pub(crate) mod coarse;
pub(crate) mod coarse_kernel;
pub(crate) mod coarse_scan;
pub(crate) mod score;
pub(crate) mod sift;

use crate::cpu::Output;
use crate::cpu::gemm::kernel::{Dots, Kernels};
use crate::cpu::gemm::pack;
use crate::cpu::gemm::product::tiles;
use crate::cpu::gemm::{self, TASK};
use crate::cpu::isa::simd;
use crate::cpu::memory::scratch::scratch;
use crate::cpu::nearest::coarse::{Coarse, FEWEST_CHANNELS, Width};
use crate::cpu::nearest::coarse_kernel::quick;
use crate::cpu::nearest::score::Scores;
use crate::cpu::threads::split;
use rayon::prelude::*;
use std::cell::RefCell;
use std::ops::RangeInclusive;
use std::ptr::null;
use std::sync::OnceLock;

/// Tiles of rows in a piece: their best scores stay in the second-level cache while the codebook passes by.
const TILES: usize = 16;
/// From these sizes on a search by int8 or int16 bounds is faster than one in f32.
const SIFT_ROWS: usize = 256;
const SIFT_SIZE: usize = 256;
const SIFT_CHANNELS: RangeInclusive<usize> = FEWEST_CHANNELS..=8192;

/// The sum of squares of every row of `channels` numbers.
fn squares(kernels: &Kernels, channels: usize, rows: &[f32], squares: &mut [f32]) {
    squares.par_iter_mut().with_min_len(256).enumerate().for_each(|(i, square)| {
        let row = rows[i * channels..(i + 1) * channels].as_ptr();
        let (left, out) = ([row], [std::ptr::from_mut(square)]);
        let dots = Dots {
            left: left.as_ptr(),
            groups: 1,
            depth: channels,
            right: row,
            right_stride: channels,
            bias: null(),
            out: out.as_ptr(),
            accumulate: false,
        };
        // SAFETY: both operands are a row of `channels` numbers, and there is one result.
        unsafe { kernels.dots(1, 1, &dots) };
    });
}

/// A codebook `[size, channels]` prepared for searches: the nearest code of x has the largest score, `x·e - |e|²/2`.
///
/// What a search needs is made when it is first needed, once: the codebook in panels, or scalar-quantised.
pub(crate) struct Search {
    kernels: &'static Kernels,
    size: usize,
    channels: usize,
    /// `-|e|²/2`; minus infinity for columns that pad the last panel, so that they never win.
    biases: Vec<f32>,
    panels: OnceLock<Vec<f32>>,
    width: Width,
    coarse: OnceLock<Option<Coarse>>,
}

/// What a thread keeps from piece to piece, and from call to call.
#[derive(Default)]
struct Memory {
    residual: Vec<f32>,
    codes: Vec<u32>,
    sift: sift::Memory,
    left: Vec<u32>,
}

thread_local! {
    static MEMORY: RefCell<Memory> = RefCell::default();
}

impl Search {
    pub(crate) fn new(size: usize, channels: usize, codebook: &[f32]) -> Self {
        Self::with(Kernels::best(), size, channels, codebook)
    }

    fn with(kernels: &'static Kernels, size: usize, channels: usize, codebook: &[f32]) -> Self {
        let mut biases = vec![f32::NEG_INFINITY; size.next_multiple_of(kernels.width)];
        squares(kernels, channels, codebook, &mut biases[..size]);
        biases[..size].iter_mut().for_each(|bias| *bias *= -0.5);
        let width = quick().unwrap_or(Width::Int8);
        Self { kernels, size, channels, biases, panels: OnceLock::new(), width, coarse: OnceLock::new() }
    }

    /// The codebook in panels. Inside a piece of work one thread makes them: a thread that waits for others takes other
    /// pieces, which would wait for it.
    fn panels(&self, codebook: &[f32], alone: bool) -> &[f32] {
        self.panels.get_or_init(|| {
            let (channels, width) = (self.channels, self.kernels.width);
            let mut panels = vec![0.0; self.biases.len() * channels];
            let alone = if alone { usize::MAX } else { TASK / 16 };
            split::each_chunk(&mut panels, channels * width, alone, |(j, panel)| {
                let first = j * width;
                let rows = &codebook[first * channels..];
                pack::transposed(rows, channels, (self.size - first).min(width), channels, width, panel);
            });
            panels
        })
    }

    /// The codebook in scalar-quantised form, if it has one.
    fn coarse(&self, codebook: &[f32]) -> Option<&Coarse> {
        let make = || Coarse::new(self.width, self.channels, codebook, &self.biases[..self.size]);
        self.coarse.get_or_init(make).as_ref()
    }

    /// Whether a search by int8 or int16 bounds pays.
    fn sifts(&self, rows: usize) -> bool {
        let best = std::ptr::eq(self.kernels, Kernels::best()) && quick().is_some();
        best && rows >= SIFT_ROWS && self.size >= SIFT_SIZE && SIFT_CHANNELS.contains(&self.channels)
    }

    /// The codes of one piece of rows.
    fn piece(&self, codebook: &[f32], coarse: Option<&Coarse>, x: &[f32], codes: &mut [u32], memory: &mut Memory) {
        let find = |x: &[f32], codes: &mut [u32]| {
            search(self.kernels, self.channels, x, self.panels(codebook, true), &self.biases, codes);
        };
        let Some(coarse) = coarse else { return find(x, codes) };
        let exact = sift::Exact { codebook, biases: &self.biases };
        memory.left.clear();
        sift::nearest(coarse, &exact, x, codes, &mut memory.sift, &mut memory.left);
        if !memory.left.is_empty() {
            let row = |&r: &u32| &x[r as usize * self.channels..][..self.channels];
            let rows: Vec<f32> = memory.left.iter().flat_map(row).copied().collect();
            let mut found = vec![0; memory.left.len()];
            find(&rows, &mut found);
            memory.left.iter().zip(found).for_each(|(&r, code)| codes[r as usize] = code);
        }
    }
}

/// The codes `[N]` of `x [N, channels]`.
pub(crate) fn nearest(search: &Search, codebook: &[f32], x: &[f32], codes: &mut [u32]) {
    let sifts = search.sifts(codes.len());
    residual_codes_with(&[(search, codebook)], sifts, x, codes);
}

/// Greedy residual codes `[N, D]` of `x [N, channels]`: at each of D depths the nearest row of that depth's codebook to what
/// the depths before it left.
pub(crate) fn residual_codes(books: &[(&Search, &[f32])], x: &[f32], codes: &mut [u32]) {
    let rows = codes.len() / books.len().max(1);
    let sifts = books.iter().all(|(search, _)| search.sifts(rows));
    residual_codes_with(books, sifts, x, codes);
}

/// Each piece of rows goes through all depths at once, so that its residuals stay in the caches.
fn residual_codes_with(books: &[(&Search, &[f32])], sifts: bool, x: &[f32], codes: &mut [u32]) {
    let (depth, channels) = (books.len(), books.first().map_or(0, |(search, _)| search.channels));
    if codes.is_empty() || channels == 0 {
        return codes.fill(0);
    }
    let coarse: Vec<_> =
        books.iter().map(|(search, codebook)| sifts.then(|| search.coarse(codebook)).flatten()).collect();
    for ((search, codebook), coarse) in books.iter().zip(&coarse) {
        if coarse.is_none() {
            search.panels(codebook, false);
        }
    }
    let most = if sifts { sift::PIECE } else { TILES * books[0].0.kernels.rows };
    // As many pieces for each thread.
    let (rows, threads) = (codes.len() / depth, rayon::current_num_threads());
    let pieces = rows.div_ceil(most).next_multiple_of(threads);
    let piece_rows = rows.div_ceil(pieces);
    let tasks = codes.par_chunks_mut(piece_rows * depth).zip(x.par_chunks(piece_rows * channels));
    tasks.for_each(|(codes, x)| {
        // Taken for the time of the piece.
        let mut memory = MEMORY.take();
        let (mut residual, mut own) = (std::mem::take(&mut memory.residual), std::mem::take(&mut memory.codes));
        own.resize(codes.len() / depth, 0);
        residual.resize(if depth > 1 { x.len() } else { 0 }, 0.0);
        for (d, ((search, codebook), coarse)) in books.iter().zip(&coarse).enumerate() {
            let from = if d == 0 { x } else { &residual };
            search.piece(codebook, *coarse, from, &mut own, &mut memory);
            codes.iter_mut().skip(d).step_by(depth).zip(&own).for_each(|(to, code)| *to = *code);
            if d + 1 < depth {
                if d == 0 {
                    residual.copy_from_slice(x);
                }
                subtract(&mut residual, channels, codebook, &own);
            }
        }
        (memory.residual, memory.codes) = (residual, own);
        MEMORY.set(memory);
    });
}

simd! {
    /// Takes from every row of `x` its code.
    fn subtract(x: &mut [f32], channels: usize, codebook: &[f32], codes: &[u32]) {
        for (x, &code) in x.chunks_exact_mut(channels).zip(codes) {
            for (x, e) in x.iter_mut().zip(&codebook[code as usize * channels..][..channels]) {
                *x -= e;
            }
        }
    }
}

/// The rows of one piece against all panels. Every lane of a panel keeps its own best score and the panel it came from.
fn search(kernels: &Kernels, channels: usize, x: &[f32], panels: &[f32], biases: &[f32], codes: &mut [u32]) {
    let (rows, width) = (codes.len(), kernels.width);
    scratch(rows * width, |best| {
        best.fill(f32::NEG_INFINITY);
        let mut best_panel = vec![0u32; rows * width];
        for (j, (panel, biases)) in panels.chunks_exact(channels * width).zip(biases.chunks_exact(width)).enumerate() {
            for (first, height) in tiles(rows, kernels.rows) {
                Scores {
                    x: &x[first * channels..(first + height) * channels],
                    channels,
                    panel,
                    biases,
                    best: &mut best[first * width..],
                    best_panel: &mut best_panel[first * width..],
                    index: j as u32,
                }
                .run(kernels);
            }
        }
        let lanes = best.chunks_exact(width).zip(best_panel.chunks_exact(width));
        codes.iter_mut().zip(lanes).for_each(|(code, (best, panels))| *code = winner(best, panels));
    });
}

simd! {
    /// Of the columns' best scores the largest, and of equal ones that of the lowest code.
    fn winner(best: &[f32], panels: &[u32]) -> u32 {
        let (width, mut lanes) = (best.len() as u32, [f32::NEG_INFINITY; 8]);
        for best in best.as_chunks().0 {
            for (lane, &best) in lanes.iter_mut().zip::<&[f32; 8]>(best) {
                *lane = if best > *lane { best } else { *lane };
            }
        }
        let most = lanes.into_iter().fold(f32::NEG_INFINITY, f32::max);
        let codes = best.iter().zip(panels).zip(0..width);
        codes.map(|((&score, &panel), lane)| if score == most { panel * width + lane } else { u32::MAX }).fold(u32::MAX, u32::min)
    }
}

/// `distances [.., size]`.
pub(crate) fn squared_distances<'a>(
    size: usize,
    channels: usize,
    x: &[f32],
    codebook: &[f32],
    distances: Output<'a>,
) -> &'a mut [f32] {
    if distances.is_empty() {
        return distances.zeros();
    }
    let kernels = Kernels::best();
    let mut norms = vec![0.0; size];
    squares(kernels, channels, codebook, &mut norms);
    let mut own = vec![0.0; distances.len() / size];
    squares(kernels, channels, x, &mut own);
    let distances = gemm::nt(size, channels, x, codebook, None, distances);
    let rows = (crate::cpu::loops::elementwise::GRAIN / size).max(1);
    distances.par_chunks_mut(rows * size).zip(own.par_chunks(rows)).for_each(|(rows, own)| {
        for (row, own) in rows.chunks_exact_mut(size).zip(own) {
            expand(row, *own, &norms);
        }
    });
    distances
}

simd! {
    fn expand(row: &mut [f32], own: f32, norms: &[f32]) {
        for (d, norm) in row.iter_mut().zip(norms) {
            *d = own - 2.0 * *d + norm;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests stop at the first failure")]
mod tests {
    use super::*;
    use crate::Rng;
    use crate::cpu::isa::{Level, level};

    /// Small integers, for which scores are exact: all levels must agree on every code, ties included.
    #[test]
    fn every_level_finds_the_same_codes() {
        for (rows, size, channels) in [(1, 1, 1), (15, 33, 3), (100, 70, 17), (230, 129, 64)] {
            let whole = |n: usize, seed| -> Vec<f32> {
                Rng::new(seed, "test", 0).below(n * channels, 5).into_iter().map(|x| x as f32 - 2.0).collect()
            };
            let (x, e) = (whole(rows, 1), whole(size, 2));
            let find = |level| {
                let mut codes = vec![u32::MAX; rows];
                let search = Search::with(Kernels::of(level), size, channels, &e);
                residual_codes_with(&[(&search, &e)], false, &x, &mut codes);
                codes
            };
            let wanted = find(Level::Baseline);
            for other in [Level::Avx2, Level::Avx512].into_iter().filter(|&l| l <= level()) {
                assert_eq!(find(other), wanted, "{other:?} on {rows} x {size} x {channels}");
            }
        }
    }

    /// Codes of `x` by the f32 search, and by way of bounds in bytes and in words, which must be the same.
    fn each_way(size: usize, channels: usize, x: &[f32], e: &[f32]) -> [Vec<u32>; 3] {
        [None, Some(Width::Int8), Some(Width::Int16)].map(|sifts| {
            let mut search = Search::new(size, channels, e);
            search.width = sifts.unwrap_or(search.width);
            let mut codes = vec![u32::MAX; x.len() / channels];
            residual_codes_with(&[(&search, e)], sifts.is_some(), x, &mut codes);
            codes
        })
    }

    /// Sums of products are fused, as the scores after bounds are.
    fn fused() -> bool {
        level() >= Level::Avx2
    }

    #[test]
    fn bounds_rule_out_no_nearest_code() {
        let draw = |n: usize, seed| Rng::new(seed, "test", 0).normal(n);
        let times = |x: &[f32], by: f32| x.iter().map(|x| x * by).collect::<Vec<f32>>();
        for (rows, size, channels) in
            [(1, 1, 1), (7, 130, 3), (97, 1100, 5), (200, 64, 17), (100, 300, 64), (9, 2100, 130)]
        {
            let (x, e) = (draw(rows * channels, 1), draw(size * channels, 2));
            let mut cases = vec![(x.clone(), e.clone())];
            // Tiny and huge numbers, on either side and on both; 1e-42 is subnormal, 1e-30 has squares that are.
            for by in [1e-42, 1e-30, 1e-12, 1e3, 1e15, 1e18, 1e30] {
                cases.extend([(times(&x, by), e.clone()), (x.clone(), times(&e, by)), (times(&x, by), times(&e, by))]);
            }
            // Rows and codes of all scales at once.
            let mixed = |x: &[f32], seed| -> Vec<f32> {
                let powers = Rng::new(seed, "test", 1).below(x.len() / channels, 30);
                x.chunks(channels).zip(powers).flat_map(|(x, p)| times(x, 2.0f32.powi(p as i32 - 25))).collect()
            };
            cases.push((mixed(&x, 3), mixed(&e, 4)));
            // Near ties: codes that differ in their last bits, around each of a few.
            let near = |i: usize| e[i % (3 * channels).min(e.len())] * (1.0 + (i * 7919 % 5) as f32 * f32::EPSILON);
            cases.push((x.clone(), (0..e.len()).map(near).collect()));
            cases.push(((0..x.len()).map(near).collect(), (0..e.len()).map(near).collect()));
            // Copies, constants, zeros, one channel that outweighs the others.
            cases.push((x.clone(), e[..channels].repeat(size)));
            cases.push((vec![1.0; x.len()], vec![1.0; e.len()]));
            cases.push((vec![0.0; x.len()], e.clone()));
            cases.push((x.clone(), vec![0.0; e.len()]));
            let outlier =
                |x: &[f32]| x.iter().enumerate().map(|(i, x)| if i % channels == 0 { 1e4 * x } else { *x }).collect();
            cases.push((outlier(&x), outlier(&e)));
            // What is not finite.
            let unbounded =
                |x: &[f32], bad: f32| x.iter().enumerate().map(|(i, x)| if i % 37 == 5 { bad } else { *x }).collect();
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX] {
                cases.extend([(unbounded(&x, bad), e.clone()), (x.clone(), unbounded(&e, bad))]);
            }
            for (i, (x, e)) in cases.iter().enumerate().filter(|_| fused()) {
                let [wanted, bytes, words] = each_way(size, channels, x, e);
                assert_eq!(bytes, wanted, "bytes, case {i} of {rows} x {size} x {channels}");
                assert_eq!(words, wanted, "words, case {i} of {rows} x {size} x {channels}");
            }
        }
    }

    /// The definition of the score, with sums in order, and its winner.
    #[test]
    fn the_first_of_the_largest_scores_wins() {
        for (rows, size, channels) in [(70, 200, 16), (65, 129, 33)] {
            let (x, e) = (Rng::new(1, "x", 0).normal(rows * channels), Rng::new(2, "e", 0).normal(size * channels));
            let search = Search::new(size, channels, &e);
            let score = |x: &[f32], code: usize| {
                let row = &e[code * channels..(code + 1) * channels];
                x.iter().zip(row).fold(0.0, |sum: f32, (x, e)| x.mul_add(*e, sum)) + search.biases[code]
            };
            for found in each_way(size, channels, &x, &e).iter().filter(|_| fused()) {
                for (x, code) in x.chunks(channels).zip(found) {
                    let scores: Vec<f32> = (0..size).map(|code| score(x, code)).collect();
                    let most = scores.iter().copied().fold(f32::MIN, f32::max);
                    assert_eq!(scores.iter().position(|&s| s == most), Some(*code as usize));
                }
            }
        }
    }
}

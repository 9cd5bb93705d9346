//! Nearest rows of a codebook, distances to all of them, and sums per code.

#![allow(unsafe_code)]

use super::dispatch::simd;
use super::gemm::{self, Shared, TASK};
use super::kernel::{Dots, Kernels, MAX_ROWS, Tile};
use super::product::tiles;
use super::scratch::scratch;
use super::{pack, split};
use rayon::prelude::*;
use std::ptr::{null, null_mut};

/// Tiles of rows in a piece: their best scores stay in the second-level cache while the codebook passes by.
const TILES: usize = 16;

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

/// The index of the row of `codebook [size, channels]` nearest to each row of `x`: the one with the largest
/// `x·e - |e|²/2`.
pub(crate) fn nearest(size: usize, channels: usize, x: &[f32], codebook: &[f32], codes: &mut [u32]) {
    nearest_with(Kernels::best(), size, channels, x, codebook, codes);
}

fn nearest_with(kernels: &Kernels, size: usize, channels: usize, x: &[f32], codebook: &[f32], codes: &mut [u32]) {
    if codes.is_empty() || channels == 0 {
        return codes.fill(0);
    }
    let width = kernels.width;
    let padded = size.next_multiple_of(width);
    scratch(padded * (channels + 1), |memory| {
        let (panels, biases) = memory.split_at_mut(padded * channels);
        split::each_chunk(panels, channels * width, TASK / 16, |(j, panel)| {
            let first = j * width;
            let rows = &codebook[first * channels..];
            pack::transposed(rows, channels, (size - first).min(width), channels, width, panel);
        });
        // Columns that pad the last panel never win.
        let (halves, pad) = biases.split_at_mut(size);
        squares(kernels, channels, codebook, halves);
        halves.iter_mut().for_each(|half| *half *= -0.5);
        pad.fill(f32::NEG_INFINITY);

        let rows = TILES * kernels.rows;
        let (panels, biases) = (&*panels, &*biases);
        codes.par_chunks_mut(rows).enumerate().for_each(|(piece, codes)| {
            search(kernels, channels, &x[piece * rows * channels..], panels, biases, codes);
        });
    });
}

/// The rows of one piece against all panels. Every lane of a panel keeps its own best score and the panel it came from.
fn search(kernels: &Kernels, channels: usize, x: &[f32], panels: &[f32], biases: &[f32], codes: &mut [u32]) {
    let (rows, width) = (codes.len(), kernels.width);
    let tile_size = kernels.rows * width;
    scratch(rows * width + tile_size, |memory| {
        let (best, scores) = memory.split_at_mut(rows * width);
        best.fill(f32::NEG_INFINITY);
        let mut best_panel = vec![0u32; rows * width];
        let mut out = [null_mut(); MAX_ROWS];
        for (r, out) in out.iter_mut().enumerate().take(kernels.rows) {
            *out = scores[r * width..].as_mut_ptr();
        }
        for (j, (panel, bias)) in panels.chunks_exact(channels * width).zip(biases.chunks_exact(width)).enumerate() {
            for (first, height) in tiles(rows, kernels.rows) {
                let mut left = [null(); MAX_ROWS];
                for (r, left) in left[..height].iter_mut().enumerate() {
                    *left = x[(first + r) * channels..].as_ptr();
                }
                let tile = Tile {
                    left: left.as_ptr(),
                    groups: 1,
                    depth: channels,
                    step: 0,
                    panel: panel.as_ptr(),
                    bias: bias.as_ptr(),
                    out: out.as_ptr(),
                    columns: width,
                    accumulate: false,
                };
                // SAFETY: rows of `x` and columns of the panel have `channels` numbers, and `scores` holds a tile.
                unsafe { kernels.tile(height, false, &tile) };
                let lanes = first * width..(first + height) * width;
                keep_larger(&scores[..height * width], &mut best[lanes.clone()], &mut best_panel[lanes], j as u32);
            }
        }
        for (r, code) in codes.iter_mut().enumerate() {
            let lanes = best[r * width..(r + 1) * width].iter().zip(&best_panel[r * width..]).enumerate();
            let mut winner = (f32::NEG_INFINITY, 0);
            for (lane, (&score, &panel)) in lanes {
                let index = panel * width as u32 + lane as u32;
                if score > winner.0 || (score == winner.0 && index < winner.1) {
                    winner = (score, index);
                }
            }
            *code = winner.1;
        }
    });
}

simd! {
    /// A later panel must be better, not equal: of equal scores the lowest index stays.
    fn keep_larger(scores: &[f32], best: &mut [f32], best_panel: &mut [u32], panel: u32) {
        for ((score, best), best_panel) in scores.iter().zip(best).zip(best_panel) {
            let better = *score > *best;
            *best = if better { *score } else { *best };
            *best_panel = if better { panel } else { *best_panel };
        }
    }
}

/// `distances [.., size]`.
pub(crate) fn squared_distances(size: usize, channels: usize, x: &[f32], codebook: &[f32], distances: &mut [f32]) {
    if distances.is_empty() {
        return;
    }
    let kernels = Kernels::best();
    let mut norms = vec![0.0; size];
    squares(kernels, channels, codebook, &mut norms);
    let mut own = vec![0.0; distances.len() / size];
    squares(kernels, channels, x, &mut own);
    gemm::nt(size, channels, x, codebook, None, distances, false);
    let rows = (super::elementwise::GRAIN / size).max(1);
    distances.par_chunks_mut(rows * size).zip(own.par_chunks(rows)).for_each(|(rows, own)| {
        for (row, own) in rows.chunks_exact_mut(size).zip(own) {
            expand(row, *own, &norms);
        }
    });
}

simd! {
    fn expand(row: &mut [f32], own: f32, norms: &[f32]) {
        for (d, norm) in row.iter_mut().zip(norms) {
            *d = own - 2.0 * *d + norm;
        }
    }
}

/// Adds every row of `x` to the sum of its code. Pieces are slices of the channels, so that each sum runs in order.
pub(crate) fn code_sums(channels: usize, x: &[f32], codes: &[u32], counts: &mut [f32], sums: &mut [f32]) {
    for &code in codes {
        counts[code as usize] += 1.0;
    }
    assert!(sums.len() == counts.len() * channels && x.len() == codes.len() * channels);
    // Slices of whole cache lines.
    let most = if x.len() < TASK / 16 { 1 } else { rayon::current_num_threads() };
    let slice = channels.div_ceil(most).next_multiple_of(16);
    let target = Shared::new(sums);
    split::each(channels.div_ceil(slice), |piece| {
        let from = piece * slice;
        let count = slice.min(channels - from);
        for (row, &code) in x.chunks_exact(channels).zip(codes) {
            let at = code as usize * channels + from;
            // SAFETY: `counts` was indexed by the code above, and a slice of the channels belongs to one piece.
            let sum = unsafe { std::slice::from_raw_parts_mut(target.get().add(at), count) };
            add(sum, &row[from..from + count]);
        }
    });
}

#[inline(always)]
fn add(sum: &mut [f32], row: &[f32]) {
    for (s, x) in sum.iter_mut().zip(row) {
        *s += x;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests stop at the first failure")]
mod tests {
    use super::*;
    use crate::Rng;
    use crate::cpu::dispatch::{Level, level};

    /// Whole numbers, for which scores are exact: all levels must agree on every code, ties included.
    #[test]
    fn every_level_finds_the_same_codes() {
        for (rows, size, channels) in [(1, 1, 1), (15, 33, 3), (100, 70, 17), (230, 129, 64)] {
            let whole = |n: usize, seed| -> Vec<f32> {
                Rng::new(seed, "test", 0).below(n * channels, 5).into_iter().map(|x| x as f32 - 2.0).collect()
            };
            let (x, e) = (whole(rows, 1), whole(size, 2));
            let find = |level| {
                let mut codes = vec![u32::MAX; rows];
                nearest_with(Kernels::of(level), size, channels, &x, &e, &mut codes);
                codes
            };
            let wanted = find(Level::Baseline);
            for other in [Level::Avx2, Level::Avx512].into_iter().filter(|&l| l <= level()) {
                assert_eq!(find(other), wanted, "{other:?} on {rows} x {size} x {channels}");
            }
        }
    }
}

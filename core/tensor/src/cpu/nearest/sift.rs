//! The search that rules codes out by int8 or int16 bounds ([`crate::cpu::nearest::coarse`]) and scores the rest in f32.

use crate::cpu::gemm::product::tiles;
use crate::cpu::nearest::coarse::{Coarse, LINES, Line, PANEL, Terms};
use crate::cpu::nearest::coarse_kernel::{ROWS, Tile};
use crate::cpu::nearest::coarse_scan::{self as scan, PAIRS};

/// Rows of a piece: a panel that came from afar serves them all.
pub(crate) const PIECE: usize = 16 * ROWS;
/// Panels whose bounds are kept until their best is known: with the rows of a piece, 384 KiB.
const BLOCK: usize = 16;
/// Lines from one row's bounds to the next one's: were it a power of two, all rows would meet in a few lines of the cache.
const BOUNDS: usize = (BLOCK + 1) * LINES;
const TOPS: usize = BLOCK + 1;
/// A row with more codes than this to score in a block is left to the f32 search, which costs about as much.
const MOST_CODES: usize = 32;

/// The memory of a piece, about half a MiB per thread: it grows neither with the rows nor with the codebook.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    numbers: Vec<u32>,
    terms: Vec<Terms>,
    bounds: Vec<Line<f32>>,
    tops: Vec<Line<f32>>,
    /// The best score and code of each row so far; none for a row that is left to the f32 search.
    best: Vec<Option<(f32, u32)>>,
    /// Rows with codes to be scored.
    pairs: Vec<(u32, u32)>,
}

/// The codebook as the f32 score needs it.
pub(crate) struct Exact<'a> {
    pub(crate) codebook: &'a [f32],
    pub(crate) biases: &'a [f32],
}

/// The nearest code of each row of `x [codes.len(), channels]`. The rows that are left to the f32 search are listed in
/// `left`; their codes are not set.
pub(crate) fn nearest(
    coarse: &Coarse,
    exact: &Exact,
    x: &[f32],
    codes: &mut [u32],
    memory: &mut Memory,
    left: &mut Vec<u32>,
) {
    let (rows, steps) = (codes.len(), coarse.steps());
    let channels = x.len() / rows.max(1);
    memory.prepare(rows, steps);
    for (r, row) in x.chunks_exact(channels).enumerate() {
        match coarse.width.round(row, &mut memory.numbers[r * steps..(r + 1) * steps]) {
            Some(rounded) => memory.terms[r] = coarse.terms(&rounded),
            None => memory.best[r] = None,
        }
    }
    for first in (0..coarse.panels()).step_by(BLOCK) {
        let panels = BLOCK.min(coarse.panels() - first);
        memory.bound(coarse, rows, first, panels);
        memory.list_leaders(first, panels);
        memory.score(exact, x, channels);
        memory.list_rivals(first, panels);
        memory.score(exact, x, channels);
    }
    for (r, (code, best)) in codes.iter_mut().zip(&memory.best).enumerate() {
        match best {
            Some((_, best)) => *code = *best,
            None => left.push(r as u32),
        }
    }
}

impl Memory {
    fn prepare(&mut self, rows: usize, steps: usize) {
        // Channels that fill up the last step stay 0.
        self.numbers.clear();
        self.numbers.resize(rows * steps, 0);
        self.terms.clear();
        self.terms.resize(rows, Terms::default());
        self.bounds.resize(rows * BOUNDS, Line::default());
        self.tops.resize(rows * TOPS, Line::default());
        self.best.clear();
        self.best.resize(rows, Some((f32::NEG_INFINITY, 0)));
    }

    /// The bounds of all rows against some panels.
    fn bound(&mut self, coarse: &Coarse, rows: usize, first: usize, panels: usize) {
        let steps = coarse.steps();
        for j in 0..panels {
            let lines = (first + j) * LINES;
            for (row, height) in tiles(rows, ROWS) {
                Tile {
                    width: coarse.width,
                    left: &self.numbers[row * steps..],
                    terms: &self.terms[row..row + height],
                    steps,
                    panel: &coarse.numbers[lines * steps..],
                    scales: &coarse.scales[lines..],
                    biases: &coarse.biases[lines..],
                    bounds: &mut self.bounds[row * BOUNDS + j * LINES..],
                    bounds_stride: BOUNDS,
                    tops: &mut self.tops[row * TOPS + j..],
                    tops_stride: TOPS,
                }
                .run();
            }
        }
    }

    /// Lists for every row the code of the largest bound, if it could be the best: its score will rule out most others.
    fn list_leaders(&mut self, first: usize, panels: usize) {
        let rows = self.tops.chunks_exact(TOPS).zip(self.bounds.chunks_exact(BOUNDS));
        for (r, (best, (tops, bounds))) in self.best.iter().zip(rows).enumerate() {
            let Some((score, _)) = best else { continue };
            let (largest, at) = scan::leader(&tops[..panels], bounds);
            if largest >= *score {
                self.pairs.push((r as u32, (first * PANEL) as u32 + at));
            }
        }
    }

    /// Lists for every row the other codes that could be the best.
    fn list_rivals(&mut self, first: usize, panels: usize) {
        let rows = self.tops.chunks_exact(TOPS).zip(self.bounds.chunks_exact(BOUNDS));
        for (r, (best, (tops, bounds))) in self.best.iter_mut().zip(rows).enumerate() {
            let Some((score, leader)) = *best else { continue };
            let listed = self.pairs.len();
            scan::rivals(&tops[..panels], bounds, score, |at| {
                let code = (first * PANEL) as u32 + at;
                if code != leader {
                    self.pairs.push((r as u32, code));
                }
                self.pairs.len() <= listed + MOST_CODES
            });
            if self.pairs.len() > listed + MOST_CODES {
                self.pairs.truncate(listed);
                *best = None;
            }
        }
    }

    /// Scores the listed pairs: of equal scores the lowest code wins.
    fn score(&mut self, exact: &Exact, x: &[f32], channels: usize) {
        let row = |(r, code): (u32, u32)| {
            let (r, code) = (r as usize * channels, code as usize * channels);
            (&x[r..r + channels], &exact.codebook[code..code + channels])
        };
        for some in self.pairs.chunks(PAIRS) {
            // A short list is filled up with its first pair.
            let mut pairs = [row(some[0]); PAIRS];
            pairs.iter_mut().zip(some).for_each(|(pair, listed)| *pair = row(*listed));
            for (&(r, code), dot) in some.iter().zip(scan::dots(pairs)) {
                let score = dot + exact.biases[code as usize];
                if let Some(best) = &mut self.best[r as usize]
                    && (score > best.0 || (score == best.0 && code < best.1))
                {
                    *best = (score, code);
                }
            }
        }
        self.pairs.clear();
    }
}

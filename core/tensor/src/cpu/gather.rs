//! Rows by index, and back.

use super::buffer;
use super::dispatch::simd;
use super::elementwise::GRAIN;
use rayon::prelude::*;

/// Rows of `table` (of `width`) in the order of `codes`, which must be in range.
pub(crate) fn rows(table: &[f32], width: usize, codes: &[u32]) -> Vec<f32> {
    let mut out = buffer(codes.len() * width);
    if width == 0 {
        return out;
    }
    let group = (GRAIN / width).max(1);
    out.par_chunks_mut(group * width).zip(codes.par_chunks(group)).for_each(|(out, codes)| {
        for (o, &code) in out.chunks_exact_mut(width).zip(codes) {
            o.copy_from_slice(&table[code as usize * width..][..width]);
        }
    });
    out
}

simd! {
    /// Adds the named rows of `x` to `target`.
    fn sum_rows(x: &[f32], rows: &[u32], target: &mut [f32]) {
        let width = target.len();
        for &row in rows {
            for (t, x) in target.iter_mut().zip(&x[row as usize * width..][..width]) {
                *t += x;
            }
        }
    }
}

/// The rows of each code in their order, so that codes can be summed side by side: a stable counting sort.
pub(crate) struct RowsByCode {
    starts: Vec<u32>,
    order: Vec<u32>,
}

impl RowsByCode {
    /// `codes`, one a row, are below `size`.
    pub(crate) fn new(codes: &[u32], size: usize) -> Self {
        // Where the rows of code k begin stands at k + 1 until they are listed, which moves it to where they end.
        let mut starts = vec![0u32; size + 2];
        for &code in codes {
            starts[code as usize + 2] += 1;
        }
        for i in 2..starts.len() {
            starts[i] += starts[i - 1];
        }
        let mut order = vec![0u32; codes.len()];
        for (i, &code) in codes.iter().enumerate() {
            let next = &mut starts[code as usize + 1];
            order[*next as usize] = i as u32;
            *next += 1;
        }
        Self { starts, order }
    }

    pub(crate) fn of(&self, code: usize) -> &[u32] {
        &self.order[self.starts[code] as usize..self.starts[code + 1] as usize]
    }
}

/// Adds row i of `x` to row `codes[i]` of `table`, in the order of i; `table` is zeroed first unless `accumulate`.
pub(crate) fn add_rows(x: &[f32], width: usize, codes: &[u32], table: &mut [f32], accumulate: bool) {
    if width == 0 || table.is_empty() {
        return;
    }
    let rows = RowsByCode::new(codes, table.len() / width);
    table.par_chunks_mut(width).with_min_len((GRAIN / 4 / width).max(1)).enumerate().for_each(|(code, target)| {
        if !accumulate {
            target.fill(0.0);
        }
        sum_rows(x, rows.of(code), target);
    });
}

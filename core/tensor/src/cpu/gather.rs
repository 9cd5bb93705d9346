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

/// Adds row i of `x` to row `codes[i]` of `table`, in the order of i; `table` is zeroed first unless `accumulate`.
pub(crate) fn add_rows(x: &[f32], width: usize, codes: &[u32], table: &mut [f32], accumulate: bool) {
    if width == 0 || table.is_empty() {
        return;
    }
    // A stable counting sort lists the rows of each code, so that codes can be summed side by side.
    let mut starts = vec![0usize; table.len() / width + 1];
    for &code in codes {
        starts[code as usize + 1] += 1;
    }
    for i in 1..starts.len() {
        starts[i] += starts[i - 1];
    }
    let mut order = vec![0u32; codes.len()];
    let mut next = starts.clone();
    for (i, &code) in codes.iter().enumerate() {
        order[next[code as usize]] = i as u32;
        next[code as usize] += 1;
    }
    table.par_chunks_mut(width).with_min_len((GRAIN / 4 / width).max(1)).enumerate().for_each(|(code, target)| {
        if !accumulate {
            target.fill(0.0);
        }
        sum_rows(x, &order[starts[code]..starts[code + 1]], target);
    });
}

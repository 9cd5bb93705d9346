//! Moving averages of the vectors of each code.

use crate::cpu::isa::simd;
use crate::cpu::loops::by_code::RowsByCode;
use crate::cpu::loops::elementwise::GRAIN;
use rayon::prelude::*;

/// Channels that are summed over all rows of a code at once, in registers.
const SLICE: usize = 64;

/// What stays of an average, and the weight of what is new.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Decay {
    pub(crate) old: f32,
    pub(crate) new: f32,
}

/// `counts = old counts + new n` and `sums = old sums + new s`, where n is the number and s the sum of the rows of
/// `x [N, channels]` that have the code. Each sum runs in the order of the rows, whatever the number of threads.
pub(crate) fn update(decay: Decay, channels: usize, x: &[f32], codes: &[u32], counts: &mut [f32], sums: &mut [f32]) {
    let rows = RowsByCode::new(codes, counts.len());
    for (code, count) in counts.iter_mut().enumerate() {
        *count = decay.old * *count + decay.new * rows.of(code).len() as f32;
    }
    if channels == 0 {
        return;
    }
    // A piece has about as many rows to read and averages to write as is worth a thread.
    let share = x.len() / counts.len().max(1) + channels;
    sums.par_chunks_mut(channels).with_min_len((GRAIN / share).max(1)).enumerate().for_each(|(code, sums)| {
        update_code(decay, x, rows.of(code), sums);
    });
}

simd! {
    /// The average of one code, with the named rows of `x`.
    fn update_code(decay: Decay, x: &[f32], rows: &[u32], sums: &mut [f32]) {
        let channels = sums.len();
        let (slices, rest) = sums.as_chunks_mut::<SLICE>();
        let whole = slices.len() * SLICE;
        for (i, slice) in slices.iter_mut().enumerate() {
            let mut total = [0.0f32; SLICE];
            for &row in rows {
                let at = row as usize * channels + i * SLICE;
                if let Some(x) = x[at..].first_chunk::<SLICE>() {
                    for c in 0..SLICE {
                        total[c] += x[c];
                    }
                }
            }
            for c in 0..SLICE {
                slice[c] = decay.old * slice[c] + decay.new * total[c];
            }
        }
        let mut total = [0.0f32; SLICE];
        for &row in rows {
            let x = &x[row as usize * channels + whole..][..rest.len()];
            for (total, x) in total.iter_mut().zip(x) {
                *total += x;
            }
        }
        for (sum, total) in rest.iter_mut().zip(total) {
            *sum = decay.old * *sum + decay.new * total;
        }
    }
}

simd! {
    fn divide_row(sums: &[f32], by: f32, out: &mut [f32]) {
        for (out, sum) in out.iter_mut().zip(sums) {
            *out = sum / by;
        }
    }
}

/// `out[k] = sums[k] / counts[k]` for every row k.
pub(crate) fn divide(channels: usize, sums: &[f32], counts: &[f32], out: &mut [f32]) {
    if channels == 0 {
        return;
    }
    let rows = out.par_chunks_mut(channels).zip(sums.par_chunks(channels)).zip(counts);
    rows.with_min_len((GRAIN / channels).max(1)).for_each(|((out, sums), &count)| divide_row(sums, count, out));
}

//! Nearest rows and sums per code.

use rayon::prelude::*;

fn square(x: &[f32]) -> f32 {
    x.iter().map(|x| x * x).sum()
}

fn dot(x: &[f32], y: &[f32]) -> f32 {
    x.iter().zip(y).map(|(x, y)| x * y).sum()
}

/// The index of the row of `codebook [size, channels]` nearest to each row of `x`: the one with the largest
/// `x·e - |e|²/2`.
pub(crate) fn nearest(size: usize, channels: usize, x: &[f32], codebook: &[f32], codes: &mut [u32]) {
    let halves: Vec<f32> = (0..size).map(|k| 0.5 * square(&codebook[k * channels..(k + 1) * channels])).collect();
    codes.par_iter_mut().enumerate().for_each(|(i, code)| {
        let x = &x[i * channels..(i + 1) * channels];
        let mut best = f32::NEG_INFINITY;
        for (k, half) in halves.iter().enumerate() {
            let score = dot(x, &codebook[k * channels..(k + 1) * channels]) - half;
            if score > best {
                (best, *code) = (score, k as u32);
            }
        }
    });
}

/// `distances [.., size]`.
pub(crate) fn squared_distances(size: usize, channels: usize, x: &[f32], codebook: &[f32], distances: &mut [f32]) {
    let norms: Vec<f32> = (0..size).map(|k| square(&codebook[k * channels..(k + 1) * channels])).collect();
    distances.par_chunks_mut(size).enumerate().for_each(|(i, row)| {
        let x = &x[i * channels..(i + 1) * channels];
        let own = square(x);
        for (k, out) in row.iter_mut().enumerate() {
            *out = own - 2.0 * dot(x, &codebook[k * channels..(k + 1) * channels]) + norms[k];
        }
    });
}

/// Adds every row of `x` to the sum of its code.
pub(crate) fn code_sums(channels: usize, x: &[f32], codes: &[u32], counts: &mut [f32], sums: &mut [f32]) {
    for (i, &code) in codes.iter().enumerate() {
        let code = code as usize;
        counts[code] += 1.0;
        let row = &x[i * channels..(i + 1) * channels];
        sums[code * channels..(code + 1) * channels].iter_mut().zip(row).for_each(|(s, x)| *s += x);
    }
}

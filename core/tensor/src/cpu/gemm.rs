//! Products of row-major matrices.

use rayon::prelude::*;

/// `c [m, n] (+)= a [m, k] · b [n, k]ᵀ + bias [n]`.
pub(crate) fn nt(n: usize, k: usize, a: &[f32], b: &[f32], bias: Option<&[f32]>, c: &mut [f32], accumulate: bool) {
    if n == 0 {
        return;
    }
    c.par_chunks_mut(n).enumerate().for_each(|(i, row)| {
        for (j, out) in row.iter_mut().enumerate() {
            let dot: f32 = a[i * k..(i + 1) * k].iter().zip(&b[j * k..(j + 1) * k]).map(|(x, y)| x * y).sum();
            let sum = dot + bias.map_or(0.0, |bias| bias[j]);
            *out = if accumulate { *out + sum } else { sum };
        }
    });
}

/// `c [m, n] (+)= a [m, k] · b [k, n]`.
pub(crate) fn nn(n: usize, k: usize, a: &[f32], b: &[f32], c: &mut [f32], accumulate: bool) {
    if n == 0 {
        return;
    }
    c.par_chunks_mut(n).enumerate().for_each(|(i, row)| {
        if !accumulate {
            row.fill(0.0);
        }
        for (p, &x) in a[i * k..(i + 1) * k].iter().enumerate() {
            for (out, y) in row.iter_mut().zip(&b[p * n..(p + 1) * n]) {
                *out += x * y;
            }
        }
    });
}

/// `c [m, n] (+)= a [k, m]ᵀ · b [k, n]`.
pub(crate) fn tn(m: usize, n: usize, k: usize, a: &[f32], b: &[f32], c: &mut [f32], accumulate: bool) {
    if n == 0 {
        return;
    }
    c.par_chunks_mut(n).enumerate().for_each(|(i, row)| {
        if !accumulate {
            row.fill(0.0);
        }
        for p in 0..k {
            let x = a[p * m + i];
            for (out, y) in row.iter_mut().zip(&b[p * n..(p + 1) * n]) {
                *out += x * y;
            }
        }
    });
}

/// `sums [n] (+)=` the sum of the rows of `a [.., n]`.
pub(crate) fn column_sums(a: &[f32], sums: &mut [f32], accumulate: bool) {
    if !accumulate {
        sums.fill(0.0);
    }
    for row in a.chunks_exact(sums.len().max(1)) {
        for (sum, x) in sums.iter_mut().zip(row) {
            *sum += x;
        }
    }
}

/// Sizes of `batch` products of `[m, k]` with `[k, n]`.
#[derive(Clone, Copy)]
pub(crate) struct Batch {
    pub(crate) batch: usize,
    pub(crate) m: usize,
    pub(crate) n: usize,
    pub(crate) k: usize,
}

/// [`nt`] of each pair of matrices.
pub(crate) fn batched_nt(sizes: Batch, a: &[f32], b: &[f32], c: &mut [f32], accumulate: bool) {
    each(sizes, a, b, c, |a, b, c| nt(sizes.n, sizes.k, a, b, None, c, accumulate));
}

/// [`nn`] of each pair of matrices.
pub(crate) fn batched_nn(sizes: Batch, a: &[f32], b: &[f32], c: &mut [f32], accumulate: bool) {
    each(sizes, a, b, c, |a, b, c| nn(sizes.n, sizes.k, a, b, c, accumulate));
}

/// [`tn`] of each pair of matrices; those on the left are `[k, m]`.
pub(crate) fn batched_tn(sizes: Batch, a: &[f32], b: &[f32], c: &mut [f32], accumulate: bool) {
    each(sizes, a, b, c, |a, b, c| tn(sizes.m, sizes.n, sizes.k, a, b, c, accumulate));
}

fn each(sizes: Batch, a: &[f32], b: &[f32], c: &mut [f32], f: impl Fn(&[f32], &[f32], &mut [f32]) + Sync) {
    let Batch { m, n, k, .. } = sizes;
    if m * n == 0 {
        return;
    }
    c.par_chunks_mut(m * n).enumerate().for_each(|(t, c)| {
        f(&a[t * m * k..(t + 1) * m * k], &b[t * k * n..(t + 1) * k * n], c);
    });
}

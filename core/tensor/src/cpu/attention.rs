//! Attention per batch entry and head.

use super::gemm;
use rayon::prelude::*;

/// Sizes of an attention: `queries` rows attend over `keys` rows of `head` numbers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) batch: usize,
    pub(crate) heads: usize,
    pub(crate) queries: usize,
    pub(crate) keys: usize,
    pub(crate) head: usize,
    pub(crate) causal: bool,
}

/// Rows of `heads * head` numbers that start at `start` and lie `stride` apart.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) start: usize,
    pub(crate) stride: usize,
}

impl Rows<'_> {
    fn head(&self, n: usize, b: usize, h: usize, head: usize) -> Vec<f32> {
        let row = |i: usize| {
            let at = self.start + (b * n + i) * self.stride + h * head;
            &self.data[at..at + head]
        };
        (0..n).flat_map(row).copied().collect()
    }
}

/// Where the gradients go: all is overwritten.
pub(crate) enum Gradients<'a> {
    /// `[B, T, W]`, `[B, S, W]`, `[B, S, W]`.
    Apart { dq: &'a mut [f32], dk: &'a mut [f32], dv: &'a mut [f32] },
    /// `[B, T, 3W]`.
    Packed(&'a mut [f32]),
}

fn probabilities(sizes: &Sizes, q: &[f32], k: &[f32], norms: &mut [[f32; 2]], known: bool) -> Vec<f32> {
    let scale = 1.0 / (sizes.head as f32).sqrt();
    let mut p = vec![0.0; sizes.queries * sizes.keys];
    gemm::nt(sizes.keys, sizes.head, q, k, None, &mut p, false);
    for (t, row) in p.chunks_mut(sizes.keys).enumerate() {
        let (seen, rest) = row.split_at_mut(if sizes.causal { t + 1 } else { sizes.keys });
        rest.fill(0.0);
        if !known {
            let max = seen.iter().fold(f32::NEG_INFINITY, |m, &x| m.max(x * scale));
            norms[t] = [max, 1.0 / seen.iter().map(|x| (x * scale - max).exp()).sum::<f32>()];
        }
        let [max, inverse] = norms[t];
        seen.iter_mut().for_each(|x| *x = (*x * scale - max).exp() * inverse);
    }
    p
}

/// `out [B, T, W]`, and each row's largest score and inverse normaliser, `norms [B, heads, T]`.
pub(crate) fn forward(sizes: &Sizes, q: Rows<'_>, k: Rows<'_>, v: Rows<'_>, out: &mut [f32], norms: &mut [[f32; 2]]) {
    let Sizes { heads, queries, keys, head, .. } = *sizes;
    if out.is_empty() {
        return;
    }
    let parts: Vec<Vec<f32>> = norms
        .par_chunks_mut(queries)
        .enumerate()
        .map(|(i, norms)| {
            let (b, h) = (i / heads, i % heads);
            let p = probabilities(sizes, &q.head(queries, b, h, head), &k.head(keys, b, h, head), norms, false);
            let mut part = vec![0.0; queries * head];
            gemm::nn(head, keys, &p, &v.head(keys, b, h, head), &mut part, false);
            part
        })
        .collect();
    for (i, part) in parts.iter().enumerate() {
        scatter(part, head, out, (i / heads * queries, i % heads * head), heads * head);
    }
}

fn scatter(part: &[f32], head: usize, out: &mut [f32], (row, column): (usize, usize), stride: usize) {
    for (t, part) in part.chunks(head).enumerate() {
        let at = (row + t) * stride + column;
        out[at..at + head].copy_from_slice(part);
    }
}

/// The gradients of query, key and value. `[y, dy]`: the output and its gradient.
pub(crate) fn backward(
    sizes: &Sizes,
    [q, k, v]: [Rows<'_>; 3],
    [_, dy]: [Rows<'_>; 2],
    norms: &[[f32; 2]],
    mut gradients: Gradients<'_>,
) {
    let Sizes { heads, queries, keys, head, .. } = *sizes;
    if norms.is_empty() {
        return;
    }
    let scale = 1.0 / (head as f32).sqrt();
    let parts: Vec<[Vec<f32>; 3]> = norms
        .par_chunks(queries)
        .enumerate()
        .map(|(i, norms)| {
            let (b, h) = (i / heads, i % heads);
            let (q, k) = (q.head(queries, b, h, head), k.head(keys, b, h, head));
            let (v, dy) = (v.head(keys, b, h, head), dy.head(queries, b, h, head));
            let p = probabilities(sizes, &q, &k, &mut norms.to_vec(), true);
            let mut ds = vec![0.0; queries * keys];
            gemm::nt(keys, head, &dy, &v, None, &mut ds, false);
            for (ds, p) in ds.chunks_mut(keys).zip(p.chunks(keys)) {
                let mean: f32 = ds.iter().zip(p).map(|(d, p)| d * p).sum();
                ds.iter_mut().zip(p).for_each(|(d, p)| *d = p * (*d - mean) * scale);
            }
            let mut grads = [vec![0.0; queries * head], vec![0.0; keys * head], vec![0.0; keys * head]];
            gemm::nn(head, keys, &ds, &k, &mut grads[0], false);
            gemm::tn(keys, head, queries, &ds, &q, &mut grads[1], false);
            gemm::tn(keys, head, queries, &p, &dy, &mut grads[2], false);
            grads
        })
        .collect();
    let width = heads * head;
    for (i, [a, b, c]) in parts.iter().enumerate() {
        let (row, column) = (i / heads, i % heads * head);
        match &mut gradients {
            Gradients::Apart { dq, dk, dv } => {
                scatter(a, head, dq, (row * queries, column), width);
                scatter(b, head, dk, (row * keys, column), width);
                scatter(c, head, dv, (row * keys, column), width);
            }
            Gradients::Packed(packed) => {
                for (third, part) in [a, b, c].into_iter().enumerate() {
                    scatter(part, head, packed, (row * queries, third * width + column), 3 * width);
                }
            }
        }
    }
}

/// Sizes of a step with a cache: `new` positions, the last of `len`, of a cache of `capacity`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CacheSizes {
    pub(crate) heads: usize,
    pub(crate) head: usize,
    pub(crate) new: usize,
    pub(crate) len: usize,
    pub(crate) capacity: usize,
}

/// Attention of the last `new` positions over all that the cache holds up to each.
pub(crate) fn cached(sizes: &CacheSizes, q: &[f32], keys: &[f32], values: &[f32], out: &mut [f32]) {
    let CacheSizes { heads, head, new, len, capacity } = *sizes;
    if out.is_empty() {
        return;
    }
    let width = heads * head;
    let scale = 1.0 / (head as f32).sqrt();
    out.par_chunks_mut(head).zip(q.par_chunks(head)).enumerate().for_each(|(i, (out, q))| {
        let (h, t, b) = (i % heads, i / heads % new, i / heads / new);
        let at = |s: usize| (b * capacity + s) * width + h * head;
        let seen = len - new + t + 1;
        let mut weights: Vec<f32> =
            (0..seen).map(|s| q.iter().zip(&keys[at(s)..]).map(|(q, k)| q * k).sum::<f32>() * scale).collect();
        let max = weights.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        weights.iter_mut().for_each(|w| *w = (*w - max).exp());
        let norm: f32 = weights.iter().sum();
        out.fill(0.0);
        for (s, w) in weights.iter().enumerate() {
            out.iter_mut().zip(&values[at(s)..]).for_each(|(o, v)| *o += w / norm * v);
        }
    });
}

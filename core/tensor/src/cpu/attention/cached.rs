//! Attention of new positions over keys and values gathered before.
//!
//! Each is read once, and they fit no cache: attention lasts as long as they come from memory. A head's are too few for
//! a processor to foresee on its own what is read next, so that the loop over keys also asks for those of the next head.

use crate::cpu::attention::softmax::{LANES, softmax};
use crate::cpu::gemm::strip::prefetch;
use crate::cpu::isa::{fma, simd};

/// Numbers in the cache of one head's keys or values.
pub(crate) fn size(capacity: usize, head: usize) -> usize {
    capacity.next_multiple_of(LANES) * head
}

/// Puts a head's key and value at position `t` into its cache. Keys lie in blocks `[head][LANES]` of so many positions,
/// since scores of neighbouring positions are computed together; values lie row by row.
pub(crate) fn append(t: usize, key: &[f32], value: &[f32], keys: &mut [f32], values: &mut [f32]) {
    let head = key.len();
    let block = &mut keys[t / LANES * LANES * head..][..LANES * head];
    for (row, k) in block.chunks_exact_mut(LANES).zip(key) {
        row[t % LANES] = *k;
    }
    values[t * head..][..head].copy_from_slice(value);
}

/// `softmax(q · keys / sqrt(head)) · values` over the first `seen` positions. `weights` is room for as many numbers,
/// filled up to a multiple of [`LANES`]; `next`: where the keys lie that are read after these, if any are.
pub(crate) fn attend(
    seen: usize,
    q: &[f32],
    keys: &[f32],
    values: &[f32],
    weights: &mut [f32],
    out: &mut [f32],
    next: *const f32,
) {
    let scale = 1.0 / (q.len() as f32).sqrt();
    let stride = weights.len();
    scores(q, keys, weights, next);
    let mut norm = [[0.0; 2]];
    softmax(weights, stride, seen, 0, scale, &mut norm);
    mix(&weights[..seen], norm[0][1], values, out);
}

/// Blocks of keys whose sums are gathered side by side.
const SIDE: usize = 4;

#[inline(always)]
fn block_scores<const FUSED: bool, const N: usize>(q: &[f32], keys: &[f32], out: &mut [f32], ahead: *const f32) {
    let (rows, _) = keys.as_chunks::<LANES>();
    let mut sums = [[0.0f32; LANES]; N];
    let blocks: [&[[f32; LANES]]; N] = std::array::from_fn(|b| &rows[b * q.len()..][..q.len()]);
    for (d, &x) in q.iter().enumerate() {
        for b in 0..N {
            prefetch(ahead.wrapping_add((d * N + b) * LANES));
            for i in 0..LANES {
                sums[b][i] = fma::<FUSED>(x, blocks[b][d][i], sums[b][i]);
            }
        }
    }
    for (out, sums) in out.as_chunks_mut::<LANES>().0.iter_mut().zip(sums) {
        *out = sums;
    }
}

simd! {
    /// `out[s] = q · key s` for whole blocks of positions. Asks for as much as it reads of what lies `ahead`.
    fn scores(q: &[f32], keys: &[f32], out: &mut [f32], ahead: *const f32) {
        let head = q.len();
        for (i, out) in out.chunks_mut(SIDE * LANES).enumerate() {
            let keys = &keys[i * SIDE * LANES * head..];
            let ahead = ahead.wrapping_add(i * SIDE * LANES * head);
            match out.len() / LANES {
                SIDE => block_scores::<FUSED, SIDE>(q, keys, out, ahead),
                3 => block_scores::<FUSED, 3>(q, keys, out, ahead),
                2 => block_scores::<FUSED, 2>(q, keys, out, ahead),
                _ => block_scores::<FUSED, 1>(q, keys, out, ahead),
            }
        }
    }
}

/// Two chunks of a row over all rows, even and odd ones apart, so that no sum waits for the one before.
#[inline(always)]
fn mix_chunks<const FUSED: bool>(weights: &[f32], scale: f32, rows: &[f32], head: usize, out: &mut [f32; 2 * LANES]) {
    let mut sums = [[0.0f32; 2 * LANES]; 2];
    let pairs = weights.as_chunks::<2>();
    let at = |s: usize| rows[s * head..].first_chunk::<{ 2 * LANES }>();
    for (s, w) in pairs.0.iter().enumerate() {
        if let (Some(a), Some(b)) = (at(2 * s), at(2 * s + 1)) {
            for i in 0..2 * LANES {
                sums[0][i] = fma::<FUSED>(w[0], a[i], sums[0][i]);
                sums[1][i] = fma::<FUSED>(w[1], b[i], sums[1][i]);
            }
        }
    }
    if let ([w], Some(a)) = (pairs.1, at(weights.len().saturating_sub(1))) {
        for i in 0..2 * LANES {
            sums[0][i] = fma::<FUSED>(*w, a[i], sums[0][i]);
        }
    }
    for i in 0..2 * LANES {
        out[i] = scale * (sums[0][i] + sums[1][i]);
    }
}

simd! {
    /// `out = scale * Σ weights[s] * rows[s]`.
    fn mix(weights: &[f32], scale: f32, rows: &[f32], out: &mut [f32]) {
        let head = out.len();
        let (chunks, rest) = out.as_chunks_mut::<{ 2 * LANES }>();
        let whole = chunks.len() * 2 * LANES;
        for (i, out) in chunks.iter_mut().enumerate() {
            mix_chunks::<FUSED>(weights, scale, &rows[i * 2 * LANES..], head, out);
        }
        rest.fill(0.0);
        for (s, w) in weights.iter().enumerate() {
            for (out, x) in rest.iter_mut().zip(&rows[s * head + whole..]) {
                *out = fma::<FUSED>(scale * w, *x, *out);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rng;
    use std::ptr::null;

    /// The definition, in f64.
    fn twin(seen: usize, q: &[f32], keys: &[f32], values: &[f32]) -> Vec<f64> {
        let head = q.len();
        let dot = |s: usize| -> f64 { (0..head).map(|d| f64::from(q[d]) * f64::from(keys[s * head + d])).sum() };
        let weights: Vec<f64> = (0..seen).map(|s| (dot(s) / (head as f64).sqrt()).exp()).collect();
        let total: f64 = weights.iter().sum();
        let at = |d: usize| (0..seen).map(|s| weights[s] / total * f64::from(values[s * head + d])).sum();
        (0..head).map(at).collect()
    }

    #[test]
    fn attention_over_a_cache_agrees_with_its_definition() {
        for (head, capacity) in [(1, 1), (3, 20), (16, 64), (32, 70), (40, 129), (64, 257)] {
            let draw = |n: usize, seed| Rng::new(seed, "test", 0).normal(n);
            let (q, k, v) = (draw(head, 1), draw(capacity * head, 2), draw(capacity * head, 3));
            // What has not been written must not be read.
            let mut keys = vec![f32::NAN; size(capacity, head)];
            let mut values = keys.clone();
            for t in 0..capacity {
                append(t, &k[t * head..][..head], &v[t * head..][..head], &mut keys, &mut values);
                let (mut weights, mut out) = (vec![f32::NAN; (t + 1).next_multiple_of(LANES)], vec![f32::NAN; head]);
                attend(t + 1, &q, &keys, &values, &mut weights, &mut out, null());
                for (x, wanted) in out.iter().zip(twin(t + 1, &q, &k, &v)) {
                    assert!((f64::from(*x) - wanted).abs() < 1e-5, "head {head}, position {t}: {x}, wanted {wanted}");
                }
            }
        }
    }
}

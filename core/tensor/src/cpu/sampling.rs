//! Filtering of rows of logits and drawing from them.

use crate::cpu::buffer;
use crate::cpu::isa::simd;
use crate::cpu::loops::reduce::LANES;
use crate::cpu::loops::rows::{rows_per_task, softmax_row};
use crate::cpu::threads::team::region;
use rayon::prelude::*;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

/// Logits that are worth another thread where it is awake.
const SHARED: usize = 1 << 11;

/// An integer that orders as `x` does in IEEE 754's total order.
#[inline(always)]
fn key(x: f32) -> i32 {
    let bits = x.to_bits() as i32;
    bits ^ (((bits >> 31) as u32) >> 1) as i32
}

simd! {
    /// How many of a row are at least the number with this key, and the least key among them.
    fn at_least(row: &[f32], bound: i32) -> (usize, i32) {
        let (mut counts, mut least) = ([0i32; LANES], [i32::MAX; LANES]);
        let (chunks, rest) = row.as_chunks::<LANES>();
        for chunk in chunks {
            for i in 0..LANES {
                let key = key(chunk[i]);
                counts[i] += i32::from(key >= bound);
                least[i] = least[i].min(if key >= bound { key } else { i32::MAX });
            }
        }
        let (mut count, mut least) = (counts.iter().sum::<i32>(), least.iter().fold(i32::MAX, |a, b| a.min(*b)));
        for key in rest.iter().map(|x| key(*x)).filter(|key| *key >= bound) {
            count += 1;
            least = least.min(key);
        }
        (count as usize, least)
    }
}

/// The key of the k-th largest of a row, for `k` of 1 to its length: bisection, until as many as wanted are left.
fn kth_largest(row: &[f32], k: usize) -> i32 {
    // At least k are no less than `low`, and fewer than k are no less than `high`.
    let (mut low, mut high) = (i64::from(i32::MIN), i64::from(i32::MAX) + 1);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        let (count, least) = at_least(row, middle as i32);
        if count == k {
            return least;
        }
        if count > k { low = middle } else { high = middle }
    }
    low as i32
}

simd! {
    /// Sends what is less than the number with this key to negative infinity.
    fn cut(row: &mut [f32], least: i32) {
        for x in row {
            *x = if key(*x) < least { f32::NEG_INFINITY } else { *x };
        }
    }
}

fn top_k_row(row: &mut [f32], k: usize) {
    if k < row.len() {
        // Zeros of both signs are equal: a bound at the positive one keeps the negative one too.
        let least = match kth_largest(row, k) {
            0 => -1,
            least => least,
        };
        cut(row, least);
    }
}

fn top_p_row(row: &mut [f32], p: f32, order: &mut Vec<u32>) {
    order.clear();
    order.extend(0..row.len() as u32);
    // Ties in the order of their index.
    order.sort_unstable_by(|&a, &b| row[b as usize].total_cmp(&row[a as usize]).then(a.cmp(&b)));
    let (mut sum, mut kept) = (0.0f64, 0);
    // The published form compares in f32 what it sums in f64.
    while kept < order.len() && (kept == 0 || (sum as f32) < p) {
        sum += f64::from(row[order[kept] as usize]);
        kept += 1;
    }
    for &out in &order[kept..] {
        row[out as usize] = 0.0;
    }
    for x in row {
        *x = (f64::from(*x) / sum) as f32;
    }
}

fn probabilities_row(
    row: &mut [f32],
    temperature: f32,
    top_k: Option<usize>,
    top_p: Option<f32>,
    order: &mut Vec<u32>,
) {
    if temperature != 1.0 {
        row.iter_mut().for_each(|x| *x /= temperature);
    }
    if let Some(k) = top_k {
        top_k_row(row, k);
    }
    softmax_row(row);
    if let Some(p) = top_p
        && p < 1.0
    {
        top_p_row(row, p, order);
    }
}

fn draw(probs: &[f32], uniform: f32) -> u32 {
    let mut sum = 0.0f64;
    for (k, &p) in probs.iter().enumerate() {
        sum += f64::from(p);
        if sum > f64::from(uniform) {
            return k as u32;
        }
    }
    // The probabilities sum to a little less than 1, and the uniform number lies above that.
    probs.iter().rposition(|&p| p > 0.0).unwrap_or(0) as u32
}

/// One draw per row from the filtered softmax.
pub(crate) fn sample(
    logits: &[f32],
    width: usize,
    uniforms: &[f32],
    temperature: f32,
    top_k: Option<usize>,
    top_p: Option<f32>,
) -> Vec<u32> {
    let out: Vec<AtomicU32> = uniforms.iter().map(|_| AtomicU32::new(0)).collect();
    let part = |rows: Range<usize>| {
        let (mut row, mut order) = (vec![0.0; width], Vec::new());
        for i in rows {
            row.copy_from_slice(&logits[i * width..][..width]);
            probabilities_row(&mut row, temperature, top_k, top_p, &mut order);
            out[i].store(draw(&row, uniforms[i]), Ordering::Relaxed);
        }
    };
    let rows = uniforms.len();
    if rows * width < SHARED {
        part(0..rows)
    } else {
        region(|member| part(member.share(rows)))
    }
    out.into_iter().map(AtomicU32::into_inner).collect()
}

/// Applies `f` to a copy of every row.
fn map_rows(x: &[f32], width: usize, f: impl Fn(&mut [f32], &mut Vec<u32>) + Sync) -> Vec<f32> {
    let task = (rows_per_task(width) / 16).max(1) * width;
    buffer(x.len(), |out| {
        out.par_chunks(task, |i, out| {
            let mut order = Vec::new();
            let x = &x[i * task..][..out.len()];
            let out = out.map(x, |x| *x);
            out.chunks_exact_mut(width).for_each(|row| f(row, &mut order));
            out
        })
    })
}

/// The filtered softmax of every row.
pub(crate) fn probabilities(
    logits: &[f32],
    width: usize,
    temperature: f32,
    top_k: Option<usize>,
    top_p: Option<f32>,
) -> Vec<f32> {
    map_rows(logits, width, |row, order| {
        probabilities_row(row, temperature, top_k, top_p, order);
    })
}

/// Every row with what is below its k-th largest at negative infinity.
pub(crate) fn top_k(logits: &[f32], width: usize, k: usize) -> Vec<f32> {
    map_rows(logits, width, |row, _| top_k_row(row, k))
}

/// Every row cut to its nucleus.
pub(crate) fn top_p(probs: &[f32], width: usize, p: f32) -> Vec<f32> {
    map_rows(probs, width, |row, order| top_p_row(row, p, order))
}

/// One draw per row by inverse distribution function.
pub(crate) fn multinomial(probs: &[f32], width: usize, uniforms: &[f32]) -> Vec<u32> {
    let mut out = vec![0; uniforms.len()];
    let rows = rows_per_task(width);
    out.par_chunks_mut(rows).zip(uniforms.par_chunks(rows)).zip(probs.par_chunks(rows * width)).for_each(
        |((out, uniforms), probs)| {
            for ((o, &u), probs) in out.iter_mut().zip(uniforms).zip(probs.chunks_exact(width)) {
                *o = draw(probs, u);
            }
        },
    );
    out
}

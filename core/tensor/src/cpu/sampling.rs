//! Filtering of rows of logits and drawing from them.

use super::buffer;
use super::rows::{rows_per_task, softmax_row};
use rayon::prelude::*;

/// The k-th largest of a row.
fn kth_largest(row: &[f32], k: usize, scratch: &mut Vec<f32>) -> f32 {
    scratch.clear();
    scratch.extend_from_slice(row);
    let k = k.min(row.len());
    *scratch.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a)).1
}

fn top_k_row(row: &mut [f32], k: usize, scratch: &mut Vec<f32>) {
    if k < row.len() {
        let least = kth_largest(row, k, scratch);
        for x in row {
            if *x < least {
                *x = f32::NEG_INFINITY;
            }
        }
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
    scratch: &mut Vec<f32>,
    order: &mut Vec<u32>,
) {
    if temperature != 1.0 {
        row.iter_mut().for_each(|x| *x /= temperature);
    }
    if let Some(k) = top_k {
        top_k_row(row, k, scratch);
    }
    scratch.clear();
    scratch.extend_from_slice(row);
    softmax_row(scratch, row);
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

/// One draw a row from the filtered softmax.
pub(crate) fn sample(
    logits: &[f32],
    width: usize,
    uniforms: &[f32],
    temperature: f32,
    top_k: Option<usize>,
    top_p: Option<f32>,
) -> Vec<u32> {
    let mut out = vec![0; uniforms.len()];
    let rows = (rows_per_task(width) / 16).max(1);
    out.par_chunks_mut(rows).zip(uniforms.par_chunks(rows)).zip(logits.par_chunks(rows * width)).for_each(
        |((out, uniforms), logits)| {
            let (mut row, mut scratch, mut order) = (vec![0.0; width], Vec::new(), Vec::new());
            for ((o, &u), logits) in out.iter_mut().zip(uniforms).zip(logits.chunks_exact(width)) {
                row.copy_from_slice(logits);
                probabilities_row(&mut row, temperature, top_k, top_p, &mut scratch, &mut order);
                *o = draw(&row, u);
            }
        },
    );
    out
}

/// Applies `f` to a copy of every row.
fn map_rows(x: &[f32], width: usize, f: impl Fn(&mut [f32], &mut Vec<f32>, &mut Vec<u32>) + Sync) -> Vec<f32> {
    let mut out = buffer(x.len());
    let rows = (rows_per_task(width) / 16).max(1);
    out.par_chunks_mut(rows * width).zip(x.par_chunks(rows * width)).for_each(|(out, x)| {
        let (mut scratch, mut order) = (Vec::new(), Vec::new());
        out.copy_from_slice(x);
        out.chunks_exact_mut(width).for_each(|row| f(row, &mut scratch, &mut order));
    });
    out
}

/// The filtered softmax of every row.
pub(crate) fn probabilities(
    logits: &[f32],
    width: usize,
    temperature: f32,
    top_k: Option<usize>,
    top_p: Option<f32>,
) -> Vec<f32> {
    map_rows(logits, width, |row, scratch, order| probabilities_row(row, temperature, top_k, top_p, scratch, order))
}

/// Every row with what is below its k-th largest at negative infinity.
pub(crate) fn top_k(logits: &[f32], width: usize, k: usize) -> Vec<f32> {
    map_rows(logits, width, |row, scratch, _| top_k_row(row, k, scratch))
}

/// Every row cut to its nucleus.
pub(crate) fn top_p(probs: &[f32], width: usize, p: f32) -> Vec<f32> {
    map_rows(probs, width, |row, _, order| top_p_row(row, p, order))
}

/// One draw a row by inverse distribution function.
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

//! Sums. Pieces are summed in f32 lanes and added up in f64, in order.

use crate::cpu::isa::simd;
use crate::cpu::loops::elementwise::GRAIN;
use rayon::prelude::*;

/// Independent partial sums, one vector wide.
pub(crate) const LANES: usize = 16;

/// The sum of a short run, such as a row.
#[inline(always)]
pub(crate) fn lanes_sum(x: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for i in 0..LANES {
            lanes[i] += chunk[i];
        }
    }
    if !rest.is_empty() {
        let rest = padded(rest, 0.0);
        for i in 0..LANES {
            lanes[i] += rest[i];
        }
    }
    fold(lanes)
}

/// The last, short chunk of a row, filled up. Lanes that are only ever indexed by constants stay in a register.
#[inline(always)]
pub(crate) fn padded(rest: &[f32], fill: f32) -> [f32; LANES] {
    let mut lanes = [fill; LANES];
    lanes[..rest.len()].copy_from_slice(rest);
    lanes
}

/// The sum of the lanes, as a tree.
#[inline(always)]
pub(crate) fn fold(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

simd! {
    fn sum_chunk(x: &[f32]) -> f64 {
        x.chunks(1 << 10).map(|x| f64::from(lanes_sum(x))).sum()
    }
}

/// The sum of all elements.
pub(crate) fn sum_all(x: &[f32]) -> f64 {
    if x.len() <= GRAIN {
        return sum_chunk(x);
    }
    let pieces: Vec<f64> = x.par_chunks(GRAIN).map(sum_chunk).collect();
    pieces.iter().sum()
}

simd! {
    fn squares_chunk(x: &[f32]) -> f64 {
        let mut lanes = [0.0f64; LANES];
        let chunks = x.chunks_exact(LANES);
        let rest = chunks.remainder();
        for chunk in chunks {
            for (l, &x) in lanes.iter_mut().zip(chunk) {
                *l += f64::from(x) * f64::from(x);
            }
        }
        for (l, &x) in lanes.iter_mut().zip(rest) {
            *l += f64::from(x) * f64::from(x);
        }
        lanes.iter().sum()
    }
}

/// The sum of the squares of all elements, in f64.
pub(crate) fn sum_of_squares(x: &[f32]) -> f64 {
    let pieces: Vec<f64> = x.par_chunks(GRAIN).map(squares_chunk).collect();
    pieces.iter().sum()
}

simd! {
    fn row_sums(x: &[f32], n: usize, out: &mut [f32]) {
        for (row, o) in x.chunks_exact(n).zip(out) {
            *o = if n <= 1 << 10 { lanes_sum(row) } else { row.chunks(1 << 10).map(|x| f64::from(lanes_sum(x))).sum::<f64>() as f32 };
        }
    }
}

simd! {
    /// `out[j] = sum_i x[i, j]` over rows of `out.len()`.
    fn column_sums_chunk(x: &[f32], out: &mut [f32]) {
        out.fill(0.0);
        for row in x.chunks_exact(out.len()) {
            for (o, x) in out.iter_mut().zip(row) {
                *o += x;
            }
        }
    }
}

/// Rows of `width` that make one piece of a sum over rows: a piece fills about [`GRAIN`] elements, and no more rows
/// than f32 sums well.
pub(crate) fn rows_per_piece(width: usize) -> usize {
    (GRAIN / width.max(1)).clamp(1, 512)
}

/// The sum of `pieces` of equal length, element by element, in f64.
pub(crate) fn add_pieces(pieces: &[f32], out: &mut [f32]) {
    let width = out.len();
    if width == 0 {
        return;
    }
    out.par_chunks_mut(1 << 10).enumerate().for_each(|(block, out)| {
        let from = block << 10;
        let mut sums = vec![0.0f64; out.len()];
        for piece in pieces.chunks_exact(width) {
            for (s, &p) in sums.iter_mut().zip(&piece[from..from + out.len()]) {
                *s += f64::from(p);
            }
        }
        for (o, s) in out.iter_mut().zip(sums) {
            *o = s as f32;
        }
    });
}

/// `out[a, c] = sum_b x[a, b, c]` for x of shape [outer, n, inner].
pub(crate) fn sum_middle(x: &[f32], outer: usize, n: usize, inner: usize) -> Vec<f32> {
    let mut out = vec![0.0; outer * inner];
    if out.is_empty() || n == 0 {
        return out;
    }
    if inner == 1 && n <= GRAIN {
        let rows = (GRAIN / n).max(1);
        out.par_chunks_mut(rows).zip(x.par_chunks(rows * n)).for_each(|(o, x)| row_sums(x, n, o));
    } else if inner == 1 {
        for (o, row) in out.iter_mut().zip(x.chunks_exact(n)) {
            *o = sum_all(row) as f32;
        }
    } else if n <= rows_per_piece(inner) {
        let group = (GRAIN / (n * inner)).max(1);
        out.par_chunks_mut(group * inner).zip(x.par_chunks(group * n * inner)).for_each(|(o, x)| {
            for (o, x) in o.chunks_exact_mut(inner).zip(x.chunks_exact(n * inner)) {
                column_sums_chunk(x, o);
            }
        });
    } else {
        let rows = rows_per_piece(inner);
        let mut pieces = vec![0.0; n.div_ceil(rows) * inner];
        for (o, x) in out.chunks_exact_mut(inner).zip(x.chunks_exact(n * inner)) {
            pieces
                .par_chunks_mut(inner)
                .zip(x.par_chunks(rows * inner))
                .for_each(|(piece, x)| column_sums_chunk(x, piece));
            add_pieces(&pieces, o);
        }
    }
    out
}

/// Sums over the axes marked in `reduced`, the innermost run of such axes first.
pub(crate) fn sum_axes(x: &[f32], shape: &[usize], reduced: &[bool]) -> Vec<f32> {
    let mut sums: Option<Vec<f32>> = None;
    let (mut inner, mut end) = (1, shape.len());
    while end > 0 {
        let mut start = end;
        while start > 0 && reduced[start - 1] == reduced[end - 1] {
            start -= 1;
        }
        let n: usize = shape[start..end].iter().product();
        if reduced[end - 1] {
            let outer = shape[..start].iter().product();
            sums = Some(sum_middle(sums.as_deref().unwrap_or(x), outer, n, inner));
        } else {
            inner *= n;
        }
        end = start;
    }
    sums.unwrap_or_else(|| x.to_vec())
}

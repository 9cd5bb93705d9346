//! Weight normalisation: rows as lengths and directions.

use crate::cpu::isa::simd;
use crate::cpu::loops::rows::{dot, rows_per_task};
use crate::cpu::{Output, buffer};

simd! {
    fn normalise_row<'a>(v: &[f32], g: f32, out: Output<'a>) -> &'a mut [f32] {
        let scale = g / dot::<FUSED>(v, v).sqrt();
        out.map(v, |v| scale * v)
    }
}

/// `g v / |v|` of every row; there is a g for each.
pub(crate) fn normalise(v: &[f32], g: &[f32]) -> Vec<f32> {
    by_rows(v.len(), g.len(), |row, at, out| normalise_row(&v[at..][..out.len()], g[row], out))
}

simd! {
    fn direction_row<'a>(grad: &[f32], v: &[f32], g: f32, out: Output<'a>) -> &'a mut [f32] {
        // What of the gradient lies along v changes nothing.
        let square = dot::<FUSED>(v, v);
        let (scale, along) = (g / square.sqrt(), dot::<FUSED>(grad, v) / square);
        out.zip(grad, v, |grad, v| scale * (grad - along * v))
    }
}

/// The gradient of v from that of `g v / |v|`.
pub(crate) fn direction_gradient(grad: &[f32], v: &[f32], g: &[f32]) -> Vec<f32> {
    by_rows(v.len(), g.len(), |row, at, out| {
        let n = out.len();
        direction_row(&grad[at..][..n], &v[at..][..n], g[row], out)
    })
}

simd! {
    fn length_row(grad: &[f32], v: &[f32]) -> f32 {
        dot::<FUSED>(grad, v) / dot::<FUSED>(v, v).sqrt()
    }
}

/// The gradient of g from that of `g v / |v|`.
pub(crate) fn length_gradient(grad: &[f32], v: &[f32], rows: usize) -> Vec<f32> {
    let width = v.len() / rows;
    grad.chunks_exact(width).zip(v.chunks_exact(width)).map(|(grad, v)| length_row(grad, v)).collect()
}

/// What `write(row, first element, place)` makes of every row.
fn by_rows(
    len: usize,
    rows: usize,
    write: impl for<'o> Fn(usize, usize, Output<'o>) -> &'o mut [f32] + Sync,
) -> Vec<f32> {
    let width = len / rows;
    let task = rows_per_task(width);
    buffer(len, |out| {
        out.par_chunks(task * width, |i, out| {
            out.chunks(width, |r, out| write(i * task + r, (i * task + r) * width, out))
        })
    })
}

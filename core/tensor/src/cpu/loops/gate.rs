//! Gated linear units.

use crate::cpu::isa::math::sigmoid;
use crate::cpu::isa::{fma, simd};
use crate::cpu::loops::elementwise::GRAIN;
use crate::cpu::{Output, buffer};

simd! {
    fn add_row<'a>(x: &[f32], a: &[f32], b: &[f32], out: Output<'a>) -> &'a mut [f32] {
        let (x, a, b) = (&x[..out.len()], &a[..out.len()], &b[..out.len()]);
        out.by_index(|i| fma::<FUSED>(a[i], sigmoid::<FUSED>(b[i]), x[i]))
    }
}

/// `x + a sigmoid(b)` for rows of `width`, where each row of `gates` is a and b.
pub(crate) fn add_glu(x: &[f32], gates: &[f32], width: usize) -> Vec<f32> {
    let rows = (GRAIN / width.max(1)).max(1);
    buffer(x.len(), |out| {
        out.par_chunks(rows * width.max(1), |i, out| {
            out.chunks(width, |r, out| {
                let row = i * rows + r;
                let (a, b) = gates[2 * row * width..][..2 * width].split_at(width);
                add_row(&x[row * width..][..width], a, b, out)
            })
        })
    })
}

simd! {
    fn sigmoids<'a>(grad: &[f32], b: &[f32], out: Output<'a>) -> &'a mut [f32] {
        out.zip(grad, b, |grad, b| grad * sigmoid::<FUSED>(*b))
    }
}

simd! {
    fn slopes<'a>(grad: &[f32], a: &[f32], b: &[f32], out: Output<'a>) -> &'a mut [f32] {
        let (grad, a, b) = (&grad[..out.len()], &a[..out.len()], &b[..out.len()]);
        out.by_index(|i| {
            let s = sigmoid::<FUSED>(b[i]);
            grad[i] * a[i] * (s * (1.0 - s))
        })
    }
}

/// The gradients of a and b, side by side as in `gates`, from that of `a sigmoid(b)`.
pub(crate) fn glu_gradient(grad: &[f32], gates: &[f32], width: usize) -> Vec<f32> {
    let rows = (GRAIN / 2 / width.max(1)).max(1);
    buffer(gates.len(), |out| {
        out.par_chunks(2 * rows * width.max(1), |i, out| {
            out.chunks(width, |half, out| {
                let row = i * rows + half / 2;
                let grad = &grad[row * width..][..width];
                let (a, b) = gates[2 * row * width..][..2 * width].split_at(width);
                if half % 2 == 0 { sigmoids(grad, b, out) } else { slopes(grad, a, b, out) }
            })
        })
    })
}

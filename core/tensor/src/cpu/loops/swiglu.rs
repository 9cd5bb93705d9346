//! The hidden state of SwiGLU.

use crate::cpu::isa::math::sigmoid;
use crate::cpu::isa::simd;
use crate::cpu::loops::elementwise::GRAIN;
use crate::cpu::{Output, buffer};
use rayon::prelude::*;

simd! {
    fn silu_mul_chunk<'a>(gate: &[f32], x: &[f32], out: Output<'a>) -> &'a mut [f32] {
        out.zip(gate, x, |g, x| g * sigmoid::<FUSED>(*g) * x)
    }
}

/// `gate sigmoid(gate) x`, element by element.
pub(crate) fn silu_mul(gate: &[f32], x: &[f32]) -> Vec<f32> {
    assert_eq!(gate.len(), x.len());
    buffer(x.len(), |out| {
        out.par_chunks(GRAIN, |i, out| {
            let chunk = i * GRAIN..i * GRAIN + out.len();
            silu_mul_chunk(&gate[chunk.clone()], &x[chunk], out)
        })
    })
}

simd! {
    /// The same in place of `x`, on this thread.
    pub(crate) fn silu_mul_in_place(gate: &[f32], x: &mut [f32]) {
        for (x, &g) in x.iter_mut().zip(gate) {
            *x *= g * sigmoid::<FUSED>(g);
        }
    }
}

simd! {
    fn silu_mul_backward_chunk(gate: &mut [f32], x: &[f32], grad: &mut [f32]) {
        for ((gate, &x), grad) in gate.iter_mut().zip(x).zip(grad) {
            let (g, s) = (*gate, sigmoid::<FUSED>(*gate));
            *gate = *grad * x * s * (1.0 + g * (1.0 - s));
            *grad *= g * s;
        }
    }
}

/// Turns `gate` into its gradient, and the gradient of the product, `grad`, into that of `x`.
pub(crate) fn silu_mul_backward(gate: &mut [f32], x: &[f32], grad: &mut [f32]) {
    gate.par_chunks_mut(GRAIN)
        .zip(x.par_chunks(GRAIN))
        .zip(grad.par_chunks_mut(GRAIN))
        .for_each(|((gate, x), grad)| silu_mul_backward_chunk(gate, x, grad));
}

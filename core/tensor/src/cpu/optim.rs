//! Optimizer steps on plain slices.

use crate::cpu::isa::simd;
use crate::cpu::loops::elementwise::GRAIN;
use rayon::prelude::*;

/// The constants of one Adam step, all derived in f64.
#[derive(Debug, Clone, Copy)]
// Kernels of GPUs take it as it is.
#[repr(C)]
pub(crate) struct Adam {
    pub(crate) l2: f32,
    pub(crate) keep: f32,
    pub(crate) beta1: f32,
    pub(crate) rest1: f32,
    pub(crate) beta2: f32,
    pub(crate) rest2: f32,
    pub(crate) step_size: f32,
    pub(crate) root_scale: f32,
    pub(crate) eps: f32,
}

simd! {
    fn adam_chunk(how: Adam, grad_scale: f32, param: &mut [f32], grad: &[f32], m: &mut [f32], v: &mut [f32]) {
        for (((p, &g), m), v) in param.iter_mut().zip(grad).zip(m).zip(v) {
            let g = g * grad_scale + how.l2 * *p;
            *m = how.beta1 * *m + how.rest1 * g;
            *v = how.beta2 * *v + how.rest2 * (g * g);
            *p = *p * how.keep - how.step_size * *m / (v.sqrt() * how.root_scale + how.eps);
        }
    }
}

/// One step: parameter and moments in one pass.
pub(crate) fn adam(how: Adam, grad_scale: f32, param: &mut [f32], grad: &[f32], m: &mut [f32], v: &mut [f32]) {
    if param.len() <= GRAIN {
        return adam_chunk(how, grad_scale, param, grad, m, v);
    }
    param
        .par_chunks_mut(GRAIN)
        .zip(grad.par_chunks(GRAIN))
        .zip(m.par_chunks_mut(GRAIN).zip(v.par_chunks_mut(GRAIN)))
        .for_each(|((p, g), (m, v))| adam_chunk(how, grad_scale, p, g, m, v));
}

simd! {
    fn ema_chunk(average: &mut [f32], value: &[f32], decay: f32, rest: f32) {
        for (a, v) in average.iter_mut().zip(value) {
            *a = decay * *a + rest * v;
        }
    }
}

/// `average = decay * average + rest * value`.
pub(crate) fn ema(average: &mut [f32], value: &[f32], decay: f32, rest: f32) {
    if average.len() <= GRAIN {
        return ema_chunk(average, value, decay, rest);
    }
    average.par_chunks_mut(GRAIN).zip(value.par_chunks(GRAIN)).for_each(|(a, v)| ema_chunk(a, v, decay, rest));
}

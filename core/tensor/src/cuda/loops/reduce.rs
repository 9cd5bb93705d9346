//! Sums and means.

use crate::cuda::device::kernels::Axes;
use crate::cuda::device::operands::{on_gpu, output, tracked};
use crate::cuda::loops::arithmetic;
use crate::cuda::{Gpu, Numbers};
use crate::tape::record_on_gpu;
use crate::{Result, Tensor};
use dfdx::prelude::CudaError;

/// `scale` times the sum of all elements: rank 0.
pub(crate) fn sum_all(x: &Tensor, scale: f64) -> Result<Option<Tensor>> {
    let Some((gpu, [input])) = on_gpu("sum_all", [x])? else {
        return Ok(None);
    };
    let x_key = tracked(x);
    let (out, key) = output(gpu, gpu.sum_all(input.numbers(), scale)?, &[], x_key.is_some())?;
    if let (Some(x_key), Some(key)) = (x_key, key) {
        let shape = x.shape().to_vec();
        record_on_gpu(&key, move |grad, flow| {
            let grad = gpu.map("mul_scalar", &grad, [scale as f32, 0.0])?;
            flow.add(&x_key, arithmetic::stretch(gpu, &grad, &[], &shape)?)
        });
    }
    Ok(Some(out))
}

/// `scale` times the sum over the axes marked in `reduced`. `kept` is the shape with size 1 at these axes, `shape` that
/// of the output.
pub(crate) fn sum_axes(
    op: &'static str,
    x: &Tensor,
    reduced: &[bool],
    kept: &[usize],
    shape: &[usize],
    scale: f32,
) -> Result<Option<Tensor>> {
    let Some((gpu, [input])) = on_gpu(op, [x])? else {
        return Ok(None);
    };
    let x_key = tracked(x);
    let data = sum(gpu, input.numbers(), x.shape(), reduced, scale)?;
    let (out, key) = output(gpu, data, shape, x_key.is_some())?;
    if let (Some(x_key), Some(key)) = (x_key, key) {
        let (full, kept) = (x.shape().to_vec(), kept.to_vec());
        record_on_gpu(&key, move |grad, flow| {
            let grad = gpu.map("mul_scalar", &grad, [scale, 0.0])?;
            flow.add(&x_key, arithmetic::stretch(gpu, &grad, &kept, &full)?)
        });
    }
    Ok(Some(out))
}

/// Sums a broadcast gradient of shape `from` back to the operand's shape `to`.
pub(crate) fn sum_to_shape(gpu: &Gpu, x: &Numbers, from: &[usize], to: &[usize]) -> Result<Numbers, CudaError> {
    let reduced = stretched(from, to);
    if reduced.contains(&true) { sum(gpu, x, from, &reduced, 1.0) } else { gpu.copy(x) }
}

/// The same of a gradient that nobody else needs.
pub(crate) fn summed_to_shape(gpu: &Gpu, x: Numbers, from: &[usize], to: &[usize]) -> Result<Numbers, CudaError> {
    let reduced = stretched(from, to);
    if reduced.contains(&true) { sum(gpu, &x, from, &reduced, 1.0) } else { Ok(x) }
}

/// Which axes of `from` an operand of shape `to` was stretched along.
fn stretched(from: &[usize], to: &[usize]) -> Vec<bool> {
    let outer = from.len() - to.len().min(from.len());
    let own = |axis: usize| axis.checked_sub(outer).map_or(1, |axis| to[axis]);
    from.iter().enumerate().map(|(axis, &size)| size != own(axis)).collect()
}

/// Sums over the axes marked in `reduced`.
fn sum(gpu: &Gpu, x: &Numbers, shape: &[usize], reduced: &[bool], scale: f32) -> Result<Numbers, CudaError> {
    // Neighbouring axes of one kind are one axis.
    let (mut sizes, mut strides) = ([vec![], vec![]], [vec![], vec![]]);
    let (mut stride, mut before) = (1, None);
    for (&size, &is_reduced) in shape.iter().zip(reduced).rev() {
        let kind = usize::from(is_reduced);
        match sizes[kind].last_mut() {
            Some(last) if before == Some(kind) => *last *= size,
            _ => {
                sizes[kind].push(size);
                strides[kind].push(stride);
            }
        }
        before = Some(kind);
        stride *= size;
    }
    let axes = |kind: usize| {
        let [size, stride]: [Vec<usize>; 2] = [&sizes[kind], &strides[kind]].map(|v| v.iter().rev().copied().collect());
        Axes::new(&size, &stride, &[])
    };
    gpu.sum_axes(x, axes(0)?, axes(1)?, scale)
}

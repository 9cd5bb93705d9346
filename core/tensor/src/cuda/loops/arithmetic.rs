//! Arithmetic with broadcasting.

use crate::cpu::loops::elementwise::Walk;
use crate::cuda::device::operands::{on_gpu, output, tracked};
use crate::cuda::loops::reduce;
use crate::cuda::{Gpu, Numbers};
use crate::ops::arithmetic::broadcast_shape;
use crate::tape::{GradKey, record_on_gpu};
use crate::{Error, Result, Tensor};
use dfdx::prelude::CudaError;

/// An operation on two tensors.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Binary {
    Add,
    Sub,
    Mul,
    Div,
}

impl Binary {
    fn name(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Sub => "sub",
            Self::Mul => "mul",
            Self::Div => "div",
        }
    }
}

/// `x op y`, broadcast.
pub(crate) fn binary(op: Binary, x: &Tensor, y: &Tensor) -> Result<Option<Tensor>> {
    let name = op.name();
    let Some((gpu, [a, b])) = on_gpu(name, [x, y])? else {
        return Ok(None);
    };
    let shape = broadcast_shape(name, x.shape(), y.shape())?;
    let data = gpu.zip(name, &Walk::new(&shape, x.shape(), y.shape()), a.numbers(), b.numbers())?;
    let (x_key, y_key) = (tracked(x), tracked(y));
    let (out, key) = output(gpu, data, &shape, x_key.is_some() || y_key.is_some())?;
    let Some(key) = key else {
        return Ok(Some(out));
    };
    let (x_shape, y_shape) = (x.shape().to_vec(), y.shape().to_vec());
    // A quotient's gradient in the divisor is -(x / y) / y.
    let quotient = out.gpu_buffer().cloned().filter(|_| op == Binary::Div);
    record_on_gpu(&key, move |grad, flow| {
        let stretched = |kernel, grad: &Numbers, other: &Numbers, other_shape: &[usize]| {
            gpu.zip(kernel, &Walk::new(&shape, &shape, other_shape), grad, other)
        };
        let (dx, dy) = match op {
            Binary::Add => (None, None),
            Binary::Sub => (None, Some(gpu.map("mul_scalar", &grad, [-1.0, 0.0])?)),
            Binary::Mul => (
                Some(stretched("mul", &grad, b.numbers(), &y_shape)?),
                Some(stretched("mul", &grad, a.numbers(), &x_shape)?),
            ),
            Binary::Div => {
                let over_y = stretched("div", &grad, b.numbers(), &y_shape)?;
                let dy = match &quotient {
                    Some(quotient) => Some(stretched("minus_mul", &over_y, quotient.numbers(), &shape)?),
                    None => None,
                };
                (Some(over_y), dy)
            }
        };
        if let Some(key) = &y_key {
            let own = match dy {
                Some(own) => reduce::summed_to_shape(gpu, own, &shape, &y_shape)?,
                None => reduce::sum_to_shape(gpu, &grad, &shape, &y_shape)?,
            };
            flow.add(key, own)?;
        }
        match &x_key {
            Some(key) => flow.add(key, reduce::summed_to_shape(gpu, dx.unwrap_or(grad), &shape, &x_shape)?),
            None => Ok(()),
        }
    });
    Ok(Some(out))
}

/// `x + value`, which shares the gradient of `x`.
pub(crate) fn add_scalar(x: &Tensor, value: f32) -> Result<Option<Tensor>> {
    let Some((gpu, [input])) = on_gpu("add_scalar", [x])? else {
        return Ok(None);
    };
    let data = gpu.map("add_scalar", input.numbers(), [value, 0.0])?;
    let (out, _) = output(gpu, data, x.shape(), false)?;
    Ok(Some(out.with_grad(tracked(x).map(GradKey::Cuda))))
}

/// `x * value`.
pub(crate) fn mul_scalar(x: &Tensor, value: f32) -> Result<Option<Tensor>> {
    let Some((gpu, [input])) = on_gpu("mul_scalar", [x])? else {
        return Ok(None);
    };
    let x_key = tracked(x);
    let data = gpu.map("mul_scalar", input.numbers(), [value, 0.0])?;
    let (out, key) = output(gpu, data, x.shape(), x_key.is_some())?;
    if let (Some(x_key), Some(key)) = (x_key, key) {
        record_on_gpu(&key, move |grad, flow| flow.add(&x_key, gpu.map("mul_scalar", &grad, [value, 0.0])?));
    }
    Ok(Some(out))
}

/// Copies along axes of size 1 to `shape`, which `x` stretches to.
pub(crate) fn broadcast_to(x: &Tensor, shape: &[usize]) -> Result<Option<Tensor>> {
    let Some((gpu, [input])) = on_gpu("broadcast_to", [x])? else {
        return Ok(None);
    };
    if broadcast_shape("broadcast_to", x.shape(), shape)? != shape {
        return Err(Error::shape("broadcast_to", format!("{:?} does not stretch to {shape:?}", x.shape())));
    }
    let x_key = tracked(x);
    let data = stretch(gpu, input.numbers(), x.shape(), shape)?;
    let (out, key) = output(gpu, data, shape, x_key.is_some())?;
    if let (Some(x_key), Some(key)) = (x_key, key) {
        let (from, to) = (shape.to_vec(), x.shape().to_vec());
        record_on_gpu(&key, move |grad, flow| flow.add(&x_key, reduce::sum_to_shape(gpu, &grad, &from, &to)?));
    }
    Ok(Some(out))
}

/// Numbers of shape `from` repeated to fill `to`.
pub(crate) fn stretch(gpu: &Gpu, x: &Numbers, from: &[usize], to: &[usize]) -> Result<Numbers, CudaError> {
    gpu.stretch(&Walk::new(to, from, from), x)
}

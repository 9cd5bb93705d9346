//! The operations, one file each (or one family): shape check, forward, backward. `kernel` has what those are made of whose
//! gradient is written once for all devices.
//!
//! Unless a page says otherwise an operation is a method of [`Tensor`], is differentiable in every
//! floating-point operand, and fails with [`Error::Shape`] alone; or, where an operand is not on
//! the CPU, with [`Error::NoKernel`] if its device has no kernel for the operation.

/// Returns from an operation with what the GPU gives, if its operands are there.
macro_rules! return_from_gpu {
    ($call:expr) => {
        #[cfg(feature = "cuda")]
        if let Some(out) = $call? {
            return Ok(out);
        }
    };
}

pub mod arithmetic;
pub mod attention;
pub mod averages;
pub mod blocks;
pub mod codes;
pub mod conv;
pub mod conv_transpose;
pub mod decoder;
pub mod denoiser;
pub mod dropout;
pub mod embedding;
pub mod filter;
pub mod gate;
pub(crate) mod kernel;
pub mod key_values;
pub mod linear;
pub mod loss;
pub mod nearest;
pub mod norm;
mod operators;
pub mod optim;
pub mod packed;
pub mod pool;
pub mod raster;
pub mod reduce;
pub mod resample;
pub mod residual;
pub mod rotary;
pub mod sampling;
pub mod shape;
pub mod softmax;
pub mod straight_through;
pub mod swiglu;
pub mod unary;
pub mod weight_norm;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests stop at the first failure")]
pub(crate) mod testing;

use crate::{Codes, Device, Error, Result, Tensor};

/// The device that all of `operands` are on, where `op` will run.
pub(crate) fn common_device<'a>(op: &'static str, operands: impl IntoIterator<Item = &'a Tensor>) -> Result<Device> {
    let mut devices = operands.into_iter().map(Tensor::device);
    let first = devices.next().unwrap_or_default();
    match devices.find(|&device| device != first) {
        Some(odd) => Err(Error::Device(format!("{op}: operands on {first} and on {odd}; bring them to one device"))),
        None => Ok(first),
    }
}

/// Checks that `operands` are on the CPU, the only device with a kernel for `op`.
fn on_cpu<'a>(op: &'static str, operands: impl IntoIterator<Item = &'a Tensor>) -> Result<()> {
    match common_device(op, operands)? {
        Device::Cpu => Ok(()),
        device => Err(Error::NoKernel { op, device }),
    }
}

/// The outer shape [..] and the width K of `x` [.., K], whose rows `outer` must name one by one.
fn rows_of<'a>(op: &'static str, x: &'a Tensor, outer: &[usize]) -> Result<(&'a [usize], usize)> {
    match x.shape().split_last() {
        Some((&width, rows)) if rows == outer && width > 0 => Ok((rows, width)),
        _ => {
            Err(Error::shape(op, format!("wanted [.., K] with one index per row, found {:?} and {outer:?}", x.shape())))
        }
    }
}

/// Checks that every one of `codes` is below `limit`.
fn check_codes(op: &'static str, what: &str, codes: &Codes, limit: usize) -> Result<()> {
    // Codes from a GPU are not read for this if their maker knew the limit.
    if codes.bound() <= limit {
        return Ok(());
    }
    match codes.as_slice().iter().position(|&code| code as usize >= limit) {
        Some(at) => Err(Error::shape(
            op,
            format!("{what} {} at position {at} of {:?} is not below {limit}", codes.as_slice()[at], codes.shape()),
        )),
        None => Ok(()),
    }
}

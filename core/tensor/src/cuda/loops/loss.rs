//! Losses that compare two tensors.

use crate::cuda::device::kernels::{blocks, check, elements};
use crate::cuda::device::operands::{on_gpu, output, tracked};
use crate::cuda::{Gpu, Numbers, length};
use crate::tape::record_on_gpu;
use crate::{Result, Tensor};
use cudarc::driver::{CudaSlice, LaunchAsync};
use dfdx::prelude::CudaError;

/// The kernels of `loss.cu`.
pub(crate) const KERNELS: &[&str] =
    &["squared_pieces", "scaled_difference", "soft_cross_entropy_forward", "soft_cross_entropy_backward"];

/// The mean squared difference of two tensors of one shape, which is not empty.
pub(crate) fn mse(x: &Tensor, target: &Tensor) -> Result<Option<Tensor>> {
    let Some((gpu, [a, b])) = on_gpu("mse", [x, target])? else {
        return Ok(None);
    };
    let n = x.len() as f64;
    let mean = gpu.squared_distance(a.numbers(), b.numbers(), 1.0 / n)?;
    let (x_key, y_key) = (tracked(x), tracked(target));
    let (out, key) = output(gpu, mean, &[], x_key.is_some() || y_key.is_some())?;
    if let Some(key) = key {
        record_on_gpu(&key, move |grad, flow| {
            for (key, scale) in [(x_key, 2.0 / n), (y_key, -2.0 / n)] {
                if let Some(key) = key {
                    flow.add(&key, gpu.scaled_difference([a.numbers(), b.numbers()], &grad, scale)?)?;
                }
            }
            Ok(())
        });
    }
    Ok(Some(out))
}

/// The soft cross entropy of every row, to shape `outer`; logits and targets have one shape, whose last axis is not empty.
pub(crate) fn soft_cross_entropy(x: &Tensor, targets: &Tensor, outer: &[usize]) -> Result<Option<Tensor>> {
    let Some((gpu, [logits, targets])) = on_gpu("soft_cross_entropy", [x, targets])? else {
        return Ok(None);
    };
    let width = x.last_dim();
    let x_key = tracked(x);
    let (loss, kept) = gpu.soft_cross_entropy([logits.numbers(), targets.numbers()], width)?;
    let (out, key) = output(gpu, loss, outer, x_key.is_some())?;
    if let (Some(x_key), Some(key)) = (x_key, key) {
        record_on_gpu(&key, move |grad, flow| {
            let operands = [logits.numbers(), targets.numbers(), &kept, &grad];
            flow.add(&x_key, gpu.soft_cross_entropy_backward(operands, width)?)
        });
    }
    Ok(Some(out))
}

impl Gpu {
    /// `scale` times the sum of `(x - y)^2`.
    fn squared_distance(&self, x: &Numbers, y: &Numbers, scale: f64) -> Result<Numbers, CudaError> {
        let n = length(x);
        check(n > 0 && length(y) == n)?;
        // Enough pieces to fill a GPU, and few enough for one block to finish.
        let piece = n.div_ceil(1024).max(4096).next_multiple_of(4);
        let pieces = n.div_ceil(piece);
        // SAFETY: any bits are an f64.
        #[allow(unsafe_code)]
        let mut partial: CudaSlice<f64> = unsafe { self.driver.alloc(pieces)? };
        let kernel = self.kernel("squared_pieces")?;
        // SAFETY: one block per piece reads below n and writes its element of `partial`.
        #[allow(unsafe_code)]
        unsafe {
            kernel.launch(blocks(pieces), (&**x, &**y, &mut partial, n as u64, piece as u64))?;
        }
        self.sum_partials(&partial, scale)
    }

    /// `grad * scale * (x - y)`, for a gradient of one number.
    fn scaled_difference(&self, [x, y]: [&Numbers; 2], grad: &Numbers, scale: f64) -> Result<Numbers, CudaError> {
        let n = length(x);
        check(length(y) == n && length(grad) == 1)?;
        let mut out = self.room(n)?;
        let kernel = self.kernel("scaled_difference")?;
        // SAFETY: the kernel reads and writes n elements, and reads one of `grad`.
        #[allow(unsafe_code)]
        unsafe {
            kernel.launch(elements(n.div_ceil(4)), (&**x, &**y, &**grad, &mut *out, n as u64, scale))?;
        }
        Ok(out)
    }

    /// Per row the loss, and two numbers that its gradient needs.
    fn soft_cross_entropy(&self, [x, targets]: [&Numbers; 2], width: usize) -> Result<(Numbers, Numbers), CudaError> {
        check(width > 0 && length(targets) == length(x) && length(x).is_multiple_of(width))?;
        let rows = length(x) / width;
        let (mut loss, mut kept) = (self.room(rows)?, self.room(2 * rows)?);
        if rows > 0 {
            let kernel = self.kernel("soft_cross_entropy_forward")?;
            let sizes = (rows as u64, width as u64);
            // SAFETY: the kernel reads rows * width elements of both, and writes one and two numbers per row.
            #[allow(unsafe_code)]
            unsafe {
                kernel.launch(blocks(rows), (&**x, &**targets, &mut *loss, &mut *kept, sizes.0, sizes.1))?;
            }
        }
        Ok((loss, kept))
    }

    fn soft_cross_entropy_backward(
        &self,
        [x, targets, kept, grad]: [&Numbers; 4],
        width: usize,
    ) -> Result<Numbers, CudaError> {
        let rows = length(x) / width;
        check(length(targets) == length(x) && length(kept) == 2 * rows && length(grad) == rows)?;
        let mut out = self.room(length(x))?;
        if rows > 0 {
            let kernel = self.kernel("soft_cross_entropy_backward")?;
            let sizes = (rows as u64, width as u64);
            // SAFETY: the lengths just checked are those that the kernel reads and writes.
            #[allow(unsafe_code)]
            unsafe {
                let all = (&**x, &**targets, &**kept, &**grad, &mut *out, sizes.0, sizes.1);
                kernel.launch(blocks(rows), all)?;
            }
        }
        Ok(out)
    }
}

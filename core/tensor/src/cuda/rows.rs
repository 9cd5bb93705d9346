//! Softmax, cross entropy and layer norm: the innermost axis as one unit.

use super::kernels::{blocks, check};
use super::operands::{on_gpu, output, tracked};
use super::{Gpu, Numbers, length, reduce};
use crate::tape::record_on_gpu;
use crate::{Codes, Result, Tensor};
use cudarc::driver::{CudaSlice, LaunchAsync};
use dfdx::prelude::CudaError;

/// `softmax` or `log_softmax`, as `op` says, of every row.
pub(crate) fn softmax(op: &'static str, x: &Tensor) -> Result<Option<Tensor>> {
    let Some((gpu, [input])) = on_gpu(op, [x])? else {
        return Ok(None);
    };
    let width = x.last_dim();
    let mut data = gpu.zeros(x.len())?;
    gpu.each_row(&format!("{op}_forward"), input.numbers(), &mut data, width)?;
    let x_key = tracked(x);
    let (out, key) = output(gpu, data, x.shape(), x_key.is_some())?;
    if let (Some(x_key), Some(key), Some(y)) = (x_key, key, out.gpu_buffer().cloned()) {
        record_on_gpu(&key, move |mut grad, flow| {
            gpu.each_row(&format!("{op}_backward"), y.numbers(), &mut grad, width)?;
            flow.add(&x_key, grad)
        });
    }
    Ok(Some(out))
}

/// `-log softmax(x)[target]` of every row, to shape `outer`; targets are below the rows' width.
pub(crate) fn cross_entropy(x: &Tensor, targets: &Codes, outer: &[usize]) -> Result<Option<Tensor>> {
    let Some((gpu, [input])) = on_gpu("cross_entropy", [x])? else {
        return Ok(None);
    };
    let width = x.last_dim();
    // The driver copies nothing of length zero.
    let targets = if targets.is_empty() { &[0] } else { targets.as_slice() };
    let targets = gpu.driver.htod_sync_copy(targets).map_err(CudaError::from)?;
    let (loss, normalizer) = gpu.cross_entropy(input.numbers(), &targets, width)?;
    let x_key = tracked(x);
    let (out, key) = output(gpu, loss, outer, x_key.is_some())?;
    if let (Some(x_key), Some(key)) = (x_key, key) {
        record_on_gpu(&key, move |grad, flow| {
            let dx = gpu.cross_entropy_backward(input.numbers(), &targets, &normalizer, &grad, width)?;
            flow.add(&x_key, dx)
        });
    }
    Ok(Some(out))
}

/// Layer norm of every row; weight and bias are as long as a row.
pub(crate) fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f32) -> Result<Option<Tensor>> {
    let Some((gpu, [input, w, b])) = on_gpu("layer_norm", [x, weight, bias])? else {
        return Ok(None);
    };
    let (data, moments) = gpu.layer_norm([input.numbers(), w.numbers(), b.numbers()], eps)?;
    let (x_key, w_key, b_key) = (tracked(x), tracked(weight), tracked(bias));
    let (out, key) = output(gpu, data, x.shape(), x_key.is_some() || w_key.is_some() || b_key.is_some())?;
    if let Some(key) = key {
        let (rows, width) = (x.len() / weight.len(), weight.len());
        record_on_gpu(&key, move |grad, flow| {
            let [dx, parts] = gpu.layer_norm_backward([input.numbers(), &moments, w.numbers(), &grad])?;
            for (key, of_rows) in [(&w_key, &parts), (&b_key, &grad)] {
                if let Some(key) = key {
                    flow.add(key, reduce::sum_to_shape(gpu, of_rows, &[rows, width], &[width])?)?;
                }
            }
            if let Some(key) = &x_key { flow.add(key, dx) } else { Ok(()) }
        });
    }
    Ok(Some(out))
}

impl Gpu {
    /// A kernel of `rows.cu` that reads `from` and writes `to`, both rows of `width`.
    fn each_row(&self, kernel: &str, from: &Numbers, to: &mut Numbers, width: usize) -> Result<(), CudaError> {
        let n = length(to);
        check(length(from) == n && (n == 0 || n.is_multiple_of(width)))?;
        if n > 0 {
            let (kernel, rows) = (self.kernel(kernel)?, n / width);
            // SAFETY: the kernel reads and writes rows * width elements; both have as many.
            #[allow(unsafe_code)]
            unsafe {
                kernel.launch(blocks(rows), (&**from, &mut **to, rows as u64, width as u64))?;
            }
        }
        Ok(())
    }

    /// Per row the loss and `log sum e^x`. Targets must be below `width`.
    fn cross_entropy(
        &self,
        x: &Numbers,
        targets: &CudaSlice<u32>,
        width: usize,
    ) -> Result<(Numbers, Numbers), CudaError> {
        let rows = length(x) / width;
        check(cudarc::driver::DeviceSlice::len(targets) >= rows)?;
        let (mut loss, mut normalizer) = (self.zeros(rows)?, self.zeros(rows)?);
        if rows > 0 {
            let kernel = self.kernel("cross_entropy_forward")?;
            let sizes = (rows as u64, width as u64);
            // SAFETY: the kernel reads rows * width logits and a target a row, which the operation has checked to be
            // below `width`, and writes two numbers a row.
            #[allow(unsafe_code)]
            unsafe {
                kernel.launch(blocks(rows), (&**x, targets, &mut *loss, &mut *normalizer, sizes.0, sizes.1))?;
            }
        }
        Ok((loss, normalizer))
    }

    fn cross_entropy_backward(
        &self,
        x: &Numbers,
        targets: &CudaSlice<u32>,
        normalizer: &Numbers,
        grad: &Numbers,
        width: usize,
    ) -> Result<Numbers, CudaError> {
        let rows = length(x) / width;
        check(length(normalizer) == rows && length(grad) == rows)?;
        let mut out = self.zeros(length(x))?;
        if rows > 0 {
            let kernel = self.kernel("cross_entropy_backward")?;
            let sizes = (rows as u64, width as u64);
            // SAFETY: `x` and `out` have rows * width elements, and the rest has one a row, as checked here and in the
            // forward pass.
            #[allow(unsafe_code)]
            unsafe {
                let of_rows = (targets, &**normalizer, &**grad);
                let all = (&**x, of_rows.0, of_rows.1, of_rows.2, &mut *out, sizes.0, sizes.1);
                kernel.launch(blocks(rows), all)?;
            }
        }
        Ok(out)
    }

    /// The norm of `x` with weight and bias, and each row's mean and reciprocal standard deviation.
    fn layer_norm(&self, [x, weight, bias]: [&Numbers; 3], eps: f32) -> Result<(Numbers, Numbers), CudaError> {
        let width = length(weight);
        check(width > 0 && length(bias) == width && length(x).is_multiple_of(width))?;
        let rows = length(x) / width;
        let (mut out, mut moments) = (self.zeros(length(x))?, self.zeros(2 * rows)?);
        if rows > 0 {
            let kernel = self.kernel("layer_norm_forward")?;
            let sizes = (rows as u64, width as u64);
            // SAFETY: `x` and `out` have rows * width elements, weight and bias `width`, `moments` two a row.
            #[allow(unsafe_code)]
            unsafe {
                let from = (&**x, &**weight, &**bias);
                let all = (from.0, from.1, from.2, &mut *out, &mut *moments, sizes.0, sizes.1, eps);
                kernel.launch(blocks(rows), all)?;
            }
        }
        Ok((out, moments))
    }

    /// The gradient of the input, and what that of the weight sums over the rows.
    fn layer_norm_backward(&self, [x, moments, weight, grad]: [&Numbers; 4]) -> Result<[Numbers; 2], CudaError> {
        let width = length(weight);
        let rows = length(x) / width;
        check(length(grad) == length(x) && length(moments) == 2 * rows && length(x) == rows * width)?;
        let (mut dx, mut parts) = (self.zeros(length(x))?, self.zeros(length(x))?);
        if rows > 0 {
            let kernel = self.kernel("layer_norm_backward")?;
            let sizes = (rows as u64, width as u64);
            // SAFETY: the lengths just checked are those that the kernel reads and writes.
            #[allow(unsafe_code)]
            unsafe {
                let from = (&**x, &**moments, &**weight, &**grad);
                let all = (from.0, from.1, from.2, from.3, &mut *dx, &mut *parts, sizes.0, sizes.1);
                kernel.launch(blocks(rows), all)?;
            }
        }
        Ok([dx, parts])
    }
}

//! Softmax and cross entropy: the innermost axis as one unit.

use crate::cuda::device::kernels::{blocks, check};
use crate::cuda::device::operands::{on_gpu, output, tracked};
use crate::cuda::{Gpu, Numbers, length};
use crate::tape::record_on_gpu;
use crate::{Codes, Result, Tensor};
use cudarc::driver::{CudaSlice, LaunchAsync};
use dfdx::prelude::CudaError;

/// The kernels of `rows.cu`.
pub(crate) const KERNELS: &[&str] = &[
    "softmax_forward",
    "softmax_backward",
    "log_softmax_forward",
    "log_softmax_backward",
    "cross_entropy_forward",
    "cross_entropy_backward",
];

/// `softmax` or `log_softmax`, as `op` says, of every row.
pub(crate) fn softmax(op: &'static str, x: &Tensor) -> Result<Option<Tensor>> {
    let Some((gpu, [input])) = on_gpu(op, [x])? else {
        return Ok(None);
    };
    let width = x.last_dim();
    let mut data = gpu.room(x.len())?;
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
    let targets = targets.on_gpu(gpu)?;
    let (loss, normalizer) = gpu.cross_entropy(input.numbers(), targets.slice(), width)?;
    let x_key = tracked(x);
    let (out, key) = output(gpu, loss, outer, x_key.is_some())?;
    if let (Some(x_key), Some(key)) = (x_key, key) {
        record_on_gpu(&key, move |grad, flow| {
            let dx = gpu.cross_entropy_backward(input.numbers(), targets.slice(), &normalizer, &grad, width)?;
            flow.add(&x_key, dx)
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
        let (mut loss, mut normalizer) = (self.room(rows)?, self.room(rows)?);
        if rows > 0 {
            let kernel = self.kernel("cross_entropy_forward")?;
            let sizes = (rows as u64, width as u64);
            // SAFETY: the kernel reads rows * width logits and one target per row, which the operation has checked to be
            // below `width`, and writes two numbers per row.
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
        let mut out = self.room(length(x))?;
        if rows > 0 {
            let kernel = self.kernel("cross_entropy_backward")?;
            let sizes = (rows as u64, width as u64);
            // SAFETY: `x` and `out` have rows * width elements, and the rest has one per row, as checked here and in the
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
}

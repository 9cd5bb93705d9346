//! Weight normalisation: rows as lengths and directions.

use crate::cuda::device::kernels::{blocks, check};
use crate::cuda::{Gpu, Numbers, length};
use cudarc::driver::LaunchAsync;
use dfdx::prelude::CudaError;

/// The kernels of `weight.cu`.
pub(crate) const KERNELS: &[&str] = &["weight_norm_forward", "weight_norm_direction", "weight_norm_length"];

/// Rows and their width.
fn sizes(numbers: &Numbers, rows: usize) -> Result<(u64, u64), CudaError> {
    check(rows > 0 && length(numbers).is_multiple_of(rows))?;
    Ok((rows as u64, (length(numbers) / rows) as u64))
}

impl Gpu {
    /// `g v / |v|` of every row; there is a g for each.
    pub(crate) fn weight_norm(&self, v: &Numbers, g: &Numbers) -> Result<Numbers, CudaError> {
        let (rows, width) = sizes(v, length(g))?;
        let (kernel, mut out) = (self.kernel("weight_norm_forward")?, self.room(length(v))?);
        // SAFETY: `v` and `out` have rows * width numbers, `g` one per row.
        #[allow(unsafe_code)]
        unsafe {
            kernel.launch(blocks(length(g)), (&**v, &**g, &mut *out, rows, width))?;
        }
        Ok(out)
    }

    /// The gradient of v from that of `g v / |v|`.
    pub(crate) fn weight_norm_direction(&self, grad: &Numbers, v: &Numbers, g: &Numbers) -> Result<Numbers, CudaError> {
        let (rows, width) = sizes(v, length(g))?;
        check(length(grad) == length(v))?;
        let (kernel, mut out) = (self.kernel("weight_norm_direction")?, self.room(length(v))?);
        // SAFETY: `grad`, `v` and `out` have rows * width numbers, `g` one per row.
        #[allow(unsafe_code)]
        unsafe {
            kernel.launch(blocks(length(g)), (&**grad, &**v, &**g, &mut *out, rows, width))?;
        }
        Ok(out)
    }

    /// The gradient of g, of which there are `count`, from that of `g v / |v|`.
    pub(crate) fn weight_norm_length(&self, grad: &Numbers, v: &Numbers, count: usize) -> Result<Numbers, CudaError> {
        let (rows, width) = sizes(v, count)?;
        check(length(grad) == length(v))?;
        let (kernel, mut out) = (self.kernel("weight_norm_length")?, self.room(count)?);
        // SAFETY: `grad` and `v` have rows * width numbers, `out` one per row.
        #[allow(unsafe_code)]
        unsafe {
            kernel.launch(blocks(count), (&**grad, &**v, &mut *out, rows, width))?;
        }
        Ok(out)
    }
}

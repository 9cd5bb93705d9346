//! Gated linear units.

use crate::cuda::device::kernels::{check, elements};
use crate::cuda::{Gpu, Numbers, length};
use cudarc::driver::LaunchAsync;
use dfdx::prelude::CudaError;

/// The kernels of `gate.cu`.
pub(crate) const KERNELS: &[&str] = &["add_glu", "glu_gradient"];

impl Gpu {
    /// `x + a sigmoid(b)` for rows of `width`, where each row of `gates` is a and b.
    pub(crate) fn add_glu(&self, x: &Numbers, gates: &Numbers, width: usize) -> Result<Numbers, CudaError> {
        self.gate("add_glu", x, gates, length(x), width)
    }

    /// The gradients of a and b, side by side as in `gates`, from that of `a sigmoid(b)`.
    pub(crate) fn glu_gradient(&self, grad: &Numbers, gates: &Numbers, width: usize) -> Result<Numbers, CudaError> {
        self.gate("glu_gradient", grad, gates, length(gates), width)
    }

    fn gate(&self, name: &str, x: &Numbers, gates: &Numbers, len: usize, width: usize) -> Result<Numbers, CudaError> {
        let n = length(x);
        check(length(gates) == 2 * n && (n == 0 || n.is_multiple_of(width)))?;
        let mut out = self.room(len)?;
        if n > 0 {
            let kernel = self.kernel(name)?;
            // SAFETY: `x` has n numbers and `gates` 2n; one kernel writes n, the other 2n, as many as `out` has.
            #[allow(unsafe_code)]
            unsafe {
                kernel.launch(elements(n), (&**x, &**gates, &mut *out, n as u64, width as u64))?;
            }
        }
        Ok(out)
    }
}

//! The hidden state of SwiGLU.

use crate::cuda::device::kernels::{check, elements};
use crate::cuda::device::operands::{on_gpu, output, tracked};
use crate::cuda::{Gpu, Numbers, length};
use crate::tape::record_on_gpu;
use crate::{Result, Tensor};
use cudarc::driver::LaunchAsync;
use dfdx::prelude::CudaError;

/// The kernels of `swiglu.cu`.
pub(crate) const KERNELS: &[&str] = &["silu_mul", "silu_mul_gate"];

/// `silu(gate) x`, of equal shapes.
pub(crate) fn silu_mul(gate: &Tensor, x: &Tensor) -> Result<Option<Tensor>> {
    let Some((gpu, [g, other])) = on_gpu("silu_mul", [gate, x])? else {
        return Ok(None);
    };
    let keys = [tracked(gate), tracked(x)];
    let data = gpu.silu_mul(g.numbers(), other.numbers())?;
    let (out, key) = output(gpu, data, x.shape(), keys.iter().any(Option::is_some))?;
    if let Some(key) = key {
        record_on_gpu(&key, move |grad, flow| {
            if let Some(key) = &keys[0] {
                flow.add(key, gpu.silu_mul_gate([g.numbers(), other.numbers(), &grad])?)?;
            }
            match &keys[1] {
                Some(key) => flow.add(key, gpu.silu_mul(g.numbers(), &grad)?),
                None => Ok(()),
            }
        });
    }
    Ok(Some(out))
}

impl Gpu {
    /// `silu(gate) x`, which is also the gradient of x where `x` is that of the product.
    pub(crate) fn silu_mul(&self, gate: &Numbers, x: &Numbers) -> Result<Numbers, CudaError> {
        let n = length(x);
        check(length(gate) == n)?;
        let mut out = self.room(n)?;
        if n > 0 {
            let kernel = self.kernel("silu_mul")?;
            // SAFETY: all three have the n numbers that the kernel reads and writes.
            #[allow(unsafe_code)]
            unsafe {
                kernel.launch(elements(n), (&**gate, &**x, &mut *out, n as u64))?;
            }
        }
        Ok(out)
    }

    /// The gradient of the gate.
    fn silu_mul_gate(&self, [gate, x, grad]: [&Numbers; 3]) -> Result<Numbers, CudaError> {
        let n = length(x);
        check(length(gate) == n && length(grad) == n)?;
        let mut out = self.room(n)?;
        if n > 0 {
            let kernel = self.kernel("silu_mul_gate")?;
            // SAFETY: all four have the n numbers that the kernel reads and writes.
            #[allow(unsafe_code)]
            unsafe {
                kernel.launch(elements(n), (&**gate, &**x, &**grad, &mut *out, n as u64))?;
            }
        }
        Ok(out)
    }
}

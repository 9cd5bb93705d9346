//! Dropout.

use crate::cuda::device::kernels::{check, elements};
use crate::cuda::device::operands::{on_gpu, output, tracked};
use crate::cuda::{Gpu, Numbers, length};
use crate::tape::record_on_gpu;
use crate::{Result, Rng, Tensor};
use cudarc::driver::LaunchAsync;
use dfdx::prelude::CudaError;

/// The kernels of `philox.cu`.
pub(crate) const KERNELS: &[&str] = &["dropout"];

/// Zeroes element i where word i of `rng` falls below `p`, which is in (0, 1), and scales the rest by 1 / (1 - p).
pub(crate) fn dropout(x: &Tensor, p: f32, rng: &Rng) -> Result<Option<Tensor>> {
    let Some((gpu, [input])) = on_gpu("dropout", [x])? else {
        return Ok(None);
    };
    let (x_key, rng) = (tracked(x), *rng);
    let (out, key) = output(gpu, gpu.dropout(input.numbers(), p, &rng)?, x.shape(), x_key.is_some())?;
    if let (Some(x_key), Some(key)) = (x_key, key) {
        // The mask is drawn again rather than kept.
        record_on_gpu(&key, move |grad, flow| flow.add(&x_key, gpu.dropout(&grad, p, &rng)?));
    }
    Ok(Some(out))
}

impl Gpu {
    fn dropout(&self, x: &Numbers, p: f32, rng: &Rng) -> Result<Numbers, CudaError> {
        let n = length(x);
        let mut out = self.room(n)?;
        if n > 0 {
            let (key, step) = rng.parts();
            let threshold = (f64::from(p) * 4_294_967_296.0) as u32;
            let kernel = self.kernel("dropout")?;
            check(length(&out) == n)?;
            // SAFETY: the kernel reads and writes the first n elements; both have n. Allocations are aligned to more
            // than the four numbers that it reads at a time.
            #[allow(unsafe_code)]
            unsafe {
                let first = rng.first(n);
                let all = (&**x, &mut *out, n as u64, first, key[0], key[1], step, threshold, 1.0 / (1.0 - p));
                kernel.launch(elements(n.div_ceil(4)), all)?;
            }
        }
        Ok(out)
    }
}

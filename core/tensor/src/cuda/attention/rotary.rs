//! Rotations of queries and keys.

use crate::cpu::attention::rotary::Turned;
use crate::cuda::device::kernels::{check, elements};
use crate::cuda::{Gpu, Numbers, length};
use cudarc::driver::LaunchAsync;
use dfdx::prelude::CudaError;

/// The kernels of `rotary.cu`.
pub(crate) const KERNELS: &[&str] = &["rotate_heads"];

impl Gpu {
    /// The rows of `x`, turned by those of `table` from row `first` on.
    pub(crate) fn rotated(
        &self,
        turned: Turned,
        x: &Numbers,
        table: &Numbers,
        first: usize,
    ) -> Result<Numbers, CudaError> {
        let Turned { head, row, turned, period, back } = turned;
        let n = length(x);
        // Rows of an even length, so that the neighbour of a number lies in its row.
        check(row > 0 && row.is_multiple_of(2) && n.is_multiple_of(row) && turned <= row && head.is_multiple_of(2))?;
        check(head > 0 && turned.is_multiple_of(head) && length(table) >= (first + period) * 2 * head)?;
        let mut out = self.room(n)?;
        if n > 0 {
            let [row, turned, head, period, first] = [row, turned, head, period, first].map(|size| size as u64);
            let kernel = self.kernel("rotate_heads")?;
            // SAFETY: `x` and `out` have n numbers, and the table the rows that were just checked.
            #[allow(unsafe_code)]
            unsafe {
                let sign = if back { -1.0f32 } else { 1.0 };
                let all = (&**x, &**table, &mut *out, n as u64, row, turned, head, period, first, sign);
                kernel.launch(elements(n), all)?;
            }
        }
        Ok(out)
    }
}

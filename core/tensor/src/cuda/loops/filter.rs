//! Weighted sums along an axis.

use crate::cpu::loops::filter::Lines;
use crate::cuda::device::kernels::{check, elements};
use crate::cuda::loops::layout::short;
use crate::cuda::{Gpu, Numbers, length};
use cudarc::driver::LaunchAsync;
use dfdx::prelude::CudaError;

/// The kernels of `filter.cu`.
pub(crate) const KERNELS: &[&str] = &["filter_lines"];

impl Gpu {
    /// The sums that the rows of `table` describe, which were checked when the filter was made.
    pub(crate) fn filter(&self, x: &Numbers, table: &Numbers, lines: Lines) -> Result<Numbers, CudaError> {
        let Lines { from, to, inner } = lines;
        let outer = length(x).checked_div(from * inner).unwrap_or(0);
        let n = outer * to * inner;
        let mut out = self.room(n)?;
        if n > 0 {
            check(length(x) == outer * from * inner && length(table).is_multiple_of(to))?;
            let sizes = [short(from)?, short(to)?, short(inner)?, short(length(table) / to)?];
            let kernel = self.kernel("filter_lines")?;
            // SAFETY: the kernel writes the n elements of `out` and reads the lines that the table names, all of which are
            // among the `from` of each of the `outer` blocks.
            #[allow(unsafe_code)]
            unsafe {
                let all = (&**x, &**table, &mut *out, n as u64, sizes[0], sizes[1], sizes[2], sizes[3]);
                kernel.launch(elements(n), all)?;
            }
        }
        Ok(out)
    }
}

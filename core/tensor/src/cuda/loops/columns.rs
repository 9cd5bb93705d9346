//! Sums down the columns of a matrix.

use crate::cuda::device::kernels::{block_grid, check};
use crate::cuda::{Gpu, Numbers, length};
use cudarc::driver::{CudaSlice, DeviceSlice, LaunchAsync};
use dfdx::prelude::CudaError;

/// The kernels of `columns.cu`.
pub(crate) const KERNELS: &[&str] = &["column_pieces", "column_join"];

/// Pieces of the rows at most, and rows of a piece at least.
const PIECES: usize = 128;
const ROWS: usize = 64;

/// Columns of a block of `columns.cu`.
fn across(columns: usize) -> usize {
    columns.next_power_of_two().min(32)
}

impl Gpu {
    /// Room for `len` sums, all of which a kernel must write.
    pub(crate) fn room_for_sums(&self, len: usize) -> Result<CudaSlice<f64>, CudaError> {
        // SAFETY: any bits are an f64.
        #[allow(unsafe_code)]
        Ok(unsafe { self.driver.alloc(len) }?)
    }

    /// `scale` times the sums over all rows of `x`, a matrix of rows of `columns` numbers.
    pub(crate) fn column_sums(&self, x: &Numbers, columns: usize, scale: f64) -> Result<Numbers, CudaError> {
        if columns == 0 || length(x) == 0 {
            return self.zeros(columns);
        }
        let mut out = self.room(columns)?;
        check(length(x).is_multiple_of(columns))?;
        let rows = length(x) / columns;
        let piece = rows.div_ceil(PIECES).max(ROWS);
        let (pieces, across) = (rows.div_ceil(piece), across(columns));
        let mut partial = self.room_for_sums(pieces * columns)?;
        let kernel = self.kernel("column_pieces")?;
        let grid = block_grid([columns.div_ceil(across), pieces, 1], 0)?;
        let sizes = (rows as u64, columns as u64, piece as u64, across as u64);
        // SAFETY: the kernel reads rows * columns elements and writes pieces * columns; there are as many.
        #[allow(unsafe_code)]
        unsafe {
            kernel.launch(grid, (&**x, &mut partial, sizes.0, sizes.1, sizes.2, sizes.3))?;
        }
        let mut nothing = self.zeros(0)?;
        self.join_columns(&partial, [&mut out, &mut nothing], scale)?;
        Ok(out)
    }

    /// `scale` times the sums down the columns of `partial`: those of the first columns to the first output, the rest
    /// to the second.
    pub(crate) fn join_columns(
        &self,
        partial: &CudaSlice<f64>,
        [first, second]: [&mut Numbers; 2],
        scale: f64,
    ) -> Result<(), CudaError> {
        let (split, columns) = (length(first), length(first) + length(second));
        check(columns > 0 && partial.len().is_multiple_of(columns))?;
        let (pieces, across) = (partial.len() / columns, across(columns));
        let kernel = self.kernel("column_join")?;
        let grid = block_grid([columns.div_ceil(across), 1, 1], 0)?;
        let sizes = (pieces as u64, columns as u64, split as u64, across as u64);
        // SAFETY: the kernel reads pieces * columns elements, and writes below `split` to the first and the others to
        // the second output, which have as many.
        #[allow(unsafe_code)]
        unsafe {
            let to = (&mut **first, &mut **second);
            kernel.launch(grid, (partial, to.0, to.1, sizes.0, sizes.1, sizes.2, sizes.3, scale))?;
        }
        Ok(())
    }
}

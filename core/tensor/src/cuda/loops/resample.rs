//! Resampling of maps: copies and sums between pixels and cells of them.

use crate::cpu::loops::resample::Cells;
use crate::cuda::device::kernels::{check, elements};
use crate::cuda::loops::layout::{short, wide};
use crate::cuda::{Gpu, Numbers, length};
use cudarc::driver::{DeviceRepr, LaunchAsync};
use dfdx::prelude::CudaError;

/// The kernels of `resample.cu`.
pub(crate) const KERNELS: &[&str] = &["repeat_single", "repeat_quads", "sum_cells_single", "sum_cells_quads"];

/// `Cells` of `resample.cu`, with channels counted in elements.
#[derive(Clone, Copy)]
#[repr(C)]
struct DeviceCells {
    sizes: [u32; 6],
    scale: f32,
}

// SAFETY: plain numbers in C's layout, the same as in `resample.cu`.
#[allow(unsafe_code)]
unsafe impl DeviceRepr for DeviceCells {}

impl Gpu {
    /// Spreads every pixel over its cell; what belongs to no cell becomes 0.
    pub(crate) fn repeat(&self, small: &Numbers, cells: Cells) -> Result<Numbers, CudaError> {
        let [large_image, small_image] = cells.images();
        let n = length(small).checked_div(small_image).unwrap_or(0) * large_image;
        let mut large = self.room(n)?;
        if n > 0 {
            check(length(small).is_multiple_of(small_image))?;
            self.resample("repeat", small, &mut large, cells)?;
        }
        Ok(large)
    }

    /// Sums every cell.
    pub(crate) fn sum_cells(&self, large: &Numbers, cells: Cells) -> Result<Numbers, CudaError> {
        let [large_image, small_image] = cells.images();
        let n = length(large).checked_div(large_image).unwrap_or(0) * small_image;
        let mut small = self.room(n)?;
        if n > 0 {
            check(length(large).is_multiple_of(large_image))?;
            self.resample("sum_cells", large, &mut small, cells)?;
        }
        Ok(small)
    }

    /// A kernel that reads `from` and writes `to`, one of which has a cell for each pixel of the other.
    fn resample(&self, kernel: &str, from: &Numbers, to: &mut Numbers, cells: Cells) -> Result<(), CudaError> {
        let (wide, suffix) = wide(&[cells.channels]);
        let n = short(length(to) / wide)?;
        let ([height, width], [rows, columns]) = (cells.size, cells.count());
        let sizes = [height, width, rows, columns, cells.channels / wide, cells.factor];
        let mut shorts = [0; 6];
        for (to, size) in shorts.iter_mut().zip(sizes) {
            *to = short(size)?;
        }
        let cells = DeviceCells { sizes: shorts, scale: cells.scale };
        let kernel = self.kernel(&format!("{kernel}_{suffix}"))?;
        // SAFETY: the kernel writes the elements of `to` and reads the pixels of `from` that belong to them; the caller
        // has checked that these are whole images.
        #[allow(unsafe_code)]
        unsafe {
            kernel.launch(elements(n as usize), (&**from, &mut **to, u64::from(n), cells))?;
        }
        Ok(())
    }
}

//! Sums and means.

use crate::cuda::device::kernels::{Axes, blocks, check, elements};
use crate::cuda::{Gpu, Numbers, length};
use cudarc::driver::{CudaSlice, LaunchAsync};
use dfdx::prelude::CudaError;

/// The kernels of `reduce.cu`.
pub(crate) const KERNELS: &[&str] = &["sum_few", "sum_many", "sum_pieces", "sum_partials"];

/// Elements up to which one thread sums them, rather than one block.
const FEW: usize = 64;

impl Gpu {
    /// `scale` times the sum over the axes of `shape` that are marked in `reduced`.
    pub(crate) fn sum(&self, x: &Numbers, shape: &[usize], reduced: &[bool], scale: f32) -> Result<Numbers, CudaError> {
        // Neighbouring axes of one kind are one axis.
        let (mut sizes, mut strides) = ([vec![], vec![]], [vec![], vec![]]);
        let (mut stride, mut before) = (1, None);
        for (&size, &is_reduced) in shape.iter().zip(reduced).rev() {
            let kind = usize::from(is_reduced);
            match sizes[kind].last_mut() {
                Some(last) if before == Some(kind) => *last *= size,
                _ => {
                    sizes[kind].push(size);
                    strides[kind].push(stride);
                }
            }
            before = Some(kind);
            stride *= size;
        }
        let axes = |kind: usize| {
            let [size, stride]: [Vec<usize>; 2] =
                [&sizes[kind], &strides[kind]].map(|v| v.iter().rev().copied().collect());
            Axes::new(&size, &stride, &[])
        };
        self.sum_axes(x, axes(0)?, axes(1)?, scale)
    }

    /// `scale` times the sum over the axes `reduced` for every index over the axes `kept`; strides are those of `x`.
    fn sum_axes(&self, x: &Numbers, kept: Axes, reduced: Axes, scale: f32) -> Result<Numbers, CudaError> {
        let (outputs, count) = (kept.count(), reduced.count());
        let is_axis = |axes: &Axes, stride: usize| axes.rank == 1 && axes.x[0] == stride as u64;
        if count > FEW && is_axis(&kept, 1) && is_axis(&reduced, outputs) {
            check(length(x) == outputs * count)?;
            return self.column_sums(x, outputs, scale.into());
        }
        let mut out = if count == 0 { self.zeros(outputs)? } else { self.room(outputs)? };
        if outputs > 0 && count > 0 {
            check(kept.last()[0] + reduced.last()[0] < length(x))?;
            let (kernel, launch) =
                if count <= FEW { ("sum_few", elements(outputs)) } else { ("sum_many", blocks(outputs)) };
            let kernel = self.kernel(kernel)?;
            let (outputs, count) = (outputs as u64, count as u64);
            // SAFETY: the kernels write the elements of `out` and read `x` up to the offset just checked.
            #[allow(unsafe_code)]
            unsafe {
                kernel.launch(launch, (&**x, &mut *out, outputs, count, kept, reduced, scale))?;
            }
        }
        Ok(out)
    }

    /// `scale` times the sum of all elements.
    pub(crate) fn sum_all(&self, x: &Numbers, scale: f64) -> Result<Numbers, CudaError> {
        let n = length(x);
        if n == 0 {
            return self.zeros(1);
        }
        // Enough pieces to fill a GPU, and few enough for one block to finish.
        let piece = n.div_ceil(1024).max(4096);
        let pieces = n.div_ceil(piece);
        let mut partial = self.room_for_sums(pieces)?;
        let kernel = self.kernel("sum_pieces")?;
        // SAFETY: one block per piece reads below n and writes its element of `partial`.
        #[allow(unsafe_code)]
        unsafe {
            kernel.launch(blocks(pieces), (&**x, &mut partial, n as u64, piece as u64))?;
        }
        self.sum_partials(&partial, scale)
    }

    /// `scale` times the sum of sums over pieces.
    pub(crate) fn sum_partials(&self, partial: &CudaSlice<f64>, scale: f64) -> Result<Numbers, CudaError> {
        let mut out = self.room(1)?;
        let kernel = self.kernel("sum_partials")?;
        let pieces = cudarc::driver::DeviceSlice::len(partial) as u64;
        // SAFETY: one block reads all of `partial` and writes the one element of `out`.
        #[allow(unsafe_code)]
        unsafe {
            kernel.launch(blocks(1), (partial, &mut *out, pieces, scale))?;
        }
        Ok(out)
    }
}

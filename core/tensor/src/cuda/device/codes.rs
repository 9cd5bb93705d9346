//! Codes on a GPU.

use crate::cuda::Gpu;
use crate::cuda::device::kernels::{check, elements};
use crate::cuda::device::operands::on_gpu;
use crate::cuda::{Buffer, Numbers, length};
use crate::{Codes, Device, Result, Tensor};
use cudarc::driver::{CudaSlice, DeviceSlice, LaunchAsync};
use dfdx::prelude::CudaError;
use std::sync::Arc;

/// Codes on a GPU that are not written to any more. Cloning shares them.
#[derive(Clone)]
pub(crate) struct OnGpu {
    gpu: &'static Gpu,
    codes: Arc<CudaSlice<u32>>,
}

/// The kernels of `codes.cu`.
pub(crate) const KERNELS: &[&str] = &["copy_codes", "codes_of_numbers", "numbers_of_codes"];

/// The whole numbers of `x` as codes below `size`.
pub(crate) fn of_numbers(x: &Tensor, size: usize) -> Result<Option<Codes>> {
    let Some((gpu, [numbers])) = on_gpu("to_codes", [x])? else {
        return Ok(None);
    };
    let codes = gpu.codes_of_numbers(numbers.numbers(), size)?;
    Ok(Some(Codes::of_gpu(OnGpu::new(gpu, codes), x.shape(), size)))
}

/// Codes as numbers.
pub(crate) fn to_numbers(codes: &Codes) -> Result<Option<Tensor>> {
    let Some(gpu) = codes.gpu()? else {
        return Ok(None);
    };
    let numbers = gpu.numbers_of_codes(&codes.on_gpu(gpu)?.codes)?;
    Ok(Some(Tensor::on_gpu(Buffer::new(gpu, numbers), codes.shape(), None)))
}

impl OnGpu {
    /// Codes that a kernel has written.
    pub(crate) fn new(gpu: &'static Gpu, codes: CudaSlice<u32>) -> Self {
        Self { gpu, codes: Arc::new(codes) }
    }

    /// A copy of `codes` on `gpu`, which nobody waits for.
    pub(crate) fn upload(gpu: &'static Gpu, codes: &[u32]) -> Result<Self> {
        let mut copy = gpu.room_for_codes(codes.len())?;
        gpu.send(codes, &mut copy)?;
        Ok(Self::new(gpu, copy))
    }

    /// A copy on the host.
    pub(crate) fn download(&self) -> Result<Vec<u32>> {
        let mut copy = vec![0; self.len()];
        if !copy.is_empty() {
            crate::cuda::device::count_read();
            self.gpu.driver.dtoh_sync_copy_into(&*self.codes, &mut copy).map_err(CudaError::from)?;
        }
        Ok(copy)
    }

    pub(crate) fn gpu(&self) -> &'static Gpu {
        self.gpu
    }

    pub(crate) fn device(&self) -> Device {
        Device::Cuda(self.gpu.ordinal)
    }

    pub(crate) fn len(&self) -> usize {
        self.codes.len()
    }

    /// The codes as an operand of a kernel.
    pub(crate) fn slice(&self) -> &CudaSlice<u32> {
        &self.codes
    }

    /// Of every `step` codes the `len` from `start` on.
    pub(crate) fn blocks(&self, start: usize, len: usize, step: usize) -> Result<Self> {
        let count = self.len() / step.max(1);
        let mut out = self.gpu.room_for_codes(count * len)?;
        self.gpu.copy_codes(&self.codes, [step, start], &mut out, [len, 0], [count, len])?;
        Ok(Self::new(self.gpu, out))
    }

    /// By turns so many codes of each part.
    pub(crate) fn join(gpu: &'static Gpu, parts: &[(Self, usize)]) -> Result<Self> {
        let step: usize = parts.iter().map(|(_, len)| len).sum();
        let mut out = gpu.room_for_codes(parts.iter().map(|(part, _)| part.len()).sum())?;
        let count = out.len() / step.max(1);
        let mut start = 0;
        for (part, len) in parts {
            gpu.copy_codes(&part.codes, [*len, 0], &mut out, [step, start], [count, *len])?;
            start += len;
        }
        Ok(Self::new(gpu, out))
    }
}

impl Gpu {
    /// Room for `len` codes, all of which a kernel must write.
    pub(crate) fn room_for_codes(&self, len: usize) -> Result<CudaSlice<u32>, CudaError> {
        // SAFETY: any bits are a u32.
        #[allow(unsafe_code)]
        Ok(unsafe { self.driver.alloc(len) }?)
    }

    /// Numbers as codes below `size`, which is not 0.
    fn codes_of_numbers(&self, x: &Numbers, size: usize) -> Result<CudaSlice<u32>, CudaError> {
        let n = length(x);
        let mut out = self.room_for_codes(n)?;
        if n > 0 {
            let kernel = self.kernel("codes_of_numbers")?;
            // SAFETY: the kernel reads and writes the first n elements; both have n.
            #[allow(unsafe_code)]
            unsafe {
                kernel.launch(elements(n), (&**x, &mut out, n as u64, (size - 1) as f32))?;
            }
        }
        Ok(out)
    }

    /// Codes as numbers.
    fn numbers_of_codes(&self, codes: &CudaSlice<u32>) -> Result<Numbers, CudaError> {
        let n = codes.len();
        let mut out = self.room(n)?;
        if n > 0 {
            let kernel = self.kernel("numbers_of_codes")?;
            // SAFETY: the kernel reads and writes the first n elements; both have n.
            #[allow(unsafe_code)]
            unsafe {
                kernel.launch(elements(n), (codes, &mut *out, n as u64))?;
            }
        }
        Ok(out)
    }

    /// Copies `count` blocks of `len` codes, which begin in steps from a start on either side.
    fn copy_codes(
        &self,
        from: &CudaSlice<u32>,
        [from_step, from_start]: [usize; 2],
        to: &mut CudaSlice<u32>,
        [to_step, to_start]: [usize; 2],
        [count, len]: [usize; 2],
    ) -> Result<(), CudaError> {
        let n = count * len;
        if n == 0 {
            return Ok(());
        }
        check((count - 1) * from_step + from_start + len <= from.len())?;
        check((count - 1) * to_step + to_start + len <= to.len())?;
        let kernel = self.kernel("copy_codes")?;
        let [from_step, from_start, to_step, to_start] = [from_step, from_start, to_step, to_start].map(|x| x as u64);
        // SAFETY: the kernel reads and writes n codes, the last of which were just checked to be inside.
        #[allow(unsafe_code)]
        unsafe {
            let arguments = (from, to, n as u64, len as u64, from_step, from_start, to_step, to_start);
            kernel.launch(elements(n), arguments)?;
        }
        Ok(())
    }
}

//! NVIDIA GPUs: opening one, and the kernels that run there.
//!
//! dfdx gives the device, its allocations, and the tape with its gradients. A tensor's numbers are a dfdx allocation
//! ([`Numbers`]) rather than a dfdx tensor, whose data cannot be reached from outside. Kernels are our own, compiled
//! by NVRTC when a device is opened; products are cuBLAS's. An operation without a kernel here says so
//! ([`Error::NoKernel`]).

pub(crate) mod arithmetic;
mod buffer;
mod kernels;
mod operands;
pub(crate) mod product;
pub(crate) mod reduce;
pub(crate) mod rows;
pub(crate) mod tape;
pub(crate) mod unary;

pub(crate) use buffer::Buffer;

use crate::{Device, Error, Result};
use cudarc::cublas::CudaBlas;
use cudarc::driver::{CudaDevice, result};
use dfdx::prelude::{Cuda, CudaError, Storage};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Numbers on a GPU, as dfdx allocates them for tensors and for gradients.
pub(crate) type Numbers = <Cuda as Storage<f32>>::Vec;

/// An open GPU.
pub(crate) struct Gpu {
    pub(crate) ordinal: usize,
    dfdx: Cuda,
    driver: Arc<CudaDevice>,
    /// A handle serves one thread at a time.
    blas: Mutex<CudaBlas>,
}

// SAFETY: all that keeps dfdx's device from being shared is the handle of a stream, and handles of the driver may be
// used from any thread. What it holds beside that is locked or shared already.
#[allow(unsafe_code)]
unsafe impl Send for Gpu {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl Sync for Gpu {}

impl std::fmt::Debug for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Gpu({})", self.ordinal)
    }
}

impl From<CudaError> for Error {
    fn from(error: CudaError) -> Self {
        Self::Device(format!("CUDA: {error:?}"))
    }
}

/// The GPU of this ordinal, opened on first use and kept open until the process ends.
///
/// # Errors
/// [`Error::Device`] says what is missing: a driver, the GPU, or memory.
pub(crate) fn open(ordinal: usize) -> Result<&'static Gpu> {
    static OPEN: Mutex<BTreeMap<usize, &'static Gpu>> = Mutex::new(BTreeMap::new());
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(gpu) = open.get(&ordinal) {
        return Ok(gpu);
    }
    let gpu: &'static Gpu = Box::leak(Box::new(Gpu::new(ordinal)?));
    open.insert(ordinal, gpu);
    Ok(gpu)
}

impl Gpu {
    fn new(ordinal: usize) -> Result<Self> {
        let failed = |what: &str, error: String| Error::Device(format!("{}: {what}: {error}", Device::Cuda(ordinal)));
        // cudarc's constructor panics where these two fail.
        result::init().map_err(|e| failed("the driver did not start", format!("{e:?}")))?;
        let count = result::device::get_count().map_err(|e| failed("the driver counts no GPUs", format!("{e:?}")))?;
        if i32::try_from(ordinal).map_or(true, |ordinal| ordinal >= count) {
            return Err(failed("no such GPU", format!("this machine has {count}, counted from 0")));
        }
        // The seed feeds a generator that we do not use.
        let dfdx = Cuda::try_build(ordinal, 0).map_err(|e| failed("the GPU did not open", format!("{e:?}")))?;
        let probe: Numbers = dfdx.try_alloc_len(1)?;
        let driver = probe.device();
        kernels::load(&driver).map_err(|error| failed("the kernels did not load", error))?;
        let blas = CudaBlas::new(driver.clone()).map_err(|e| failed("cuBLAS did not start", format!("{e:?}")))?;
        Ok(Self { ordinal, dfdx, driver, blas: Mutex::new(blas) })
    }

    /// Room for `len` numbers, zeros.
    pub(crate) fn zeros(&self, len: usize) -> Result<Numbers, CudaError> {
        self.dfdx.try_alloc_len(len)
    }

    /// A copy of `data` on the GPU.
    pub(crate) fn upload(&self, data: &[f32]) -> Result<Numbers, CudaError> {
        let mut numbers = self.zeros(data.len())?;
        if !data.is_empty() {
            self.driver.htod_sync_copy_into(data, &mut *numbers)?;
        }
        Ok(numbers)
    }

    /// A copy of `numbers` on the host.
    pub(crate) fn download(&self, numbers: &Numbers) -> Result<Vec<f32>, CudaError> {
        let mut data = vec![0.0; length(numbers)];
        if !data.is_empty() {
            self.driver.dtoh_sync_copy_into(&**numbers, &mut data)?;
        }
        Ok(data)
    }

    /// A copy of `numbers` beside them.
    pub(crate) fn copy(&self, numbers: &Numbers) -> Result<Numbers, CudaError> {
        let mut copy = self.zeros(length(numbers))?;
        if length(numbers) > 0 {
            self.driver.dtod_copy(&**numbers, &mut *copy)?;
        }
        Ok(copy)
    }
}

/// How many numbers there are.
pub(crate) fn length(numbers: &Numbers) -> usize {
    cudarc::driver::DeviceSlice::len(numbers)
}

//! Opening a GPU, its memory, and what all launches of kernels share.
//!
//! dfdx gives the device, its allocations, and the tape with its gradients. A tensor's numbers are a dfdx allocation
//! ([`Numbers`]) rather than a dfdx tensor, whose data cannot be reached from outside. Kernels are our own, compiled
//! by NVRTC when a device is first opened and then kept on disk; products are cuBLAS's. An operation without a kernel
//! here says so ([`Error::NoKernel`]).

pub(crate) mod buffer;
pub(crate) mod codes;
pub(crate) mod kernels;
#[cfg(feature = "nccl")]
pub(crate) mod nccl;
pub(crate) mod operands;
pub(crate) mod precision;
mod ptx_cache;
pub(crate) mod staging;
pub(crate) mod tape;

use crate::{Device, Error, Result};
use cudarc::cublas::CudaBlas;
use cudarc::driver::{CudaDevice, DriverError, result, sys};
use dfdx::prelude::{Cuda, CudaError, Storage};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Numbers on a GPU, as dfdx allocates them for tensors and for gradients.
pub(crate) type Numbers = <Cuda as Storage<f32>>::Vec;

/// How often this process has waited for numbers.
static READS: AtomicU64 = AtomicU64::new(0);

/// How often this process has waited for numbers from a GPU.
pub(crate) fn reads() -> u64 {
    READS.load(Ordering::Relaxed)
}

/// Said by everything here that makes the host wait for numbers.
pub(crate) fn count_read() {
    READS.fetch_add(1, Ordering::Relaxed);
}

/// An open GPU.
pub(crate) struct Gpu {
    pub(crate) ordinal: usize,
    pub(crate) dfdx: Cuda,
    pub(crate) driver: Arc<CudaDevice>,
    /// A handle serves one thread at a time.
    pub(crate) blas: Mutex<CudaBlas>,
    pub(crate) staging: staging::Staging,
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

/// Lets the device's pool keep all memory that is freed. Otherwise the driver takes it back whenever the host waits, and
/// the next step pays for every allocation again.
fn keep_memory(driver: &CudaDevice) -> Result<(), DriverError> {
    let supported = driver.attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED)?;
    if supported == 0 {
        return Ok(());
    }
    let (mut pool, mut all) = (std::ptr::null_mut(), u64::MAX);
    // SAFETY: the driver writes one handle, and reads one number of 64 bits for this attribute.
    #[allow(unsafe_code)]
    unsafe {
        sys::cuDeviceGetDefaultMemPool(&mut pool, *driver.cu_device()).result()?;
        let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        sys::cuMemPoolSetAttribute(pool, attribute, std::ptr::from_mut(&mut all).cast()).result()
    }
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
        keep_memory(&driver).map_err(|e| failed("the memory pool did not answer", format!("{e:?}")))?;
        kernels::load(&driver).map_err(|error| failed("the kernels did not load", error))?;
        let blas = CudaBlas::new(driver.clone()).map_err(|e| failed("cuBLAS did not start", format!("{e:?}")))?;
        let staging = staging::Staging::new(driver.clone());
        Ok(Self { ordinal, dfdx, driver, blas: Mutex::new(blas), staging })
    }

    /// What the driver calls this GPU.
    pub(crate) fn name(&self) -> Option<String> {
        let mut text = [0_u8; 256];
        // SAFETY: the driver writes at most as many bytes as it is told, and ends them with a zero.
        #[allow(unsafe_code)]
        let answer =
            unsafe { sys::cuDeviceGetName(text.as_mut_ptr().cast(), text.len() as i32, *self.driver.cu_device()) };
        answer.result().ok()?;
        let text = std::ffi::CStr::from_bytes_until_nul(&text).ok()?;
        Some(text.to_string_lossy().into_owned())
    }

    /// Room for `len` numbers, zeros.
    pub(crate) fn zeros(&self, len: usize) -> Result<Numbers, CudaError> {
        self.dfdx.try_alloc_len(len)
    }

    /// Room for `len` numbers, all of which a kernel must write.
    pub(crate) fn room(&self, len: usize) -> Result<Numbers, CudaError> {
        let mut numbers = self.zeros(0)?;
        // SAFETY: any bits are an f32.
        #[allow(unsafe_code)]
        let room = unsafe { self.driver.alloc(len) }?;
        *numbers = room;
        Ok(numbers)
    }

    /// Waits for all that was asked for.
    pub(crate) fn wait(&self) -> Result<()> {
        self.driver.synchronize().map_err(|e| Error::Device(format!("{}: {e:?}", Device::Cuda(self.ordinal))))
    }

    /// A copy of `data` on the GPU, which nobody waits for.
    pub(crate) fn upload(&self, data: &[f32]) -> Result<Numbers, CudaError> {
        let mut numbers = self.room(data.len())?;
        self.send(data, &mut *numbers)?;
        Ok(numbers)
    }

    /// A copy of `numbers` on the host.
    pub(crate) fn download(&self, numbers: &Numbers) -> Result<Vec<f32>, CudaError> {
        let mut data = vec![0.0; length(numbers)];
        if !data.is_empty() {
            count_read();
            self.driver.dtoh_sync_copy_into(&**numbers, &mut data)?;
        }
        Ok(data)
    }

    /// A copy of `numbers` beside them.
    pub(crate) fn copy(&self, numbers: &Numbers) -> Result<Numbers, CudaError> {
        let mut copy = self.room(length(numbers))?;
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

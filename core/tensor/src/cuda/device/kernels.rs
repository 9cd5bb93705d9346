//! The kernels, in files beside those that launch them: compiled by NVRTC for the device at hand, once ([`ptx_cache`]), and
//! launched with checked sizes.

use crate::cuda::Gpu;
use crate::cuda::device::precision::{Math, math};
use crate::cuda::device::ptx_cache;
use cudarc::driver::sys::{CUdevice_attribute, CUresult};
use cudarc::driver::{CudaDevice, CudaFunction, DeviceRepr, DriverError, LaunchConfig};
use cudarc::nvrtc::sys::nvrtcVersion;
use cudarc::nvrtc::{CompileError, CompileOptions, Ptx, compile_ptx_with_opts};
use dfdx::prelude::CudaError;
use std::sync::Arc;

const SOURCES: &[&str] = &[
    include_str!("common.cu"),
    include_str!("tensor_cores.cu"),
    include_str!("../loops/elementwise.cu"),
    include_str!("../loops/swiglu.cu"),
    include_str!("../loops/reduce.cu"),
    include_str!("../loops/rows.cu"),
    include_str!("philox.cu"),
    include_str!("../loops/columns.cu"),
    include_str!("../norm/norm.cu"),
    include_str!("../norm/weight.cu"),
    include_str!("../loops/gate.cu"),
    include_str!("../loops/layout.cu"),
    include_str!("../loops/resample.cu"),
    include_str!("../loops/filter.cu"),
    include_str!("../conv/conv_tiles.cu"),
    include_str!("../conv/conv.cu"),
    include_str!("codes.cu"),
    include_str!("../gemm/gemm.cu"),
    include_str!("../optim.cu"),
    include_str!("../loops/loss.cu"),
    include_str!("../loops/by_code.cu"),
    include_str!("../attention/teams.cu"),
    include_str!("../attention/attention.cu"),
    include_str!("../attention/rotary.cu"),
    include_str!("../attention/decoder.cu"),
    include_str!("../sampling.cu"),
    include_str!("../nearest/nearest.cu"),
];

/// The module's name among those that dfdx loads.
const MODULE: &str = "rqlab";

/// Threads of a block: LANES in `common.cu`.
pub(crate) const THREADS: u32 = 256;

/// Blocks of a launch at most: kernels go on with the next index, so that any size is covered.
const BLOCKS: usize = 1 << 16;

/// Axes of a kernel's operands at most: MAX_AXES in `common.cu`. Few tensors have as many that do not merge.
const MAX_AXES: usize = 8;

/// Loads the kernels into the device, compiled now or by an earlier process. The error is the compiler's log or the
/// driver's code.
pub(crate) fn load(driver: &Arc<CudaDevice>) -> Result<(), String> {
    let (architecture, tensor_cores) = architecture(driver).map_err(|error| format!("{error:?}"))?;
    let settings = match math() {
        Math::Tf32 if tensor_cores => "#define TENSOR_CORES\n",
        Math::Bf16 if tensor_cores => "#define TENSOR_CORES\n#define TENSOR_CORES_BF16\n",
        _ => "",
    };
    let source = [&[settings], SOURCES].concat().concat();
    let options = CompileOptions { arch: architecture, ..CompileOptions::default() };
    let name = [&source, &format!("{options:?}"), &compiler()?, env!("CARGO_PKG_VERSION")];
    let file = ptx_cache::folder().map(|folder| folder.join(ptx_cache::name(&name)));
    let compile = || {
        let ptx = compile_ptx_with_opts(&source, options).map_err(|error| match error {
            CompileError::CompileError { log, .. } => log.to_string_lossy().into_owned(),
            error => format!("{error:?}"),
        })?;
        Ok(ptx.to_src())
    };
    let names = [
        crate::cuda::attention::KERNELS,
        crate::cuda::attention::decoder::KERNELS,
        crate::cuda::attention::rotary::KERNELS,
        crate::cuda::conv::KERNELS,
        crate::cuda::device::codes::KERNELS,
        crate::cuda::gemm::KERNELS,
        crate::cuda::loops::by_code::KERNELS,
        crate::cuda::loops::columns::KERNELS,
        crate::cuda::loops::dropout::KERNELS,
        crate::cuda::loops::elementwise::FUNCTIONS,
        crate::cuda::loops::elementwise::KERNELS,
        crate::cuda::loops::elementwise::ZIPS,
        crate::cuda::loops::filter::KERNELS,
        crate::cuda::loops::gate::KERNELS,
        crate::cuda::loops::swiglu::KERNELS,
        crate::cuda::loops::layout::KERNELS,
        crate::cuda::loops::loss::KERNELS,
        crate::cuda::loops::reduce::KERNELS,
        crate::cuda::loops::resample::KERNELS,
        crate::cuda::loops::rows::KERNELS,
        crate::cuda::nearest::KERNELS,
        crate::cuda::norm::KERNELS,
        crate::cuda::norm::weight::KERNELS,
        crate::cuda::optim::KERNELS,
        crate::cuda::sampling::KERNELS,
    ]
    .concat();
    let load =
        |ptx| driver.load_ptx(Ptx::from_src::<String>(ptx), MODULE, &names).map_err(|error| format!("{error:?}"));
    ptx_cache::load_or_compile(file.as_deref(), load, compile)
}

/// The compiler's version.
fn compiler() -> Result<String, String> {
    let (mut major, mut minor) = (0, 0);
    // SAFETY: the compiler writes two numbers.
    #[allow(unsafe_code)]
    let answer = unsafe { nvrtcVersion(&mut major, &mut minor) };
    answer.result().map_err(|error| format!("{error:?}"))?;
    Ok(format!("NVRTC {major}.{minor}"))
}

/// The virtual architecture to compile for, the newest that both the device and the oldest compiler that we build with
/// know (the driver translates for newer devices), and whether it multiplies tf32 and bf16 in tensor cores. `None` is the
/// compiler's own choice.
pub(crate) fn architecture(driver: &CudaDevice) -> Result<(Option<&'static str>, bool), DriverError> {
    let major = driver.attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
    Ok(if major >= 8 { (Some("compute_80"), true) } else { (None, false) })
}

/// Axes of one or two operands as kernels take them: `Axes` in `common.cu`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Axes {
    pub(crate) rank: u64,
    size: [u64; MAX_AXES],
    pub(crate) x: [u64; MAX_AXES],
    pub(crate) y: [u64; MAX_AXES],
}

// SAFETY: plain numbers in C's layout, the same as in `common.cu`.
#[allow(unsafe_code)]
unsafe impl DeviceRepr for Axes {}

impl Axes {
    /// Axes of sizes `size`, with the strides of both operands.
    pub(crate) fn new(size: &[usize], x: &[usize], y: &[usize]) -> Result<Self, CudaError> {
        if size.len() > MAX_AXES {
            return Err(invalid());
        }
        let fixed = |from: &[usize]| {
            let mut to = [0; MAX_AXES];
            to.iter_mut().zip(from).for_each(|(to, &from)| *to = from as u64);
            to
        };
        Ok(Self { rank: size.len() as u64, size: fixed(size), x: fixed(x), y: fixed(y) })
    }

    /// How many indices there are.
    pub(crate) fn count(&self) -> usize {
        self.axes().map(|axis| self.size[axis] as usize).product()
    }

    /// The largest offsets in both operands, if there is any index.
    pub(crate) fn last(&self) -> [usize; 2] {
        [self.x, self.y]
            .map(|stride| self.axes().map(|axis| (self.size[axis] - 1) * stride[axis]).sum::<u64>() as usize)
    }

    fn axes(&self) -> std::ops::Range<usize> {
        0..self.rank as usize
    }
}

/// Whether kernels multiply in tensor cores.
pub(crate) fn in_tensor_cores(driver: &CudaDevice) -> Result<bool, DriverError> {
    Ok(math() != Math::F32 && architecture(driver)?.1)
}

pub(crate) fn invalid() -> CudaError {
    CudaError::Driver(DriverError(CUresult::CUDA_ERROR_INVALID_VALUE))
}

pub(crate) fn check(fits: bool) -> Result<(), CudaError> {
    if fits { Ok(()) } else { Err(invalid()) }
}

impl Gpu {
    pub(crate) fn kernel(&self, name: &str) -> Result<CudaFunction, CudaError> {
        self.driver.get_func(MODULE, name).ok_or(CudaError::Driver(DriverError(CUresult::CUDA_ERROR_NOT_FOUND)))
    }
}

/// A launch with one thread per element.
pub(crate) fn elements(n: usize) -> LaunchConfig {
    blocks(n.div_ceil(THREADS as usize))
}

/// A launch of `n` blocks, or of as many as there may be.
pub(crate) fn blocks(n: usize) -> LaunchConfig {
    LaunchConfig { grid_dim: (n.min(BLOCKS) as u32, 1, 1), block_dim: (THREADS, 1, 1), shared_mem_bytes: 0 }
}

/// The same with blocks of `threads`.
pub(crate) fn teams(n: usize, threads: usize) -> LaunchConfig {
    LaunchConfig { block_dim: (threads as u32, 1, 1), ..blocks(n) }
}

/// A launch of exactly `grid` blocks, with `shared` bytes of shared memory for each.
///
/// # Errors
/// If the driver does not take as many.
pub(crate) fn block_grid([x, y, z]: [usize; 3], shared: usize) -> Result<LaunchConfig, CudaError> {
    check(x > 0 && y > 0 && z > 0 && x < 1 << 31 && y < 1 << 16 && z < 1 << 16 && shared <= 32 << 10)?;
    Ok(LaunchConfig {
        grid_dim: (x as u32, y as u32, z as u32),
        block_dim: (THREADS, 1, 1),
        shared_mem_bytes: shared as u32,
    })
}

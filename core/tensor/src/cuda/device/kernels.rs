//! The kernels in `kernels/`: compiled by NVRTC for the device at hand, once ([`ptx_cache`]), and launched with checked sizes.

use crate::cpu::loops::elementwise::Walk;
use crate::cuda::device::precision::{Math, math};
use crate::cuda::device::ptx_cache;
use crate::cuda::{Gpu, Numbers, length};
use cudarc::driver::sys::{CUdevice_attribute, CUresult};
use cudarc::driver::{CudaDevice, CudaFunction, CudaSlice, DeviceRepr, DriverError, LaunchAsync, LaunchConfig};
use cudarc::nvrtc::sys::nvrtcVersion;
use cudarc::nvrtc::{CompileError, CompileOptions, Ptx, compile_ptx_with_opts};
use dfdx::prelude::CudaError;
use std::sync::Arc;

const SOURCES: &[&str] = &[
    include_str!("common.cu"),
    include_str!("tensor_cores.cu"),
    include_str!("../loops/elementwise.cu"),
    include_str!("../loops/reduce.cu"),
    include_str!("../loops/rows.cu"),
    include_str!("philox.cu"),
    include_str!("../loops/columns.cu"),
    include_str!("../norm/norm.cu"),
    include_str!("../loops/layout.cu"),
    include_str!("../conv/conv_tiles.cu"),
    include_str!("../conv/conv.cu"),
    include_str!("codes.cu"),
    include_str!("../gemm/gemm.cu"),
    include_str!("../optim.cu"),
    include_str!("../loops/loss.cu"),
    include_str!("../loops/by_code.cu"),
    include_str!("../attention/teams.cu"),
    include_str!("../attention/attention.cu"),
    include_str!("../attention/decoder.cu"),
    include_str!("../sampling.cu"),
    include_str!("../nearest/nearest.cu"),
];

/// The module's name among those that dfdx loads.
const MODULE: &str = "rqlab";

macro_rules! with_slopes {
    ($($name:literal),*) => { &[$(concat!($name, "_forward"), concat!($name, "_backward")),*] };
}

const ROWS: &[&str] = with_slopes!("softmax", "log_softmax", "cross_entropy");

const FUNCTIONS: &[&str] =
    with_slopes!("abs", "square", "sqrt", "exp", "ln", "tanh", "sigmoid", "relu", "silu", "gelu", "clamp");

const CODES: &[&str] = &["copy_codes"];

const KERNELS: &[&str] = &[
    "add_scalar_forward",
    "mul_scalar_forward",
    "stretch",
    "add_assign",
    "fill",
    "sum_few",
    "sum_many",
    "sum_pieces",
    "sum_partials",
];

/// Operations on two tensors: any that stretch to one shape, and flat ones of that shape.
macro_rules! zips {
    ($($name:literal),*) => { &[$(concat!("zip_", $name), concat!("flat_", $name)),*] };
}

const ZIPS: &[&str] = zips!("add", "sub", "mul", "div", "minus_mul");

/// Threads of a block: LANES in `common.cu`.
pub(crate) const THREADS: u32 = 256;

/// Blocks of a launch at most: kernels go on with the next index, so that any size is covered.
const BLOCKS: usize = 1 << 16;

/// Numbers up to which one thread sums them, rather than one block.
const FEW: usize = 64;

/// Axes that a kernel walks at most: MAX_AXES in `common.cu`. Few tensors have as many that do not merge.
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
        FUNCTIONS,
        ROWS,
        crate::cuda::loops::columns::KERNELS,
        crate::cuda::conv::KERNELS,
        crate::cuda::loops::dropout::KERNELS,
        crate::cuda::loops::layout::KERNELS,
        crate::cuda::norm::KERNELS,
        CODES,
        crate::cuda::gemm::KERNELS,
        crate::cuda::optim::KERNELS,
        crate::cuda::loops::loss::KERNELS,
        crate::cuda::loops::by_code::KERNELS,
        crate::cuda::attention::KERNELS,
        crate::cuda::attention::decoder::KERNELS,
        crate::cuda::sampling::KERNELS,
        crate::cuda::nearest::KERNELS,
        ZIPS,
        KERNELS,
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
    rank: u64,
    size: [u64; MAX_AXES],
    x: [u64; MAX_AXES],
    y: [u64; MAX_AXES],
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

    /// `f(x)` of every element, for a function of `elementwise.cu` with up to two parameters.
    pub(crate) fn map(&self, function: &str, x: &Numbers, [a, b]: [f32; 2]) -> Result<Numbers, CudaError> {
        let n = length(x);
        let mut out = self.room(n)?;
        if n > 0 {
            let kernel = self.kernel(&format!("{function}_forward"))?;
            // SAFETY: the kernel reads and writes the first n elements; both have n.
            #[allow(unsafe_code)]
            unsafe {
                kernel.launch(elements(n), (&**x, &mut *out, n as u64, a, b))?;
            }
        }
        Ok(out)
    }

    /// `grad *= f'(at)`, for a function of `elementwise.cu`.
    pub(crate) fn chain(
        &self,
        function: &str,
        at: &Numbers,
        grad: &mut Numbers,
        [a, b]: [f32; 2],
    ) -> Result<(), CudaError> {
        let n = length(grad);
        check(length(at) == n)?;
        if n > 0 {
            let kernel = self.kernel(&format!("{function}_backward"))?;
            // SAFETY: the kernel reads and writes the first n elements; both have n.
            #[allow(unsafe_code)]
            unsafe {
                kernel.launch(elements(n), (&**at, &mut **grad, n as u64, a, b))?;
            }
        }
        Ok(())
    }

    /// `f(x, y)` for every element of a broadcast output, for a function of two numbers in `elementwise.cu`.
    pub(crate) fn zip(&self, function: &str, walk: &Walk, x: &Numbers, y: &Numbers) -> Result<Numbers, CudaError> {
        let axes = Axes::new(&walk.shape, &walk.x, &walk.y)?;
        let n = axes.count();
        let mut out = self.room(n)?;
        if n > 0 {
            let [last_x, last_y] = axes.last();
            check(last_x < length(x) && last_y < length(y))?;
            let flat = axes.rank <= 1 && axes.x[0] <= 1 && axes.x[0] == axes.y[0] && last_x + 1 == n && last_y + 1 == n;
            let kernel = self.kernel(&format!("{}_{function}", if flat { "flat" } else { "zip" }))?;
            // SAFETY: the kernels write the n elements of `out`; one reads as many of both operands, the other up to the
            // offsets just checked.
            #[allow(unsafe_code)]
            unsafe {
                if flat {
                    kernel.launch(elements(n.div_ceil(4)), (&**x, &**y, &mut *out, n as u64))?;
                } else {
                    kernel.launch(elements(n), (&**x, &**y, &mut *out, n as u64, axes))?;
                }
            }
        }
        Ok(out)
    }

    /// The elements of `x` in the order of `walk`, some repeated.
    pub(crate) fn stretch(&self, walk: &Walk, x: &Numbers) -> Result<Numbers, CudaError> {
        let axes = Axes::new(&walk.shape, &walk.x, &[])?;
        let n = axes.count();
        let mut out = self.room(n)?;
        if n > 0 {
            check(axes.last()[0] < length(x))?;
            let kernel = self.kernel("stretch")?;
            // SAFETY: the kernel writes the n elements of `out` and reads up to the offset just checked.
            #[allow(unsafe_code)]
            unsafe {
                kernel.launch(elements(n), (&**x, &mut *out, n as u64, axes))?;
            }
        }
        Ok(out)
    }

    /// `len` times `value`.
    pub(crate) fn full(&self, value: f32, len: usize) -> Result<Numbers, CudaError> {
        if value.to_bits() == 0 {
            return self.zeros(len);
        }
        let mut out = self.room(len)?;
        if len > 0 {
            let kernel = self.kernel("fill")?;
            // SAFETY: the kernel writes the `len` elements of `out`.
            #[allow(unsafe_code)]
            unsafe {
                kernel.launch(elements(len), (&mut *out, len as u64, value))?;
            }
        }
        Ok(out)
    }

    /// `target += other`, element by element.
    pub(crate) fn add_assign(&self, target: &mut Numbers, other: &Numbers) -> Result<(), CudaError> {
        let n = length(target);
        check(length(other) == n)?;
        if n > 0 {
            let kernel = self.kernel("add_assign")?;
            // SAFETY: the kernel reads and writes the first n elements; both have n.
            #[allow(unsafe_code)]
            unsafe {
                kernel.launch(elements(n), (&mut **target, &**other, n as u64))?;
            }
        }
        Ok(())
    }

    /// `scale` times the sum over the axes `reduced` for every index over the axes `kept`; strides are those of `x`.
    pub(crate) fn sum_axes(&self, x: &Numbers, kept: Axes, reduced: Axes, scale: f32) -> Result<Numbers, CudaError> {
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
        // SAFETY: one block a piece reads below n and writes its element of `partial`.
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

/// A launch with a thread an element.
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

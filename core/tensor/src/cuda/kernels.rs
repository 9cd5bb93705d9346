//! The kernels in `kernels/`: compiled by NVRTC for the device at hand, and launched with checked sizes.

use super::{Gpu, Numbers, length};
use crate::cpu::elementwise::Walk;
use cudarc::driver::sys::CUresult;
use cudarc::driver::{CudaDevice, CudaFunction, CudaSlice, DeviceRepr, DriverError, LaunchAsync, LaunchConfig};
use cudarc::nvrtc::{CompileError, compile_ptx};
use dfdx::prelude::CudaError;
use std::sync::Arc;

const SOURCES: [&str; 4] = [
    include_str!("kernels/common.cu"),
    include_str!("kernels/elementwise.cu"),
    include_str!("kernels/reduce.cu"),
    include_str!("kernels/rows.cu"),
];

/// The module's name among those that dfdx loads.
const MODULE: &str = "rqlab";

macro_rules! with_slopes {
    ($($name:literal),*) => { &[$(concat!($name, "_forward"), concat!($name, "_backward")),*] };
}

const ROWS: &[&str] = with_slopes!("softmax", "log_softmax", "cross_entropy", "layer_norm");

const FUNCTIONS: &[&str] =
    with_slopes!("abs", "square", "sqrt", "exp", "ln", "tanh", "sigmoid", "relu", "silu", "gelu", "clamp");

const KERNELS: &[&str] = &[
    "add_scalar_forward",
    "mul_scalar_forward",
    "zip_add",
    "zip_sub",
    "zip_mul",
    "zip_div",
    "stretch",
    "zip_minus_mul",
    "add_assign",
    "add_bias",
    "sum_few",
    "sum_many",
    "sum_pieces",
    "sum_partials",
];

/// Threads of a block: LANES in `common.cu`.
const THREADS: u32 = 256;

/// Blocks of a launch at most: kernels go on with the next index, so that any size is covered.
const BLOCKS: usize = 1 << 16;

/// Numbers up to which one thread sums them, rather than one block.
const FEW: usize = 64;

/// Axes that a kernel walks at most: MAX_AXES in `common.cu`. Few tensors have as many that do not merge.
const MAX_AXES: usize = 8;

/// Compiles the kernels and loads them into the device. The error is the compiler's log or the driver's code.
pub(super) fn load(driver: &Arc<CudaDevice>) -> Result<(), String> {
    let ptx = compile_ptx(SOURCES.concat()).map_err(|error| match error {
        CompileError::CompileError { log, .. } => log.to_string_lossy().into_owned(),
        error => format!("{error:?}"),
    })?;
    driver.load_ptx(ptx, MODULE, &[FUNCTIONS, ROWS, KERNELS].concat()).map_err(|error| format!("{error:?}"))
}

/// Axes of one or two operands as kernels take them: `Axes` in `common.cu`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Axes {
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
    pub(super) fn new(size: &[usize], x: &[usize], y: &[usize]) -> Result<Self, CudaError> {
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
    fn count(&self) -> usize {
        self.axes().map(|axis| self.size[axis] as usize).product()
    }

    /// The largest offsets in both operands, if there is any index.
    fn last(&self) -> [usize; 2] {
        [self.x, self.y]
            .map(|stride| self.axes().map(|axis| (self.size[axis] - 1) * stride[axis]).sum::<u64>() as usize)
    }

    fn axes(&self) -> std::ops::Range<usize> {
        0..self.rank as usize
    }
}

fn invalid() -> CudaError {
    CudaError::Driver(DriverError(CUresult::CUDA_ERROR_INVALID_VALUE))
}

pub(super) fn check(fits: bool) -> Result<(), CudaError> {
    if fits { Ok(()) } else { Err(invalid()) }
}

impl Gpu {
    pub(super) fn kernel(&self, name: &str) -> Result<CudaFunction, CudaError> {
        self.driver.get_func(MODULE, name).ok_or(CudaError::Driver(DriverError(CUresult::CUDA_ERROR_NOT_FOUND)))
    }

    /// `f(x)` of every element, for a function of `elementwise.cu` with up to two parameters.
    pub(super) fn map(&self, function: &str, x: &Numbers, [a, b]: [f32; 2]) -> Result<Numbers, CudaError> {
        let n = length(x);
        let mut out = self.zeros(n)?;
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
    pub(super) fn chain(
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

    /// `f(x, y)` for every element of a broadcast output, for a `zip_` kernel of `elementwise.cu`.
    pub(super) fn zip(&self, kernel: &str, walk: &Walk, x: &Numbers, y: &Numbers) -> Result<Numbers, CudaError> {
        let axes = Axes::new(&walk.shape, &walk.x, &walk.y)?;
        let n = axes.count();
        let mut out = self.zeros(n)?;
        if n > 0 {
            let [last_x, last_y] = axes.last();
            check(last_x < length(x) && last_y < length(y))?;
            let kernel = self.kernel(kernel)?;
            // SAFETY: the kernel writes the n elements of `out` and reads up to the offsets just checked.
            #[allow(unsafe_code)]
            unsafe {
                kernel.launch(elements(n), (&**x, &**y, &mut *out, n as u64, axes))?;
            }
        }
        Ok(out)
    }

    /// The elements of `x` in the order of `walk`, some repeated.
    pub(super) fn stretch(&self, walk: &Walk, x: &Numbers) -> Result<Numbers, CudaError> {
        let axes = Axes::new(&walk.shape, &walk.x, &[])?;
        let n = axes.count();
        let mut out = self.zeros(n)?;
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

    /// `target += other`, element by element.
    pub(super) fn add_assign(&self, target: &mut Numbers, other: &Numbers) -> Result<(), CudaError> {
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

    /// Adds `bias` to every row of `rows`.
    pub(super) fn add_bias(&self, rows: &mut Numbers, bias: &Numbers) -> Result<(), CudaError> {
        let (n, width) = (length(rows), length(bias));
        if n > 0 {
            check(width > 0)?;
            let kernel = self.kernel("add_bias")?;
            // SAFETY: the kernel reads and writes the n elements of `rows`, and reads `bias` below its length.
            #[allow(unsafe_code)]
            unsafe {
                kernel.launch(elements(n), (&mut **rows, &**bias, n as u64, width as u64))?;
            }
        }
        Ok(())
    }

    /// `scale` times the sum over the axes `reduced` for every index over the axes `kept`; strides are those of `x`.
    pub(super) fn sum_axes(&self, x: &Numbers, kept: Axes, reduced: Axes, scale: f32) -> Result<Numbers, CudaError> {
        let (outputs, count) = (kept.count(), reduced.count());
        let mut out = self.zeros(outputs)?;
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
    pub(super) fn sum_all(&self, x: &Numbers, scale: f64) -> Result<Numbers, CudaError> {
        let n = length(x);
        let mut out = self.zeros(1)?;
        if n > 0 {
            // Enough pieces to fill a GPU, and few enough for one block to finish.
            let piece = n.div_ceil(1024).max(4096);
            let pieces = n.div_ceil(piece);
            let mut partial: CudaSlice<f64> = self.driver.alloc_zeros(pieces)?;
            let (first, second) = (self.kernel("sum_pieces")?, self.kernel("sum_partials")?);
            // SAFETY: one block a piece reads below n and writes its element of `partial`; then one block reads these
            // and writes the one element of `out`.
            #[allow(unsafe_code)]
            unsafe {
                first.launch(blocks(pieces), (&**x, &mut partial, n as u64, piece as u64))?;
                second.launch(blocks(1), (&partial, &mut *out, pieces as u64, scale))?;
            }
        }
        Ok(out)
    }
}

/// A launch with a thread an element.
fn elements(n: usize) -> LaunchConfig {
    blocks(n.div_ceil(THREADS as usize))
}

/// A launch of `n` blocks, or of as many as there may be.
pub(super) fn blocks(n: usize) -> LaunchConfig {
    LaunchConfig { grid_dim: (n.min(BLOCKS) as u32, 1, 1), block_dim: (THREADS, 1, 1), shared_mem_bytes: 0 }
}

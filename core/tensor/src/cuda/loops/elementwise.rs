//! Functions of one element, and of two under broadcasting.

use crate::cpu::loops::elementwise::Broadcast;
use crate::cuda::device::kernels::{Axes, check, elements};
use crate::cuda::{Gpu, Numbers, length};
use cudarc::driver::LaunchAsync;
use dfdx::prelude::CudaError;

macro_rules! with_slopes {
    ($($name:literal),*) => { &[$(concat!($name, "_forward"), concat!($name, "_backward")),*] };
}

/// The functions of `elementwise.cu` with their slopes.
pub(crate) const FUNCTIONS: &[&str] = with_slopes!(
    "abs",
    "square",
    "sqrt",
    "exp",
    "ln",
    "tanh",
    "sigmoid",
    "relu",
    "leaky_relu",
    "elu",
    "softplus",
    "silu",
    "gelu",
    "gelu_tanh",
    "clamp",
    "round",
    "floor",
    "heaviside"
);

/// Operations on two tensors: any that stretch to one shape, and flat ones of that shape.
macro_rules! zips {
    ($($name:literal),*) => { &[$(concat!("zip_", $name), concat!("flat_", $name)),*] };
}

/// Its functions of two elements.
pub(crate) const ZIPS: &[&str] = zips!("add", "sub", "mul", "div", "minus_mul");

/// Its other kernels.
pub(crate) const KERNELS: &[&str] = &["add_scalar_forward", "mul_scalar_forward", "stretch", "add_assign", "fill"];

impl Gpu {
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
    pub(crate) fn zip(&self, function: &str, axes: &Broadcast, x: &Numbers, y: &Numbers) -> Result<Numbers, CudaError> {
        let axes = Axes::new(&axes.shape, &axes.x, &axes.y)?;
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

    /// The elements of `x`, the first operand of a broadcast, some repeated.
    pub(crate) fn stretch(&self, axes: &Broadcast, x: &Numbers) -> Result<Numbers, CudaError> {
        let axes = Axes::new(&axes.shape, &axes.x, &[])?;
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
}

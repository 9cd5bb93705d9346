//! Matrix products, by cuBLAS, and what is fused with them.

pub(crate) mod packed;

use crate::cuda::device::kernels::{check, elements};
use crate::cuda::device::operands::{on_gpu, output, tracked};
use crate::cuda::device::precision::Math;
use crate::cuda::{Buffer, Gpu, Numbers, length};
use crate::ops::linear::Then;
use crate::tape::record_on_gpu;
use crate::{Result, Tensor};
use cudarc::cublas::result::{CublasError, gemm_strided_batched_ex};
use cudarc::cublas::sys::{cublasComputeType_t, cublasGemmAlgo_t, cublasOperation_t, cublasStatus_t, cudaDataType_t};
use cudarc::driver::{CudaSlice, DevicePtr, DevicePtrMut, LaunchAsync};
use dfdx::prelude::CudaError;
use std::sync::PoisonError;

/// The kernels of `gemm.cu`.
pub(crate) const KERNELS: &[&str] = &["to_bf16", "then_nothing", "then_add", "then_gelu", "then_gelu_backward"];

/// Which operand is stored transposed.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Stored {
    /// `a` `[M, K]`, `b` `[K, N]`.
    Plain,
    /// `a` `[M, K]`, `b` `[N, K]`.
    RightTransposed,
    /// `a` `[K, M]`, `b` `[K, N]`.
    LeftTransposed,
}

/// Sizes of a batch of products: `[M, K]` times `[K, N]`.
#[derive(Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) batch: usize,
    pub(crate) m: usize,
    pub(crate) n: usize,
    pub(crate) k: usize,
}

/// An operand as products read it.
pub(crate) enum Operand<N> {
    Plain(N),
    /// Its upper halves, rounded.
    Bf16(CudaSlice<u16>),
}

/// Numbers that an operand may hold on to.
pub(crate) trait Held {
    fn numbers(&self) -> &Numbers;
}

impl Held for Buffer {
    fn numbers(&self) -> &Numbers {
        Self::numbers(self)
    }
}

impl Held for &Numbers {
    fn numbers(&self) -> &Numbers {
        self
    }
}

impl<N: Held> Operand<N> {
    /// `numbers` in the precision of products: those of bf16 are converted once, however often they are multiplied.
    pub(crate) fn new(gpu: &Gpu, numbers: N) -> Result<Self, CudaError> {
        Self::rounded(gpu, gpu.math(), numbers)
    }

    pub(crate) fn rounded(gpu: &Gpu, math: Math, numbers: N) -> Result<Self, CudaError> {
        match math {
            Math::F32 | Math::Tf32 => Ok(Self::Plain(numbers)),
            Math::Bf16 => Ok(Self::Bf16(gpu.to_bf16(numbers.numbers())?)),
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Plain(numbers) => length(numbers.numbers()),
            Self::Bf16(halves) => cudarc::driver::DeviceSlice::len(halves),
        }
    }

    /// The numbers' address and type, as cuBLAS takes them.
    fn address(&self) -> (*const std::ffi::c_void, cudaDataType_t) {
        match self {
            Self::Plain(numbers) => (*numbers.numbers().device_ptr() as *const _, cudaDataType_t::CUDA_R_32F),
            Self::Bf16(halves) => (*halves.device_ptr() as *const _, cudaDataType_t::CUDA_R_16BF),
        }
    }
}

/// A batch of products in row-major order.
pub(crate) fn multiply<A: Held, B: Held>(
    gpu: &Gpu,
    stored: Stored,
    sizes: Sizes,
    a: &Operand<A>,
    b: &Operand<B>,
) -> Result<Numbers, CudaError> {
    let Sizes { batch, m, n, k } = sizes;
    if batch * m * n == 0 || k == 0 {
        return gpu.zeros(batch * m * n);
    }
    let wrong = || CudaError::Blas(CublasError(cublasStatus_t::CUBLAS_STATUS_INVALID_VALUE));
    if a.len() != batch * m * k || b.len() != batch * k * n {
        return Err(wrong());
    }
    let int = |size: usize| i32::try_from(size).map_err(|_| wrong());
    let mut out = gpu.room(batch * m * n)?;
    let (plain, transposed) = (cublasOperation_t::CUBLAS_OP_N, cublasOperation_t::CUBLAS_OP_T);
    // cuBLAS reads columns first: to it, row-major matrices are their transposes, and outᵀ = bᵀ aᵀ.
    let (of_b, ldb) = if stored == Stored::RightTransposed { (transposed, k) } else { (plain, n) };
    let (of_a, lda) = if stored == Stored::LeftTransposed { (transposed, m) } else { (plain, k) };
    let ((a, a_type), (b, b_type)) = (a.address(), b.address());
    let compute = match gpu.math() {
        Math::Tf32 => cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_TF32,
        Math::F32 | Math::Bf16 => cublasComputeType_t::CUBLAS_COMPUTE_32F,
    };
    let (one, zero) = (1.0f32, 0.0f32);
    let blas = gpu.blas.lock().unwrap_or_else(PoisonError::into_inner);
    gpu.driver.bind_to_thread()?;
    // SAFETY: the lengths checked above are those that these sizes read and write, and the types are the operands' own.
    #[allow(unsafe_code)]
    unsafe {
        gemm_strided_batched_ex(
            *blas.handle(),
            of_b,
            of_a,
            int(n)?,
            int(m)?,
            int(k)?,
            std::ptr::from_ref(&one).cast(),
            b,
            b_type,
            int(ldb)?,
            (n * k) as i64,
            a,
            a_type,
            int(lda)?,
            (m * k) as i64,
            std::ptr::from_ref(&zero).cast(),
            *out.device_ptr_mut() as *mut _,
            cudaDataType_t::CUDA_R_32F,
            int(n)?,
            (m * n) as i64,
            int(batch)?,
            compute,
            cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
        )?;
    }
    Ok(out)
}

/// `x · weightᵀ + bias`, and what becomes of it: `x` `[.., I]`, weight `[O, I]`, bias `[O]`, whose sizes fit.
pub(crate) fn linear(
    op: &'static str,
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    then: Then<'_>,
    shape: &[usize],
) -> Result<Option<Tensor>> {
    let Some((gpu, [a, w])) = on_gpu(op, [x, weight])? else {
        return Ok(None);
    };
    let (outputs, inputs) = (weight.shape()[0], weight.shape()[1]);
    let rows: usize = shape[..shape.len() - 1].iter().product();
    let (a, w) = (Operand::new(gpu, a)?, Operand::new(gpu, w)?);
    let sizes = Sizes { batch: 1, m: rows, n: outputs, k: inputs };
    let mut data = multiply(gpu, Stored::RightTransposed, sizes, &a, &w)?;

    let added = bias.and_then(Tensor::gpu_buffer).cloned();
    let residual = if let Then::Add(residual) = then { Some(residual) } else { None };
    let (x_key, w_key, b_key) = (tracked(x), tracked(weight), bias.and_then(tracked));
    let residual_key = residual.and_then(tracked);
    let wanted = [&x_key, &w_key, &b_key, &residual_key].into_iter().any(Option::is_some);
    let mut before = None;
    match residual.and_then(Tensor::gpu_buffer) {
        Some(residual) => gpu.finish("then_add", &mut data, &added, Some(residual.numbers()))?,
        None if matches!(then, Then::Gelu) => {
            // The slope is a function of what went in, which is kept only if it is wanted.
            if wanted {
                let mut after = gpu.room(length(&data))?;
                gpu.finish_to("then_gelu", &data, &mut after, &added, None)?;
                before = Some(std::mem::replace(&mut data, after));
            } else {
                gpu.finish("then_gelu", &mut data, &added, None)?;
            }
        }
        None if added.is_some() => gpu.finish("then_nothing", &mut data, &added, None)?,
        None => {}
    }
    let (out, key) = output(gpu, data, shape, wanted)?;
    if let Some(key) = key {
        // Only what the wanted gradients need is kept alive.
        let (a, w) = (w_key.as_ref().map(|_| a), x_key.as_ref().map(|_| w));
        record_on_gpu(&key, move |mut dy, flow| {
            if let Some(before) = &before {
                gpu.finish("then_gelu_backward", &mut dy, &added, Some(before))?;
            }
            {
                let dy = Operand::new(gpu, &dy)?;
                if let (Some(key), Some(w)) = (&x_key, &w) {
                    let sizes = Sizes { batch: 1, m: rows, n: inputs, k: outputs };
                    flow.add(key, multiply(gpu, Stored::Plain, sizes, &dy, w)?)?;
                }
                if let (Some(key), Some(a)) = (&w_key, &a) {
                    let sizes = Sizes { batch: 1, m: outputs, n: inputs, k: rows };
                    flow.add(key, multiply(gpu, Stored::LeftTransposed, sizes, &dy, a)?)?;
                }
            }
            if let Some(key) = &b_key {
                flow.add(key, gpu.sum(&dy, &[rows, outputs], &[true, false], 1.0)?)?;
            }
            if let Some(key) = &residual_key { flow.add(key, dy) } else { Ok(()) }
        });
    }
    Ok(Some(out))
}

/// `batch` products of `a` `[M, K]` with `b` `[K, N]`, or `[N, K]` if `transposed`, whose sizes fit.
pub(crate) fn product(
    op: &'static str,
    [a, b]: [&Tensor; 2],
    transposed: bool,
    [batch, m, n, k]: [usize; 4],
    shape: &[usize],
) -> Result<Option<Tensor>> {
    let Some((gpu, [left, right])) = on_gpu(op, [a, b])? else {
        return Ok(None);
    };
    let stored = if transposed { Stored::RightTransposed } else { Stored::Plain };
    let (left, right) = (Operand::new(gpu, left)?, Operand::new(gpu, right)?);
    let data = multiply(gpu, stored, Sizes { batch, m, n, k }, &left, &right)?;
    let (a_key, b_key) = (tracked(a), tracked(b));
    let (out, key) = output(gpu, data, shape, a_key.is_some() || b_key.is_some())?;
    if let Some(key) = key {
        let (left, right) = (b_key.as_ref().map(|_| left), a_key.as_ref().map(|_| right));
        record_on_gpu(&key, move |dy, flow| {
            let dy = Operand::new(gpu, &dy)?;
            if let (Some(key), Some(right)) = (&a_key, &right) {
                let stored = if transposed { Stored::Plain } else { Stored::RightTransposed };
                let sizes = Sizes { batch, m, n: k, k: n };
                flow.add(key, multiply(gpu, stored, sizes, &dy, right)?)?;
            }
            if let (Some(key), Some(left)) = (&b_key, &left) {
                let grad = if transposed {
                    multiply(gpu, Stored::LeftTransposed, Sizes { batch, m: n, n: k, k: m }, &dy, left)?
                } else {
                    multiply(gpu, Stored::LeftTransposed, Sizes { batch, m: k, n, k: m }, left, &dy)?
                };
                flow.add(key, grad)?;
            }
            Ok(())
        });
    }
    Ok(Some(out))
}

impl Gpu {
    /// The numbers rounded to bf16: to the nearest, of two to the even one.
    fn to_bf16(&self, x: &Numbers) -> Result<CudaSlice<u16>, CudaError> {
        let n = length(x);
        // SAFETY: any bits are a u16.
        #[allow(unsafe_code)]
        let mut out: CudaSlice<u16> = unsafe { self.driver.alloc(n) }?;
        if n > 0 {
            let kernel = self.kernel("to_bf16")?;
            // SAFETY: the kernel reads and writes n elements; both have n.
            #[allow(unsafe_code)]
            unsafe {
                kernel.launch(elements(n.div_ceil(4)), (&**x, &mut out, n as u64))?;
            }
        }
        Ok(out)
    }

    /// A kernel of `gemm.cu` on `rows`, in place, with a bias to every row and another matrix of their size.
    fn finish(
        &self,
        kernel: &str,
        rows: &mut Numbers,
        bias: &Option<Buffer>,
        other: Option<&Numbers>,
    ) -> Result<(), CudaError> {
        let at = *rows.device_ptr();
        self.finish_at(kernel, [at, at], length(rows), bias, other)
    }

    /// The same from one address to another.
    fn finish_to(
        &self,
        kernel: &str,
        from: &Numbers,
        to: &mut Numbers,
        bias: &Option<Buffer>,
        other: Option<&Numbers>,
    ) -> Result<(), CudaError> {
        check(length(from) == length(to))?;
        self.finish_at(kernel, [*from.device_ptr(), *to.device_ptr_mut()], length(from), bias, other)
    }

    /// The same between addresses of `n` numbers.
    fn finish_at(
        &self,
        kernel: &str,
        [from, to]: [u64; 2],
        n: usize,
        bias: &Option<Buffer>,
        other: Option<&Numbers>,
    ) -> Result<(), CudaError> {
        if n == 0 {
            return Ok(());
        }
        let width = bias.as_ref().map_or(1, |bias| length(bias.numbers()));
        check(width > 0 && n.is_multiple_of(width) && other.is_none_or(|other| length(other) == n))?;
        // What is not there is a null pointer, which the kernels look for.
        let address = |numbers: Option<&Numbers>| numbers.map_or(0, |numbers| *numbers.device_ptr());
        let (bias, other) = (address(bias.as_ref().map(Buffer::numbers)), address(other));
        let step = if bias == 0 || width.is_multiple_of(4) { 4 } else { 1 };
        let kernel = self.kernel(kernel)?;
        // SAFETY: the kernel reads and writes the n elements at both addresses, which the callers have checked, and reads
        // as many of `other` and `width` of the bias.
        #[allow(unsafe_code)]
        unsafe {
            kernel.launch(elements(n.div_ceil(step)), (from, to, bias, other, n as u64, width as u64))?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests stop at the first failure")]
mod tests {
    use super::*;
    use crate::Device;
    use crate::ops::testing::{assert_close, on_every_device, random, short};

    #[test]
    fn products_of_bf16_are_those_of_rounded_operands() {
        on_every_device(|| {
            let (a, b) = (random(&[2, 5, 37], 1), random(&[2, 9, 37], 2));
            let Device::Cuda(ordinal) = a.device() else { return };
            let gpu = crate::cuda::open(ordinal).unwrap();
            let halves = |x: &Tensor| Operand::rounded(gpu, Math::Bf16, x.gpu_buffer().unwrap().clone()).unwrap();
            let sizes = Sizes { batch: 2, m: 5, n: 9, k: 37 };
            let out = multiply(gpu, Stored::RightTransposed, sizes, &halves(&a), &halves(&b)).unwrap();
            let rounded =
                |x: &Tensor| Tensor::from_vec(x.as_slice().iter().map(|&x| short(x)).collect(), x.shape()).unwrap();
            let wanted = rounded(&a).matmul_t(&rounded(&b)).unwrap();
            assert_close(&gpu.download(&out).unwrap(), wanted.as_slice(), 1e-6);
        });
    }
}

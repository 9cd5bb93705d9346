//! Matrix products, by cuBLAS in plain f32.

use super::operands::{on_gpu, output, tracked};
use super::{Gpu, Numbers, length, reduce};
use crate::tape::record_on_gpu;
use crate::{Result, Tensor};
use cudarc::cublas::result::CublasError;
use cudarc::cublas::sys::{cublasOperation_t, cublasStatus_t};
use cudarc::cublas::{Gemm, GemmConfig, StridedBatchedConfig};
use dfdx::prelude::CudaError;
use std::sync::PoisonError;

/// Which operand is stored transposed.
#[derive(Clone, Copy, PartialEq)]
enum Stored {
    /// `a` `[M, K]`, `b` `[K, N]`.
    Plain,
    /// `a` `[M, K]`, `b` `[N, K]`.
    RightTransposed,
    /// `a` `[K, M]`, `b` `[K, N]`.
    LeftTransposed,
}

/// Sizes of a batch of products: `[M, K]` times `[K, N]`.
#[derive(Clone, Copy)]
struct Sizes {
    batch: usize,
    m: usize,
    n: usize,
    k: usize,
}

/// A batch of products in row-major order.
fn multiply(gpu: &Gpu, stored: Stored, sizes: Sizes, a: &Numbers, b: &Numbers) -> Result<Numbers, CudaError> {
    let Sizes { batch, m, n, k } = sizes;
    let mut out = gpu.zeros(batch * m * n)?;
    if length(&out) == 0 || k == 0 {
        return Ok(out);
    }
    let wrong = || CudaError::Blas(CublasError(cublasStatus_t::CUBLAS_STATUS_INVALID_VALUE));
    if length(a) != batch * m * k || length(b) != batch * k * n {
        return Err(wrong());
    }
    let int = |size: usize| i32::try_from(size).map_err(|_| wrong());
    let (plain, transposed) = (cublasOperation_t::CUBLAS_OP_N, cublasOperation_t::CUBLAS_OP_T);
    // cuBLAS reads columns first: to it, row-major matrices are their transposes, and outᵀ = bᵀ aᵀ.
    let (transa, lda) = if stored == Stored::RightTransposed { (transposed, k) } else { (plain, n) };
    let (transb, ldb) = if stored == Stored::LeftTransposed { (transposed, m) } else { (plain, k) };
    let config = StridedBatchedConfig {
        gemm: GemmConfig {
            transa,
            transb,
            m: int(n)?,
            n: int(m)?,
            k: int(k)?,
            alpha: 1.0,
            lda: int(lda)?,
            ldb: int(ldb)?,
            beta: 0.0,
            ldc: int(n)?,
        },
        batch_size: int(batch)?,
        stride_a: (n * k) as i64,
        stride_b: (m * k) as i64,
        stride_c: (m * n) as i64,
    };
    let blas = gpu.blas.lock().unwrap_or_else(PoisonError::into_inner);
    gpu.driver.bind_to_thread()?;
    // SAFETY: the lengths checked above are those that the configuration reads and writes.
    #[allow(unsafe_code)]
    unsafe {
        blas.gemm_strided_batched(config, &**b, &**a, &mut *out)?;
    }
    Ok(out)
}

/// `x · weightᵀ + bias`: `x` `[.., I]`, weight `[O, I]`, bias `[O]`, whose sizes fit.
pub(crate) fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, shape: &[usize]) -> Result<Option<Tensor>> {
    let Some((gpu, [a, w])) = on_gpu("linear", [x, weight])? else {
        return Ok(None);
    };
    let (outputs, inputs) = (weight.shape()[0], weight.shape()[1]);
    let rows: usize = shape[..shape.len() - 1].iter().product();
    let sizes = Sizes { batch: 1, m: rows, n: outputs, k: inputs };
    let mut data = multiply(gpu, Stored::RightTransposed, sizes, a.numbers(), w.numbers())?;
    if let Some(bias) = bias.and_then(Tensor::gpu_buffer) {
        gpu.add_bias(&mut data, bias.numbers())?;
    }
    let (x_key, w_key, b_key) = (tracked(x), tracked(weight), bias.and_then(tracked));
    let (out, key) = output(gpu, data, shape, x_key.is_some() || w_key.is_some() || b_key.is_some())?;
    if let Some(key) = key {
        // Only what the wanted gradients need is kept alive.
        let (a, w) = (w_key.as_ref().map(|_| a), x_key.as_ref().map(|_| w));
        record_on_gpu(&key, move |dy, flow| {
            if let (Some(key), Some(w)) = (&x_key, &w) {
                let sizes = Sizes { batch: 1, m: rows, n: inputs, k: outputs };
                flow.add(key, multiply(gpu, Stored::Plain, sizes, &dy, w.numbers())?)?;
            }
            if let (Some(key), Some(a)) = (&w_key, &a) {
                let sizes = Sizes { batch: 1, m: outputs, n: inputs, k: rows };
                flow.add(key, multiply(gpu, Stored::LeftTransposed, sizes, &dy, a.numbers())?)?;
            }
            if let Some(key) = &b_key {
                flow.add(key, reduce::sum_to_shape(gpu, &dy, &[rows, outputs], &[outputs])?)?;
            }
            Ok(())
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
    let data = multiply(gpu, stored, Sizes { batch, m, n, k }, left.numbers(), right.numbers())?;
    let (a_key, b_key) = (tracked(a), tracked(b));
    let (out, key) = output(gpu, data, shape, a_key.is_some() || b_key.is_some())?;
    if let Some(key) = key {
        let (left, right) = (b_key.as_ref().map(|_| left), a_key.as_ref().map(|_| right));
        record_on_gpu(&key, move |dy, flow| {
            if let (Some(key), Some(right)) = (&a_key, &right) {
                let stored = if transposed { Stored::Plain } else { Stored::RightTransposed };
                let sizes = Sizes { batch, m, n: k, k: n };
                flow.add(key, multiply(gpu, stored, sizes, &dy, right.numbers())?)?;
            }
            if let (Some(key), Some(left)) = (&b_key, &left) {
                let grad = if transposed {
                    multiply(gpu, Stored::LeftTransposed, Sizes { batch, m: n, n: k, k: m }, &dy, left.numbers())?
                } else {
                    multiply(gpu, Stored::LeftTransposed, Sizes { batch, m: k, n, k: m }, left.numbers(), &dy)?
                };
                flow.add(key, grad)?;
            }
            Ok(())
        });
    }
    Ok(Some(out))
}

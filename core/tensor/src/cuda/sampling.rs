//! Drawing codes from logits: the counterpart of [`crate::cpu::sampling`].

use crate::cuda::device::codes::OnGpu;
use crate::cuda::device::kernels::{blocks, check};
use crate::cuda::device::operands::{on_gpu, output};
use crate::cuda::{Gpu, Numbers, length};
use crate::ops::sampling::Draw;
use crate::{Codes, Result, Tensor};
use cudarc::driver::{CudaSlice, LaunchAsync};
use dfdx::prelude::CudaError;

/// The kernels of `sampling.cu`.
pub(crate) const KERNELS: &[&str] = &["sample_rows", "probability_rows", "top_k_rows", "top_p_rows", "draw_rows"];

/// Temperature, k and p as kernels take them: no row is longer than the largest k, and a p of 1 keeps all.
fn parameters(draw: &Draw) -> (f32, u64, f32) {
    (draw.temperature, draw.top_k.map_or(u64::MAX, |k| k as u64), draw.top_p.unwrap_or(1.0))
}

/// One uniform number per row, on their way to the GPU: nobody waits for them.
fn send(gpu: &Gpu, uniforms: &[f32], rows: usize) -> Result<Numbers, CudaError> {
    check(uniforms.len() == rows && rows > 0)?;
    gpu.upload(uniforms)
}

/// The rows of `x`, of at least one number.
fn rows_of(x: &Tensor) -> (usize, usize) {
    let width = x.last_dim().max(1);
    (x.len() / width, width)
}

/// The code of each row: below its width.
fn drawn(gpu: &'static Gpu, codes: CudaSlice<u32>, x: &Tensor) -> Codes {
    Codes::of_gpu(OnGpu::new(gpu, codes), &x.shape()[..x.rank().saturating_sub(1)], x.last_dim())
}

/// A draw from every row of `logits`.
pub(crate) fn sample(logits: &Tensor, draw: &Draw, uniforms: &[f32]) -> Result<Option<Codes>> {
    let Some((gpu, [x])) = on_gpu("sample", [logits])? else {
        return Ok(None);
    };
    let (rows, width) = rows_of(logits);
    let mut codes = gpu.room_for_codes(rows)?;
    if rows > 0 {
        let (uniforms, mut room) = (send(gpu, uniforms, rows)?, gpu.room(rows * width)?);
        let (temperature, top_k, top_p) = parameters(draw);
        let kernel = gpu.kernel("sample_rows")?;
        let sizes = (rows as u64, width as u64);
        // SAFETY: logits and room have rows * width numbers; uniform numbers and codes are one per row.
        #[allow(unsafe_code)]
        unsafe {
            let of = (&**x.numbers(), &*uniforms, &mut *room, &mut codes);
            let all = (of.0, of.1, of.2, of.3, sizes.0, sizes.1, temperature, top_k, top_p);
            kernel.launch(blocks(rows), all).map_err(CudaError::from)?;
        }
    }
    Ok(Some(drawn(gpu, codes, logits)))
}

/// A draw from every row of `probs` as they are.
pub(crate) fn multinomial(probs: &Tensor, uniforms: &[f32]) -> Result<Option<Codes>> {
    let Some((gpu, [x])) = on_gpu("multinomial", [probs])? else {
        return Ok(None);
    };
    let (rows, width) = rows_of(probs);
    let mut codes = gpu.room_for_codes(rows)?;
    if rows > 0 {
        let uniforms = send(gpu, uniforms, rows)?;
        let kernel = gpu.kernel("draw_rows")?;
        // SAFETY: as in `sample`.
        #[allow(unsafe_code)]
        unsafe {
            let all = (&**x.numbers(), &*uniforms, &mut codes, rows as u64, width as u64);
            kernel.launch(blocks(rows), all).map_err(CudaError::from)?;
        }
    }
    Ok(Some(drawn(gpu, codes, probs)))
}

/// What a kernel makes of every row.
enum Filter {
    Probabilities(Draw),
    TopK(usize),
    TopP(f32),
}

fn filtered(op: &'static str, x: &Tensor, filter: &Filter) -> Result<Option<Tensor>> {
    let Some((gpu, [from])) = on_gpu(op, [x])? else {
        return Ok(None);
    };
    let (rows, width) = rows_of(x);
    let mut out = gpu.room(length(from.numbers()))?;
    if rows > 0 {
        let (from, to, sizes) = (&**from.numbers(), &mut *out, (rows as u64, width as u64));
        // SAFETY: both have rows * width numbers.
        #[allow(unsafe_code)]
        let launched = unsafe {
            match filter {
                Filter::Probabilities(draw) => {
                    let (temperature, top_k, top_p) = parameters(draw);
                    let all = (from, to, sizes.0, sizes.1, temperature, top_k, top_p);
                    gpu.kernel("probability_rows")?.launch(blocks(rows), all)
                }
                Filter::TopK(k) => {
                    gpu.kernel("top_k_rows")?.launch(blocks(rows), (from, to, sizes.0, sizes.1, *k as u64))
                }
                Filter::TopP(p) => gpu.kernel("top_p_rows")?.launch(blocks(rows), (from, to, sizes.0, sizes.1, *p)),
            }
        };
        launched.map_err(CudaError::from)?;
    }
    Ok(Some(output(gpu, out, x.shape(), false)?.0))
}

/// What [`sample`] draws from.
pub(crate) fn probabilities(logits: &Tensor, draw: &Draw) -> Result<Option<Tensor>> {
    filtered("probabilities", logits, &Filter::Probabilities(*draw))
}

/// Every row with what is below its k-th largest at negative infinity.
pub(crate) fn top_k(logits: &Tensor, k: usize) -> Result<Option<Tensor>> {
    filtered("top_k_logits", logits, &Filter::TopK(k))
}

/// Every row cut to its nucleus.
pub(crate) fn top_p(probs: &Tensor, p: f32) -> Result<Option<Tensor>> {
    filtered("top_p_probs", probs, &Filter::TopP(p))
}

//! Losses that spread a codebook.

use rqlab_sdk::nn::{CodeEntropies, EntropyEps, l2_normalize};
use rqlab_sdk::prelude::*;
use rqlab_sdk::tensor::ops::averages::update_averages;
use rqlab_sdk::tensor::ops::sampling::top_k_logits;
use rqlab_sdk::tensor::ranks::Step;

/// How far the codes of a codebook `[K, C]` are from orthogonal: the mean squared cosine of all pairs of n codes, less that of
/// each with itself, `sum cos² / n² - 1/n` (vector-quantize-pytorch, after Shin et al., "Exploration into translation-equivariant
/// image quantization", ICASSP 2023). Codes are seen if `seen` `[K]` has 1 for them and not 0. A GPU is not waited for.
pub(crate) fn orthogonal(codebook: &Tensor, seen: &Tensor) -> Result<Tensor> {
    let size = codebook.shape()[0];
    let unit = l2_normalize(codebook)?.mul(&seen.reshape(&[size, 1])?)?;
    // The squares of U Uᵀ have the sum of those of Uᵀ U, which is as small as a code is short.
    let squares = unit.transpose(0, 1)?.matmul(&unit)?.square()?.sum_all()?;
    let share = seen.sum_all()?.clamp(1.0, f32::INFINITY)?;
    let share = Tensor::scalar(1.0).to_device(share.device())?.div(&share)?;
    Ok(squares.mul(&share.square()?)?.sub(&share)?)
}

/// Which codes of a codebook of `size` [`orthogonal`] sees, `[size]`: 1 for those in `used` if these are given, of all of them
/// or of `most` that are drawn.
pub(crate) fn seen_codes(size: usize, used: Option<&Codes>, most: Option<usize>, rng: &Rng) -> Result<Tensor> {
    let used = match used {
        Some(codes) => {
            let counts = Var::buffer(&Tensor::zeros(&[size]).to_device(codes.device())?);
            let ones = Tensor::full(1.0, &[codes.len(), 1]).to_device(codes.device())?;
            let sums = Var::buffer(&Tensor::zeros(&[size, 1]).to_device(codes.device())?);
            update_averages(&ones, &codes.reshape(&[codes.len()])?, 0.0, &counts, &sums)?;
            Step::current().sum(&counts.get())?.clamp(0.0, 1.0)?
        }
        None => Tensor::full(1.0, &[size]),
    };
    let Some(most) = most.filter(|&most| most < size) else { return Ok(used) };
    // Those of the largest random numbers, where used codes have larger ones than all others: the rest becomes minus infinity.
    let drawn = Tensor::from_vec(rng.whole().uniform(size), &[size])?.to_device(used.device())?.add(&used)?;
    Ok(top_k_logits(&drawn, most)?.clamp(0.0, 1.0)?.mul(&used)?)
}

/// The entropies of vectors `[N, C]` among codes `[K, C]`, with p = softmax(-d²/T), as LlamaGen computes them.
pub(crate) fn entropies(vectors: &Tensor, codebook: &Tensor, temperature: f32) -> Result<CodeEntropies> {
    let size = codebook.shape()[0];
    let own = codebook.square()?.sum(&[1], false)?.reshape(&[1, size])?;
    // |x|² is the same for all codes of a vector, so that softmax does not see it.
    let logits = vectors.matmul_t(codebook)?.mul_scalar(2.0)?.sub(&own)?.mul_scalar(1.0 / temperature)?;
    CodeEntropies::of_logits(&logits, EntropyEps::Mean)
}

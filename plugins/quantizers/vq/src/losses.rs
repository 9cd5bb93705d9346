//! Losses that spread a codebook.

use rqlab_sdk::nn::{CodeEntropies, EntropyEps, l2_normalize};
use rqlab_sdk::prelude::*;

/// How far codes `[n, C]` are from orthogonal: the mean squared cosine of all pairs, less that of each with itself,
/// `sum cos² / n² - 1/n` (vector-quantize-pytorch, after Shin et al., "Exploration into translation-equivariant image
/// quantization", ICASSP 2023).
pub(crate) fn orthogonal(codes: &Tensor) -> Result<Tensor> {
    let n = codes.shape()[0].max(1) as f32;
    let unit = l2_normalize(codes)?;
    let cosines = unit.matmul_t(&unit)?;
    Ok(cosines.square()?.sum_all()?.mul_scalar(1.0 / (n * n))?.add_scalar(-1.0 / n)?)
}

/// The codes `[n]` that [`orthogonal`] sees of a codebook of `size`: those in `used` if these are given, at most `most`.
pub(crate) fn seen_codes(size: usize, used: Option<&Codes>, most: Option<usize>, rng: &Rng) -> Option<Vec<u32>> {
    let mut seen: Vec<u32> = match used {
        Some(codes) => {
            let mut hit = vec![false; size];
            codes.as_slice().iter().for_each(|&code| hit[code as usize] = true);
            (0..size as u32).filter(|&code| hit[code as usize]).collect()
        }
        None if most.is_some_and(|most| most < size) => (0..size as u32).collect(),
        None => return None,
    };
    if let Some(most) = most.filter(|&most| most < seen.len()) {
        seen = rng.permutation(seen.len()).into_iter().take(most).map(|i| seen[i]).collect();
    }
    Some(seen)
}

/// The entropies of vectors `[N, C]` among codes `[K, C]`, with p = softmax(-d²/T), as LlamaGen computes them.
pub(crate) fn entropies(vectors: &Tensor, codebook: &Tensor, temperature: f32) -> Result<CodeEntropies> {
    let size = codebook.shape()[0];
    let own = codebook.square()?.sum(&[1], false)?.reshape(&[1, size])?;
    // |x|² is the same for all codes of a vector, so that softmax does not see it.
    let logits = vectors.matmul_t(codebook)?.mul_scalar(2.0)?.sub(&own)?.mul_scalar(1.0 / temperature)?;
    CodeEntropies::of_logits(&logits, EntropyEps::Mean)
}

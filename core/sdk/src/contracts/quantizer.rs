//! Latents to codes and back.

use crate::contracts::MapShape;
use crate::params::Params;
use crate::tensor::{Codes, Rng, Tensor};
use crate::{Error, Result};

/// What the runner tells a quantizer when it builds it.
#[derive(Debug, Clone)]
pub struct QuantizerContext {
    /// Shape of the latents it will see (without the batch axis).
    pub latents: MapShape,
    /// Where its codebooks are made.
    pub params: Params,
}

/// The codes of one image at one level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodeShape {
    /// Rows of the code map.
    pub height: usize,
    /// Columns of the code map.
    pub width: usize,
    /// Codebook size K of each depth; one entry for plain vector quantization, none for a continuous bottleneck.
    pub codebooks: Vec<usize>,
}

impl CodeShape {
    /// Codes per position, D.
    pub fn depth(&self) -> usize {
        self.codebooks.len()
    }

    /// Positions of the map, T.
    pub fn positions(&self) -> usize {
        self.height * self.width
    }

    /// Bits of an image when every code is stored with log2 K bits: `h w sum_d log2 K_d`.
    pub fn nominal_bits(&self) -> f64 {
        self.positions() as f64 * self.codebooks.iter().map(|&k| (k as f64).log2()).sum::<f64>()
    }
}

/// What a quantizer makes of a batch of latents. Numbers for the log are tensors without gradients, so that they stay on a
/// GPU until somebody reads them: a training step does not wait for them.
#[derive(Debug, Clone)]
pub struct Quantized {
    /// What the decoder sees `[B, h, w, C]`: the quantized values, with the gradient that the estimator gives.
    pub latents: Tensor,
    /// Codes `[B, h, w, D]`; none for a continuous bottleneck.
    pub codes: Option<Codes>,
    /// What the tokenizer's loss gains, weights included (rank 0): commitment, codebook, entropy or KL terms.
    pub loss: Tensor,
    /// The terms by name, unweighted and of rank 0, for the log: `commitment`, `codebook`, ...
    pub terms: Vec<(&'static str, Tensor)>,
    /// Mean square of what is left of the latents after each depth, `[D]` (mean over all elements).
    pub residual_energy: Tensor,
    /// What the codebook update did, of rank 0, for the log: `restarted_codes`, `dead_codes`, ... Empty outside training.
    pub events: Vec<(&'static str, Tensor)>,
}

/// Codes with the probabilities of all their rivals.
#[derive(Debug, Clone)]
pub struct SoftCodes {
    /// The codes, nearest or drawn, `[B, h, w, D]`.
    pub codes: Codes,
    /// For each depth `softmax(-|r - e_k|^2 / T)` over its codebook: `[B, h, w, K_d]`.
    pub targets: Vec<Tensor>,
}

/// A discrete (or continuous) bottleneck.
///
/// Training and evaluation are two methods: only [`Quantizer::quantize_train`] takes `&mut self`, and only it may change
/// a codebook.
pub trait Quantizer {
    /// The codes it makes.
    fn code_shape(&self) -> CodeShape;

    /// Quantizes latents `[B, h, w, C]` without any change of state. Gradients flow as in training.
    ///
    /// # Errors
    /// Shapes that do not fit.
    fn quantize(&self, latents: &Tensor) -> Result<Quantized>;

    /// Quantizes, and updates the codebooks where the method does so outside the optimizer (EMA, restarts).
    ///
    /// # Errors
    /// As for [`Quantizer::quantize`].
    fn quantize_train(&mut self, latents: &Tensor, rng: &Rng) -> Result<Quantized> {
        let _ = rng;
        self.quantize(latents)
    }

    /// The quantized latents `[B, h, w, C]` of codes `[B, h, w, D]`, from their first `depth` depths.
    ///
    /// # Errors
    /// Codes out of range or shapes that do not fit.
    fn embed(&self, codes: &Codes, depth: usize) -> Result<Tensor>;

    /// The codebook `[K_d, C]` of each depth; depths that share one return the same table. Empty if there are none.
    fn codebooks(&self) -> Vec<Tensor>;

    /// Whether all depths share one codebook.
    fn shares_codebook(&self) -> bool {
        false
    }

    /// Codes with their soft targets at `temperature`. Without `rng` each code is the nearest; with it, each is drawn
    /// from its soft target and the residual goes on from the drawn code (Lee et al. 2022, section 3.2.3).
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the quantizer has no distances to make them of.
    fn soft_codes(&self, latents: &Tensor, temperature: f32, rng: Option<&Rng>) -> Result<SoftCodes> {
        let _ = (latents, temperature, rng);
        Err(Error::Unsupported("this quantizer has no soft codes; use hard targets and nearest codes".to_owned()))
    }
}

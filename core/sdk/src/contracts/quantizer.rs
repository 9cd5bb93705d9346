//! Latents to tokens and back.

use crate::contracts::{Components, LevelInfo, MapShape, Targets, TokenRequest, Tokens};
use crate::params::Params;
use crate::tensor::{Rng, Tensor};
use crate::{Error, Result};

/// What the runner tells a quantizer when it builds it.
#[derive(Debug, Clone)]
pub struct QuantizerContext {
    /// Shape of the latents it will see (without the batch axis).
    pub latents: MapShape,
    /// Where its codebooks are made.
    pub params: Params,
    /// Builds the components that its configuration calls.
    pub components: Components,
}

/// What a quantizer makes of a batch of latents. Numbers for the curves are tensors without gradients, so that they stay on
/// a GPU until somebody reads them: a training step does not wait for them.
#[derive(Debug, Clone)]
pub struct Quantized {
    /// What the decoder sees `[B, h, w, C]`: the quantized values, with the gradient that the estimator gives. C is that of
    /// [`Quantizer::level`], which most quantizers leave as the latents have it.
    pub latents: Tensor,
    /// The tokens that stand for them.
    pub tokens: Tokens,
    /// What the tokenizer's loss gains, weights included (rank 0): commitment, codebook, entropy or KL terms.
    pub loss: Tensor,
    /// The terms by name, unweighted and of rank 0: `commitment`, `codebook`, ...
    pub terms: Vec<(&'static str, Tensor)>,
    /// Rate in bits of each image, averaged over the batch (rank 0), of a bottleneck whose tokens are vectors: its KL
    /// divergence. `None` for codes, whose rate follows from their number and frequencies, and for vectors without any bound
    /// on what they tell.
    pub bits: Option<Tensor>,
    /// Mean square of what is left of the latents after each depth, `[D]` (mean over all elements); empty, `[0]`, where nothing
    /// is left by design.
    pub residual_energy: Tensor,
    /// What the codebook update did, of rank 0: `restarted_codes`, `dead_codes`, ... Empty outside training.
    pub events: Vec<(&'static str, Tensor)>,
}

/// A bottleneck: codes or vectors.
///
/// Training and evaluation are two methods: only [`Quantizer::quantize_train`] takes `&mut self`, and only it may change
/// a codebook.
pub trait Quantizer {
    /// The tokens it makes, with its codebooks as they are now.
    fn level(&self) -> LevelInfo;

    /// What a quantizer that quantizes a residual again divides it by each time, one number for each of the latents'
    /// channels: how much less than the latents their residual is. Empty where nothing need be done, as for codebooks, which
    /// follow what they are given.
    fn residual_scale(&self) -> Vec<f32> {
        Vec::new()
    }

    /// How many numbers a step of training makes for an image that grow with the codebooks, such as a softmax over all codes:
    /// what a plan counts of memory beside latents and tables.
    fn activations(&self) -> usize {
        0
    }

    /// Quantizes latents `[B, h, w, C]` without any change of state and without randomness. Gradients flow as in training.
    ///
    /// # Errors
    /// Shapes that do not fit.
    fn quantize(&self, latents: &Tensor) -> Result<Quantized>;

    /// Quantizes, and updates the codebooks where the method does so outside the optimizer (EMA, restarts). `rng` is for
    /// what training draws: restarts, posterior samples, dropped depths.
    ///
    /// # Errors
    /// As for [`Quantizer::quantize`].
    fn quantize_train(&mut self, latents: &Tensor, rng: &Rng) -> Result<Quantized> {
        let _ = rng;
        self.quantize(latents)
    }

    /// What a prior is fed of latents `[B, h, w, C]`: tokens and targets as it asked for them. Without a special request the
    /// tokens are those of [`Quantizer::quantize`], and the targets are the tokens themselves.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the quantizer cannot make what was asked for.
    fn tokens(&self, latents: &Tensor, request: &TokenRequest, rng: &Rng) -> Result<(Tokens, Targets)> {
        let _ = rng;
        if *request != TokenRequest::default() {
            let message = "this quantizer has neither soft nor drawn tokens; use hard targets and nearest codes";
            return Err(Error::Unsupported(message.to_owned()));
        }
        Ok((self.quantize(latents)?.tokens, Targets::Hard))
    }

    /// The latents `[B, h, w, C]` of tokens, from their first `depth` depths; from all with `None`, which is all that
    /// vectors have. Gradients reach the parameters that the optimizer trains.
    ///
    /// # Errors
    /// Codes out of range or shapes that do not fit.
    fn embed(&self, tokens: &Tokens, depth: Option<usize>) -> Result<Tensor>;
}

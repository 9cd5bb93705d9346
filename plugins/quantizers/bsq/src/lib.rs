//! Binary spherical quantization (Zhao, Xiong, Krähenbühl, "Image and video tokenization with binary spherical
//! quantization", ICLR 2025): vectors are brought to the unit sphere and go to the nearest corner of the cube within it.
//!
//! Shapes: latents `[.., C]`, usually `[B, h, w, C]`; vectors on the sphere `[.., L]`, L the number of bits; codes `[.., D]`,
//! D the number of sub-tokens.

#[cfg(test)]
mod tests;

use rqlab_sdk::nn::{
    BitOrder, CodeEntropies, EntropyAnnealing, EntropyEps, Estimator, GridAxis, GridCodes, GridSettings, l2_normalize,
};
use rqlab_sdk::prelude::*;

declare_plugin! {
    quantizer "bsq": BsqConfig => Bsq::new;
}

config! {
    /// Binary spherical quantization (Zhao et al. 2025): vectors h of length 1 become `sign(h) / sqrt(L)`, and the L signs are
    /// the bits of a code. The loss is `entropy_weight (sample_entropy_weight H(p) - codebook_entropy_weight H(E p)) /
    /// inv_temperature + beta |h - q|²` (summed over channels), where p is the softmax over codes c of `2 inv_temperature h.c`.
    ///
    /// Published, at 1/8 of the image's size: BSQ-18 `bsq(bits: 18)`, BSQ-36 `bsq(bits: 36, sub_tokens: [18, 18])`.
    pub struct BsqConfig {
        /// Bits of a position, L.
        bits: usize = 18, in 1..=64;
        /// Whether latents of any width are mapped to one channel per bit, and back. Without, the autoencoder must make as many
        /// (`code_channels`).
        projection: bool = false;
        /// How gradients pass the sign. Straight through they reach h times 1 / sqrt(L): the sign is passed before it is
        /// scaled.
        estimator: Estimator = Estimator::StraightThrough;
        /// Weight of both entropy terms (the published zeta, and the weight of the quantizer's loss).
        entropy_weight: f32 = 0.1, in 0.0..=1000.0;
        /// How much larger both entropy terms weigh in the first pass of training: `1 + entropy_annealing_factor` times, sinking
        /// linearly to once in `entropy_annealing_steps` passes. A quantizer that serves several depths or scales has as many
        /// passes per step. BSQ-ViT has 2 and 2000.
        entropy_annealing_factor: f32 = 0.0, in 0.0..=1000.0;
        /// Passes until they weigh as they are given; 0 for from the start.
        entropy_annealing_steps: u64 = 2000, in 0..=16_777_216;
        /// Weight of the mean entropy of a vector's distribution over codes (the published gamma0).
        sample_entropy_weight: f32 = 1.0, in 0.0..=1000.0;
        /// Weight of the entropy of the mean distribution (the published gamma).
        codebook_entropy_weight: f32 = 1.0, in 0.0..=1000.0;
        /// Distributions are over this many bits at a time, and their entropies are summed: exact where all bits are in one
        /// group, an upper bound of the codebook's entropy where not. A step makes `2^entropy_group` numbers per position.
        entropy_group: usize = 9, in 1..=18;
        /// How logarithms of probabilities near 0 are kept finite.
        entropy_eps: EntropyEps = EntropyEps::Both;
        /// How sharp distributions are.
        inv_temperature: f32 = 1.0, in 1e-3..=1e5;
        /// Weight of the commitment loss. Published as 0: a vector on the sphere is never far from its code.
        beta: f32 = 0.0, in 0.0..=1000.0;
        /// Which bit of a code the first channel is.
        bit_order: BitOrder = BitOrder::MsbFirst;
        /// Bits of each sub-token, so that a position holds as many codes. If not given, one code.
        sub_tokens: Option<Vec<usize>> = None, in 1..=64;
    }
}

/// A binary spherical quantizer.
#[derive(Debug)]
pub struct Bsq {
    config: BsqConfig,
    codes: GridCodes,
    annealing: Option<EntropyAnnealing>,
    /// Of the entries of codes: 1 / sqrt(L).
    magnitude: f32,
}

impl Bsq {
    /// A quantizer without parameters, or with those of its projection; buffers are those of its annealing.
    ///
    /// # Errors
    /// More codes than a code can be chosen among, latents that do not fit.
    pub fn new(config: BsqConfig, cx: &QuantizerContext) -> Result<Self> {
        let magnitude = 1.0 / (config.bits as f32).sqrt();
        let settings = GridSettings {
            axes: vec![GridAxis::bit(magnitude); config.bits],
            order: config.bit_order,
            sub_tokens: config.sub_tokens.as_deref(),
            projection: config.projection,
            field: "bits",
        };
        let codes = GridCodes::new(cx, settings)?;
        let (factor, steps) = (config.entropy_annealing_factor, config.entropy_annealing_steps);
        let annealing = EntropyAnnealing::new(&cx.params, factor, steps)?;
        Ok(Self { config, codes, annealing, magnitude })
    }

    /// The vectors `[.., L]` on the unit sphere.
    fn vectors(&self, latents: &Tensor) -> Result<Tensor> {
        l2_normalize(&self.codes.projection().project_in(latents)?)
    }

    /// The entropies of vectors' distributions over codes.
    fn entropies(&self, vectors: &Tensor) -> Result<CodeEntropies> {
        // The logits of the two values of a bit are 2 inv_temperature h times plus and minus the magnitude.
        let log_odds = vectors.mul_scalar(4.0 * self.config.inv_temperature * self.magnitude)?;
        CodeEntropies::of_bits(&log_odds, self.config.entropy_group, self.config.entropy_eps)
    }

    /// Quantizes vectors `[.., L]` of length 1.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn quantize_on_sphere(&self, vectors: &Tensor) -> Result<Quantized> {
        self.quantized(vectors, None)
    }

    /// The same with entropy terms that weigh `annealed` times what is configured, where that is given.
    fn quantized(&self, vectors: &Tensor, annealed: Option<&Tensor>) -> Result<Quantized> {
        let BsqConfig { sample_entropy_weight, codebook_entropy_weight, entropy_weight, beta, .. } = self.config;
        let bits = vectors.detach().heaviside()?;
        let points = self.codes.points(&bits)?;
        let commitment = vectors.mse(&points)?.mul_scalar(self.config.bits as f32)?;
        let mut loss = commitment.mul_scalar(beta)?;
        let mut terms = vec![("commitment", commitment.detach())];
        if entropy_weight > 0.0 {
            let entropies = self.entropies(vectors)?;
            let entropy = entropies.loss(sample_entropy_weight, codebook_entropy_weight)?;
            let mut entropy = entropy.mul_scalar(entropy_weight / self.config.inv_temperature)?;
            if let Some(annealed) = annealed {
                entropy = entropy.mul(annealed)?;
            }
            loss = loss.add(&entropy)?;
            terms.extend(entropies.terms());
        }
        let signs = bits.mul_scalar(2.0)?.add_scalar(-1.0)?;
        let passed = self.config.estimator.pass(vectors, &signs)?.mul_scalar(self.magnitude)?;
        Ok(Quantized {
            latents: self.codes.projection().project_out(&passed)?,
            tokens: Tokens::Codes(self.codes.codes(&bits)?),
            loss,
            terms,
            bits: None,
            residual_energy: self.codes.residual_energy(vectors, &points)?,
            events: Vec::new(),
        })
    }
}

impl Quantizer for Bsq {
    fn level(&self) -> LevelInfo {
        self.codes.level()
    }

    fn activations(&self) -> usize {
        if self.config.entropy_weight == 0.0 {
            return 0;
        }
        self.level().positions() * CodeEntropies::numbers_of_bits(self.config.bits, self.config.entropy_group)
    }

    fn quantize(&self, latents: &Tensor) -> Result<Quantized> {
        self.quantize_on_sphere(&self.vectors(latents)?)
    }

    fn quantize_train(&mut self, latents: &Tensor, _: &Rng) -> Result<Quantized> {
        let annealed = self.annealing.as_ref().map(EntropyAnnealing::pass).transpose()?;
        self.quantized(&self.vectors(latents)?, annealed.as_ref())
    }

    fn tokens(&self, latents: &Tensor, request: &TokenRequest, rng: &Rng) -> Result<(Tokens, Targets)> {
        let vectors = self.vectors(latents)?;
        self.codes.tokens(&vectors, request, rng, || self.codes.codes(&vectors.heaviside()?))
    }

    fn embed(&self, tokens: &Tokens, depth: Option<usize>) -> Result<Tensor> {
        self.codes.embed(tokens, depth)
    }
}

//! Lookup-free quantization (Yu et al., "Language model beats diffusion: tokenizer is key to visual generation", ICLR 2024):
//! each channel becomes its sign, and the signs are the bits of a code. Entropy terms keep bits sure and all codes in use.
//!
//! Shapes: latents `[.., C]`, usually `[B, h, w, C]`; vectors whose signs are taken `[.., L]`, L the number of bits; codes
//! `[.., D]`, D the number of sub-tokens.

#[cfg(test)]
mod tests;

use rqlab_sdk::nn::{
    BitOrder, CodeEntropies, EntropyAnnealing, EntropyEps, Estimator, GridAxis, GridCodes, GridSettings, l2_normalize,
};
use rqlab_sdk::prelude::*;

declare_plugin! {
    quantizer "lfq": LfqConfig => Lfq::new;
}

config! {
    /// Lookup-free quantization (Yu et al. 2024): L channels become their signs, 1 above 0 and -1 else, which are the L bits
    /// of a code. The loss is `entropy_weight (sample_entropy_weight E H(p) - codebook_entropy_weight H(E p)) + beta |z - q|²`,
    /// where p is the softmax over codes c of `2 inv_temperature z.c`, in nats.
    ///
    /// Published: MaskBit `lfq(bits: 14, entropy_group: 14, entropy_weight: 0.02, entropy_annealing_factor: 2.0)`, also of 10, 12,
    /// 16 and 18 bits; Open-MAGVIT2 `lfq(bits: 18, sub_tokens: [6, 12])`; vector-quantize-pytorch `lfq(bit_order: msb_first,
    /// entropy_eps: clamp)`.
    pub struct LfqConfig {
        /// Bits of a position, L.
        bits: usize = 10, in 1..=64;
        /// Whether latents of any width are mapped to one channel per bit, and back. Without, the autoencoder must make as many
        /// (`code_channels`).
        projection: bool = false;
        /// Whether vectors are divided by their lengths first, and signs by sqrt(L), as vector-quantize-pytorch has it for
        /// binary spherical quantization; `bsq` is the published one.
        spherical: bool = false;
        /// How gradients pass the sign.
        estimator: Estimator = Estimator::StraightThrough;
        /// Weight of both entropy terms.
        entropy_weight: f32 = 0.1, in 0.0..=1000.0;
        /// How much larger both entropy terms weigh in the first pass of training: `1 + entropy_annealing_factor` times, sinking
        /// linearly to once in `entropy_annealing_steps` passes. A quantizer that serves several depths or scales has as many
        /// passes per step. MaskBit has 2 and 2000.
        entropy_annealing_factor: f32 = 0.0, in 0.0..=1000.0;
        /// Passes until they weigh as they are given; 0 for from the start.
        entropy_annealing_steps: u64 = 2000, in 0..=16_777_216;
        /// Weight of the mean entropy of a vector's distribution over codes, which is made small.
        sample_entropy_weight: f32 = 1.0, in 0.0..=1000.0;
        /// Weight of the entropy of the mean distribution, which is made large.
        codebook_entropy_weight: f32 = 1.0, in 0.0..=1000.0;
        /// Distributions are over this many bits at a time, and their entropies are summed: exact where all bits are in one
        /// group, an upper bound of the codebook's entropy where not. A step makes `2^entropy_group` numbers per position.
        entropy_group: usize = 10, in 1..=18;
        /// How logarithms of probabilities near 0 are kept finite.
        entropy_eps: EntropyEps = EntropyEps::Mean;
        /// How sharp distributions are; published as the temperature 0.01.
        inv_temperature: f32 = 100.0, in 1e-3..=1e5;
        /// Weight of the commitment loss.
        beta: f32 = 0.25, in 0.0..=1000.0;
        /// Which bit of a code the first channel is.
        bit_order: BitOrder = BitOrder::LsbFirst;
        /// Bits of each sub-token, so that a position holds as many codes (Open-MAGVIT2's asymmetric token factorization): 18
        /// bits as `[6, 12]`. If not given, one code.
        sub_tokens: Option<Vec<usize>> = None, in 1..=64;
    }
}

/// A lookup-free quantizer.
#[derive(Debug)]
pub struct Lfq {
    config: LfqConfig,
    codes: GridCodes,
    annealing: Option<EntropyAnnealing>,
    /// Of the entries of codes.
    magnitude: f32,
}

impl Lfq {
    /// A quantizer without parameters, or with those of its projection; buffers are those of its annealing.
    ///
    /// # Errors
    /// More codes than a code can be chosen among, latents that do not fit.
    pub fn new(config: LfqConfig, cx: &QuantizerContext) -> Result<Self> {
        let magnitude = if config.spherical { 1.0 / (config.bits as f32).sqrt() } else { 1.0 };
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

    /// The vectors `[.., L]` whose signs are taken.
    fn vectors(&self, latents: &Tensor) -> Result<Tensor> {
        let vectors = self.codes.projection().project_in(latents)?;
        if self.config.spherical { l2_normalize(&vectors) } else { Ok(vectors) }
    }

    /// The entropies of vectors' distributions over codes.
    ///
    /// # Errors
    /// Shapes that do not fit.
    fn entropies(&self, vectors: &Tensor) -> Result<CodeEntropies> {
        // The logits of the two values of a bit are 2 inv_temperature z times plus and minus the magnitude.
        let log_odds = vectors.mul_scalar(4.0 * self.config.inv_temperature * self.magnitude)?;
        CodeEntropies::of_bits(&log_odds, self.config.entropy_group, self.config.entropy_eps)
    }

    /// Quantizes with entropy terms that weigh `annealed` times what is configured, where that is given.
    fn quantized(&self, latents: &Tensor, annealed: Option<&Tensor>) -> Result<Quantized> {
        let LfqConfig { sample_entropy_weight, codebook_entropy_weight, entropy_weight, beta, .. } = self.config;
        let vectors = self.vectors(latents)?;
        let bits = vectors.detach().heaviside()?;
        let points = self.codes.points(&bits)?;
        let commitment = vectors.mse(&points)?;
        let mut loss = commitment.mul_scalar(beta)?;
        let mut terms = vec![("commitment", commitment.detach())];
        if entropy_weight > 0.0 {
            let entropies = self.entropies(&vectors)?;
            let mut entropy =
                entropies.loss(sample_entropy_weight, codebook_entropy_weight)?.mul_scalar(entropy_weight)?;
            if let Some(annealed) = annealed {
                entropy = entropy.mul(annealed)?;
            }
            loss = loss.add(&entropy)?;
            terms.extend(entropies.terms());
        }
        Ok(Quantized {
            latents: self.codes.projection().project_out(&self.config.estimator.pass(&vectors, &points)?)?,
            tokens: Tokens::Codes(self.codes.codes(&bits)?),
            loss,
            terms,
            bits: None,
            residual_energy: self.codes.residual_energy(&vectors, &points)?,
            events: Vec::new(),
        })
    }
}

impl Quantizer for Lfq {
    fn level(&self) -> LevelInfo {
        self.codes.level()
    }

    /// A half, as vector-quantize-pytorch's residual LFQ has it.
    fn residual_scale(&self) -> Vec<f32> {
        if self.config.projection { vec![] } else { vec![0.5; self.config.bits] }
    }

    fn activations(&self) -> usize {
        if self.config.entropy_weight == 0.0 {
            return 0;
        }
        self.level().positions() * CodeEntropies::numbers_of_bits(self.config.bits, self.config.entropy_group)
    }

    fn quantize(&self, latents: &Tensor) -> Result<Quantized> {
        self.quantized(latents, None)
    }

    fn quantize_train(&mut self, latents: &Tensor, _: &Rng) -> Result<Quantized> {
        let annealed = self.annealing.as_ref().map(EntropyAnnealing::pass).transpose()?;
        self.quantized(latents, annealed.as_ref())
    }

    fn tokens(&self, latents: &Tensor, request: &TokenRequest, rng: &Rng) -> Result<(Tokens, Targets)> {
        let vectors = self.vectors(latents)?;
        self.codes.tokens(&vectors, request, rng, || self.codes.codes(&vectors.heaviside()?))
    }

    fn embed(&self, tokens: &Tokens, depth: Option<usize>) -> Result<Tensor> {
        self.codes.embed(tokens, depth)
    }
}

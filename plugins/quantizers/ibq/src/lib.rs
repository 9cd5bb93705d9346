//! Index backpropagation quantization (Shi et al., "Scalable image tokenization with index backpropagation quantization",
//! ICCV 2025): a code is the most probable one under a softmax over all of them, and the gradient passes through that
//! softmax, so that every code moves at every step.
//!
//! Shapes: latents `[.., C]`, usually `[B, h, w, C]`; codes `[.., 1]`; the codebook `[K, c]`, where c is C unless `code_dim`
//! says otherwise.

#[cfg(test)]
mod tests;

use rqlab_sdk::nn::{CodeEntropies, EntropyEps, Projection, SoftCodes, code_tokens};
use rqlab_sdk::prelude::*;
use rqlab_sdk::tensor::ops::sampling::multinomial;

declare_plugin! {
    quantizer "ibq": IbqConfig => Ibq::new;
}

config! {
    /// Index backpropagation quantization (Shi et al. 2025): codes are scored by their dot product with the vector z, the best is
    /// taken, and its one-hot vector has the gradient of the softmax over all. With q the quantized value, whose gradient
    /// reaches z and all codes, and e its code, the loss is `|q - z|² + |sg(e) - z|² + beta |e - sg(z)|²` and the entropy terms of
    /// `lfq`. A step makes K numbers per position.
    ///
    /// Published: K of 1024, 8192, 16384 and 262144 with 256 channels, `ibq(codebook: 16384)`.
    pub struct IbqConfig {
        /// Codes in the codebook, K, which start from N(0, 1).
        codebook: usize = 1024, in 2..=1_048_576;
        /// Channels of codes, which latents are mapped to and back; if not given, codes have the channels of latents.
        code_dim: Option<usize> = None, in 1..=65_536;
        /// Weight of `|e - sg(z)|²`.
        beta: f32 = 0.25, in 0.0..=1000.0;
        /// Weight of both entropy terms.
        entropy_weight: f32 = 0.05, in 0.0..=1000.0;
        /// Weight of the mean entropy of a vector's distribution over codes, which is made small.
        sample_entropy_weight: f32 = 1.0, in 0.0..=1000.0;
        /// Weight of the entropy of the mean distribution, which is made large.
        codebook_entropy_weight: f32 = 1.0, in 0.0..=1000.0;
        /// Temperature of the distributions whose entropies are taken.
        entropy_temperature: f32 = 0.01, in 1e-5..=1e3;
        /// How logarithms of probabilities near 0 are kept finite.
        entropy_eps: EntropyEps = EntropyEps::Mean;
        /// Temperature T at which codes are drawn in training, by softmax(z.e/T); if not given, they are the best.
        stochastic_codes: Option<f32> = None, in 1e-6..=1e6;
    }
}

/// An index backpropagation quantizer.
#[derive(Debug)]
pub struct Ibq {
    config: IbqConfig,
    latents: MapShape,
    projection: Projection,
    codebook: Var,
    /// Whether the codebook holds nothing: only a plan is being made.
    dry: bool,
}

impl Ibq {
    /// A quantizer with the parameter `embedding.weight` `[K, c]`.
    ///
    /// # Errors
    /// Names that are taken.
    pub fn new(config: IbqConfig, cx: &QuantizerContext) -> Result<Self> {
        let projection = Projection::new(&cx.params, cx.latents.channels, config.code_dim)?;
        let shape = [config.codebook, projection.code_dim()];
        let codebook = cx.params.scope("embedding").parameter("weight", &shape, Init::Normal(1.0))?;
        Ok(Self { config, latents: cx.latents, projection, codebook, dry: cx.params.is_dry() })
    }

    /// The scores `[.., K]` of all codes for vectors `[.., c]`.
    fn logits(&self, vectors: &Tensor) -> Result<Tensor> {
        Ok(vectors.linear(&self.codebook.get(), None)?)
    }

    /// Codes `[..]` drawn by the probabilities `[.., K]`.
    fn drawn(&self, probabilities: &Tensor, rng: &Rng) -> Result<Codes> {
        let positions = probabilities.len() / self.config.codebook;
        Ok(multinomial(probabilities, &rng.part("code", 0).uniform(positions))?)
    }

    /// The value, losses and gradients of vectors `[.., c]` with their scores `[.., K]` and the codes that they got.
    fn assemble(&self, vectors: &Tensor, logits: &Tensor, codes: Codes) -> Result<Quantized> {
        let IbqConfig { beta, entropy_weight, entropy_temperature, .. } = self.config;
        let codebook = self.codebook.get();
        let codewords = codebook.embedding(&codes)?;
        // (onehot + p - sg(p)) E: the value and the gradient at E are those of the one-hot vector, the gradient at p is E's.
        let expected = logits.softmax()?.matmul(&codebook.detach())?;
        let value = codewords.add(&expected.sub(&expected.detach())?)?;
        let commitment = vectors.mse(&codewords.detach())?;
        let towards_latents = codewords.mse(&vectors.detach())?;
        let energy = commitment.detach();
        let mut loss = value.mse(vectors)?.add(&commitment)?.add(&towards_latents.mul_scalar(beta)?)?;
        let mut terms = vec![("commitment", energy.clone()), ("codebook", energy.clone())];
        if entropy_weight > 0.0 {
            let sharp = logits.mul_scalar(1.0 / entropy_temperature)?;
            let entropies = CodeEntropies::of_logits(&sharp, self.config.entropy_eps)?;
            let entropy = entropies.loss(self.config.sample_entropy_weight, self.config.codebook_entropy_weight)?;
            loss = loss.add(&entropy.mul_scalar(entropy_weight)?)?;
            terms.extend(entropies.terms());
        }
        Ok(Quantized {
            latents: self.projection.project_out(&value)?,
            tokens: Tokens::Codes(Codes::stack(&[codes])?),
            loss,
            terms,
            bits: None,
            residual_energy: energy.reshape(&[1])?,
            events: Vec::new(),
        })
    }
}

impl Quantizer for Ibq {
    fn level(&self) -> LevelInfo {
        let MapShape { height, width, channels } = self.latents;
        let tables = if self.dry { Ok(vec![]) } else { self.projection.tables(&[self.codebook.get()]) };
        // There is no failure: codebook and projection were made to fit.
        let tables = tables.unwrap_or_default();
        let space = CodeSpace { sizes: vec![self.config.codebook], tables, shared: false };
        LevelInfo { height, width, channels, space: TokenSpace::Codes(space), scales: None }
    }

    fn activations(&self) -> usize {
        // Logits and probabilities.
        2 * self.level().positions() * self.config.codebook
    }

    fn quantize(&self, latents: &Tensor) -> Result<Quantized> {
        let vectors = self.projection.project_in(latents)?;
        let logits = self.logits(&vectors)?;
        let codes = logits.argmax_last()?;
        self.assemble(&vectors, &logits, codes)
    }

    fn quantize_train(&mut self, latents: &Tensor, rng: &Rng) -> Result<Quantized> {
        let Some(temperature) = self.config.stochastic_codes else { return self.quantize(latents) };
        let vectors = self.projection.project_in(latents)?;
        let logits = self.logits(&vectors)?;
        let codes = self.drawn(&logits.detach().mul_scalar(1.0 / temperature)?.softmax()?, rng)?;
        self.assemble(&vectors, &logits, codes)
    }

    /// Distributions at temperature T are `softmax(z.e / T)`.
    fn tokens(&self, latents: &Tensor, request: &TokenRequest, rng: &Rng) -> Result<(Tokens, Targets)> {
        let logits = self.logits(&self.projection.project_in(latents)?)?.detach();
        let nearest = || Ok(Codes::stack(&[logits.argmax_last()?])?);
        code_tokens(request, rng, nearest, |temperature, draw| {
            if !(temperature > 0.0 && temperature.is_finite()) {
                return Err(Error::Unsupported(format!("soft codes need a temperature above 0, found {temperature}")));
            }
            let targets = logits.mul_scalar(1.0 / temperature)?.softmax()?;
            let codes = match draw {
                None => logits.argmax_last()?,
                Some(rng) => self.drawn(&targets, rng)?,
            };
            Ok(SoftCodes { codes: Codes::stack(&[codes])?, targets: vec![targets] })
        })
    }

    fn embed(&self, tokens: &Tokens, depth: Option<usize>) -> Result<Tensor> {
        let codewords = self.codebook.get().embedding(&tokens.codes_of_depth_1(depth)?)?;
        self.projection.project_out(&codewords)
    }
}

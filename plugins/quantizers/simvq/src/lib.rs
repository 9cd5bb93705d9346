//! Vector quantization with a codebook that is a linear map of a frozen table (Zhu et al., "Addressing representation
//! collapse in vector quantized models with one linear layer", 2024): the map moves all codes at once, those that nobody
//! chose, too.
//!
//! Shapes: latents `[.., C]`, usually `[B, h, w, C]`; codes `[.., 1]`; the table `[K, f]`, the map `[c, f]`, the codebook
//! `[K, c]`, where c is C unless `code_dim` says otherwise.

#[cfg(test)]
mod tests;

use rqlab_sdk::nn::{Estimator, Linear, Projection, SoftCodes, code_tokens, soft_codes};
use rqlab_sdk::prelude::*;
use rqlab_sdk::tensor::ops::nearest::nearest;

declare_plugin! {
    quantizer "simvq": SimVqConfig => SimVq::new;
}

config! {
    /// SimVQ (Zhu et al. 2024): the nearest of K codewords, which are a trained linear map of a frozen random table. As the map
    /// moves all of them, none is left behind, however large K is.
    ///
    /// Published: K from 1024 to 262144 of 128 channels, `simvq(codebook: 65536, code_dim: 128)`.
    pub struct SimVqConfig {
        /// Codes in the codebook, K.
        codebook: usize = 1024, in 2..=1_048_576;
        /// Channels of the frozen table, whose entries are from N(0, 1 / table_dim); if not given, those of codes.
        table_dim: Option<usize> = None, in 1..=65_536;
        /// Channels of codes, which latents are mapped to and back; if not given, codes have the channels of latents.
        code_dim: Option<usize> = None, in 1..=65_536;
        /// Weight of the codebook loss `|sg(z) - e|²`, which trains the map.
        codebook_weight: f32 = 1.0, in 0.0..=1000.0;
        /// Weight of the commitment loss `|z - sg(e)|²`.
        beta: f32 = 0.25, in 0.0..=1000.0;
        /// How gradients pass the quantizer. vector-quantize-pytorch rotates by default.
        estimator: Estimator = Estimator::StraightThrough;
        /// Temperature T at which codes are drawn in training, by softmax(-d²/T); if not given, they are the nearest.
        stochastic_codes: Option<f32> = None, in 1e-6..=1e6;
    }
}

/// A vector quantizer whose codebook is a map of a frozen table.
#[derive(Debug)]
pub struct SimVq {
    config: SimVqConfig,
    latents: MapShape,
    projection: Projection,
    /// The frozen table `[K, f]`.
    table: Var,
    /// The map from f to c.
    transform: Linear,
    /// Whether the table holds nothing: only a plan is being made.
    dry: bool,
}

impl SimVq {
    /// A quantizer with the buffer `frozen_codebook` `[K, f]` and the parameter `code_transform.weight` `[c, f]`, as
    /// vector-quantize-pytorch names them.
    ///
    /// # Errors
    /// Names that are taken.
    pub fn new(config: SimVqConfig, cx: &QuantizerContext) -> Result<Self> {
        let projection = Projection::new(&cx.params, cx.latents.channels, config.code_dim)?;
        let code_dim = projection.code_dim();
        let table_dim = config.table_dim.unwrap_or(code_dim);
        let deviation = 1.0 / (table_dim as f32).sqrt();
        let table = cx.params.buffer("frozen_codebook", &[config.codebook, table_dim], Init::Normal(deviation))?;
        let transform = Linear::new(&cx.params.scope("code_transform"), table_dim, code_dim, false)?;
        Ok(Self { config, latents: cx.latents, projection, table, transform, dry: cx.params.is_dry() })
    }

    /// The codebook as it is now, `[K, c]`, without a gradient.
    fn codebook(&self) -> Result<Tensor> {
        Ok(self.table.get().linear(&self.transform.weight.get().detach(), None)?)
    }

    /// The codewords `[.., c]` of codes `[..]`, with a gradient for the map.
    fn codewords(&self, codes: &Codes) -> Result<Tensor> {
        // The rows first: the map of the whole table is needed for the search alone.
        self.transform.forward(&self.table.get().embedding(codes)?)
    }

    /// The value, losses and gradients of vectors `[.., c]` with the codes that they got.
    fn assemble(&self, vectors: &Tensor, codes: Codes) -> Result<Quantized> {
        let codewords = self.codewords(&codes)?;
        let value = codewords.detach();
        let commitment = vectors.mse(&value)?;
        let codebook = codewords.mse(&vectors.detach())?;
        let energy = commitment.detach();
        let loss = codebook.mul_scalar(self.config.codebook_weight)?.add(&commitment.mul_scalar(self.config.beta)?)?;
        Ok(Quantized {
            latents: self.projection.project_out(&self.config.estimator.pass(vectors, &value)?)?,
            tokens: Tokens::Codes(Codes::stack(&[codes])?),
            loss,
            terms: vec![("commitment", energy.clone()), ("codebook", energy.clone())],
            bits: None,
            residual_energy: energy.reshape(&[1])?,
            events: Vec::new(),
        })
    }
}

impl Quantizer for SimVq {
    fn level(&self) -> LevelInfo {
        let MapShape { height, width, channels } = self.latents;
        let tables =
            if self.dry { Ok(vec![]) } else { self.codebook().and_then(|book| self.projection.tables(&[book])) };
        // There is no failure: table and map were made to fit.
        let tables = tables.unwrap_or_default();
        let space = CodeSpace { sizes: vec![self.config.codebook], tables, shared: false };
        LevelInfo { height, width, channels, space: TokenSpace::Codes(space), scales: None }
    }

    fn quantize(&self, latents: &Tensor) -> Result<Quantized> {
        let vectors = self.projection.project_in(latents)?;
        self.assemble(&vectors, nearest(&vectors.detach(), &self.codebook()?)?)
    }

    fn quantize_train(&mut self, latents: &Tensor, rng: &Rng) -> Result<Quantized> {
        let Some(temperature) = self.config.stochastic_codes else { return self.quantize(latents) };
        let vectors = self.projection.project_in(latents)?;
        let uniforms = rng.part("code", 0).uniform(vectors.len() / vectors.last_dim().max(1));
        let (codes, _) = soft_codes(&vectors.detach(), &self.codebook()?, temperature, Some(&uniforms))?;
        self.assemble(&vectors, codes)
    }

    fn tokens(&self, latents: &Tensor, request: &TokenRequest, rng: &Rng) -> Result<(Tokens, Targets)> {
        let (vectors, codebook) = (self.projection.project_in(latents)?, self.codebook()?);
        let positions = vectors.len() / vectors.last_dim().max(1);
        let nearest = || Ok(Codes::stack(&[nearest(&vectors.detach(), &codebook)?])?);
        code_tokens(request, rng, nearest, |temperature, draw| {
            let uniforms = draw.map(|rng| rng.part("code", 0).uniform(positions));
            let (codes, targets) = soft_codes(&vectors, &codebook, temperature, uniforms.as_deref())?;
            Ok(SoftCodes { codes: Codes::stack(&[codes])?, targets: vec![targets] })
        })
    }

    fn embed(&self, tokens: &Tokens, depth: Option<usize>) -> Result<Tensor> {
        self.projection.project_out(&self.codewords(&tokens.codes_of_depth_1(depth)?)?)
    }
}

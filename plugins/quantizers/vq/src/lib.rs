//! Vector quantization (van den Oord et al., "Neural discrete representation learning", NeurIPS 2017): one code per
//! position. The codebook follows its vectors by moving averages (VQ-VAE-2) or is trained by gradients (VQ-VAE, VQGAN);
//! it may lie on a sphere of few dimensions (LlamaGen), and codes that nothing uses may be brought back.
//!
//! Shapes: latents `[.., C]`, usually `[B, h, w, C]`; the vectors that are compared `[.., c]`; codes `[.., 1]`.

mod book;
mod config;
mod losses;
#[cfg(test)]
mod tests;

pub use config::{Anchor, BetaOn, CodebookUpdate, DeadCodes, Normalize, VqConfig};

use book::Book;
use rqlab_sdk::nn::{CodeEntropies, Projection, SoftCodes, code_tokens, l2_normalize, soft_codes};
use rqlab_sdk::prelude::*;
use rqlab_sdk::tensor::ops::nearest::nearest;

declare_plugin! {
    quantizer "vq": VqConfig => Vq::new;
}

/// A vector quantizer.
#[derive(Debug)]
pub struct Vq {
    config: VqConfig,
    latents: MapShape,
    projection: Projection,
    book: Book,
    /// Whether the codebook holds nothing: only a plan is being made.
    dry: bool,
}

impl Vq {
    /// A quantizer with the codebook `codebooks.0` (moving averages) or the parameter `embedding.weight` `[K, c]`, and
    /// the maps `project_in` and `project_out` if `code_dim` is given.
    ///
    /// # Errors
    /// Settings that contradict each other.
    pub fn new(config: VqConfig, cx: &QuantizerContext) -> Result<Self> {
        config.check_losses()?;
        let projection = Projection::new(&cx.params, cx.latents.channels, config.code_dim)?;
        let book = Book::new(&config, projection.code_dim(), &cx.params)?;
        Ok(Self { config, latents: cx.latents, projection, book, dry: cx.params.is_dry() })
    }

    /// Vectors as they are learned and passed on.
    fn as_learned(&self, vectors: &Tensor) -> Result<Tensor> {
        if self.config.normalize == Normalize::Always { l2_normalize(vectors) } else { Ok(vectors.clone()) }
    }

    /// Vectors as they are compared, without gradient.
    fn as_compared(&self, vectors: &Tensor) -> Result<Tensor> {
        let vectors = vectors.detach();
        if self.config.normalize == Normalize::Lookup { l2_normalize(&vectors) } else { Ok(vectors) }
    }

    /// The codes as they are passed on `[K, c]`.
    fn codewords(&self) -> Result<Tensor> {
        self.as_learned(&self.book.weight())
    }

    /// The nearest codes of vectors, or in training perhaps drawn ones.
    fn choose(&self, vectors: &Tensor, codewords: &Tensor, rng: Option<&Rng>) -> Result<Codes> {
        let (vectors, codewords) = (self.as_compared(vectors)?, self.as_compared(codewords)?);
        match (self.config.stochastic_codes, rng) {
            (Some(temperature), Some(rng)) => {
                let uniforms = rng.part("code", 0).uniform(vectors.len() / vectors.last_dim().max(1));
                Ok(soft_codes(&vectors, &codewords, temperature, Some(&uniforms))?.0)
            }
            _ => Ok(nearest(&vectors, &codewords)?),
        }
    }

    /// The value, losses and gradients of vectors with the codes that they got from `codewords`.
    fn assemble(&self, vectors: &Tensor, codewords: &Tensor, codes: &Codes, rng: &Rng) -> Result<Quantized> {
        let codeword = codewords.embedding(codes)?;
        let value = codeword.detach();
        let commitment = vectors.mse(&value)?;
        let energy = commitment.detach();
        let mut terms = vec![("commitment", energy.clone())];
        let beta = self.config.beta;
        let mut loss = match (&self.book, self.config.beta_on) {
            (Book::Ema(_), _) => commitment.mul_scalar(beta)?,
            (Book::Gradient { .. }, beta_on) => {
                let codebook = codeword.mse(&vectors.detach())?;
                terms.push(("codebook", energy.clone()));
                match beta_on {
                    BetaOn::Commitment => codebook.add(&commitment.mul_scalar(beta)?)?,
                    BetaOn::Codebook => commitment.add(&codebook.mul_scalar(beta)?)?,
                }
            }
        };
        if let Some(orthogonal) = self.orthogonal(codes, rng)? {
            loss = loss.add(&orthogonal.mul_scalar(self.config.orthogonal_weight)?)?;
            terms.push(("orthogonal", orthogonal.detach()));
        }
        if let Some(entropies) = self.entropies(vectors, codewords)? {
            loss = loss.add(&entropies.loss(1.0, 1.0)?.mul_scalar(self.config.entropy_weight)?)?;
            terms.extend(entropies.terms());
        }
        Ok(Quantized {
            latents: self.projection.project_out(&self.config.estimator.pass(vectors, &value)?)?,
            tokens: Tokens::Codes(Codes::stack(std::slice::from_ref(codes))?),
            loss,
            terms,
            bits: None,
            residual_energy: energy.reshape(&[1])?,
            events: Vec::new(),
        })
    }

    fn orthogonal(&self, codes: &Codes, rng: &Rng) -> Result<Option<Tensor>> {
        if self.config.orthogonal_weight == 0.0 {
            return Ok(None);
        }
        let used = self.config.orthogonal_active_only.then_some(codes);
        let seen = losses::seen_codes(self.config.codebook, used, self.config.orthogonal_max_codes, rng)?;
        losses::orthogonal(&self.book.weight(), &seen).map(Some)
    }

    fn entropies(&self, vectors: &Tensor, codewords: &Tensor) -> Result<Option<CodeEntropies>> {
        if self.config.entropy_weight == 0.0 {
            return Ok(None);
        }
        let rows = vectors.len() / vectors.last_dim().max(1);
        let vectors = vectors.reshape(&[rows, vectors.last_dim()])?;
        losses::entropies(&vectors, codewords, self.config.entropy_temperature).map(Some)
    }

    /// Quantizes, and updates the codebook where the optimizer does not; dead codes restart from `candidates(vectors,
    /// K)`, `[K, c]`.
    ///
    /// # Errors
    /// Shapes that do not fit, and those of `candidates`.
    pub fn quantize_train_with(
        &mut self,
        latents: &Tensor,
        rng: &Rng,
        candidates: impl FnOnce(&Tensor, usize) -> Result<Tensor>,
    ) -> Result<Quantized> {
        let raw = self.projection.project_in(latents)?;
        let vectors = self.as_learned(&raw)?;
        let plain = vectors.detach();
        self.book.start(&plain, &self.config, &rng.part("kmeans", 0))?;
        // The look-up is in the codebook as it was.
        let codewords = self.codewords()?;
        let codes = self.choose(&plain, &codewords, Some(rng))?;
        let quantized = self.assemble(&vectors, &codewords, &codes, &rng.part("orthogonal", 0))?;
        let events = match &self.book {
            Book::Ema(book) => {
                book.accumulate(&plain, &codes)?;
                let settled = book.settle(|| candidates(&plain, book.size()))?;
                vec![("restarted_codes", settled.restarted), ("dead_codes", settled.dead)]
            }
            Book::Gradient { weight, anchors: Some(anchors), .. } => {
                let rows = |x: &Tensor| x.detach().reshape(&[codes.len(), x.last_dim()]);
                let (raw, compared) = (rows(&raw)?, rows(&self.as_compared(&plain)?)?);
                let codes = codes.reshape(&[codes.len()])?;
                let codewords = self.as_compared(&codewords)?;
                anchors.pull(weight, (&raw, &compared), &codewords, &codes, &rng.part("anchor", 0))?;
                Vec::new()
            }
            Book::Gradient { .. } => Vec::new(),
        };
        Ok(Quantized { events, ..quantized })
    }
}

impl Quantizer for Vq {
    fn level(&self) -> LevelInfo {
        let MapShape { height, width, channels } = self.latents;
        let table = || self.codewords().and_then(|codewords| self.projection.tables(&[codewords]));
        let tables = if self.dry { vec![] } else { table().unwrap_or_default() };
        let space = CodeSpace { sizes: vec![self.config.codebook], tables, shared: false };
        LevelInfo { height, width, channels, space: TokenSpace::Codes(space), scales: None }
    }

    /// Where vectors are compared with all codes at once, distances and their softmax.
    fn activations(&self) -> usize {
        let VqConfig { entropy_weight, stochastic_codes, codebook, .. } = self.config;
        let compares = entropy_weight > 0.0 || stochastic_codes.is_some();
        if compares { 2 * self.level().positions() * codebook } else { 0 }
    }

    fn quantize(&self, latents: &Tensor) -> Result<Quantized> {
        let vectors = self.as_learned(&self.projection.project_in(latents)?)?;
        let codewords = self.codewords()?;
        let codes = self.choose(&vectors, &codewords, None)?;
        self.assemble(&vectors, &codewords, &codes, &Rng::new(0, "evaluation", 0))
    }

    fn quantize_train(&mut self, latents: &Tensor, rng: &Rng) -> Result<Quantized> {
        let dead_codes = self.config.rule(self.config.dead_codes()?).dead_codes;
        let restart = rng.part("restart", 0);
        self.quantize_train_with(latents, rng, |vectors, size| dead_codes.candidates(vectors, size, &restart))
    }

    fn tokens(&self, latents: &Tensor, request: &TokenRequest, rng: &Rng) -> Result<(Tokens, Targets)> {
        let positions = latents.len() / latents.last_dim().max(1);
        let nearest = || Ok(self.quantize(latents)?.tokens.codes()?.clone());
        code_tokens(request, rng, nearest, |temperature, draw| {
            let vectors = self.as_compared(&self.as_learned(&self.projection.project_in(latents)?)?)?;
            let uniforms = draw.map(|rng| rng.part("code", 0).uniform(positions));
            let codewords = self.as_compared(&self.codewords()?)?;
            let (codes, targets) = soft_codes(&vectors, &codewords, temperature, uniforms.as_deref())?;
            Ok(SoftCodes { codes: Codes::stack(&[codes])?, targets: vec![targets] })
        })
    }

    fn embed(&self, tokens: &Tokens, depth: Option<usize>) -> Result<Tensor> {
        self.projection.project_out(&self.codewords()?.embedding(&tokens.codes_of_depth_1(depth)?)?)
    }
}

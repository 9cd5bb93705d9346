//! Vector quantization (van den Oord et al., "Neural discrete representation learning", NeurIPS 2017): one code per position.
//! The codebook follows its vectors by moving averages (VQ-VAE-2) or is trained by gradients (VQ-VAE, VQGAN).
//!
//! Shapes: latents `[.., C]`, usually `[B, h, w, C]`; codes `[.., 1]`.

#[cfg(test)]
mod tests;

use rqlab_sdk::choice;
use rqlab_sdk::config::ConfigError;
use rqlab_sdk::nn::{
    CodebookInit, EmaCodebook, EmaRule, RestartDraw, SoftCodes, code_tokens, restart_candidates, soft_codes,
};
use rqlab_sdk::prelude::*;
use rqlab_sdk::tensor::ops::nearest::nearest;

declare_plugin! {
    quantizer "vq": VqConfig => Vq::new;
}

choice! {
    /// What moves the codebook.
    pub enum CodebookUpdate {
        /// Moving averages of the vectors that each code got.
        Ema = "ema",
        /// The optimizer, by the codebook loss.
        Gradient = "gradient",
    }
}

choice! {
    /// Which of the two losses beta weighs; the other has weight 1.
    pub enum BetaOn {
        /// `|sg(z) - e|² + beta |z - sg(e)|²`: VQ-VAE, equation 3.
        Commitment = "commitment",
        /// `beta |sg(z) - e|² + |z - sg(e)|²`: what VQGAN's code does by default.
        Codebook = "codebook",
    }
}

config! {
    /// Vector quantization: the nearest of K codewords at each position.
    pub struct VqConfig {
        /// Codes in the codebook, K.
        codebook: usize = 512, in 2..=1_048_576;
        /// What moves the codebook.
        codebook_update: CodebookUpdate = CodebookUpdate::Ema;
        /// Weight of the commitment loss, or of the codebook loss if `beta_on` says so.
        beta: f32 = 0.25, in 0.0..=1000.0;
        /// Which loss beta weighs. `codebook` needs `codebook_update: gradient`: there is no codebook loss otherwise.
        beta_on: BetaOn = BetaOn::Commitment;
        /// Share of the averages that an update keeps (`ema`). The published models have 0.99; the shorter memory follows an
        /// encoder better that is trained for thousands of steps.
        decay: f64 = 0.97, in 0.0..1.0;
        /// Smoothing of the average counts (`ema`).
        eps: f64 = 1e-5, in 0.0..=1.0;
        /// Whether codes of low average count restart at random latents (`ema`). With it, the first step sets the codebook
        /// from data, whatever `init` says. VQ-VAE-2 has none.
        restart: bool = true;
        /// The average count, in vectors per update, below which a code is dead (`ema`). RQ-VAE has 1; where a step has about
        /// as many vectors as codes, that restarts codes faster than they can settle.
        restart_threshold: f32 = 0.1, in 0.0..=1e6;
        /// How the codebook starts; if not given, `normal` for `ema` and `uniform` for `gradient`.
        init: Option<CodebookInit> = None;
        /// The average count that codes start with (`ema`); if not given, 0 with restarts and 1 without. The published RQ-VAE has 0,
        /// and counts on restarts: a code that starts with 0 and gets no vector is divided by `eps` alone, which throws it
        /// far away.
        initial_count: Option<f32> = None, in 0.0..=1e6;
    }
}

#[derive(Debug)]
enum Book {
    Ema(EmaCodebook),
    Gradient(Var),
}

/// A vector quantizer.
#[derive(Debug)]
pub struct Vq {
    config: VqConfig,
    latents: MapShape,
    book: Book,
    /// Whether the codebook holds nothing: only a plan is being made.
    dry: bool,
}

impl Vq {
    /// A quantizer with the codebook `codebooks.0` (moving averages) or the parameter `embedding.weight` `[K, C]`.
    ///
    /// # Errors
    /// `beta_on: codebook` where there is no codebook loss.
    pub fn new(config: VqConfig, cx: &QuantizerContext) -> Result<Self> {
        let (size, channels) = (config.codebook, cx.latents.channels);
        let book = match config.codebook_update {
            CodebookUpdate::Ema if config.beta_on == BetaOn::Codebook => {
                let message = "an `ema` codebook has no codebook loss to weigh; add `codebook_update: gradient`";
                return Err(ConfigError::field("beta_on", message).into());
            }
            CodebookUpdate::Ema => {
                let rule = EmaRule {
                    decay: config.decay,
                    eps: config.eps,
                    initial_count: EmaRule::initial_count(config.initial_count, config.restart),
                    dead_below: config.restart_threshold,
                    restart: config.restart,
                };
                let init = config.init.unwrap_or(CodebookInit::Normal);
                Book::Ema(EmaCodebook::new(&cx.params.scope("codebooks").scope(0), size, channels, init, rule)?)
            }
            CodebookUpdate::Gradient => {
                let init = config.init.unwrap_or(CodebookInit::Uniform).of(size, channels);
                Book::Gradient(cx.params.scope("embedding").parameter("weight", &[size, channels], init)?)
            }
        };
        Ok(Self { config, latents: cx.latents, book, dry: cx.params.is_dry() })
    }

    fn weight(&self) -> Tensor {
        match &self.book {
            Book::Ema(book) => book.weight(),
            Book::Gradient(weight) => weight.get(),
        }
    }

    /// The value, losses and gradients of latents with the codes that they got from `weight`.
    fn assemble(&self, latents: &Tensor, weight: &Tensor, codes: &Codes) -> Result<Quantized> {
        let codeword = weight.embedding(codes)?;
        let value = codeword.detach();
        let commitment = latents.mse(&value)?;
        let energy = commitment.detach();
        let mut terms = vec![("commitment", energy.clone())];
        let loss = match (&self.book, self.config.beta_on) {
            (Book::Ema(_), _) => commitment.mul_scalar(self.config.beta)?,
            (Book::Gradient(_), beta_on) => {
                let codebook = codeword.mse(&latents.detach())?;
                terms.push(("codebook", energy.clone()));
                match beta_on {
                    BetaOn::Commitment => codebook.add(&commitment.mul_scalar(self.config.beta)?)?,
                    BetaOn::Codebook => commitment.add(&codebook.mul_scalar(self.config.beta)?)?,
                }
            }
        };
        Ok(Quantized {
            latents: latents.straight_through(&value)?,
            tokens: Tokens::Codes(Codes::stack(std::slice::from_ref(codes))?),
            loss,
            terms,
            bits: None,
            residual_energy: energy.reshape(&[1])?,
            events: Vec::new(),
        })
    }

    /// Quantizes, and updates an `ema` codebook; dead codes restart from `candidates(latents, K)`, `[K, C]`.
    ///
    /// # Errors
    /// Shapes that do not fit, and those of `candidates`.
    pub fn quantize_train_with(
        &mut self,
        latents: &Tensor,
        candidates: impl FnOnce(&Tensor, usize) -> Result<Tensor>,
    ) -> Result<Quantized> {
        let Book::Ema(book) = &self.book else { return self.quantize(latents) };
        // The look-up is in the codebook as it was.
        let (weight, vectors) = (book.weight(), latents.detach());
        let codes = book.nearest(&vectors)?;
        book.accumulate(&vectors, &codes)?;
        let dead = book.dead()?;
        let restart = || book.restart(|| candidates(&vectors, book.size()));
        let restarts = if self.config.restart { restart()? } else { Tensor::scalar(0.0) };
        book.rewrite()?;
        let events = vec![("restarted_codes", restarts), ("dead_codes", dead)];
        Ok(Quantized { events, ..self.assemble(latents, &weight, &codes)? })
    }
}

impl Quantizer for Vq {
    fn level(&self) -> LevelInfo {
        let MapShape { height, width, channels } = self.latents;
        let tables = if self.dry { vec![] } else { vec![self.weight().detach()] };
        let space = CodeSpace { sizes: vec![self.config.codebook], tables, shared: false };
        LevelInfo { height, width, channels, space: TokenSpace::Codes(space) }
    }

    fn quantize(&self, latents: &Tensor) -> Result<Quantized> {
        let weight = self.weight();
        let codes = nearest(&latents.detach(), &weight.detach())?;
        self.assemble(latents, &weight, &codes)
    }

    fn quantize_train(&mut self, latents: &Tensor, rng: &Rng) -> Result<Quantized> {
        self.quantize_train_with(latents, |vectors, size| {
            let channels = vectors.last_dim();
            let draw = RestartDraw::new(vectors.len() / channels.max(1), channels, size, &rng.part("restart", 0));
            restart_candidates(vectors, size, &draw)
        })
    }

    fn tokens(&self, latents: &Tensor, request: &TokenRequest, rng: &Rng) -> Result<(Tokens, Targets)> {
        let positions = latents.len() / latents.last_dim().max(1);
        let nearest = || Ok(self.quantize(latents)?.tokens.codes()?.clone());
        code_tokens(request, rng, nearest, |temperature, draw| {
            let uniforms = draw.map(|rng| rng.part("code", 0).uniform(positions));
            let (codes, targets) = soft_codes(latents, &self.weight(), temperature, uniforms.as_deref())?;
            Ok(SoftCodes { codes: Codes::stack(&[codes])?, targets: vec![targets] })
        })
    }

    fn embed(&self, tokens: &Tokens, depth: Option<usize>) -> Result<Tensor> {
        let codes = tokens.codes()?;
        if depth.unwrap_or(1) != 1 || codes.last_dim() != 1 {
            return Err(Error::Unsupported(format!(
                "vector quantization has depth 1; asked for depth {} of codes {:?}",
                depth.unwrap_or(1),
                codes.shape()
            )));
        }
        Ok(self.weight().detach().embedding(&codes.column(0)?)?)
    }
}

//! Models of codes.

use crate::Result;
use crate::contracts::{CodeShape, Mode};
use crate::params::Params;
use crate::tensor::ops::sampling::Draw;
use crate::tensor::{Codes, Rng, Tensor};

/// One level of tokens that a prior models or is conditioned on.
#[derive(Debug, Clone)]
pub struct PriorLevel {
    /// The codes of one image.
    pub codes: CodeShape,
    /// Channels of the latents that the codes stand for.
    pub channels: usize,
    /// The codebook `[K_d, C]` of each depth, trained and frozen. Empty when only a plan is being made.
    pub codebooks: Vec<Tensor>,
    /// Whether all depths share one codebook.
    pub shared: bool,
}

/// What the runner tells a prior when it builds it.
#[derive(Debug, Clone)]
pub struct PriorContext {
    /// The level to be modelled.
    pub level: PriorLevel,
    /// A level that the prior is conditioned on: for VQ-VAE-2's bottom prior, the top one.
    pub upper: Option<PriorLevel>,
    /// Number of classes to be conditioned on; 0 for none.
    pub classes: usize,
    /// Where its parameters are made.
    pub params: Params,
}

/// What a prior is to learn to predict at each code.
#[derive(Debug, Clone)]
pub enum Targets {
    /// The codes themselves.
    Hard,
    /// For each depth a distribution over its codebook, `[B, h, w, K_d]`.
    Soft(Vec<Tensor>),
}

/// Tokens of a batch of images.
#[derive(Debug, Clone)]
pub struct TokenBatch {
    /// Codes `[B, h, w, D]`: what is fed in (nearest or drawn, as asked for) and, with hard targets, what is predicted.
    pub codes: Codes,
    /// What is predicted.
    pub targets: Targets,
    /// Class of each image `[B]`.
    pub labels: Codes,
    /// The latents before quantization `[B, h, w, C]`, if asked for.
    pub latents: Option<Tensor>,
    /// The codes of the level it is conditioned on.
    pub upper: Option<Codes>,
}

/// What a prior wants to be fed in training. The trainer makes it from cached latents with the tokenizer's quantizer.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct TokenRequest {
    /// Soft targets at this temperature instead of hard ones.
    pub soft_targets: Option<f32>,
    /// Codes drawn at this temperature instead of the nearest ones.
    pub stochastic_codes: Option<f32>,
    /// The latents before quantization.
    pub latents: bool,
}

/// A training loss.
#[derive(Debug, Clone)]
pub struct PriorLoss {
    /// What is minimised, in nats per code (rank 0).
    pub loss: Tensor,
    /// Parts of it by name, for the log: of rank 0, or of rank 1 with a number for each depth, which are then called `NAME_1`,
    /// `NAME_2` and so on. They have no gradients, and stay on a GPU until somebody reads them. The trainer keeps curves `loss`,
    /// `learning_rate` and `gradient_norm` of its own.
    pub terms: Vec<(&'static str, Tensor)>,
}

/// What is to be sampled.
#[derive(Debug, Clone)]
pub struct SampleRequest {
    /// How many images.
    pub count: usize,
    /// The class of each, `[count]`; ignored by an unconditional prior.
    pub labels: Codes,
    /// How codes are drawn: one entry for all depths, or one a depth.
    pub draw: Vec<Draw>,
    /// Whether keys and values of past tokens are kept, or everything is computed anew for each code. The codes are the
    /// same; only the time differs.
    pub cache: bool,
    /// The codes of the level it is conditioned on.
    pub upper: Option<Codes>,
}

impl SampleRequest {
    /// How codes of `depth` are drawn.
    pub fn draw_at(&self, depth: usize) -> Draw {
        self.draw.get(depth).or(self.draw.last()).cloned().unwrap_or_default()
    }
}

/// A model of the codes of images.
pub trait Prior {
    /// What it wants to be fed in training.
    fn wants(&self) -> TokenRequest {
        TokenRequest::default()
    }

    /// The loss of a batch.
    ///
    /// # Errors
    /// Shapes that do not fit.
    fn loss(&self, batch: &TokenBatch, mode: &Mode) -> Result<PriorLoss>;

    /// Negative log-likelihood in nats of each image's codes, summed over positions, by depth: `[B, D]`. `None` where
    /// it cannot be computed.
    ///
    /// # Errors
    /// Shapes that do not fit.
    fn likelihood(&self, batch: &TokenBatch) -> Result<Option<Tensor>>;

    /// Codes `[count, h, w, D]`. Equal requests and streams give equal codes, with and without cache.
    ///
    /// # Errors
    /// Shapes that do not fit.
    fn sample(&self, request: &SampleRequest, rng: &Rng) -> Result<Codes>;
}

//! Models of tokens.

use crate::Result;
use crate::contracts::{Components, Condition, ConditionSpace, Guidance, LevelInfo, Mode, Tokens};
use crate::params::Params;
use crate::tensor::ops::sampling::Draw;
use crate::tensor::{Rng, Tensor};

/// What the runner tells a prior when it builds it.
#[derive(Debug, Clone)]
pub struct PriorContext {
    /// All levels of the tokenizer, in the order in which they are encoded and sampled. Those before `level` are given.
    pub levels: Vec<LevelInfo>,
    /// The level to be modelled, an index into `levels`.
    pub level: usize,
    /// What conditions it will see.
    pub condition: ConditionSpace,
    /// Whether it will also see the null condition: it is trained with some conditions dropped.
    pub null_condition: bool,
    /// Where its parameters are made.
    pub params: Params,
    /// Builds the components that its configuration calls.
    pub components: Components,
}

impl PriorContext {
    /// The level to be modelled.
    ///
    /// # Errors
    /// [`crate::Error::Unsupported`] if there is no such level.
    pub fn own(&self) -> Result<&LevelInfo> {
        let missing = || crate::Error::Unsupported(format!("there is no level {} to model", self.level + 1));
        self.levels.get(self.level).ok_or_else(missing)
    }

    /// The levels that are given: those above the one to be modelled.
    pub fn above(&self) -> &[LevelInfo] {
        self.levels.get(..self.level).unwrap_or_default()
    }
}

/// What a prior is to learn to predict at each token.
#[derive(Debug, Clone)]
pub enum Targets {
    /// The tokens themselves.
    Hard,
    /// For each depth a distribution over its codebook, `[B, h, w, K_d]`.
    Soft(Vec<Tensor>),
}

/// Tokens of a batch of images.
#[derive(Debug, Clone)]
pub struct TokenBatch {
    /// What is fed in (as asked for) and, with hard targets, what is predicted. Vectors come scaled to unit variance.
    pub tokens: Tokens,
    /// What is predicted.
    pub targets: Targets,
    /// The condition of each image.
    pub condition: Condition,
    /// The tokens of the levels above, in their order: as a quantizer makes them without a special request, vectors scaled as
    /// those of `tokens`.
    pub above: Vec<Tokens>,
}

/// What a prior wants to be fed in training, made by the tokenizer's quantizer ([`crate::contracts::Quantizer::tokens`]).
/// The default, the same tokens at each step, can be kept from one pass over the images.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct TokenRequest {
    /// Soft targets at this temperature instead of hard ones.
    pub soft_targets: Option<f32>,
    /// Codes drawn at this temperature instead of the nearest ones.
    pub stochastic_codes: Option<f32>,
    /// Vectors drawn from the posterior instead of its mode.
    pub posterior_draws: bool,
}

/// A training loss.
#[derive(Debug, Clone)]
pub struct PriorLoss {
    /// What is minimised (rank 0): in nats per code for priors of codes.
    pub loss: Tensor,
    /// Parts of it by name, for the curves: of rank 0, or of rank 1 with a number for each depth. They have no gradients, and
    /// stay on a GPU until somebody reads them. The trainer keeps curves `loss`, `learning_rate` and `gradient_norm` of its
    /// own.
    pub terms: Vec<(&'static str, Tensor)>,
}

/// What is to be sampled.
#[derive(Debug, Clone)]
pub struct SampleRequest {
    /// The condition of each image: as many images as it has are sampled.
    pub condition: Condition,
    /// The tokens of the levels above, in their order, vectors scaled as in training.
    pub above: Vec<Tokens>,
    /// How codes are drawn: one entry for all depths, or one per depth; depths without one take the last, and where there is
    /// none codes are drawn from the model's own distribution.
    pub draw: Vec<Draw>,
    /// How strongly the condition counts.
    pub guidance: Guidance,
    /// Whether keys and values of past tokens are kept, or everything is computed anew for each token. The tokens are the
    /// same: the difference is in time alone, and measures what the cache saves.
    pub cache: bool,
}

impl SampleRequest {
    /// A plain request: draws from the model's own distribution, with cache, without guidance, at a level without others
    /// above it.
    pub fn new(condition: Condition) -> Self {
        Self { condition, above: vec![], draw: vec![], guidance: Guidance::default(), cache: true }
    }

    /// How many images.
    pub fn images(&self) -> usize {
        self.condition.images()
    }

    /// How codes of `depth` are drawn.
    pub fn draw_at(&self, depth: usize) -> Draw {
        self.draw.get(depth).or(self.draw.last()).cloned().unwrap_or_default()
    }
}

/// Upper bounds of the negative log-likelihood in nats of each image's tokens, summed over positions, `[B, 1]`: of codes and of
/// vectors, which do not compare.
#[derive(Debug, Clone)]
pub enum Bound {
    /// Of codes.
    Codes(Tensor),
    /// Of vectors, codes' vectors among them: of their bins of width 2/255, in the scale in which the prior sees them.
    Vectors(Tensor),
}

impl Bound {
    /// The nats, of whichever tokens.
    pub fn nats(&self) -> &Tensor {
        match self {
            Self::Codes(nats) | Self::Vectors(nats) => nats,
        }
    }
}

/// A model of the tokens of images at one level, given those of the levels above.
pub trait Prior {
    /// What it wants to be fed in training.
    fn wants(&self) -> TokenRequest {
        TokenRequest::default()
    }

    /// Whether a condition changes what it draws. Guidance of a prior that says no is refused before it is trained.
    fn can_be_guided(&self) -> bool {
        true
    }

    /// Whether it draws codes from distributions, which `top_k` and `top_p` cut. A cut of a prior that says no is refused before
    /// it is trained.
    fn draws_codes(&self) -> bool {
        true
    }

    /// Whether weight decay moves a parameter of this full name and shape: all of them, unless the published model leaves
    /// some out.
    fn decays(&self, _name: &str, _shape: &[usize]) -> bool {
        true
    }

    /// Told before the loss of an optimizer step, `step` from 0 of `steps`, is asked for: for a prior that is not trained alike
    /// from the first step to the last. A run that goes on from a checkpoint goes on with the step that comes next.
    fn begin_step(&mut self, _step: u64, _steps: u64) {}

    /// The loss of a batch.
    ///
    /// # Errors
    /// Shapes that do not fit.
    fn loss(&self, batch: &TokenBatch, mode: &Mode) -> Result<PriorLoss>;

    /// Negative log-likelihood in nats of each image's tokens, summed over positions: of codes by depth, `[B, D]`; of vectors
    /// that of a density, `[B, 1]`. `None` where it cannot be computed.
    ///
    /// # Errors
    /// Shapes that do not fit.
    fn likelihood(&self, batch: &TokenBatch) -> Result<Option<Tensor>>;

    /// An upper bound of the negative log-likelihood of each image's tokens, estimated with draws from `rng`, for priors whose
    /// likelihood cannot be computed. `None` where there is no such bound.
    ///
    /// # Errors
    /// Shapes that do not fit.
    fn bound(&self, _batch: &TokenBatch, _rng: &Rng) -> Result<Option<Bound>> {
        Ok(None)
    }

    /// Tokens of the requested images. Equal requests and streams give equal tokens, with and without cache; guidance of
    /// scale 1 gives what no guidance gives. Priors of codes are [`crate::nn::CodeSteps`], and leave drawing and guidance to
    /// [`crate::nn::sample_codes`].
    ///
    /// # Errors
    /// Shapes that do not fit; guidance of a prior that never saw the null condition.
    fn sample(&self, request: &SampleRequest, rng: &Rng) -> Result<Tokens>;
}

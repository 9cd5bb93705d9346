//! What the five kinds of component promise. The runner knows components by these traits alone.
//!
//! Shapes: B images, H x W pixels, C channels, h x w positions of a token map, D depths, K codes. Channels come last.

mod autoencoder;
mod components;
mod condition;
mod dataset;
mod guidance;
mod objective;
mod prior;
mod quantizer;
mod scales;
mod tokens;

pub use autoencoder::{Autoencoder, AutoencoderContext, Bottleneck, MapShape};
pub use components::{Builder, Components};
pub use condition::{Condition, ConditionSpace, Given};
pub use dataset::{
    Attribute, CaptionInfo, Dataset, DatasetContext, DatasetInfo, Images, LeftOut, Progress, Sizes, Split, Summary,
};
pub use guidance::{Guidance, GuidanceSchedule};
pub use objective::{
    CriticTraining, Loss, Network, NetworkRequest, Objective, ObjectiveContext, Reconstruction, Weight,
};
pub use prior::{Bound, Prior, PriorContext, PriorLoss, SampleRequest, Targets, TokenBatch, TokenRequest};
pub use quantizer::{Quantized, Quantizer, QuantizerContext};
pub use scales::Scales;
pub use tokens::{CodeSpace, LevelInfo, TokenSpace, Tokens, code_rows, concat_codes};

use crate::Result;
use crate::tensor::{Rng, Tensor};

/// Whether a model trains (dropout, sampling noise) or is evaluated (deterministic).
#[derive(Debug, Clone, Copy)]
pub enum Mode {
    /// Training; randomness comes from this stream, which the trainer keys by (seed, purpose, step).
    Train(Rng),
    /// Evaluation and sampling.
    Eval,
}

impl Mode {
    /// The mode for a part of the model: a stream of its own, so that two layers never share a mask.
    #[must_use]
    pub fn part(&self, name: &str, index: usize) -> Self {
        match self {
            Self::Train(rng) => Self::Train(rng.part(name, index as u64)),
            Self::Eval => Self::Eval,
        }
    }

    /// Dropout with probability `p` when training, `x` itself otherwise.
    ///
    /// # Errors
    /// Those of [`Tensor::dropout`].
    pub fn dropout(&self, x: &Tensor, p: f32, name: &str) -> Result<Tensor> {
        match self {
            Self::Train(rng) if p > 0.0 => Ok(x.dropout(p, &rng.part(name, 0))?),
            _ => Ok(x.clone()),
        }
    }
}

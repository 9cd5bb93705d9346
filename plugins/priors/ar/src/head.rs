//! What is predicted from hidden states: codes, or vectors.

use crate::output::{Output, PackedOutput};
use crate::{ArConfig, BlockKind};
use rqlab_sdk::nn::LayerNorm;
use rqlab_sdk::nn::codes::{CodeClassifier, PackedClassifier};
use rqlab_sdk::nn::diffusion::{DiffusionHead, DiffusionHeadConfig, Process, TokenVectors};
use rqlab_sdk::nn::transformer::{LAYER_NORM_EPS, WeightInit};
use rqlab_sdk::prelude::*;

/// Parameters: of codes `classifier` with gpt, whose blocks end without a norm, and `output` with others; of vectors
/// `diffloss.net`, and with gpt `norm` before it.
#[derive(Debug)]
pub(crate) enum Head {
    Classifier(CodeClassifier),
    Output(Output),
    Vectors { norm: Option<LayerNorm>, diffusion: Box<DiffusionHead> },
}

impl Head {
    /// Of codes.
    pub(crate) fn of_codes(params: &Params, config: &ArConfig, level: &LevelInfo) -> Result<Self> {
        let ArConfig { width, init, .. } = *config;
        let (output, sizes) = (params.scope("output"), level.sizes());
        Ok(match config.block {
            BlockKind::Gpt if config.classifier_bias => {
                Self::Classifier(CodeClassifier::new(&params.scope("classifier"), width, sizes, init)?)
            }
            BlockKind::Gpt => {
                Self::Classifier(CodeClassifier::without_bias(&params.scope("classifier"), width, sizes, init)?)
            }
            BlockKind::Llama => {
                // Published: logits are zero at first.
                let first = if init == WeightInit::Gpt { Init::ZEROS } else { Init::fan_in(width) };
                Self::Output(Output::new(&output, width, sizes, first, None)?)
            }
            BlockKind::Rar => {
                let bias = if init == WeightInit::Gpt { Init::ZEROS } else { Init::fan_in(width) };
                Self::Output(Output::new(&output, width, sizes, init.weight(width), Some(bias))?)
            }
        })
    }

    /// Of the vectors of tokens.
    pub(crate) fn of_vectors(
        params: &Params,
        config: &ArConfig,
        tokens: &TokenVectors,
        process: Process,
    ) -> Result<Self> {
        let sizes = DiffusionHeadConfig {
            channels: tokens.channels(),
            condition: config.width,
            width: config.head_width,
            depth: config.head_layers,
            process,
            repeat: config.noise_draws,
            sampling_steps: config.sampling_steps,
        };
        let norm = || LayerNorm::new(&params.scope("norm"), config.width, LAYER_NORM_EPS);
        Ok(Self::Vectors {
            norm: (config.block == BlockKind::Gpt).then(norm).transpose()?,
            diffusion: Box::new(DiffusionHead::new(&params.scope("diffloss"), sizes)?),
        })
    }

    /// The diffusion, if it has one.
    pub(crate) fn diffusion(&self) -> Option<&DiffusionHead> {
        match self {
            Self::Classifier(_) | Self::Output(_) => None,
            Self::Vectors { diffusion, .. } => Some(diffusion),
        }
    }

    /// What vectors are predicted from, `[N, W]`, of hidden states of as many positions.
    pub(crate) fn conditions(&self, hidden: &Tensor) -> Result<Tensor> {
        let rows = hidden.reshape(&[hidden.len() / hidden.last_dim(), hidden.last_dim()])?;
        match self {
            Self::Vectors { norm: Some(norm), .. } => norm.forward(&rows),
            _ => Ok(rows),
        }
    }

    /// Logits `[N, K_d]` of every depth from hidden states `[N, D, W]`.
    pub(crate) fn by_depth(&self, hidden: &Tensor) -> Result<Vec<Tensor>> {
        match self {
            Self::Classifier(classifier) => classifier.by_depth(hidden),
            Self::Output(output) => output.by_depth(hidden),
            Self::Vectors { .. } => Err(no_codes()),
        }
    }

    /// Cross entropy in nats of every code, `[N, D]`.
    pub(crate) fn losses(&self, hidden: &Tensor, codes: &Codes, targets: &Targets) -> Result<Tensor> {
        match self {
            Self::Classifier(classifier) => classifier.losses(hidden, codes, targets),
            Self::Output(output) => output.losses(hidden, codes, targets),
            Self::Vectors { .. } => Err(no_codes()),
        }
    }

    /// The head as it is now, to draw codes of `images` at a time.
    pub(crate) fn packed(&self, images: usize) -> Result<PackedHead> {
        match self {
            Self::Classifier(classifier) => Ok(PackedHead::Classifier(classifier.packed(images)?)),
            Self::Output(output) => Ok(PackedHead::Output(output.packed(images)?)),
            Self::Vectors { .. } => Err(no_codes()),
        }
    }
}

fn no_codes() -> Error {
    Error::Unsupported("this prior draws vectors by diffusion, not codes".to_owned())
}

/// A head of codes laid out for sampling.
#[derive(Debug)]
pub(crate) enum PackedHead {
    Classifier(PackedClassifier),
    Output(PackedOutput),
}

impl PackedHead {
    /// Logits `[.., K]` of `depth` from hidden states `[.., W]`.
    pub(crate) fn logits(&self, hidden: &Tensor, depth: usize) -> Result<Tensor> {
        match self {
            Self::Classifier(classifier) => classifier.logits(hidden, depth),
            Self::Output(output) => output.logits(hidden, depth),
        }
    }
}

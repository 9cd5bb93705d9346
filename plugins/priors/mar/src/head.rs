//! What is predicted at a token, and how it is drawn.

use crate::{Cell, MarConfig};
use rqlab_sdk::config::ConfigError;
use rqlab_sdk::nn::codes::CodeClassifier;
use rqlab_sdk::nn::diffusion::{DiffusionHead, DiffusionHeadConfig, TokenVectors};
use rqlab_sdk::nn::transformer::WeightInit;
use rqlab_sdk::prelude::*;

/// The head: parameters `classifier`, or `diffloss.net`.
#[derive(Debug)]
pub(crate) enum Head {
    Codes(CodeClassifier),
    Vectors(Box<DiffusionHead>),
}

impl Head {
    pub(crate) fn new(params: &Params, config: &MarConfig, cell: Cell, level: &LevelInfo) -> Result<Self> {
        let Some(process) = cell.loss.process(level, config.noise_schedule, config.noise_steps)? else {
            if level.depth() != 1 {
                let message = format!(
                    "cross entropy predicts one code per position, and there are {}; take `loss: diffusion`, which models the \
                     sum of their vectors, or the prior `rq_transformer`",
                    level.depth()
                );
                return Err(ConfigError::field("loss", message).into());
            }
            let scope = params.scope("classifier");
            return Ok(Self::Codes(CodeClassifier::new(
                &scope,
                config.output_width()?,
                level.sizes(),
                WeightInit::Gpt,
            )?));
        };
        let sizes = DiffusionHeadConfig {
            channels: TokenVectors::new(level).channels() * config.patch * config.patch,
            condition: config.output_width()?,
            width: config.head_width,
            depth: config.head_layers,
            process,
            repeat: config.noise_draws,
            sampling_steps: config.sampling_steps,
        };
        Ok(Self::Vectors(Box::new(DiffusionHead::new(&params.scope("diffloss"), sizes)?)))
    }
}

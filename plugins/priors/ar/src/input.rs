//! What is read of tokens.

use crate::{ArConfig, ConditionRows};
use rqlab_sdk::config::ConfigError;
use rqlab_sdk::nn::Linear;
use rqlab_sdk::nn::codes::{self, CodeEmbedding, CodeKind, Embedding, TargetKind};
use rqlab_sdk::nn::diffusion::TokenVectors;
use rqlab_sdk::prelude::*;

/// Parameters: `tok_emb` of codes, or `input_mlp` where they enter as codebook vectors; `z_proj` of vectors.
#[derive(Debug)]
pub(crate) enum Input {
    Codes { embedding: CodeEmbedding, map: Option<Linear> },
    Vectors { tokens: TokenVectors, map: Linear },
}

impl Input {
    /// Of codes, one after another.
    pub(crate) fn of_codes(params: &Params, config: &ArConfig, level: &LevelInfo) -> Result<Self> {
        let ArConfig { width, init, embedding, .. } = *config;
        let frozen = embedding == Embedding::Codebook;
        let embedding = CodeEmbedding::new(embedding, level, width, init, &params.scope("tok_emb"))?;
        let map = frozen.then(|| init.linear(&params.scope("input_mlp"), embedding.width(), width)).transpose()?;
        Ok(Self::Codes { embedding, map })
    }

    /// Of the vectors of tokens.
    pub(crate) fn of_vectors(params: &Params, config: &ArConfig, level: &LevelInfo) -> Result<Self> {
        let refused = |field: &'static str, message: &str| Err(ConfigError::field(field, message.to_owned()).into());
        if config.targets == TargetKind::Soft {
            return refused("targets", "a diffusion predicts vectors, not distributions over codes; leave it out");
        }
        if config.codes == CodeKind::Stochastic {
            return refused("codes", "a diffusion predicts the vectors that it reads; leave it out");
        }
        if !config.classifier_bias {
            return refused("classifier_bias", "a diffusion has no map to logits; leave it out");
        }
        if config.condition_rows == ConditionRows::Codes {
            return refused("condition_rows", "a diffusion reads vectors, of which there is no table; take `own`");
        }
        let tokens = TokenVectors::new(level);
        let map = config.init.linear(&params.scope("z_proj"), tokens.channels(), config.width)?;
        Ok(Self::Vectors { tokens, map })
    }

    /// All tokens of images as they are read, `[B, L, W]`: positions in raster order, at each its codes, or its vector.
    pub(crate) fn read(&self, tokens: &Tokens, level: &LevelInfo) -> Result<Tensor> {
        let (vectors, map) = match self {
            Self::Codes { embedding, map } => {
                (embedding.forward(&codes::by_position(tokens.codes()?, level)?)?, map.as_ref())
            }
            Self::Vectors { tokens: of_level, map } => (of_level.of(tokens)?, Some(map)),
        };
        let [images, width] = [tokens.images(), vectors.last_dim()];
        let vectors = vectors.reshape(&[images, vectors.len() / (images * width).max(1), width])?;
        mapped(&vectors, map)
    }

    /// Codes of one depth as they are read, `[..] -> [.., W]`.
    pub(crate) fn at(&self, depth: usize, codes: &Codes) -> Result<Tensor> {
        match self {
            Self::Codes { embedding, map } => mapped(&embedding.at(depth, codes)?, map.as_ref()),
            Self::Vectors { .. } => Err(Error::Unsupported("this prior reads vectors, not codes".to_owned())),
        }
    }
}

fn mapped(vectors: &Tensor, map: Option<&Linear>) -> Result<Tensor> {
    map.map_or_else(|| Ok(vectors.clone()), |map| map.forward(vectors))
}

//! The transformer, of either kind.

use crate::llama::{Llama, LlamaDecoding};
use crate::position::{PositionEmbedding, TokenMap};
use crate::rar::{Rar, RarDecoding};
use crate::{ArConfig, BlockKind, Position};
use rqlab_sdk::config::ConfigError;
use rqlab_sdk::nn::Orders;
use rqlab_sdk::nn::transformer::{BlockConfig, Decoding, Stack};
use rqlab_sdk::prelude::*;

/// Parameters: `transformer`, and those of [`PositionEmbedding`].
#[derive(Debug)]
pub(crate) enum Body {
    Gpt { stack: Stack, positions: PositionEmbedding, dropout: f32 },
    Llama { model: Llama, positions: PositionEmbedding, dropout: f32 },
    Rar(Rar),
}

impl Body {
    /// Of the tokens of a map, under conditions of `tokens` tokens.
    pub(crate) fn new(params: &Params, config: &ArConfig, map: TokenMap, tokens: usize) -> Result<Self> {
        only_its_own(config)?;
        let ArConfig { width, heads, layers, dropout, attention_dropout, init, .. } = *config;
        let positions = || PositionEmbedding::new(params, config, map);
        let inside = params.scope("transformer");
        Ok(match config.block {
            BlockKind::Gpt => {
                let block = BlockConfig { width, heads, causal: true, dropout, attention_dropout, init };
                Self::Gpt {
                    positions: positions()?,
                    stack: Stack::new(&inside, layers, &block)?,
                    dropout: config.embedding_dropout,
                }
            }
            BlockKind::Llama => Self::Llama {
                positions: positions()?,
                model: Llama::new(&inside, config, map, tokens)?,
                dropout: config.embedding_dropout,
            },
            BlockKind::Rar => Self::Rar(Rar::new(&inside, config, map, tokens)?),
        })
    }

    /// What every token is predicted from, `[B, N, W]` in the order of prediction, given all but the last, embedded `[B, N - 1,
    /// W]`, and the condition `[B, L, W]`.
    pub(crate) fn forward(&self, condition: &Tensor, known: &Tensor, orders: &Orders, mode: &Mode) -> Result<Tensor> {
        let (positions, dropout) = match self {
            Self::Rar(model) => return model.forward(condition, known, orders, mode),
            Self::Gpt { positions, dropout, .. } | Self::Llama { positions, dropout, .. } => (positions, *dropout),
        };
        let length = orders.length();
        let sequence = if length == 1 { condition.clone() } else { Tensor::concat(&[condition, known], 1)? };
        let sequence = positions.added(&sequence, 0..length, orders)?;
        let sequence = mode.dropout(&sequence, dropout, "input")?;
        let hidden = match self {
            Self::Gpt { stack, .. } => stack.forward(&sequence, mode)?,
            Self::Llama { model, .. } => model.forward(&sequence, orders, mode)?,
            Self::Rar(_) => sequence,
        };
        last(&hidden, length)
    }

    /// Images of which no token is there, under conditions `[B, L, W]`.
    pub(crate) fn begin(&self, condition: &Tensor, orders: &Orders, cache: bool) -> Result<BodyDecoding> {
        let images = orders.images();
        Ok(match self {
            Self::Gpt { stack, .. } => {
                BodyDecoding::Gpt(Decoding::new(stack, images, condition.shape()[1] - 1 + orders.length(), cache)?)
            }
            Self::Llama { model, .. } => BodyDecoding::Llama(LlamaDecoding::new(model, orders, cache)?),
            Self::Rar(model) => BodyDecoding::Rar(RarDecoding::new(model, condition, orders, cache)?),
        })
    }

    /// What token `n` in the order of prediction is predicted from, `[B, 1, W]`, given the one before, embedded `[B, 1, W]`, or,
    /// at the first, the condition `[B, L, W]`.
    pub(crate) fn next(&self, decoding: &mut BodyDecoding, input: Tensor, n: usize, orders: &Orders) -> Result<Tensor> {
        match (self, decoding) {
            (Self::Gpt { positions, .. }, BodyDecoding::Gpt(decoding)) => {
                decoding.push(positions.added(&input, n..n + 1, orders)?);
                decoding.output()
            }
            (Self::Llama { model, positions, .. }, BodyDecoding::Llama(decoding)) => {
                decoding.next(model, positions.added(&input, n..n + 1, orders)?)
            }
            (Self::Rar(model), BodyDecoding::Rar(decoding)) => decoding.next(model, (n > 0).then_some(input)),
            _ => Err(Error::Unsupported("these images were begun by another model".to_owned())),
        }
    }
}

/// Sequences that are decoded a token at a time.
#[derive(Debug)]
pub(crate) enum BodyDecoding {
    Gpt(Decoding),
    Llama(LlamaDecoding),
    Rar(RarDecoding),
}

/// The last `count` of a sequence, `[B, n, W] -> [B, count, W]`.
pub(crate) fn last(x: &Tensor, count: usize) -> Result<Tensor> {
    match x.shape()[1] {
        length if length == count => Ok(x.clone()),
        length => Ok(x.slice(1, length - count..length)?),
    }
}

/// Refuses settings of other blocks than those that are chosen.
fn only_its_own(config: &ArConfig) -> Result<()> {
    let refused = |field: &'static str, message: &str| Err(ConfigError::field(field, message.to_owned()).into());
    let ArConfig { block, order, .. } = *config;
    match block {
        BlockKind::Llama if config.attention_dropout > 0.0 => refused(
            "attention_dropout",
            "llama blocks keep all attention probabilities; leave it at 0, or take `block: gpt`",
        ),
        BlockKind::Llama if config.position != Position::Flat && !order.varies() => {
            refused("position", "llama blocks have rotary positions; leave it out, or take `block: gpt`")
        }
        BlockKind::Rar if config.position != Position::Flat => {
            refused("position", "rar blocks have tables of their own; leave it out, or take `block: gpt`")
        }
        BlockKind::Rar if config.embedding_dropout > 0.0 => {
            refused("embedding_dropout", "rar drops nothing of the inputs; leave it at 0, or take `block: gpt`")
        }
        BlockKind::Llama | BlockKind::Rar if !config.classifier_bias => {
            refused("classifier_bias", "only gpt blocks have the choice; leave it out, or take `block: gpt`")
        }
        BlockKind::Llama | BlockKind::Rar if config.position_rows.is_some() => {
            refused("position_rows", "only gpt blocks have such a table; leave it out, or take `block: gpt`")
        }
        BlockKind::Gpt if config.position_rows.is_some() && config.position == Position::Factored => {
            refused("position_rows", "two tables have the rows of the map and of the depths; take `position: flat`")
        }
        BlockKind::Gpt | BlockKind::Llama if config.mlp_width.is_some() => {
            refused("mlp_width", "only rar blocks have a width of their own; leave it out, or take `block: rar`")
        }
        _ => Ok(()),
    }
}

//! The transformer and what makes logits of its outputs, of either kind.

use crate::llama::{Llama, LlamaDecoding};
use crate::output::Output;
use crate::position::PositionEmbedding;
use crate::rar::{Rar, RarDecoding};
use crate::{ArConfig, BlockKind, Position};
use rqlab_sdk::config::ConfigError;
use rqlab_sdk::nn::Orders;
use rqlab_sdk::nn::codes::{CodeClassifier, PackedClassifier};
use rqlab_sdk::nn::transformer::{BlockConfig, Decoding, Stack, WeightInit};
use rqlab_sdk::prelude::*;

/// Parameters: `transformer`, and `classifier` with gpt, `output` with others.
#[derive(Debug)]
pub(crate) enum Body {
    Gpt { stack: Stack, positions: PositionEmbedding, classifier: CodeClassifier, dropout: f32 },
    Llama { model: Llama, positions: PositionEmbedding, output: Output, dropout: f32 },
    Rar { model: Rar, output: Output },
}

impl Body {
    /// For conditions of `tokens` tokens.
    pub(crate) fn new(params: &Params, config: &ArConfig, level: &LevelInfo, tokens: usize) -> Result<Self> {
        only_its_own(config)?;
        let ArConfig { width, heads, layers, dropout, attention_dropout, init, .. } = *config;
        let positions = || PositionEmbedding::new(params, config, level);
        let (inside, output) = (params.scope("transformer"), params.scope("output"));
        Ok(match config.block {
            BlockKind::Gpt => {
                let block = BlockConfig { width, heads, causal: true, dropout, attention_dropout, init };
                Self::Gpt {
                    positions: positions()?,
                    stack: Stack::new(&inside, layers, &block)?,
                    classifier: if config.classifier_bias {
                        CodeClassifier::new(&params.scope("classifier"), width, level.sizes(), init)?
                    } else {
                        CodeClassifier::without_bias(&params.scope("classifier"), width, level.sizes(), init)?
                    },
                    dropout: config.embedding_dropout,
                }
            }
            BlockKind::Llama => {
                // Published: logits are zero at first.
                let first = if init == WeightInit::Gpt { Init::ZEROS } else { Init::fan_in(width) };
                Self::Llama {
                    positions: positions()?,
                    model: Llama::new(&inside, config, level, tokens)?,
                    output: Output::new(&output, width, level.sizes(), first, None)?,
                    dropout: config.embedding_dropout,
                }
            }
            BlockKind::Rar => {
                let bias = if init == WeightInit::Gpt { Init::ZEROS } else { Init::fan_in(width) };
                Self::Rar {
                    model: Rar::new(&inside, config, level)?,
                    output: Output::new(&output, width, level.sizes(), init.weight(width), Some(bias))?,
                }
            }
        })
    }

    /// What every code is predicted from, `[B, T D, W]` in the order of prediction, given all but the last, embedded `[B, T D - 1,
    /// W]`, and the condition `[B, L, W]`.
    pub(crate) fn forward(&self, condition: &Tensor, known: &Tensor, orders: &Orders, mode: &Mode) -> Result<Tensor> {
        let (positions, dropout) = match self {
            Self::Rar { model, .. } => return model.forward(condition, known, orders, mode),
            Self::Gpt { positions, dropout, .. } | Self::Llama { positions, dropout, .. } => (positions, *dropout),
        };
        let length = orders.length();
        let sequence = if length == 1 { condition.clone() } else { Tensor::concat(&[condition, known], 1)? };
        let sequence = positions.added(&sequence, 0..length, orders)?;
        let sequence = mode.dropout(&sequence, dropout, "input")?;
        let hidden = match self {
            Self::Gpt { stack, .. } => stack.forward(&sequence, mode)?,
            Self::Llama { model, .. } => model.forward(&sequence, orders, mode)?,
            Self::Rar { .. } => sequence,
        };
        last(&hidden, length)
    }

    /// Logits `[N, K_d]` of every depth from hidden states `[N, D, W]`.
    pub(crate) fn by_depth(&self, hidden: &Tensor) -> Result<Vec<Tensor>> {
        match self {
            Self::Gpt { classifier, .. } => classifier.by_depth(hidden),
            Self::Llama { output, .. } | Self::Rar { output, .. } => output.by_depth(hidden),
        }
    }

    /// Cross entropy in nats of every code, `[N, D]`.
    pub(crate) fn losses(&self, hidden: &Tensor, codes: &Codes, targets: &Targets) -> Result<Tensor> {
        match self {
            Self::Gpt { classifier, .. } => classifier.losses(hidden, codes, targets),
            Self::Llama { output, .. } | Self::Rar { output, .. } => output.losses(hidden, codes, targets),
        }
    }

    /// Images of which no code is there, under conditions `[B, L, W]`.
    pub(crate) fn begin(&self, condition: &Tensor, orders: &Orders, cache: bool) -> Result<BodyDecoding> {
        let images = orders.images();
        Ok(match self {
            Self::Gpt { stack, classifier, .. } => BodyDecoding::Gpt {
                decoding: Decoding::new(stack, images, condition.shape()[1] - 1 + orders.length(), cache)?,
                classifier: classifier.packed(images)?,
            },
            Self::Llama { model, .. } => BodyDecoding::Llama(LlamaDecoding::new(model, orders, cache)?),
            Self::Rar { model, .. } => BodyDecoding::Rar(RarDecoding::new(model, condition, orders, cache)?),
        })
    }

    /// Logits `[B, 1, K]` of code `n` in the order of prediction, of `depth`, given the one before, embedded `[B, 1, W]`, or, at
    /// the first, the condition `[B, L, W]`.
    pub(crate) fn next(
        &self,
        decoding: &mut BodyDecoding,
        input: Tensor,
        (n, depth): (usize, usize),
        orders: &Orders,
    ) -> Result<Tensor> {
        match (self, decoding) {
            (Self::Gpt { positions, .. }, BodyDecoding::Gpt { decoding, classifier }) => {
                decoding.push(positions.added(&input, n..n + 1, orders)?);
                classifier.logits(&decoding.output()?, depth)
            }
            (Self::Llama { model, positions, output, .. }, BodyDecoding::Llama(decoding)) => {
                output.logits(&decoding.next(model, positions.added(&input, n..n + 1, orders)?)?, depth)
            }
            (Self::Rar { model, output }, BodyDecoding::Rar(decoding)) => {
                output.logits(&decoding.next(model, (n > 0).then_some(input))?, depth)
            }
            _ => Err(Error::Unsupported("these images were begun by another model".to_owned())),
        }
    }
}

/// Sequences that are decoded a code at a time.
#[derive(Debug)]
pub(crate) enum BodyDecoding {
    Gpt { decoding: Decoding, classifier: PackedClassifier },
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

//! What is predicted at a token, and how it is drawn.

use crate::{Cell, LossKind, MarConfig};
use rqlab_sdk::config::ConfigError;
use rqlab_sdk::nn::codes::CodeClassifier;
use rqlab_sdk::nn::diffusion::{DiffusionHead, DiffusionHeadConfig, Process};
use rqlab_sdk::nn::transformer::WeightInit;
use rqlab_sdk::prelude::*;
use rqlab_sdk::tensor::ops::nearest::nearest;

/// The head: parameters `classifier`, or `diffloss.net`.
#[derive(Debug)]
pub(crate) enum Head {
    Codes(CodeClassifier),
    Vectors(Box<DiffusionHead>),
}

impl Head {
    pub(crate) fn new(params: &Params, config: &MarConfig, cell: Cell, level: &LevelInfo) -> Result<Self> {
        let process = match cell.loss {
            LossKind::CrossEntropy => {
                let space = level.codes().map_err(|_| {
                    ConfigError::field(
                        "loss",
                        "cross entropy predicts codes, and the quantizer of this level makes vectors; take `loss: diffusion`, \
                         or a quantizer that makes codes",
                    )
                })?;
                if space.depth() != 1 {
                    let message = format!(
                        "cross entropy predicts one code per position, and there are {}; take `loss: diffusion`, which models \
                         the sum of their vectors, or the prior `rq_transformer`",
                        space.depth()
                    );
                    return Err(ConfigError::field("loss", message).into());
                }
                let scope = params.scope("classifier");
                return Ok(Self::Codes(CodeClassifier::new(&scope, config.width, &space.sizes, WeightInit::Gpt)?));
            }
            LossKind::Diffusion => Process::Diffusion { schedule: config.noise_schedule, steps: config.noise_steps },
            LossKind::Flow => Process::Flow,
        };
        let sizes = DiffusionHeadConfig {
            channels: vector_length(level) * config.patch * config.patch,
            condition: config.width,
            width: config.head_width,
            depth: config.head_layers,
            process,
            repeat: config.noise_draws,
            sampling_steps: config.sampling_steps,
        };
        Ok(Self::Vectors(Box::new(DiffusionHead::new(&params.scope("diffloss"), sizes)?)))
    }
}

/// Numbers of a token as a vector: its own, or those of its codes' embeddings.
pub(crate) fn vector_length(level: &LevelInfo) -> usize {
    match level.space {
        TokenSpace::Vectors { channels } => channels,
        TokenSpace::Codes(_) => level.channels,
    }
}

/// Codes as vectors of about unit variance: the sum over depths of their embeddings, times a constant.
#[derive(Debug)]
pub(crate) struct Embedded {
    tables: Vec<Tensor>,
    scale: f32,
}

impl Embedded {
    /// The embeddings of a level's codes. Where there are none, as in a plan, nothing can be embedded.
    pub(crate) fn new(space: &CodeSpace) -> Self {
        let variance = |table: &Tensor| {
            let numbers = table.as_slice().iter().map(|&x| f64::from(x));
            let mean = numbers.clone().sum::<f64>() / table.len().max(1) as f64;
            numbers.map(|x| (x - mean).powi(2)).sum::<f64>() / table.len().max(1) as f64
        };
        let sum = space.tables.iter().map(variance).sum::<f64>();
        let scale = if sum > 0.0 { sum.sqrt().recip() as f32 } else { 1.0 };
        Self { tables: space.tables.iter().map(Tensor::detach).collect(), scale }
    }

    /// Codes `[.., D] -> [.., C]`.
    pub(crate) fn vectors(&self, codes: &Codes) -> Result<Tensor> {
        let mut sum: Option<Tensor> = None;
        for (d, table) in self.tables.iter().enumerate() {
            let rows = table.embedding(&codes.column(d)?)?;
            sum = Some(match sum {
                Some(sum) => sum.add(&rows)?,
                None => rows,
            });
        }
        let none = || {
            Error::Unsupported(
                "a diffusion over codes models their embeddings, and this quantizer has none; take `loss: cross_entropy`"
                    .to_owned(),
            )
        };
        Ok(sum.ok_or_else(none)?.mul_scalar(self.scale)?)
    }

    /// The codes of vectors `[.., C] -> [.., D]`: the nearest, at each depth of what is left.
    pub(crate) fn codes(&self, vectors: &Tensor) -> Result<Codes> {
        let mut left = vectors.mul_scalar(1.0 / self.scale)?;
        let mut columns = Vec::with_capacity(self.tables.len());
        for table in &self.tables {
            let codes = nearest(&left, table)?;
            left = left.sub(&table.embedding(&codes)?)?;
            columns.push(codes);
        }
        Ok(Codes::stack(&columns)?)
    }
}

//! One block: gated causal convolutions, then attention to all earlier positions or a linear map.

use crate::PixelSnailConfig;
use crate::condition::Conditioning;
use crate::layers::{Channels, GatedBlock, Sight, WeightNorm};
use rqlab_sdk::nn::transformer::attention_with_dropout;
use rqlab_sdk::prelude::*;
use rqlab_sdk::tensor::ops::attention::attention;

/// Channels of the background: a position's row and column.
pub(crate) const BACKGROUND: usize = 2;

/// A block over maps of W channels. Parameters: `resblocks.0`, `resblocks.1`, .., then with attention `key_resblock`,
/// `query_resblock`, `causal_attention` and `out_resblock`, without it `out`.
#[derive(Debug)]
pub(crate) struct PixelBlock {
    pub(crate) residual: Vec<GatedBlock>,
    pub(crate) end: End,
}

#[derive(Debug)]
pub(crate) enum End {
    Attention { key: Box<GatedBlock>, query: Box<GatedBlock>, attention: Box<CausalAttention>, out: Box<GatedBlock> },
    Linear(WeightNorm),
}

impl PixelBlock {
    /// # Errors
    /// A name that is taken.
    pub(crate) fn new(params: &Params, config: &PixelSnailConfig, condition: usize) -> Result<Self> {
        let PixelSnailConfig { width, dropout, .. } = *config;
        let hidden = config.residual_width.unwrap_or(width);
        let residual = |i: usize| {
            let channels = Channels { width, hidden, auxiliary: 0, condition };
            GatedBlock::new(&params.scope("resblocks").scope(i), channels, Sight::Before(config.kernel), dropout)
        };
        let point = |name: &str, channels: usize, auxiliary: usize| {
            let channels = Channels { width: channels, hidden: width, auxiliary, condition: 0 };
            GatedBlock::new(&params.scope(name), channels, Sight::Point, dropout)
        };
        let end = if config.attention {
            End::Attention {
                key: Box::new(point("key_resblock", 2 * width + BACKGROUND, 0)?),
                query: Box::new(point("query_resblock", width + BACKGROUND, 0)?),
                attention: Box::new(CausalAttention::new(&params.scope("causal_attention"), config)?),
                out: Box::new(point("out_resblock", width, width / 2)?),
            }
        } else {
            End::Linear(WeightNorm::new(&params.scope("out.conv"), &[width, width + BACKGROUND, 1, 1], true)?)
        };
        Ok(Self { residual: (0..config.residual_blocks).map(residual).collect::<Result<_>>()?, end })
    }

    /// Maps `[B, H, W, C]` before a background `[B, H, W, 2]`.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub(crate) fn forward(
        &self,
        x: &Tensor,
        background: &Tensor,
        condition: Option<&Conditioning>,
        mode: &Mode,
    ) -> Result<Tensor> {
        let mut out = x.clone();
        for (i, block) in self.residual.iter().enumerate() {
            let gates = match (condition, &block.condition) {
                (Some(condition), Some(weight)) => Some(condition.gates(weight)?),
                _ => None,
            };
            out = block.forward(&out, None, gates.as_ref(), &mode.part("residual", i))?;
        }
        match &self.end {
            End::Attention { key, query, attention, out: end } => {
                let axis = out.rank() - 1;
                let keys = Tensor::concat(&[x, &out, background], axis)?;
                let keys = key.forward(&keys, None, None, &mode.part("key", 0))?;
                let queries = Tensor::concat(&[&out, background], axis)?;
                let queries = query.forward(&queries, None, None, &mode.part("query", 0))?;
                let seen = attention.forward(&queries, &keys, mode)?;
                end.forward(&out, Some(&seen), None, &mode.part("out", 0))
            }
            End::Linear(linear) => linear.linear(&Tensor::concat(&[&out, background], out.rank() - 1)?),
        }
    }
}

/// Attention of every position to those strictly before it, in raster order; zero at the first. Parameters: `query`, `key`,
/// `value`, to half of the width.
#[derive(Debug)]
pub(crate) struct CausalAttention {
    pub(crate) query: WeightNorm,
    pub(crate) key: WeightNorm,
    pub(crate) value: WeightNorm,
    pub(crate) heads: usize,
    dropout: f32,
}

impl CausalAttention {
    fn new(params: &Params, config: &PixelSnailConfig) -> Result<Self> {
        let (width, dropout) = (config.width, config.dropout);
        let linear = |name: &str, from: usize| WeightNorm::new(&params.scope(name), &[width / 2, from], true);
        Ok(Self {
            query: linear("query", width + BACKGROUND)?,
            key: linear("key", 2 * width + BACKGROUND)?,
            value: linear("value", 2 * width + BACKGROUND)?,
            heads: config.heads,
            dropout,
        })
    }

    /// Maps of queries and of keys to one of `[B, H, W, C / 2]`.
    fn forward(&self, queries: &Tensor, keys: &Tensor, mode: &Mode) -> Result<Tensor> {
        let [batch, height, width, _] = queries.dims("causal_attention")?;
        let length = height * width;
        let map = |weight: &WeightNorm, x: &Tensor| -> Result<Tensor> {
            let y = weight.linear(x)?;
            Ok(y.reshape(&[batch, length, y.last_dim()])?)
        };
        let (q, k, v) = (map(&self.query, queries)?, map(&self.key, keys)?, map(&self.value, keys)?);
        let channels = q.last_dim();
        let first = Tensor::zeros(&[batch, 1, channels]).to_device(q.device())?;
        let all = if length > 1 {
            // Position t + 1 sees 0..=t: causal attention of queries that are one position ahead of keys.
            let (q, k, v) = (q.slice(1, 1..length)?, k.slice(1, 0..length - 1)?, v.slice(1, 0..length - 1)?);
            let later = match mode {
                Mode::Train(_) if self.dropout > 0.0 => {
                    attention_with_dropout(&Tensor::concat(&[&q, &k, &v], 2)?, self.heads, true, self.dropout, mode)?
                }
                _ => attention(&q, &k, &v, self.heads, true)?,
            };
            Tensor::concat(&[&first, &later], 1)?
        } else {
            first
        };
        Ok(all.reshape(&[batch, height, width, channels])?)
    }
}

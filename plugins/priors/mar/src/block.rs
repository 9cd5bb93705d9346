//! The transformer block of vision transformers, plain or modulated.

use rqlab_sdk::config::ConfigError;
use rqlab_sdk::nn::transformer::block_weights;
use rqlab_sdk::nn::{LayerNorm, Linear};
use rqlab_sdk::prelude::*;
use rqlab_sdk::tensor::ops::attention::{attention, attention_qkv};
use rqlab_sdk::tensor::ops::decoder::BlockWeights;
use rqlab_sdk::tensor::ops::key_values::KeyValues;
use std::ops::Range;

/// What layer norms add to the variance.
pub(crate) const EPS: f32 = 1e-6;

/// A linear map that starts uniform by both its sizes, without bias, as published.
pub(crate) fn linear(params: &Params, inputs: usize, outputs: usize) -> Result<Linear> {
    Linear::with_init(params, inputs, outputs, Init::xavier(inputs, outputs), Some(Init::ZEROS))
}

/// A map to what modulates layer norms: it starts at zero, so that a block starts as the identity.
pub(crate) fn modulation(params: &Params, inputs: usize, outputs: usize) -> Result<Linear> {
    Linear::with_init(&params.scope("adaLN_modulation.1"), inputs, outputs, Init::ZEROS, Some(Init::ZEROS))
}

/// What the blocks of a transformer have in common.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BlockSizes {
    pub(crate) width: usize,
    pub(crate) heads: usize,
    pub(crate) causal: bool,
    pub(crate) dropout: f32,
}

/// `x += attn(norm1 x)`, `x += mlp(norm2 x)`, with exact GELU inside `mlp`. Modulated by c, the norms are `norm(x) (1 + scale)
/// + shift` and what is added is multiplied by a gate: shift, scale and gate of attention and of `mlp` are the sixths of
/// `adaLN_modulation(silu c)` (Peebles and Xie, "Scalable diffusion models with transformers", ICCV 2023).
///
/// Parameters, as published: `norm1`, `attn.qkv`, `attn.proj`, `norm2`, `mlp.fc1`, `mlp.fc2`, `adaLN_modulation.1`.
#[derive(Debug)]
pub(crate) struct Block {
    norm1: LayerNorm,
    qkv: Linear,
    proj: Linear,
    norm2: LayerNorm,
    expand: Linear,
    contract: Linear,
    modulation: Option<Linear>,
    sizes: BlockSizes,
}

impl Block {
    fn new(params: &Params, sizes: BlockSizes, modulated: bool) -> Result<Self> {
        let BlockSizes { width, heads, .. } = sizes;
        if !width.is_multiple_of(heads) {
            let message = format!("{heads} heads do not divide a width of {width}");
            return Err(ConfigError::field("heads", message).into());
        }
        Ok(Self {
            norm1: LayerNorm::new(&params.scope("norm1"), width, EPS)?,
            qkv: linear(&params.scope("attn.qkv"), width, 3 * width)?,
            proj: linear(&params.scope("attn.proj"), width, width)?,
            norm2: LayerNorm::new(&params.scope("norm2"), width, EPS)?,
            expand: linear(&params.scope("mlp.fc1"), width, 4 * width)?,
            contract: linear(&params.scope("mlp.fc2"), 4 * width, width)?,
            modulation: modulated.then(|| modulation(params, width, 6 * width)).transpose()?,
            sizes,
        })
    }

    /// `layers` blocks under `params`, named by their numbers.
    pub(crate) fn stack(params: &Params, layers: usize, sizes: BlockSizes, modulated: bool) -> Result<Vec<Self>> {
        (0..layers).map(|i| Self::new(&params.scope(i), sizes, modulated)).collect()
    }

    /// Sequences `[B, T, W]` through `blocks`; `silu c` `[B, T, W]` modulates.
    pub(crate) fn through(blocks: &[Self], x: &Tensor, c: Option<&Tensor>, mode: &Mode) -> Result<Tensor> {
        let mut x = x.clone();
        for (i, block) in blocks.iter().enumerate() {
            let heads = block.sizes.heads;
            x = block.run(&x, c, &mode.part("block", i), |qkv| Ok(attention_qkv(qkv, heads, block.sizes.causal)?))?;
        }
        Ok(x)
    }

    /// Positions `wanted` of [`Block::through`], unmodulated and not causal: the last block computes no others.
    pub(crate) fn through_to(blocks: &[Self], x: &Tensor, wanted: Range<usize>, mode: &Mode) -> Result<Tensor> {
        let Some((last, first)) = blocks.split_last() else { return Ok(x.slice(1, wanted)?) };
        let (x, mode) = (Self::through(first, x, None, mode)?, mode.part("block", first.len()));
        let normal = last.norm1.forward(&x)?;
        let width = last.sizes.width;
        let part = |x: &Tensor, rows: Range<usize>| -> Result<Tensor> {
            let bias = last.qkv.bias.as_ref().map(|bias| bias.get().slice(0, rows.clone())).transpose()?;
            Ok(x.linear(&last.qkv.weight.get().slice(0, rows)?, bias.as_ref())?)
        };
        let queries = part(&normal.slice(1, wanted.clone())?, 0..width)?;
        let [keys, values] = [1, 2].map(|third| part(&normal, third * width..(third + 1) * width));
        let attended = attention(&queries, &keys?, &values?, last.sizes.heads, false)?;
        last.after(&x.slice(1, wanted)?, &attended, None, &mode)
    }

    /// The next position `[B, 1, W]` of sequences whose past is kept: what [`Block::through`] gives there, if causal.
    pub(crate) fn step(&self, x: &Tensor, c: Option<&Tensor>, past: &mut KeyValues) -> Result<Tensor> {
        self.run(x, c, &Mode::Eval, |qkv| Ok(past.attend(qkv)?))
    }

    fn run(
        &self,
        x: &Tensor,
        c: Option<&Tensor>,
        mode: &Mode,
        attend: impl FnOnce(&Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let maps = self.modulation.as_ref().zip(c).map(|(map, c)| map.forward(c)).transpose()?;
        let normal = modulated(&self.norm1.forward(x)?, self.part(maps.as_ref(), 0)?, self.part(maps.as_ref(), 1)?)?;
        let attended = attend(&self.qkv.forward(&normal)?)?;
        self.after(x, &attended, maps.as_ref(), mode)
    }

    /// A sixth of what modulates.
    fn part(&self, maps: Option<&Tensor>, i: usize) -> Result<Option<Tensor>> {
        let width = self.sizes.width;
        Ok(maps.map(|maps| maps.slice(2, i * width..(i + 1) * width)).transpose()?)
    }

    /// The rest of the block after its attention.
    fn after(&self, x: &Tensor, attended: &Tensor, maps: Option<&Tensor>, mode: &Mode) -> Result<Tensor> {
        let part = |i: usize| self.part(maps, i);
        let x = &self.onto(x, &self.proj, attended, part(2)?, (mode, "attention"))?;
        let normal = modulated(&self.norm2.forward(x)?, part(3)?, part(4)?)?;
        self.onto(x, &self.contract, &self.expand.forward_gelu(&normal)?, part(5)?, (mode, "mlp"))
    }

    /// Adds what `linear` makes of `hidden` to `x`, times the gate.
    fn onto(
        &self,
        x: &Tensor,
        linear: &Linear,
        hidden: &Tensor,
        gate: Option<Tensor>,
        (mode, name): (&Mode, &str),
    ) -> Result<Tensor> {
        let drops = matches!(mode, Mode::Train(_)) && self.sizes.dropout > 0.0;
        if gate.is_none() && !drops {
            return linear.forward_add(hidden, x);
        }
        let added = mode.dropout(&linear.forward(hidden)?, self.sizes.dropout, name)?;
        Ok(x.add(&match gate {
            Some(gate) => gate.mul(&added)?,
            None => added,
        })?)
    }

    /// The weights of a block that nothing modulates.
    pub(crate) fn weights(&self) -> BlockWeights {
        block_weights([&self.norm1, &self.norm2], [&self.qkv, &self.proj, &self.expand, &self.contract])
    }
}

/// `normal (1 + scale) + shift`.
pub(crate) fn modulated(normal: &Tensor, shift: Option<Tensor>, scale: Option<Tensor>) -> Result<Tensor> {
    match (shift, scale) {
        (Some(shift), Some(scale)) => Ok(normal.mul(&scale.add_scalar(1.0)?)?.add(&shift)?),
        _ => Ok(normal.clone()),
    }
}

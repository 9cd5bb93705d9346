//! Residual blocks, alone and in groups.

use crate::{Family, ResnetConfig};
use rqlab_sdk::nn::{Conv2d, GroupNorm, ResidualBlock, SpatialAttention};
use rqlab_sdk::prelude::*;
use rqlab_sdk::tensor::ops::conv::Conv2d as Walk;

/// A convolution that keeps the size of the map, with bias where the family's inner convolutions have one.
pub(crate) fn inner_conv(
    family: Family,
    params: &Params,
    inputs: usize,
    outputs: usize,
    kernel: usize,
) -> Result<Conv2d> {
    match family {
        Family::Vqgan => Conv2d::new(params, inputs, outputs, kernel),
        Family::Maskgit => Conv2d::without_bias(params, inputs, outputs, kernel, Walk::same(kernel)),
    }
}

/// A residual block of either family.
enum Block {
    Vqgan(ResidualBlock),
    Maskgit(MaskgitBlock),
}

impl Block {
    fn new(config: &ResnetConfig, params: &Params, inputs: usize, outputs: usize) -> Result<Self> {
        Ok(match config.family {
            Family::Vqgan => Self::Vqgan(ResidualBlock::new(params, inputs, outputs, config.groups, config.dropout)?),
            Family::Maskgit => Self::Maskgit(MaskgitBlock::new(config, params, inputs, outputs)?),
        })
    }

    fn forward(&self, x: &Tensor, mode: &Mode) -> Result<Tensor> {
        match self {
            Self::Vqgan(block) => block.forward(x, mode),
            Self::Maskgit(block) => block.forward(x, mode),
        }
    }
}

/// `s + h` with `h = conv2(dropout(silu(norm2(conv1(silu(norm1(x)))))))` and convolutions without bias; `s` is `x` where the
/// channels agree, and the 1x1 convolution `nin_shortcut` of `h`, not of `x`, where they do not.
struct MaskgitBlock {
    norm1: GroupNorm,
    conv1: Conv2d,
    norm2: GroupNorm,
    conv2: Conv2d,
    nin_shortcut: Option<Conv2d>,
    dropout: f32,
}

impl MaskgitBlock {
    fn new(config: &ResnetConfig, params: &Params, inputs: usize, outputs: usize) -> Result<Self> {
        let conv =
            |name: &str, inputs, kernel| inner_conv(Family::Maskgit, &params.scope(name), inputs, outputs, kernel);
        Ok(Self {
            norm1: GroupNorm::new(&params.scope("norm1"), config.groups, inputs, 1e-6)?,
            conv1: conv("conv1", inputs, 3)?,
            norm2: GroupNorm::new(&params.scope("norm2"), config.groups, outputs, 1e-6)?,
            conv2: conv("conv2", outputs, 3)?,
            nin_shortcut: (inputs != outputs).then(|| conv("nin_shortcut", outputs, 1)).transpose()?,
            dropout: config.dropout,
        })
    }

    fn forward(&self, x: &Tensor, mode: &Mode) -> Result<Tensor> {
        let h = self.conv1.forward(&self.norm1.forward_silu(x)?)?;
        let h = mode.dropout(&self.norm2.forward_silu(&h)?, self.dropout, "residual")?;
        let h = self.conv2.forward(&h)?;
        match &self.nin_shortcut {
            Some(conv) => Ok(conv.forward(&h)?.add(&h)?),
            None => Ok(x.add(&h)?),
        }
    }
}

/// The blocks of one level, each followed by attention if the level has it. Parameters: `block.J.*`, `attn.J.*`.
pub(crate) struct Level {
    blocks: Vec<Block>,
    attention: Vec<SpatialAttention>,
}

impl Level {
    pub(crate) fn new(
        config: &ResnetConfig,
        params: &Params,
        inputs: usize,
        outputs: usize,
        blocks: usize,
        attends: bool,
    ) -> Result<Self> {
        let block = |j| {
            let inputs = if j == 0 { inputs } else { outputs };
            Block::new(config, &params.scope("block").scope(j), inputs, outputs)
        };
        let attention = |j| SpatialAttention::new(&params.scope("attn").scope(j), outputs, config.groups);
        Ok(Self {
            blocks: (0..blocks).map(block).collect::<Result<_>>()?,
            attention: (0..if attends { blocks } else { 0 }).map(attention).collect::<Result<_>>()?,
        })
    }

    pub(crate) fn forward(&self, x: &Tensor, mode: &Mode) -> Result<Tensor> {
        let mut h = x.clone();
        for (j, block) in self.blocks.iter().enumerate() {
            h = block.forward(&h, &mode.part("block", j))?;
            if let Some(attention) = self.attention.get(j) {
                h = attention.forward(&h)?;
            }
        }
        Ok(h)
    }
}

/// The coarsest maps' own blocks, the first of them followed by attention. Parameters: `block_1.*`, `attn_1.*`, `block_2.*`, ..
pub(crate) struct Middle {
    blocks: Vec<Block>,
    attn_1: Option<SpatialAttention>,
}

impl Middle {
    pub(crate) fn new(config: &ResnetConfig, params: &Params, channels: usize) -> Result<Self> {
        let block = |j| Block::new(config, &params.scope(format!("block_{j}")), channels, channels);
        let attention = || SpatialAttention::new(&params.scope("attn_1"), channels, config.groups);
        Ok(Self {
            blocks: (1..=config.mid_blocks).map(block).collect::<Result<_>>()?,
            attn_1: config.mid_attention.then(attention).transpose()?,
        })
    }

    pub(crate) fn forward(&self, x: &Tensor, mode: &Mode) -> Result<Tensor> {
        let mut h = x.clone();
        for (j, block) in self.blocks.iter().enumerate() {
            h = block.forward(&h, &mode.part("block", j + 1))?;
            if let (0, Some(attention)) = (j, &self.attn_1) {
                h = attention.forward(&h)?;
            }
        }
        Ok(h)
    }
}

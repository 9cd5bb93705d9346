//! Encoder and decoder.

use crate::ResnetConfig;
use crate::plan::Plan;
use rqlab_sdk::nn::{Conv2d, Downsample, GroupNorm, ResidualBlock, SpatialAttention, Upsample};
use rqlab_sdk::prelude::*;

/// The blocks of one level, each followed by attention if the level has it. Parameters: `block.J.*`, `attn.J.*`.
struct Level {
    blocks: Vec<ResidualBlock>,
    attention: Vec<SpatialAttention>,
}

impl Level {
    fn new(
        config: &ResnetConfig,
        params: &Params,
        inputs: usize,
        outputs: usize,
        blocks: usize,
        attends: bool,
    ) -> Result<Self> {
        let block = |j| {
            let inputs = if j == 0 { inputs } else { outputs };
            let scope = params.scope("block").scope(j);
            ResidualBlock::new(&scope, inputs, outputs, config.groups, config.dropout)
        };
        let attention = |j| SpatialAttention::new(&params.scope("attn").scope(j), outputs, config.groups);
        Ok(Self {
            blocks: (0..blocks).map(block).collect::<Result<_>>()?,
            attention: (0..if attends { blocks } else { 0 }).map(attention).collect::<Result<_>>()?,
        })
    }

    fn forward(&self, x: &Tensor, mode: &Mode) -> Result<Tensor> {
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

/// The coarsest maps' own blocks. Parameters: `block_1.*`, `attn_1.*`, `block_2.*`.
struct Middle {
    block_1: ResidualBlock,
    attn_1: Option<SpatialAttention>,
    block_2: ResidualBlock,
}

impl Middle {
    fn new(config: &ResnetConfig, params: &Params, channels: usize) -> Result<Self> {
        let block =
            |name: &str| ResidualBlock::new(&params.scope(name), channels, channels, config.groups, config.dropout);
        let attention = || SpatialAttention::new(&params.scope("attn_1"), channels, config.groups);
        Ok(Self {
            block_1: block("block_1")?,
            attn_1: config.mid_attention.then(attention).transpose()?,
            block_2: block("block_2")?,
        })
    }

    fn forward(&self, x: &Tensor, mode: &Mode) -> Result<Tensor> {
        let mut h = self.block_1.forward(x, &mode.part("block", 1))?;
        if let Some(attention) = &self.attn_1 {
            h = attention.forward(&h)?;
        }
        self.block_2.forward(&h, &mode.part("block", 2))
    }
}

/// Images `[B, H, W, C]` to latents `[B, h, w, latent]`. Parameters: `conv_in`, `down.I.block.J`, `down.I.attn.J`,
/// `down.I.downsample`, `mid`, `norm_out`, `conv_out`; level 0 is the finest.
pub(crate) struct Encoder {
    conv_in: Conv2d,
    down: Vec<(Level, Option<Downsample>)>,
    mid: Middle,
    norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl Encoder {
    pub(crate) fn new(config: &ResnetConfig, plan: &Plan, params: &Params) -> Result<Self> {
        let conv_in = Conv2d::new(&params.scope("conv_in"), plan.folded.channels, config.width, 3)?;
        let mut down = Vec::new();
        let mut inputs = config.width;
        for (i, (&channels, &attends)) in plan.channels.iter().zip(&plan.attends).enumerate() {
            let scope = params.scope("down").scope(i);
            let level = Level::new(config, &scope, inputs, channels, config.blocks, attends)?;
            let halve = || Downsample::new(&scope.scope("downsample"), channels, config.downsample);
            down.push((level, (i + 1 < plan.channels.len()).then(halve).transpose()?));
            inputs = channels;
        }
        Ok(Self {
            conv_in,
            down,
            mid: Middle::new(config, &params.scope("mid"), inputs)?,
            norm_out: GroupNorm::new(&params.scope("norm_out"), config.groups, inputs, 1e-6)?,
            conv_out: Conv2d::new(&params.scope("conv_out"), inputs, config.latent, 3)?,
        })
    }

    pub(crate) fn forward(&self, images: &Tensor, mode: &Mode) -> Result<Tensor> {
        let mut h = self.conv_in.forward(images)?;
        for (i, (level, halve)) in self.down.iter().enumerate() {
            h = level.forward(&h, &mode.part("level", i))?;
            if let Some(halve) = halve {
                h = halve.forward(&h)?;
            }
        }
        let h = self.mid.forward(&h, &mode.part("mid", 0))?;
        self.conv_out.forward(&self.norm_out.forward_silu(&h)?)
    }
}

/// Latents `[B, h, w, latent]` to images `[B, H, W, C]`. Parameters: `conv_in`, `mid`, `up.I.block.J`, `up.I.attn.J`,
/// `up.I.upsample`, `norm_out`, `conv_out`; level 0 is the finest and runs last.
pub(crate) struct Decoder {
    conv_in: Conv2d,
    mid: Middle,
    /// From the coarsest level to the finest.
    up: Vec<(Level, Option<Upsample>)>,
    norm_out: GroupNorm,
    pub(crate) conv_out: Conv2d,
}

impl Decoder {
    pub(crate) fn new(config: &ResnetConfig, plan: &Plan, params: &Params) -> Result<Self> {
        let mut inputs = plan.channels.last().copied().unwrap_or(config.width);
        let conv_in = Conv2d::new(&params.scope("conv_in"), config.latent, inputs, 3)?;
        let mid = Middle::new(config, &params.scope("mid"), inputs)?;
        let mut up = Vec::new();
        for (i, (&channels, &attends)) in plan.channels.iter().zip(&plan.attends).enumerate().rev() {
            let scope = params.scope("up").scope(i);
            let level = Level::new(config, &scope, inputs, channels, config.blocks + 1, attends)?;
            let double = || Upsample::new(&scope.scope("upsample"), channels);
            up.push((level, (i > 0).then(double).transpose()?));
            inputs = channels;
        }
        Ok(Self {
            conv_in,
            mid,
            up,
            norm_out: GroupNorm::new(&params.scope("norm_out"), config.groups, inputs, 1e-6)?,
            conv_out: Conv2d::new(&params.scope("conv_out"), inputs, plan.folded.channels, 3)?,
        })
    }

    /// What `conv_out` reads.
    pub(crate) fn features(&self, latents: &Tensor, mode: &Mode) -> Result<Tensor> {
        let h = self.conv_in.forward(latents)?;
        let mut h = self.mid.forward(&h, &mode.part("mid", 0))?;
        for (i, (level, double)) in self.up.iter().enumerate() {
            h = level.forward(&h, &mode.part("level", i))?;
            if let Some(double) = double {
                h = double.forward(&h)?;
            }
        }
        self.norm_out.forward_silu(&h)
    }
}

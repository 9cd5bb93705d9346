//! Encoder and decoder.

use crate::blocks::{Level, Middle, inner_conv};
use crate::plan::Plan;
use crate::{Family, ResnetConfig};
use rqlab_sdk::nn::{Conv2d, Downsample, GroupNorm, Upsample};
use rqlab_sdk::prelude::*;

/// Images `[B, H, W, C]` to latents `[B, h, w, latent]`, or twice as many channels. Parameters: `conv_in`, `down.I.block.J`,
/// `down.I.attn.J`, `down.I.downsample`, `mid`, `norm_out`, `conv_out`; level 0 is the finest.
pub(crate) struct Encoder {
    conv_in: Conv2d,
    down: Vec<(Level, Option<Downsample>)>,
    mid: Middle,
    norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl Encoder {
    pub(crate) fn new(config: &ResnetConfig, plan: &Plan, params: &Params) -> Result<Self> {
        let conv_in = inner_conv(config.family, &params.scope("conv_in"), plan.folded.channels, config.width, 3)?;
        let last_kernel = if config.family == Family::Maskgit { 1 } else { 3 };
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
            conv_out: Conv2d::new(&params.scope("conv_out"), inputs, plan.moments * config.latent, last_kernel)?,
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
        let blocks = config.decoder_blocks.unwrap_or(config.blocks + 1);
        let mut up = Vec::new();
        for (i, (&channels, &attends)) in plan.channels.iter().zip(&plan.decoder_attends).enumerate().rev() {
            let scope = params.scope("up").scope(i);
            let level = Level::new(config, &scope, inputs, channels, blocks, attends)?;
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

//! The convolutional autoencoder of VQGAN (Esser et al., CVPR 2021) and RQ-VAE (Lee et al., CVPR 2022), with the names of
//! the published parameters.

mod blocks;
mod network;
mod plan;

use network::{Decoder, Encoder};
use plan::Plan;
use rqlab_sdk::choice;
use rqlab_sdk::nn::{Conv2d, Downsampling};
use rqlab_sdk::prelude::*;

choice! {
    /// Whose convolutions and residual blocks.
    pub enum Family {
        /// Convolutions with bias; where a block changes the channels, a 1x1 convolution of what it reads is added to what it
        /// makes. The encoder ends in a 3x3 convolution. VQGAN, and all that follow it.
        Vqgan = "vqgan",
        /// The first convolution and those of the residual blocks have no bias; where a block changes the channels, a 1x1
        /// convolution of what it makes is added to that, and what it reads is not. The encoder ends in a 1x1 convolution.
        /// MaskGIT and MaskBit, as their code is.
        Maskgit = "maskgit",
    }
}

config! {
    /// The convolutional encoder and decoder of VQGAN (Esser et al., CVPR 2021) and RQ-VAE (Lee et al., CVPR 2022): levels
    /// of residual blocks with group norm and SiLU, each level half the size of the one before; 1x1 convolutions into and
    /// out of the code space.
    ///
    /// Published, for 256x256 images (codes of 16x16 positions, but for RQ-VAE's 8x8):
    /// - RQ-VAE: `resnet(width: 128, multipliers: [1, 1, 2, 2, 4, 4], blocks: 2, attention: [8], latent: 256)`; for FFHQ with
    ///   `attention: [16]`;
    /// - VQGAN f16 (taming): `resnet(width: 128, multipliers: [1, 1, 2, 2, 4], blocks: 2, attention: [16], latent: 256)`;
    /// - LlamaGen VQ-16: the same with `code_channels: 8`. Its `mid.0`, `mid.1`, `mid.2` are `mid.block_1`, `mid.attn_1`,
    ///   `mid.block_2` here, `encoder.conv_blocks.I.res` is `encoder.down.I.block`, and `decoder.conv_blocks.0` the coarsest
    ///   `decoder.up`;
    /// - KL-16 of MAR: `resnet(width: 128, multipliers: [1, 1, 2, 2, 4], blocks: 2, attention: [16], decoder_attention: [],
    ///   latent: 16, double_z: true)`; KL-8 of latent diffusion (diffusers' AutoencoderKL) has `multipliers: [1, 2, 4, 4]`,
    ///   `attention: []`, `latent: 4`;
    /// - MaskGIT's VQGAN (1d-tokenizer): `resnet(family: maskgit, width: 128, multipliers: [1, 1, 2, 2, 4], blocks: 2,
    ///   decoder_blocks: 2, mid_attention: false, latent: 256, quant_conv: false, downsample: average, unit_range: true)`; its
    ///   `mid.J` is `mid.block_{J+1}` here, and its `upsample_conv` is `upsample.conv`;
    /// - MaskBit: the same with `downsample: published` and as many `latent` channels as bits.
    ///
    /// A small one for 32x32 images (1.3 million parameters, 4x4 positions) is
    /// `resnet(width: 32, multipliers: [1, 2, 2, 2], groups: 8, mid_attention: false, downsample: symmetric)`.
    pub struct ResnetConfig {
        /// Channels of the finest level, before its multiplier.
        width: usize = 32, in 1..=16384;
        /// Channels of each level as multiples of `width`, finest first. With n of them the latent map is 2^(n-1) times
        /// smaller than the image.
        multipliers: Vec<usize> = vec![1, 2, 2], in 1..=1024;
        /// Side of the squares of pixels that are folded into channels before the encoder, and unfolded after the decoder. 1
        /// works on pixels, as published; 2 leaves out the finest level, whose maps cost most.
        patch: usize = 1, in 1..=64;
        /// Residual blocks at each level of the encoder.
        blocks: usize = 1, in 1..=64;
        /// Residual blocks at each level of the decoder; none for one more than the encoder has.
        decoder_blocks: Option<usize> = None, in 1..=64;
        /// Resolutions at whose levels every residual block is followed by attention between all positions. The finest
        /// level has `resolution`, each further one half of that.
        attention: Vec<usize> = vec![], in 1..;
        /// The same for the decoder; none for the encoder's.
        decoder_attention: Option<Vec<usize>> = None, in 1..;
        /// The resolution that `attention` counts from; none for the height of the images.
        resolution: Option<usize> = None, in 1..;
        /// Residual blocks in the middle, at the coarsest level.
        mid_blocks: usize = 2, in 1..=64;
        /// Whether attention follows the first of the blocks in the middle.
        mid_attention: bool = true;
        /// Groups of the group norms. They must divide the channels of every level.
        groups: usize = 32, in 1..;
        /// Channels of the decoder's input (z_channels) and of the encoder's output, which has twice as many with `double_z`.
        latent: usize = 64, in 1..=65536;
        /// Channels after the 1x1 convolution into the code space (embed_dim); none for as many as `latent`.
        code_channels: Option<usize> = None, in 1..=65536;
        /// Whether there are 1x1 convolutions into the code space and out of it.
        quant_conv: bool = true;
        /// Whether two numbers are encoded for each that is decoded, a mean and a log-variance: for the quantizer `kl`.
        double_z: bool = false;
        /// Rows and columns of the code map, where it is smaller than the latent map: cells of latents are then folded
        /// into one vector, whose length is `code_channels` times the size of a cell. None for a code at every latent.
        code_map: Option<[usize; 2]> = None;
        /// Probability that a number inside a residual block is dropped in training.
        dropout: f32 = 0.0, in 0.0..1.0;
        /// How maps are halved: by a 3x3 convolution of stride 2 with zeros at the bottom and the right (as published) or
        /// on every side, or by the mean of 2x2 cells.
        downsample: Downsampling = Downsampling::Published;
        /// Whose convolutions and residual blocks.
        family: Family = Family::Vqgan;
        /// Whether the network sees and makes images in [0, 1], as MaskGIT's; it is given [-1, 1] either way.
        unit_range: bool = false;
    }
}

/// The autoencoder. Parameters: `encoder.*`, `quant_conv.*`, `post_quant_conv.*`, `decoder.*`.
pub struct Resnet {
    plan: Plan,
    encoder: Encoder,
    /// Into the code space, and out of it.
    quant_conv: Option<[Conv2d; 2]>,
    decoder: Decoder,
}

impl Resnet {
    /// Builds it for the images of `cx`.
    ///
    /// # Errors
    /// A configuration that does not fit the images or itself; the message names the field.
    pub fn new(config: ResnetConfig, cx: &AutoencoderContext) -> Result<Self> {
        let plan = Plan::new(&config, cx.image)?;
        let params = &cx.params;
        let (latent, code, moments) = (config.latent, plan.code_channels, plan.moments);
        let quant_conv = || {
            Ok::<_, Error>([
                Conv2d::new(&params.scope("quant_conv"), moments * latent, moments * code, 1)?,
                Conv2d::new(&params.scope("post_quant_conv"), code, latent, 1)?,
            ])
        };
        Ok(Self {
            encoder: Encoder::new(&config, &plan, &params.scope("encoder"))?,
            quant_conv: config.quant_conv.then(quant_conv).transpose()?,
            decoder: Decoder::new(&config, &plan, &params.scope("decoder"))?,
            plan,
        })
    }

    /// The latents `[B, h, w, C]` that the quantizer sees.
    fn latents(&self, images: &Tensor, mode: &Mode) -> Result<Tensor> {
        let MapShape { height, width, channels } = self.plan.image;
        if images.shape().get(1..) != Some(&[height, width, channels]) {
            let found = images.shape();
            let message = format!("wanted images [B, {height}, {width}, {channels}], found {found:?}");
            return Err(rqlab_sdk::tensor::Error::shape("resnet", message).into());
        }
        let mut seen = images.clone();
        if self.plan.unit_range {
            seen = seen.add_scalar(1.0)?.mul_scalar(0.5)?;
        }
        if self.plan.patch() > 1 {
            seen = seen.space_to_depth(self.plan.patch(), self.plan.patch())?;
        }
        let mut latents = self.encoder.forward(&seen, &mode.part("encoder", 0))?;
        if let Some([quant_conv, _]) = &self.quant_conv {
            latents = quant_conv.forward(&latents)?;
        }
        match self.plan.cell {
            [1, 1] => Ok(latents),
            [rows, columns] => Ok(latents.space_to_depth(rows, columns)?),
        }
    }
}

impl Autoencoder for Resnet {
    fn levels(&self) -> Vec<MapShape> {
        vec![MapShape { channels: self.plan.moments * self.plan.code.channels, ..self.plan.code }]
    }

    fn decoder_levels(&self) -> Vec<MapShape> {
        vec![self.plan.code]
    }

    fn encode(&self, images: &Tensor, bottleneck: &mut Bottleneck<'_>, mode: &Mode) -> Result<()> {
        bottleneck(0, &self.latents(images, mode)?)?;
        Ok(())
    }

    fn decode_features(&self, levels: &[Tensor], mode: &Mode) -> Result<Tensor> {
        let [latents] = levels else {
            let message = format!("this autoencoder has one level of latents, found {}", levels.len());
            return Err(Error::Unsupported(message));
        };
        let mut latents = match self.plan.cell {
            [1, 1] => latents.clone(),
            [rows, columns] => latents.depth_to_space(rows, columns)?,
        };
        if let Some([_, post_quant_conv]) = &self.quant_conv {
            latents = post_quant_conv.forward(&latents)?;
        }
        self.decoder.features(&latents, &mode.part("decoder", 0))
    }

    fn decode_output(&self, features: &Tensor) -> Result<Tensor> {
        let mut images = self.decoder.conv_out.forward(features)?;
        if self.plan.patch() > 1 {
            images = images.depth_to_space(self.plan.patch(), self.plan.patch())?;
        }
        if self.plan.unit_range {
            images = images.mul_scalar(2.0)?.add_scalar(-1.0)?;
        }
        Ok(images)
    }

    /// `decoder.conv_out.weight`.
    fn last_layer(&self) -> Var {
        self.decoder.conv_out.weight.clone()
    }
}

declare_plugin! { autoencoder "resnet": ResnetConfig => Resnet::new; }

#[cfg(test)]
mod tests;

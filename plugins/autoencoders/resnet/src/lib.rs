//! The convolutional autoencoder of VQGAN (Esser et al., CVPR 2021) and RQ-VAE (Lee et al., CVPR 2022), with the names of
//! the published parameters.

mod network;
mod plan;

use network::{Decoder, Encoder};
use plan::Plan;
use rqlab_sdk::nn::{Conv2d, Downsampling};
use rqlab_sdk::prelude::*;

config! {
    /// The convolutional encoder and decoder of VQGAN (Esser et al., CVPR 2021) and RQ-VAE (Lee et al., CVPR 2022): levels
    /// of residual blocks with group norm and SiLU, each level half the size of the one before; 1x1 convolutions into and
    /// out of the code space.
    ///
    /// The published RQ-VAE for 256x256 images (100 million parameters, codes of 8x8 positions) is
    /// `resnet(width: 128, multipliers: [1, 1, 2, 2, 4, 4], blocks: 2, attention: [8], latent: 256)`; for FFHQ with
    /// `attention: [16]`. A small one for 32x32 images (1.3 million parameters, 4x4 positions) is
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
        /// Residual blocks at each level of the encoder; the decoder has one more.
        blocks: usize = 1, in 1..=64;
        /// Resolutions at whose levels every residual block is followed by attention between all positions. The finest
        /// level has `resolution`, each further one half of that.
        attention: Vec<usize> = vec![], in 1..;
        /// The resolution that `attention` counts from; none for the height of the images.
        resolution: Option<usize> = None, in 1..;
        /// Whether attention stands between the two residual blocks in the middle, at the coarsest level.
        mid_attention: bool = true;
        /// Groups of the group norms. They must divide the channels of every level.
        groups: usize = 32, in 1..;
        /// Channels of the encoder's output and of the decoder's input (z_channels).
        latent: usize = 64, in 1..=65536;
        /// Channels after the 1x1 convolution into the code space (embed_dim); none for as many as `latent`.
        code_channels: Option<usize> = None, in 1..=65536;
        /// Rows and columns of the code map, where it is smaller than the latent map: cells of latents are then folded
        /// into one vector, whose length is `code_channels` times the size of a cell. None for a code at every latent.
        code_map: Option<[usize; 2]> = None;
        /// Probability that a number inside a residual block is dropped in training.
        dropout: f32 = 0.0, in 0.0..1.0;
        /// How maps are halved: by a 3x3 convolution of stride 2 with zeros at the bottom and the right (as published) or
        /// on every side, or by the mean of 2x2 cells.
        downsample: Downsampling = Downsampling::Published;
    }
}

/// The autoencoder. Parameters: `encoder.*`, `quant_conv.*`, `post_quant_conv.*`, `decoder.*`.
pub struct Resnet {
    plan: Plan,
    encoder: Encoder,
    quant_conv: Conv2d,
    post_quant_conv: Conv2d,
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
        let (latent, code) = (config.latent, plan.code_channels);
        Ok(Self {
            encoder: Encoder::new(&config, &plan, &params.scope("encoder"))?,
            quant_conv: Conv2d::new(&params.scope("quant_conv"), latent, code, 1)?,
            post_quant_conv: Conv2d::new(&params.scope("post_quant_conv"), code, latent, 1)?,
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
        let folded = match self.plan.patch() {
            1 => images.clone(),
            patch => images.space_to_depth(patch, patch)?,
        };
        let latents = self.quant_conv.forward(&self.encoder.forward(&folded, &mode.part("encoder", 0))?)?;
        match self.plan.cell {
            [1, 1] => Ok(latents),
            [rows, columns] => Ok(latents.space_to_depth(rows, columns)?),
        }
    }
}

impl Autoencoder for Resnet {
    fn levels(&self) -> Vec<MapShape> {
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
        let latents = match self.plan.cell {
            [1, 1] => latents.clone(),
            [rows, columns] => latents.depth_to_space(rows, columns)?,
        };
        self.decoder.features(&self.post_quant_conv.forward(&latents)?, &mode.part("decoder", 0))
    }

    fn decode_output(&self, features: &Tensor) -> Result<Tensor> {
        let folded = self.decoder.conv_out.forward(features)?;
        match self.plan.patch() {
            1 => Ok(folded),
            patch => Ok(folded.depth_to_space(patch, patch)?),
        }
    }

    /// `decoder.conv_out.weight`.
    fn last_layer(&self) -> Var {
        self.decoder.conv_out.weight.clone()
    }
}

declare_plugin! { autoencoder "resnet": ResnetConfig => Resnet::new; }

#[cfg(test)]
mod tests;

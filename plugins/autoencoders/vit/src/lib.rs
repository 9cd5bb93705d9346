//! Patches between two transformers: ViT-VQGAN (Yu et al., "Vector-quantized image modeling with improved VQGAN", ICLR 2022)
//! and, with latent tokens, TiTok (Yu et al., "An image is worth 32 tokens for reconstruction and generation", NeurIPS 2024).

mod network;
#[cfg(test)]
mod tests;

use network::{Decoder, Encoder, Sizes};
use rqlab_sdk::choice;
use rqlab_sdk::config::ConfigError;
use rqlab_sdk::nn::transformer::WeightInit;
use rqlab_sdk::prelude::*;

declare_plugin! { autoencoder "vit": VitConfig => Vit::new; }

choice! {
    /// How the positions of patches start; training moves them either way.
    pub enum Positions {
        /// Sines and cosines of row and column, so that neighbours start alike.
        Sinusoidal = "sinusoidal",
        /// N(0, 1 / width), each patch by itself: TiTok.
        Random = "random",
    }
}

config! {
    /// A transformer over patches encodes, another decodes. The latents are those of the patches, a map (ViT-VQGAN: Yu et al.,
    /// ICLR 2022), or with `latent_tokens` those of as many learned tokens, a sequence without places in the image (TiTok: Yu
    /// et al., NeurIPS 2024, in its form that decodes pixels).
    ///
    /// A sequence of tokens learns far more slowly than a map: what lies where must be found by attention, on the way to the tokens
    /// and back, and until it is, all patches get the mean colours. At a width of 96, 32 tokens without a quantizer have 16.0 dB
    /// after 2000 steps on `dead_leaves` with `init: gpt`, whose small weights make attention nearly uniform at first, and 17.9
    /// with `init: published`; a map has 27.4 after 500. The published models began with the codes of another tokenizer as
    /// targets.
    ///
    /// The published TiTok-L-32 for 256x256 images is `vit(patch: 16, width: 1024, layers: 24, heads: 16, latent_tokens: 32,
    /// code_channels: 12)`, TiTok-B-64 has `width: 768, layers: 12, heads: 12, latent_tokens: 64` and TiTok-S-128
    /// `width: 512, layers: 8, heads: 8, latent_tokens: 128`, all with `init: published`, `unit_range: true` and a codebook of
    /// 4096 l2-normalised codes. Its `transformer.I.ln_1`, `attn.in_proj_weight`, `attn.out_proj`, `mlp.c_fc` and `mlp.c_proj`
    /// are `transformer.blocks.I.ln1`, `attn.qkv.weight`, `attn.proj`, `mlp.0` and `mlp.2` here; other names are the same.
    pub struct VitConfig {
        /// Side of the square patches.
        patch: usize = 4, in 1..=256;
        /// Model width (d_model) of both transformers.
        width: usize = 128, in 1..=16384;
        /// Layers of each transformer.
        layers: usize = 4, in 1..=256;
        /// Attention heads; they divide the width.
        heads: usize = 4, in 1..=256;
        /// Channels of the latents (token_size).
        code_channels: usize = 16, in 1..=65536;
        /// Learned tokens that stand for the image instead of its patches; none for the patches.
        latent_tokens: Option<usize> = None, in 1..=65536;
        /// Whether twice `code_channels` are encoded for each that is decoded: mean and log-variance for the quantizer `kl`.
        double_z: bool = false;
        /// Probability that a number that a layer adds is dropped in training.
        dropout: f32 = 0.0, in 0.0..1.0;
        /// How the positions of patches start.
        positions: Positions = Positions::Random;
        /// How the transformers start. `published` is PyTorch's default.
        init: WeightInit = WeightInit::Gpt;
        /// Whether the network sees and makes images in [0, 1], as the published TiTok; it is given [-1, 1] either way.
        unit_range: bool = false;
    }
}

/// The autoencoder. Parameters: `encoder.*`, `decoder.*`, and `latent_tokens` `[T, W]` if there are some.
pub struct Vit {
    image: MapShape,
    /// What the quantizer sees.
    latents: MapShape,
    /// What the decoder reads.
    codes: MapShape,
    unit_range: bool,
    latent_tokens: Option<Var>,
    encoder: Encoder,
    decoder: Decoder,
}

impl Vit {
    /// Builds it for the images of `cx`.
    ///
    /// # Errors
    /// Patches that do not divide the images, heads that do not divide the width.
    pub fn new(config: VitConfig, cx: &AutoencoderContext) -> Result<Self> {
        let (image, patch) = (cx.image, config.patch);
        if !image.height.is_multiple_of(patch) || !image.width.is_multiple_of(patch) {
            let message = format!("patches of {patch} do not divide images of {} x {}", image.height, image.width);
            return Err(ConfigError::field("patch", message).into());
        }
        let grid = [image.height / patch, image.width / patch];
        let [height, width] = config.latent_tokens.map_or(grid, |tokens| [1, tokens]);
        let codes = MapShape { height, width, channels: config.code_channels };
        let latents = MapShape { channels: codes.channels * if config.double_z { 2 } else { 1 }, ..codes };
        let sizes = Sizes { grid, colours: image.channels, tokens: config.latent_tokens };
        let params = &cx.params;
        let token = Init::Normal((config.width as f32).powf(-0.5));
        let learned = |tokens| params.parameter("latent_tokens", &[tokens, config.width], token);
        Ok(Self {
            image,
            latents,
            codes,
            unit_range: config.unit_range,
            latent_tokens: config.latent_tokens.map(learned).transpose()?,
            encoder: Encoder::new(&config, sizes, latents.channels, &params.scope("encoder"))?,
            decoder: Decoder::new(&config, sizes, &params.scope("decoder"))?,
        })
    }
}

impl Autoencoder for Vit {
    fn levels(&self) -> Vec<MapShape> {
        vec![self.latents]
    }

    fn decoder_levels(&self) -> Vec<MapShape> {
        vec![self.codes]
    }

    fn encode(&self, images: &Tensor, bottleneck: &mut Bottleneck<'_>, mode: &Mode) -> Result<()> {
        let MapShape { height, width, channels } = self.image;
        if images.shape().get(1..) != Some(&[height, width, channels]) {
            let message = format!("wanted images [B, {height}, {width}, {channels}], found {:?}", images.shape());
            return Err(rqlab_sdk::tensor::Error::shape("vit", message).into());
        }
        let seen = if self.unit_range { images.add_scalar(1.0)?.mul_scalar(0.5)? } else { images.clone() };
        let learned = self.latent_tokens.as_ref().map(Var::get);
        let latents = self.encoder.forward(&seen, learned.as_ref(), &mode.part("encoder", 0))?;
        let MapShape { height, width, channels } = self.latents;
        bottleneck(0, &latents.reshape(&[images.shape()[0], height, width, channels])?)?;
        Ok(())
    }

    fn decode_features(&self, levels: &[Tensor], mode: &Mode) -> Result<Tensor> {
        let [codes] = levels else {
            let message = format!("this autoencoder has one level of latents, found {}", levels.len());
            return Err(Error::Unsupported(message));
        };
        let MapShape { height, width, channels } = self.codes;
        let sequence = codes.reshape(&[codes.shape()[0], height * width, channels])?;
        self.decoder.features(&sequence, &mode.part("decoder", 0))
    }

    fn decode_output(&self, features: &Tensor) -> Result<Tensor> {
        let images = self.decoder.conv_out.forward(features)?;
        Ok(if self.unit_range { images.mul_scalar(2.0)?.add_scalar(-1.0)? } else { images })
    }

    /// `decoder.conv_out.weight`.
    fn last_layer(&self) -> Var {
        self.decoder.conv_out.weight.clone()
    }
}

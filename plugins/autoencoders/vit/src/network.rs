//! Encoder and decoder.

use crate::{Positions, VitConfig};
use rqlab_sdk::nn::transformer::{BlockConfig, LAYER_NORM_EPS, Stack};
use rqlab_sdk::nn::{Conv2d, LayerNorm, Linear, patchify};
use rqlab_sdk::prelude::*;

/// What is decided by images and configuration.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    /// Rows and columns of patches.
    pub(crate) grid: [usize; 2],
    /// Channels of the images.
    pub(crate) colours: usize,
    /// Learned tokens, if they stand for the image.
    pub(crate) tokens: Option<usize>,
}

impl Sizes {
    fn patches(&self) -> usize {
        self.grid[0] * self.grid[1]
    }
}

/// A transformer over the patches and, where latent tokens stand for the image, a class token before and these after them.
/// Parameters: `positional_embedding` `[N, W]`, `ln_pre`, `transformer`, `ln_post`, and with latent tokens
/// `class_embedding` `[1, W]` and `latent_token_positional_embedding` `[T, W]`; all embeddings start as N(0, 1/W), but for the
/// positions of patches where these are [`Positions::Sinusoidal`].
struct Body {
    positional_embedding: Var,
    /// With latent tokens alone: the class token, and the positions of the latent ones.
    latent: Option<[Var; 2]>,
    ln_pre: LayerNorm,
    transformer: Stack,
    ln_post: LayerNorm,
    patches: usize,
}

/// Sines and cosines of the rows and columns of a grid `[h, w]`, of wavelengths from 2 pi to nearly 200 pi patches: `[h w, W]`,
/// of mean square 1/W. Up to three channels of a width that four does not divide are 0.
fn sinusoidal([height, width]: [usize; 2], channels: usize) -> Result<Tensor> {
    let waves = channels / 4;
    let scale = (2.0 / channels as f32).sqrt();
    let frequency = |wave: usize| 100f32.powf(-(wave as f32) / waves as f32);
    let mut table = Vec::with_capacity(height * width * channels);
    for patch in 0..height * width {
        let places = [patch / width, patch % width];
        let row = places.into_iter().flat_map(|place| {
            let angles = (0..waves).map(move |wave| place as f32 * frequency(wave));
            angles.flat_map(|angle| [scale * angle.sin(), scale * angle.cos()])
        });
        table.extend(row.chain(std::iter::repeat_n(0.0, channels - 4 * waves)));
    }
    Ok(Tensor::from_vec(table, &[height * width, channels])?)
}

/// Which part of its sequence a body is asked for.
enum Part {
    Patches,
    LatentTokens,
}

impl Body {
    fn new(config: &VitConfig, sizes: Sizes, params: &Params) -> Result<Self> {
        let (width, patches) = (config.width, sizes.patches());
        let start = Init::Normal((width as f32).powf(-0.5));
        let table = |name: &str, rows: usize| params.parameter(name, &[rows, width], start);
        let latent = |tokens| {
            Ok::<_, Error>([table("class_embedding", 1)?, table("latent_token_positional_embedding", tokens)?])
        };
        let class = usize::from(sizes.tokens.is_some());
        let positional_embedding = table("positional_embedding", class + patches)?;
        if config.positions == Positions::Sinusoidal && !params.is_dry() {
            let waves = sinusoidal(sizes.grid, width)?;
            positional_embedding.set(&match class {
                0 => waves,
                _ => Tensor::concat(&[&positional_embedding.get().slice(0, 0..class)?, &waves], 0)?,
            })?;
        }
        let block = BlockConfig {
            width,
            heads: config.heads,
            causal: false,
            dropout: config.dropout,
            attention_dropout: 0.0,
            init: config.init,
        };
        Ok(Self {
            positional_embedding,
            latent: sizes.tokens.map(latent).transpose()?,
            ln_pre: LayerNorm::new(&params.scope("ln_pre"), width, LAYER_NORM_EPS)?,
            transformer: Stack::new(&params.scope("transformer"), config.layers, &block)?,
            ln_post: LayerNorm::new(&params.scope("ln_post"), width, LAYER_NORM_EPS)?,
            patches,
        })
    }

    /// What becomes of `patches` `[B, P, W]` and `tokens` `[B, T, W]`, of the part that is asked for.
    fn forward(&self, patches: &Tensor, tokens: Option<&Tensor>, part: &Part, mode: &Mode) -> Result<Tensor> {
        let positions = self.positional_embedding.get();
        let sequence = match (&self.latent, tokens) {
            (Some([class, places]), Some(tokens)) => {
                let class = class.get().broadcast_to(&[patches.shape()[0], 1, patches.last_dim()])?;
                let image = Tensor::concat(&[&class, patches], 1)?.add(&positions)?;
                Tensor::concat(&[&image, &tokens.add(&places.get())?], 1)?
            }
            _ => patches.add(&positions)?,
        };
        let seen = self.transformer.forward(&self.ln_pre.forward(&sequence)?, mode)?;
        let first = usize::from(self.latent.is_some());
        let rows = match part {
            Part::Patches => first..first + self.patches,
            Part::LatentTokens => first + self.patches..seen.shape()[1],
        };
        self.ln_post.forward(&seen.slice(1, rows)?)
    }
}

/// Images `[B, H, W, C]` to latents `[B, N, latent]`, of patches or of latent tokens. Parameters: `patch_embed`, those of
/// [`Body`], `conv_out`.
pub(crate) struct Encoder {
    /// A convolution whose windows are the patches.
    patch_embed: Conv2d,
    body: Body,
    conv_out: Conv2d,
    patch: usize,
}

impl Encoder {
    pub(crate) fn new(config: &VitConfig, sizes: Sizes, latent: usize, params: &Params) -> Result<Self> {
        Ok(Self {
            patch_embed: Conv2d::new(&params.scope("patch_embed"), sizes.colours, config.width, config.patch)?,
            body: Body::new(config, sizes, params)?,
            conv_out: Conv2d::new(&params.scope("conv_out"), config.width, latent, 1)?,
            patch: config.patch,
        })
    }

    /// `learned` are the latent tokens `[T, W]`, if there are some.
    pub(crate) fn forward(&self, images: &Tensor, learned: Option<&Tensor>, mode: &Mode) -> Result<Tensor> {
        let batch = images.shape()[0];
        let weight = self.patch_embed.weight.get();
        let (width, features) = (weight.shape()[0], weight.len() / weight.shape()[0].max(1));
        let patches = patchify(images, self.patch)?.reshape(&[batch, self.body.patches, features])?;
        let bias = self.patch_embed.bias.as_ref().map(Var::get);
        let patches = patches.linear(&weight.reshape(&[width, features])?, bias.as_ref())?;
        let tokens = match learned {
            Some(learned) => Some(learned.broadcast_to(&[batch, learned.shape()[0], width])?),
            None => None,
        };
        let part = if tokens.is_some() { Part::LatentTokens } else { Part::Patches };
        let seen = self.body.forward(&patches, tokens.as_ref(), &part, mode)?;
        let [_, length, _] = seen.dims("vit")?;
        let latents = self.conv_out.forward(&seen.reshape(&[batch, 1, length, width])?)?;
        Ok(latents.reshape(&[batch, length, latents.last_dim()])?)
    }
}

/// Codes `[B, N, C]` to images. Parameters: `decoder_embed`, those of [`Body`], `ffn.0`, `conv_out`, and with latent tokens
/// `mask_token` `[1, 1, W]`, which stands at every patch.
pub(crate) struct Decoder {
    decoder_embed: Linear,
    mask_token: Option<Var>,
    body: Body,
    /// To the pixels of a patch.
    ffn: Conv2d,
    pub(crate) conv_out: Conv2d,
    patch: usize,
    grid: [usize; 2],
}

impl Decoder {
    pub(crate) fn new(config: &VitConfig, sizes: Sizes, params: &Params) -> Result<Self> {
        let (width, colours) = (config.width, sizes.colours);
        let start = Init::Normal((width as f32).powf(-0.5));
        let mask = |_| params.parameter("mask_token", &[1, 1, width], start);
        let pixels = config.patch * config.patch * colours;
        Ok(Self {
            decoder_embed: config.init.linear(&params.scope("decoder_embed"), config.code_channels, width)?,
            mask_token: sizes.tokens.map(mask).transpose()?,
            body: Body::new(config, sizes, params)?,
            ffn: Conv2d::new(&params.scope("ffn").scope(0), width, pixels, 1)?,
            conv_out: Conv2d::new(&params.scope("conv_out"), colours, colours, 3)?,
            patch: config.patch,
            grid: sizes.grid,
        })
    }

    /// What `conv_out` reads: pixels `[B, H, W, C]`.
    pub(crate) fn features(&self, codes: &Tensor, mode: &Mode) -> Result<Tensor> {
        let [batch, _, _] = codes.dims("vit")?;
        let embedded = self.decoder_embed.forward(codes)?;
        let width = embedded.last_dim();
        let seen = match &self.mask_token {
            Some(mask) => {
                let masks = mask.get().broadcast_to(&[batch, self.body.patches, width])?;
                self.body.forward(&masks, Some(&embedded), &Part::Patches, mode)?
            }
            None => self.body.forward(&embedded, None, &Part::Patches, mode)?,
        };
        let map = seen.reshape(&[batch, self.grid[0], self.grid[1], width])?;
        Ok(self.ffn.forward(&map)?.depth_to_space(self.patch, self.patch)?)
    }
}

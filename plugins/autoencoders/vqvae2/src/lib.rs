//! The autoencoder of VQ-VAE-2 (Razavi et al., "Generating diverse high-fidelity images with VQ-VAE-2", NeurIPS 2019), with
//! the names of parameters of rosinality's code, and any number of levels.

mod network;
#[cfg(test)]
mod tests;

use network::{Decoder, Doubling, Encoder, Sizes};
use rqlab_sdk::config::ConfigError;
use rqlab_sdk::nn::Conv2d;
use rqlab_sdk::prelude::*;

declare_plugin! { autoencoder "vqvae2": Vqvae2Config => Vqvae2::new; }

config! {
    /// The autoencoder of VQ-VAE-2 (Razavi et al., NeurIPS 2019): a hierarchy of latent maps, the coarsest first, each finer
    /// one encoded knowing the decoded coarser ones; the decoder reads them all. Each level has a quantizer and a prior of
    /// its own, or all share one call.
    ///
    /// The published code (rosinality, 1.4 million parameters, maps of 32x32 and 64x64 for images of 256x256) is
    /// `vqvae2(width: 128)` with `quantizer: vq(codebook: 512, decay: 0.99, dead_codes: keep, beta: 0.25)`. The paper's three
    /// levels for images of 1024x1024 have `factors: [8, 2, 2]`. One level, `factors: [4]`, is VQ-VAE.
    pub struct Vqvae2Config {
        /// How much smaller each level is, finest first: the first than the images, each further one than the level before it.
        /// Powers of two.
        factors: Vec<usize> = vec![4, 2], in 2..=64;
        /// Channels of the maps in encoders and decoders (channel); an even number.
        width: usize = 64, in 2..=16384;
        /// Residual blocks in each encoder and decoder (n_res_block).
        blocks: usize = 2, in 0..=64;
        /// Channels inside of a residual block (n_res_channel).
        residual_width: usize = 32, in 1..=16384;
        /// Channels of the latents of every level (embed_dim).
        code_channels: usize = 64, in 1..=65536;
        /// Whether two numbers are encoded for each that is decoded, at every level: means and log-variances for the quantizer
        /// `kl`.
        double_z: bool = false;
    }
}

/// One level.
struct Level {
    encoder: Encoder,
    /// From what is known to the latents.
    quantize_conv: Conv2d,
    /// How the levels from here upwards come to the next finer one; the finest has none.
    down: Option<Down>,
    shape: MapShape,
}

/// From a level's map to that of the next finer one.
struct Down {
    /// What the finer level is encoded with.
    decoder: Decoder,
    /// What the decoders of finer levels read.
    upsample: Vec<Doubling>,
}

/// The autoencoder. Parameters: `enc_L.*`, `quantize_conv_L.*`, `dec_L.*` and `upsample_L.*` of each level L, and `dec.*`. L is
/// `b` (bottom) of the finest level, `t` (top) of the coarsest of several, and `m1`, `m2`, .. of those between, finest first.
pub struct Vqvae2 {
    image: MapShape,
    /// The finest first.
    levels: Vec<Level>,
    /// Numbers that are encoded for each that is decoded: 2 with means and log-variances.
    moments: usize,
    decoder: Decoder,
}

impl Vqvae2 {
    /// Builds it for the images of `cx`.
    ///
    /// # Errors
    /// A configuration that does not fit the images or itself; the message names the field.
    pub fn new(config: Vqvae2Config, cx: &AutoencoderContext) -> Result<Self> {
        let shapes = shapes(&config, cx.image)?;
        let count = shapes.len();
        let sizes = Sizes { width: config.width, blocks: config.blocks, residual_width: config.residual_width };
        let params = &cx.params;
        let halvings = |factor: usize| factor.trailing_zeros() as usize;
        let moments = if config.double_z { 2 } else { 1 };
        let mut levels = Vec::new();
        for (level, (&shape, &factor)) in shapes.iter().zip(&config.factors).enumerate() {
            let name = name(level, count);
            let scope = |part: &str| params.scope(format!("{part}_{name}"));
            let inputs = if level == 0 { cx.image.channels } else { config.width };
            let coarsest = level + 1 == count;
            let known = config.width + if coarsest { 0 } else { config.code_channels };
            // Channels of the latents of this level and all coarser ones.
            let joined = (count - level) * config.code_channels;
            let down = || {
                Ok::<_, Error>(Down {
                    decoder: Decoder::new(&scope("dec"), joined, config.code_channels, halvings(factor), sizes)?,
                    upsample: upsample(&scope("upsample"), joined, halvings(factor))?,
                })
            };
            levels.push(Level {
                encoder: Encoder::new(&scope("enc"), inputs, halvings(factor), sizes)?,
                quantize_conv: Conv2d::new(&scope("quantize_conv"), known, moments * config.code_channels, 1)?,
                down: (level > 0).then(down).transpose()?,
                shape,
            });
        }
        let (joined, factor) = (count * config.code_channels, halvings(config.factors[0]));
        let decoder = Decoder::new(&params.scope("dec"), joined, cx.image.channels, factor, sizes)?;
        Ok(Self { image: cx.image, levels, moments, decoder })
    }
}

/// The map of each level, finest first.
fn shapes(config: &Vqvae2Config, image: MapShape) -> Result<Vec<MapShape>, ConfigError> {
    if config.factors.is_empty() {
        return Err(ConfigError::field("factors", "there must be at least one level"));
    }
    if let Some(odd) = config.factors.iter().find(|factor| !factor.is_power_of_two()) {
        return Err(ConfigError::field(
            "factors",
            format!("maps are halved, so a factor is a power of two; {odd} is none"),
        ));
    }
    if !config.width.is_multiple_of(2) {
        let message =
            format!("the outermost convolutions have half as many channels, so {} must be even", config.width);
        return Err(ConfigError::field("width", message));
    }
    let all = config.factors.iter().try_fold(1usize, |all, factor| all.checked_mul(*factor)).unwrap_or(usize::MAX);
    if !image.height.is_multiple_of(all) || !image.width.is_multiple_of(all) {
        let message = format!(
            "the coarsest level is {all} times smaller than the images, so their sides must be multiples of that; they are {} x {}",
            image.height, image.width
        );
        return Err(ConfigError::field("factors", message));
    }
    let mut map = MapShape { channels: config.code_channels, ..image };
    let smaller = |factor: &usize| {
        map = MapShape { height: map.height / factor, width: map.width / factor, ..map };
        map
    };
    Ok(config.factors.iter().map(smaller).collect())
}

/// What parameters call a level, counted from the finest.
fn name(level: usize, count: usize) -> String {
    match level {
        0 => "b".to_owned(),
        _ if level + 1 == count => "t".to_owned(),
        between => format!("m{between}"),
    }
}

/// Doublings that change nothing else; one alone has no number in its name.
fn upsample(params: &Params, channels: usize, halvings: usize) -> Result<Vec<Doubling>> {
    let scope = |i: usize| if halvings == 1 { params.clone() } else { params.scope(i) };
    (0..halvings).map(|i| Doubling::new(&scope(i), channels, channels)).collect()
}

impl Down {
    /// The quantized latents of a level and all coarser ones, on the map of the next finer level.
    fn upsampled(&self, joined: &Tensor) -> Result<Tensor> {
        self.upsample.iter().try_fold(joined.clone(), |x, doubling| doubling.forward(&x))
    }
}

/// Quantized latents with those of all coarser levels before them, as channels.
fn join(coarser: Option<&(&Down, Tensor)>, own: &Tensor) -> Result<Tensor> {
    match coarser {
        Some((down, joined)) => Ok(Tensor::concat(&[&down.upsampled(joined)?, own], 3)?),
        None => Ok(own.clone()),
    }
}

impl Autoencoder for Vqvae2 {
    /// The coarsest first.
    fn levels(&self) -> Vec<MapShape> {
        let encoded = |shape: MapShape| MapShape { channels: self.moments * shape.channels, ..shape };
        self.decoder_levels().into_iter().map(encoded).collect()
    }

    fn decoder_levels(&self) -> Vec<MapShape> {
        self.levels.iter().rev().map(|level| level.shape).collect()
    }

    fn encode(&self, images: &Tensor, bottleneck: &mut Bottleneck<'_>, _: &Mode) -> Result<()> {
        let MapShape { height, width, channels } = self.image;
        if images.shape().get(1..) != Some(&[height, width, channels]) {
            let message = format!("wanted images [B, {height}, {width}, {channels}], found {:?}", images.shape());
            return Err(rqlab_sdk::tensor::Error::shape("vqvae2", message).into());
        }
        let mut features = Vec::new();
        for level in &self.levels {
            features.push(level.encoder.forward(features.last().unwrap_or(images))?);
        }
        let mut coarser: Option<(&Down, Tensor)> = None;
        for (index, (level, own)) in self.levels.iter().zip(&features).rev().enumerate() {
            let known = match &coarser {
                Some((down, joined)) => Tensor::concat(&[&down.decoder.forward(joined)?, own], 3)?,
                None => own.clone(),
            };
            let quantized = bottleneck(index, &level.quantize_conv.forward(&known)?)?;
            if let Some(down) = &level.down {
                coarser = Some((down, join(coarser.as_ref(), &quantized)?));
            }
        }
        Ok(())
    }

    fn decode_features(&self, levels: &[Tensor], _: &Mode) -> Result<Tensor> {
        let count = self.levels.len();
        let mut coarser: Option<(&Down, Tensor)> = None;
        for (level, own) in self.levels.iter().rev().zip(levels) {
            let joined = join(coarser.as_ref(), own)?;
            match &level.down {
                Some(down) => coarser = Some((down, joined)),
                None if levels.len() == count => return self.decoder.features(&joined),
                None => {}
            }
        }
        Err(Error::Unsupported(format!("this autoencoder has {count} levels of latents, found {}", levels.len())))
    }

    fn decode_output(&self, features: &Tensor) -> Result<Tensor> {
        self.decoder.last.forward(features)
    }

    /// The weight of the transposed convolution that makes the image.
    fn last_layer(&self) -> Var {
        self.decoder.last.weight.clone()
    }
}

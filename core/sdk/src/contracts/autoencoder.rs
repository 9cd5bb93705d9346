//! Images to latents and back.

use crate::Result;
use crate::contracts::{Components, Mode};
use crate::params::Params;
use crate::tensor::{Tensor, Var};

/// Height, width and channels of a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MapShape {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// Channels at each position.
    pub channels: usize,
}

/// What the runner tells an autoencoder when it builds it.
#[derive(Debug, Clone)]
pub struct AutoencoderContext {
    /// Shape of the images.
    pub image: MapShape,
    /// Where its parameters are made.
    pub params: Params,
    /// Builds the components that its configuration calls.
    pub components: Components,
}

/// What stands between encoder and decoder: called once per level with that level's latents `[B, h, w, C]`, it returns
/// what the decoder sees in their place (quantized latents with a straight-through gradient).
pub type Bottleneck<'a> = dyn FnMut(usize, &Tensor) -> Result<Tensor> + 'a;

/// An encoder and a decoder around a bottleneck.
///
/// Levels are numbered in the order in which the bottleneck is called. Most models have one. VQ-VAE-2 has two, the
/// lower one conditioned on the decoded upper one: the callback makes that possible without a special case.
///
/// The decoder comes in two parts, all but its last layer and that layer, because adaptive weights of adversarial losses
/// compare gradients there; who decodes calls [`Autoencoder::decode`] or [`Autoencoder::forward`].
pub trait Autoencoder {
    /// The shape of each level's latents: what a quantizer is built for.
    fn levels(&self) -> Vec<MapShape>;

    /// The shape of what the decoder reads at each level. It has other channels than the latents where the quantizer is to
    /// change their number: a Gaussian posterior is encoded as means and log-variances, and decoded from half as many.
    fn decoder_levels(&self) -> Vec<MapShape> {
        self.levels()
    }

    /// Encodes images `[B, H, W, C]` and calls `bottleneck` for each level in turn.
    ///
    /// # Errors
    /// Shapes that do not fit, and whatever the bottleneck returns.
    fn encode(&self, images: &Tensor, bottleneck: &mut Bottleneck<'_>, mode: &Mode) -> Result<()>;

    /// What the decoder's last layer reads, from the (quantized) latents of every level.
    ///
    /// # Errors
    /// Shapes that do not fit.
    fn decode_features(&self, levels: &[Tensor], mode: &Mode) -> Result<Tensor>;

    /// Images `[B, H, W, C]`, not clamped, from what [`Autoencoder::decode_features`] gives: the last layer.
    ///
    /// # Errors
    /// Shapes that do not fit.
    fn decode_output(&self, features: &Tensor) -> Result<Tensor>;

    /// The weight of the last layer.
    fn last_layer(&self) -> Var;

    /// Images `[B, H, W, C]`, not clamped, from the (quantized) latents of every level.
    ///
    /// # Errors
    /// Shapes that do not fit.
    fn decode(&self, levels: &[Tensor]) -> Result<Tensor> {
        self.decode_output(&self.decode_features(levels, &Mode::Eval)?)
    }

    /// Encodes images `[B, H, W, C]`, calls `bottleneck` for each level in turn, and returns what the bottleneck made of
    /// each: what the decoder reads.
    ///
    /// # Errors
    /// As for [`Autoencoder::encode`].
    fn quantized_levels(&self, images: &Tensor, bottleneck: &mut Bottleneck<'_>, mode: &Mode) -> Result<Vec<Tensor>> {
        let mut levels = Vec::new();
        let mut keep = |level: usize, latents: &Tensor| {
            let quantized = bottleneck(level, latents)?;
            levels.push(quantized.clone());
            Ok(quantized)
        };
        self.encode(images, &mut keep, mode)?;
        Ok(levels)
    }

    /// The reconstruction `[B, H, W, C]` of images, not clamped.
    ///
    /// # Errors
    /// As for [`Autoencoder::encode`].
    fn forward(&self, images: &Tensor, bottleneck: &mut Bottleneck<'_>, mode: &Mode) -> Result<Tensor> {
        let levels = self.quantized_levels(images, bottleneck, mode)?;
        self.decode_output(&self.decode_features(&levels, mode)?)
    }
}

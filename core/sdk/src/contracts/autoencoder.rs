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
    /// Numbers at each position.
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
pub trait Autoencoder {
    /// The shape of each level's latents: what a quantizer is built for.
    fn levels(&self) -> Vec<MapShape>;

    /// Encodes images `[B, H, W, C]` and calls `bottleneck` for each level in turn; returns the reconstruction
    /// `[B, H, W, C]`, not clamped.
    ///
    /// # Errors
    /// Shapes that do not fit, and whatever the bottleneck returns.
    fn forward(&self, images: &Tensor, bottleneck: &mut Bottleneck<'_>, mode: &Mode) -> Result<Tensor>;

    /// Like [`Autoencoder::forward`], but stops after the last level's bottleneck.
    ///
    /// # Errors
    /// As for `forward`.
    fn encode(&self, images: &Tensor, bottleneck: &mut Bottleneck<'_>, mode: &Mode) -> Result<()>;

    /// Images `[B, H, W, C]` from the (quantized) latents of every level.
    ///
    /// # Errors
    /// Shapes that do not fit.
    fn decode(&self, levels: &[Tensor]) -> Result<Tensor>;

    /// The weight of the decoder's last layer, at which adaptive weights compare gradients. `None` where there is no such
    /// layer: adaptive weights cannot be had then.
    fn last_layer(&self) -> Option<Var> {
        None
    }
}

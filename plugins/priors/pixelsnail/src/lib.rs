//! The priors of VQ-VAE-2: gated causal convolutions and attention over a map of codes, one code after another in raster order,
//! under a class and the codes of the levels above.
//!
//! Chen et al., "PixelSNAIL: An Improved Autoregressive Generative Model" (ICML 2018), in the form that Razavi et al. gave it
//! ("Generating Diverse High-Fidelity Images with VQ-VAE-2", NeurIPS 2019) and rosinality/vq-vae-2-pytorch wrote down. Without
//! attention it is a gated PixelCNN (van den Oord et al., "Conditional Image Generation with PixelCNN Decoders", NeurIPS 2016).

mod block;
mod condition;
mod layers;
mod model;
mod sample;
mod stem;
#[cfg(test)]
mod tests;

pub use model::PixelSnail;
pub use sample::PixelSnailState;

use rqlab_sdk::nn::ConditionKind;
use rqlab_sdk::prelude::*;

config! {
    /// PixelSNAIL over a map of one code per position: blocks of gated causal convolutions, each followed by attention to all
    /// earlier positions or, without it, by a linear map (PixelCNN). All weights are weight-normalised. It reads the class and the
    /// codes or vectors of the levels above, so that each level of `vqvae2` can have one.
    ///
    /// rosinality/vq-vae-2-pytorch trains, for images of 256x256, `pixelsnail(width: 256, blocks: 4, residual_blocks: 4, dropout:
    /// 0.1, condition: none)` on the top map (84.9 million parameters), and on the bottom one the same with `attention: false,
    /// condition_blocks: 3, condition_width: 256` (89.8 million); Adam, learning rate 3e-4, 420 epochs in batches of 32.
    pub struct PixelSnailConfig {
        /// Channels of the map (channel).
        width: usize = 64, in 2..=16384;
        /// Blocks (n_block).
        blocks: usize = 2, in 1..=256;
        /// Gated convolutional blocks in each block (n_res_block).
        residual_blocks: usize = 2, in 1..=256;
        /// Channels between the two convolutions of a gated block (res_channel); as many as the map's if left out.
        residual_width: Option<usize> = None, in 1..=16384;
        /// Rows and columns of the kernels (kernel_size), an odd number: a position sees so many rows less one above it.
        kernel: usize = 5, in 3..=31;
        /// Whether each block attends to all earlier positions; without, it is a PixelCNN, cheaper on large maps.
        attention: bool = true;
        /// Attention heads; they divide half of the width.
        heads: usize = 8, in 1..=256;
        /// Gated blocks of single positions before the classifier (n_out_res_block), with channels of `residual_width` inside.
        output_blocks: usize = 0, in 0..=256;
        /// Whether it is told the class of the image; a condition of several tokens counts as the sum of its vectors.
        condition: ConditionKind = ConditionKind::Class;
        /// Channels of what conditions all gated blocks: the class, and the level above (cond_res_channel).
        condition_width: usize = 64, in 1..=16384;
        /// Gated convolutional blocks that the level above goes through (n_cond_res_block).
        condition_blocks: usize = 3, in 0..=256;
        /// Rows and columns of their kernels (cond_res_kernel), an odd number.
        condition_kernel: usize = 3, in 1..=31;
        /// Dropout inside of gated blocks and on attention probabilities; 0.1 in the published code.
        dropout: f32 = 0.0, in 0.0..=0.9;
    }
}

declare_plugin! {
    prior "pixelsnail": PixelSnailConfig => PixelSnail::new;
}

//! The tokenizers, and their sizes.

use super::{LATENT, SIDE, Workload};
use serde::{Deserialize, Serialize};

/// Ten bits, entropies over all 1024 codes.
pub(super) const LFQ_SMALL: &str = "(bits: 10, entropy_group: 10, entropy_eps: clamp, bit_order: msb_first)";

/// A residual-quantized autoencoder with one shared codebook, latents of 64 channels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TokenizerSizes {
    /// Channels of the finest level.
    pub width: usize,
    /// Channels of each level as multiples.
    pub multipliers: Vec<usize>,
    /// Residual blocks per level of the encoder.
    pub blocks: usize,
    /// Codes, K.
    pub codebook: usize,
    /// Codes per position, D.
    pub depth: usize,
}

/// A tokenizer as an experiment writes it, and a step of its training on images of 3 channels in [-1, 1).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TokenizerCalls {
    /// Name and fields of the autoencoder.
    pub autoencoder: [String; 2],
    /// Name and fields of the quantizer of all levels.
    pub quantizer: [String; 2],
    /// Rows and columns of the images.
    pub side: usize,
    /// Images.
    pub batch: usize,
    /// Learning rate.
    pub lr: f64,
    /// Decay rates of Adam's averages.
    pub betas: [f64; 2],
}

/// 1.3 million parameters, maps of 4x4 codes.
pub(crate) fn tokenizer_small() -> TokenizerSizes {
    TokenizerSizes { width: 32, multipliers: vec![1, 2, 2, 2], blocks: 1, codebook: 256, depth: 4 }
}

pub(super) fn tokenizer_base() -> TokenizerSizes {
    TokenizerSizes { width: 64, multipliers: vec![1, 2, 2], blocks: 2, codebook: 512, depth: 4 }
}

/// The small autoencoder with other fields of its bottleneck, around another quantizer. With `double_z` its encoder ends in
/// twice 64 channels, as the published ones do; PyTorch's has 64 there, and 39 thousand parameters of 1.3 million less.
pub(super) fn small(bottleneck: &str, [name, fields]: [&str; 2]) -> Workload {
    let TokenizerSizes { width, multipliers, blocks, .. } = tokenizer_small();
    let autoencoder = format!(
        "(width: {width}, multipliers: {multipliers:?}, blocks: {blocks}, groups: 8, mid_attention: false, \
         downsample: symmetric, latent: {LATENT}, {bottleneck})"
    );
    Workload::TokenizerStepOf(TokenizerCalls {
        autoencoder: ["resnet".to_owned(), autoencoder],
        quantizer: [name.to_owned(), fields.to_owned()],
        side: SIDE,
        batch: 64,
        lr: 1e-4,
        betas: [0.9, 0.99],
    })
}

/// Half of the published width, maps of 8x8 and 16x16 codes.
pub(super) fn vqvae2() -> TokenizerCalls {
    let quantizer = "(codebook: 512, decay: 0.99, dead_codes: keep, initial_count: 0.0, beta: 0.25)";
    TokenizerCalls {
        autoencoder: ["vqvae2".to_owned(), "(width: 64)".to_owned()],
        quantizer: ["vq".to_owned(), quantizer.to_owned()],
        side: 64,
        batch: 16,
        lr: 3e-4,
        betas: [0.9, 0.999],
    }
}

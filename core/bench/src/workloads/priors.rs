//! The priors, and their sizes.

use serde::{Deserialize, Serialize};

/// A prior over square code maps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PriorSizes {
    /// Which.
    pub family: Family,
    /// Rows and columns of the map.
    pub side: usize,
    /// Codes per position, D.
    pub depth: usize,
    /// Codes in the codebook that all depths share, K.
    pub codebook: usize,
    /// Model width (d_model).
    pub width: usize,
    /// Attention heads.
    pub heads: usize,
}

/// A transformer of 8 heads over 8x8 vectors of 16 channels, whose head is a diffusion of width 256 and 3 blocks, which
/// samples in 25 steps. Masked, 56 vectors are predicted in training, and all in 16 iterations with guidance of scale 2; causal,
/// one after another without guidance, from a cache.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VectorPriorSizes {
    /// Whether each vector is predicted from those before it.
    pub causal: bool,
    /// Model width (d_model).
    pub width: usize,
    /// Blocks of encoder and decoder each, or half of the causal ones.
    pub layers: usize,
}

/// A kind of prior, with its blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Family {
    /// A body over positions and a head over depths.
    RqTransformer {
        /// Blocks over positions.
        body: usize,
        /// Blocks over depths.
        head: usize,
    },
    /// One transformer over all codes.
    Ar {
        /// Blocks.
        layers: usize,
    },
    /// A masked one, which samples in 12 iterations.
    MaskGit {
        /// Blocks.
        layers: usize,
    },
    /// Causal convolutions of 5x5 and attention, without a class.
    PixelSnail {
        /// Blocks.
        blocks: usize,
        /// Gated blocks of two convolutions in each.
        residual_blocks: usize,
    },
    /// The same with LlamaGen's blocks, which loses a tenth of its classes in training, and samples with guidance of scale 2.
    Llama {
        /// Blocks.
        layers: usize,
    },
}

/// 1.2 million parameters over 4x4x4 codes.
pub(crate) fn rq_small() -> PriorSizes {
    let family = Family::RqTransformer { body: 4, head: 2 };
    PriorSizes { family, side: 4, depth: 4, codebook: 256, width: 128, heads: 4 }
}

/// 6.5 million parameters over 8x8x4 codes.
pub(crate) fn rq_base() -> PriorSizes {
    let family = Family::RqTransformer { body: 6, head: 2 };
    PriorSizes { family, side: 8, depth: 4, codebook: 512, width: 256, heads: 8 }
}

/// 7.1 million parameters over 16x16 codes.
pub(crate) fn llama() -> PriorSizes {
    PriorSizes { family: Family::Llama { layers: 8 }, ..ar_base() }
}

/// 6.6 million parameters over 16x16 codes.
pub(crate) fn ar_base() -> PriorSizes {
    PriorSizes { family: Family::Ar { layers: 8 }, side: 16, depth: 1, codebook: 512, width: 256, heads: 8 }
}

/// 6.6 million parameters over 8x8 codes, masked.
pub(crate) fn maskgit_small() -> PriorSizes {
    PriorSizes { family: Family::MaskGit { layers: 8 }, side: 8, ..ar_base() }
}

/// 7.8 million parameters over vectors, masked.
pub(crate) fn mar_small() -> VectorPriorSizes {
    VectorPriorSizes { causal: false, width: 256, layers: 4 }
}

/// 22.9 million parameters over vectors, masked.
pub(crate) fn mar_base() -> VectorPriorSizes {
    VectorPriorSizes { causal: false, width: 384, layers: 6 }
}

/// 1.9 million parameters over 8x8 codes.
pub(super) fn pixelsnail() -> PriorSizes {
    let family = Family::PixelSnail { blocks: 2, residual_blocks: 2 };
    PriorSizes { family, side: 8, depth: 1, codebook: 512, width: 64, heads: 8 }
}

//! The published ways from pictures to numbers.

use serde::{Deserialize, Serialize};

/// Whose practice a measure follows. A reading without one follows the lab's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// OpenAI's guided-diffusion (ADM).
    Adm,
    /// clean-fid.
    Clean,
    /// TiTok and MaskBit.
    Titok,
    /// LlamaGen.
    Llamagen,
    /// kakaobrain's RQ-VAE-Transformer.
    Rqvae,
    /// dgm-eval, on DINOv2's features.
    Dgm,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Adm, Self::Clean, Self::Titok, Self::Llamagen, Self::Rqvae, Self::Dgm];

    /// Its name, which columns end in.
    pub fn name(self) -> &'static str {
        match self {
            Self::Adm => "adm",
            Self::Clean => "clean",
            Self::Titok => "titok",
            Self::Llamagen => "llamagen",
            Self::Rqvae => "rqvae",
            Self::Dgm => "dgm",
        }
    }

    /// The protocol of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.name() == name)
    }

    /// What it pins.
    pub fn definition(self) -> &'static str {
        match self {
            Self::Adm => {
                "Pictures rounded to 8 bits; Inception-v3 of 2015 on 299 x 299 pixels, resized as TensorFlow 1 does (bilinear, \
                 corners aligned on the left), (level - 128) / 128."
            }
            Self::Clean => {
                "Pictures rounded to 8 bits; Inception-v3 of 2015 on 299 x 299 pixels, resized as Pillow does in floats (bicubic, \
                 widened where it shrinks), (level - 128) / 128."
            }
            Self::Titok => {
                "Pictures cut down to 8 bits (half a level darker); Inception-v3 of 2015 on 299 x 299 pixels, resized as TensorFlow \
                 1 does, (level - 128) / 128."
            }
            Self::Llamagen => {
                "Decoded pictures rounded to 8 bits, the originals left as floats; PSNR per image in [0, 1]; SSIM with a uniform \
                 window of 7 x 7, sample covariance and a range of 2.0 on [0, 1], which inflates it; Inception-v3 as ADM has it."
            }
            Self::Rqvae => {
                "Pictures clamped and left as floats; Inception-v3 of 2015 on 299 x 299 pixels, resized as PyTorch does (bilinear), \
                 in [-1, 1]."
            }
            Self::Dgm => {
                "Pictures rounded to 8 bits; the class token of DINOv2 on 224 x 224 pixels (bicubic, widened where it shrinks)."
            }
        }
    }
}

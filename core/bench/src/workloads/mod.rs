//! The workloads by name, and their sizes.

mod priors;
mod tokenizers;

pub use priors::{Family, PriorSizes, VectorPriorSizes};
pub use tokenizers::{TokenizerCalls, TokenizerSizes};

pub(crate) use priors::{ar_base, rq_base, rq_small};
use priors::{llama, mar_base, mar_small, maskgit_small, pixelsnail};
pub(crate) use tokenizers::tokenizer_small;

use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use tokenizers::{LFQ_SMALL, small, tokenizer_base, vqvae2};

/// Channels of the latents and length of a codeword.
pub(crate) const LATENT: usize = 64;
/// Classes that priors are conditioned on.
pub(crate) const CLASSES: usize = 10;
/// Rows and columns of the images.
pub(crate) const SIDE: usize = 32;
/// Images per batch that is decoded.
pub(crate) const BATCH: usize = 64;

/// What is computed in one call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Workload {
    /// One step of training on images of 3x32x32 in [-1, 1): mean squared error and a quarter of the commitment, Adam.
    TokenizerStep {
        /// The model.
        tokenizer: TokenizerSizes,
        /// Images.
        batch: usize,
    },
    /// One step of training of a tokenizer of another kind: mean squared error and the losses of its quantizers, Adam.
    TokenizerStepOf(TokenizerCalls),
    /// A step of [`Workload::TokenizerStep`] with VQGAN's losses: mean squared error, a distance on the features of a fixed
    /// network, hinge loss with an adaptive weight; then a step of the discriminator.
    AdversarialStep {
        /// The model.
        tokenizer: TokenizerSizes,
        /// Images.
        batch: usize,
    },
    /// A batch of images through a classifier of six convolutions, forward only.
    Features,
    /// One step of training on random codes with hard targets: AdamW without clipping; Adam for PixelSNAIL.
    PriorStep {
        /// The model.
        prior: PriorSizes,
        /// Code maps.
        batch: usize,
    },
    /// Whole code maps, at temperature 1 from the more probable half of the codes; by PixelSNAIL from all.
    Sample {
        /// The model.
        prior: PriorSizes,
        /// Code maps.
        batch: usize,
        /// Whether keys and values of the past are kept; without, all of it is computed again for each code.
        cache: bool,
    },
    /// One step of training a prior of random vectors by diffusion, with clipped AdamW and an average of the weights.
    VectorPriorStep {
        /// The model.
        prior: VectorPriorSizes,
        /// Maps of vectors.
        batch: usize,
    },
    /// Whole maps of vectors.
    SampleVectors {
        /// The model.
        prior: VectorPriorSizes,
        /// Maps.
        batch: usize,
    },
    /// Greedy residual codes of vectors from N(0, 1), one codebook from N(0, 1/4) at all depths.
    Encode {
        /// How many.
        vectors: usize,
        /// Channels of each.
        channels: usize,
        /// Codes, K.
        codebook: usize,
        /// Codes per vector, D.
        depth: usize,
    },
    /// One update of a codebook from vectors that have their codes.
    EmaUpdate {
        /// How many.
        vectors: usize,
        /// Channels of each.
        channels: usize,
        /// Codes, K.
        codebook: usize,
    },
    /// One operation forward, then backward from a fixed gradient into every operand.
    Operation(Operation),
    /// A published network on prepared images, without gradients: what measures look with.
    Network {
        /// Which.
        network: Network,
        /// Images.
        batch: usize,
        /// Height and width of each.
        side: usize,
    },
    /// A batch of 64 training images from files, by the plugin `folder`: decoded, the shorter side scaled (bicubic), a random
    /// square cut out, mirrored at random, as numbers in [-1, 1].
    Batch {
        /// The files, and what is made of them.
        images: ImageSizes,
        /// Where the files are.
        folder: PathBuf,
    },
    /// This program with all plugins loaded, and nothing else.
    StartUp,
    /// Trials from nothing to a report, which differ in the training of their priors alone.
    Sweep {
        /// How many.
        trials: usize,
        /// Whether each is a sweep of its own, or all are one, whose trials share a tokenizer.
        apart: bool,
    },
}

impl Workload {
    /// The workload with its files in `folder`, if it reads some.
    pub(crate) fn within(mut self, folder: Option<&Path>) -> Self {
        if let (Self::Batch { folder: place, .. }, Some(folder)) = (&mut self, folder) {
            folder.clone_into(place);
        }
        self
    }
}

/// A network that images are measured with, of weights that are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Network {
    /// Inception-v3 of 2015, to its pooled features.
    Inception,
    /// DINOv2 with patches of 14 x 14, to its class token.
    Dinov2 {
        /// Channels of a token, in heads of 64.
        width: usize,
        /// Blocks.
        blocks: usize,
    },
    /// LPIPS on VGG16, between two batches.
    Lpips,
}

/// Image files, and the size that they are brought to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImageSizes {
    /// What the files are.
    pub format: Format,
    /// Height and width of the images in files.
    pub file: [usize; 2],
    /// Height and width of the images in a batch.
    pub side: usize,
}

/// A format of image files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Format {
    /// JPEG, baseline, colours at half resolution.
    Jpeg {
        /// From 1 to 100.
        quality: u8,
    },
    /// PNG.
    Png,
}

impl Format {
    /// What names of such files end with.
    pub(crate) fn ending(self) -> &'static str {
        match self {
            Self::Jpeg { .. } => "jpg",
            Self::Png => "png",
        }
    }
}

/// An operation with the sizes of its operands; maps are channels last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    /// Map, weight and bias, as many channels out as in.
    Conv3x3 {
        /// Maps.
        batch: usize,
        /// Rows and columns.
        side: usize,
        /// Channels.
        channels: usize,
    },
    /// Rows, weight and bias.
    Linear {
        /// Rows.
        rows: usize,
        /// Columns.
        inputs: usize,
        /// Columns of the result.
        outputs: usize,
    },
    /// Queries, keys and values, causal.
    Attention {
        /// Sequences.
        batch: usize,
        /// Heads.
        heads: usize,
        /// Positions.
        length: usize,
        /// Channels per head.
        head: usize,
    },
    /// Rows, scale and bias.
    LayerNorm {
        /// Rows.
        rows: usize,
        /// Columns.
        width: usize,
    },
    /// Map, scale and bias; 8 groups.
    GroupNorm {
        /// Maps.
        batch: usize,
        /// Rows and columns.
        side: usize,
        /// Channels.
        channels: usize,
    },
    /// Map, scale and bias, by the statistics of the batch.
    BatchNorm {
        /// Maps.
        batch: usize,
        /// Rows and columns.
        side: usize,
        /// Channels.
        channels: usize,
    },
    /// A map in another size, bilinear with antialiasing.
    Resize {
        /// Maps.
        batch: usize,
        /// Rows and columns.
        side: usize,
        /// Channels.
        channels: usize,
        /// Rows and columns of the result.
        to: usize,
        /// Whether the gradient goes back, too.
        backward: bool,
    },
    /// The exact function, by erf.
    Gelu {
        /// Elements.
        elements: usize,
    },
    /// The mean cross entropy of logits.
    CrossEntropy {
        /// Rows.
        rows: usize,
        /// Codes, K.
        codes: usize,
    },
}

/// Every workload by name, in the order in which they run. Names and sizes are those that PyTorch is measured by.
pub fn workloads() -> Vec<(&'static str, Workload)> {
    let (rq, ar, snail) = (rq_base(), ar_base(), pixelsnail());
    let prior = |prior: &PriorSizes, batch| Workload::PriorStep { prior: prior.clone(), batch };
    let sample = |prior: &PriorSizes, batch| Workload::Sample { prior: prior.clone(), batch, cache: true };
    let encode = |channels, codebook| Workload::Encode { vectors: 16384, channels, codebook, depth: 4 };
    let operation = Workload::Operation;
    let mar_step = |prior| Workload::VectorPriorStep { prior, batch: 32 };
    let mar_sample = |batch| Workload::SampleVectors { prior: mar_small(), batch };
    let batch =
        |format, file, side| Workload::Batch { images: ImageSizes { format, file, side }, folder: PathBuf::new() };
    let network = |network, batch, side| Workload::Network { network, batch, side };
    let jpeg = Format::Jpeg { quality: 90 };
    let resize = |backward| operation(Operation::Resize { batch: 64, side: 64, channels: 3, to: 224, backward });
    vec![
        ("tokenizer_train_small", Workload::TokenizerStep { tokenizer: tokenizer_small(), batch: 64 }),
        ("tokenizer_train_base", Workload::TokenizerStep { tokenizer: tokenizer_base(), batch: 64 }),
        ("fsq_train_small", small("code_channels: 4", ["fsq", "(levels: [8, 5, 5, 5])"])),
        ("lfq_train_small", small("code_channels: 10", ["lfq", LFQ_SMALL])),
        ("kl_train_small", small("code_channels: 16, double_z: true", ["kl", "(weight: 1e-6)"])),
        ("vqvae2_train", Workload::TokenizerStepOf(vqvae2())),
        ("gan_train_small", Workload::AdversarialStep { tokenizer: tokenizer_small(), batch: 64 }),
        ("rq_encode_64x1024", encode(64, 1024)),
        ("rq_encode_256x16384", encode(256, 16384)),
        ("codebook_ema_64x1024", Workload::EmaUpdate { vectors: 16384, channels: 64, codebook: 1024 }),
        ("prior_train_small", prior(&rq_small(), 64)),
        ("prior_train_base", prior(&rq, 32)),
        ("ar_train_base", prior(&ar, 8)),
        ("rq_sample_b1", sample(&rq, 1)),
        ("rq_sample_b16", sample(&rq, 16)),
        ("rq_sample_b100", sample(&rq, 100)),
        ("ar_sample_b1", sample(&ar, 1)),
        ("ar_sample_b16", sample(&ar, 16)),
        ("ar_sample_b100", sample(&ar, 100)),
        ("llama_ar_train", prior(&llama(), 8)),
        ("llama_ar_sample_b16", sample(&llama(), 16)),
        ("pixelsnail_train", prior(&snail, 32)),
        ("pixelsnail_sample_b1", sample(&snail, 1)),
        ("pixelsnail_sample_b16", sample(&snail, 16)),
        ("mar_train_small", mar_step(mar_small())),
        ("mar_train_base", mar_step(mar_base())),
        ("mar_sample_b1", mar_sample(1)),
        ("mar_sample_b16", mar_sample(16)),
        ("mar_sample_b64", mar_sample(64)),
        (
            "ar_diffusion_sample_b16",
            Workload::SampleVectors { prior: VectorPriorSizes { causal: true, ..mar_small() }, batch: 16 },
        ),
        ("maskgit_train_small", prior(&maskgit_small(), 32)),
        ("maskgit_sample_b16", sample(&maskgit_small(), 16)),
        ("conv3x3_64x32", operation(Operation::Conv3x3 { batch: 64, side: 32, channels: 64 })),
        ("linear_2048x256x1024", operation(Operation::Linear { rows: 2048, inputs: 256, outputs: 1024 })),
        ("attention_causal_32x8x64x32", operation(Operation::Attention { batch: 32, heads: 8, length: 64, head: 32 })),
        ("layernorm_2048x256", operation(Operation::LayerNorm { rows: 2048, width: 256 })),
        ("groupnorm_64x128x8x8", operation(Operation::GroupNorm { batch: 64, side: 8, channels: 128 })),
        (
            "discriminator_batchnorm_64x128x16x16",
            operation(Operation::BatchNorm { batch: 64, side: 16, channels: 128 }),
        ),
        ("bilinear_resize_64x3x64x64_224", resize(true)),
        ("bilinear_resize_forward_64x3x64x64_224", resize(false)),
        ("gelu_1m", operation(Operation::Gelu { elements: 1 << 20 })),
        ("softmax_ce_8192x512", operation(Operation::CrossEntropy { rows: 8192, codes: 512 })),
        ("features", Workload::Features),
        ("inception_b8", network(Network::Inception, 8, 299)),
        ("dinov2_vits14_b8", network(Network::Dinov2 { width: 384, blocks: 12 }, 8, 224)),
        ("lpips_b8", network(Network::Lpips, 8, 128)),
        ("data_jpeg_64", batch(jpeg, [375, 500], 64)),
        ("data_jpeg_256", batch(jpeg, [375, 500], 256)),
        ("data_png_64", batch(Format::Png, [128, 128], 64)),
        ("start_up", Workload::StartUp),
    ]
}

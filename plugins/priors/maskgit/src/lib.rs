//! Masked priors: a bidirectional transformer learns to fill in the masked codes of an image, and samples all of them in a
//! few steps, the surest first.
//!
//! Chang et al., "MaskGIT: Masked Generative Image Transformer" (CVPR 2022), with the switches by which published codes
//! differ: those of 1d-tokenizer (TiTok: Yu et al., "An Image is Worth 32 Tokens", 2024), MaskBit (Weber et al., 2024),
//! open-muse, and the Halton order (Besnier et al., "Halton Scheduler for Masked Generative Image Transformer", 2025).

mod masks;
mod model;
mod sample;
#[cfg(test)]
mod tests;
mod trunk;

pub use masks::{Masks, Schedule};
pub use model::MaskGit;
pub use sample::{Canvas, Confidence, Noise, Order, Proposals};
pub use trunk::TrunkKind;

use rqlab_sdk::nn::ConditionKind;
use rqlab_sdk::nn::transformer::WeightInit;
use rqlab_sdk::prelude::*;

config! {
    /// A masked prior: it predicts masked codes from visible ones, and samples by filling in an image in a few steps. The D
    /// codes of a position are masked, predicted and drawn together, each from its own distribution. It has no likelihood.
    pub struct MaskGitConfig {
        /// Model width (d_model).
        width: usize = 128, in 1..=16384;
        /// Attention heads; they divide the width.
        heads: usize = 4, in 1..=256;
        /// Blocks.
        layers: usize = 6, in 1..=256;
        /// Width of the hidden layer of each block; four times the model width if left out.
        mlp_width: Option<usize> = None, in 1..=65536;
        /// The transformer: BERT's post-norm blocks (MaskGIT, MaskBit, TiTok-L), pre-norm blocks, or those with skips from the
        /// first half to the second (U-ViT: TiTok-B and -S).
        trunk: TrunkKind = TrunkKind::Bert;
        /// Whether it is told the class of the image, or its text.
        condition: ConditionKind = ConditionKind::Class;
        /// How the share of masked positions follows from a uniform number in training: arccos (TiTok, MaskBit), cosine (MaskGIT).
        masking: Schedule = Schedule::Arccos;
        /// The share of the target's probability that is spread over all codes.
        label_smoothing: f32 = 0.1, in 0.0..=0.99;
        /// The weight of visible positions in the loss, beside 1 of masked ones: 0.1 in TiTok, 1 in MaskBit, 0 in open-muse.
        visible_weight: f32 = 0.1, in 0.0..=1.0;
        /// Dropout on the inputs and on what each half of a block adds; 0.1 in TiTok.
        dropout: f32 = 0.0, in 0.0..=0.9;
        /// First values: normal with deviation 0.02, or PyTorch's defaults.
        init: WeightInit = WeightInit::Gpt;
        /// Steps in which an image is filled in; at most one per position. 8 in MaskGIT, TiTok-S and TiTok-L, 64 in MaskBit.
        iterations: usize = 8, in 1..=65536, sampling;
        /// How the number of masked positions falls over the steps of a sample.
        schedule: Schedule = Schedule::Arccos, sampling;
        /// Which positions are kept at each step.
        order: Order = Order::Confidence, sampling;
        /// How codes are proposed for masked positions.
        proposals: Proposals = Proposals::Categorical, sampling;
        /// What a position's confidence is.
        confidence: Confidence = Confidence::LogProbability, sampling;
        /// The scale of the Gumbel noise on confidences at the first step; it falls linearly to 0 at the last. 4.5 in MaskGIT and
        /// MaskBit, 1 to 11 in TiTok.
        noise: f32 = 4.5, in 0.0..=1e3, sampling;
        /// Whether logits are divided by a temperature that falls linearly from about 1.3 to 0.5 (TiTok).
        annealed_logits: bool = false, sampling;
    }
}

declare_plugin! {
    prior "maskgit": MaskGitConfig => MaskGit::new;
}

//! The RQ-Transformer (Lee et al., "Autoregressive image generation using residual quantization", CVPR 2022): a spatial
//! transformer over the positions of a code map, and at each position a small one over the depths of its codes.
//!
//! With a diffusion at each position instead of the small transformer it would be a causal transformer over positions that
//! predicts their vectors, or the sums of their codes' vectors, which it already reads: that is the prior `ar(loss: diffusion)`.

mod model;
mod sample;
#[cfg(test)]
mod tests;

pub use model::{Hidden, RqTransformer};
pub use sample::RqTransformerState;

use rqlab_sdk::nn::ConditionKind;
use rqlab_sdk::nn::codes::{CodeKind, Embedding, TargetKind};
use rqlab_sdk::nn::transformer::WeightInit;
use rqlab_sdk::prelude::*;

rqlab_sdk::choice! {
    /// How the positions of the condition are embedded.
    pub enum ConditionPosition {
        /// By a table of its own; that of the map belongs to the codes that are fed in.
        Separate = "separate",
        /// One table for condition and codes.
        Shared = "shared",
    }
}

config! {
    /// The RQ-Transformer: a body over the positions of the code map, and a head over the depths at each position. The same body
    /// with a diffusion at each position instead of the head, over vectors or over the sums of codes' vectors, is `ar(loss:
    /// diffusion)`.
    pub struct RqTransformerConfig {
        /// Model width (d_model) of body and head. The published models have 1024 to 2560.
        width: usize = 128, in 1..=16384;
        /// Attention heads; they divide the width. The published models have heads of 64 channels.
        heads: usize = 4, in 1..=256;
        /// Blocks over positions. The published models have 12 to 42.
        body_layers: usize = 4, in 1..=256;
        /// Blocks over depths. The published models have 4 or 6.
        head_layers: usize = 2, in 1..=256;
        /// What stands for a code at the input: its frozen codebook vector, as published, or a learned one.
        embedding: Embedding = Embedding::Codebook;
        /// Whether it is told the class of the image, or its text.
        condition: ConditionKind = ConditionKind::Class;
        /// Whether the condition has a position embedding of its own, as published, or the first rows of one table.
        condition_position: ConditionPosition = ConditionPosition::Separate;
        /// Predict the codes, or the soft distributions over the codebook that the paper proposes.
        targets: TargetKind = TargetKind::Hard;
        /// Feed in the nearest codes, or codes drawn from the soft distributions.
        codes: CodeKind = CodeKind::Nearest;
        /// Weight of predicting each token of a text from those before it. Nothing else has a condition of several tokens.
        text_loss: f32 = 0.1, in 0.0..=1000.0;
        /// Temperature of soft targets and stochastic codes, in squared distances.
        temperature: f32 = 0.5, in 1e-4..=1e4;
        /// Dropout on what each block adds. The published models have 0.1.
        dropout: f32 = 0.0, in 0.0..=0.9;
        /// Dropout on attention probabilities.
        attention_dropout: f32 = 0.0, in 0.0..=0.9;
        /// Dropout on the inputs of body and head.
        embedding_dropout: f32 = 0.0, in 0.0..=0.9;
        /// First values: PyTorch's defaults, as published, or normal with deviation 0.02, which is small for small widths.
        init: WeightInit = WeightInit::Published;
    }
}

declare_plugin! {
    prior "rq_transformer": RqTransformerConfig => RqTransformer::new;
}

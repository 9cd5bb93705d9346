//! The plain autoregressive baseline: one transformer over all codes of an image as a flat sequence, position by
//! position, at each position depth by depth.

mod model;
mod sample;
#[cfg(test)]
mod tests;

pub use model::Ar;
pub use sample::ArState;

use rqlab_sdk::nn::ConditionKind;
use rqlab_sdk::nn::codes::{CodeKind, Embedding, TargetKind};
use rqlab_sdk::nn::transformer::WeightInit;
use rqlab_sdk::prelude::*;

rqlab_sdk::choice! {
    /// How positions in the sequence are embedded.
    pub enum Position {
        /// One vector for each of the T x D positions in the sequence.
        Flat = "flat",
        /// The sum of one vector for the position in the map and one for the depth.
        Factored = "factored",
    }
}

config! {
    /// A plain autoregressive transformer over the flattened codes: T x D of them in one sequence.
    pub struct ArConfig {
        /// Model width (d_model).
        width: usize = 128, in 1..=16384;
        /// Attention heads; they divide the width.
        heads: usize = 4, in 1..=256;
        /// Blocks.
        layers: usize = 6, in 1..=256;
        /// What stands for a code at the input: a learned vector, or its frozen codebook vector through a linear map.
        embedding: Embedding = Embedding::Learned;
        /// Whether it is told the class of the image.
        condition: ConditionKind = ConditionKind::Class;
        /// One position embedding for the whole sequence, or one for positions in the map and one for depths.
        position: Position = Position::Flat;
        /// Predict the codes, or soft distributions over the codebook.
        targets: TargetKind = TargetKind::Hard;
        /// Feed in the nearest codes, or codes drawn from the soft distributions.
        codes: CodeKind = CodeKind::Nearest;
        /// Temperature of soft targets and stochastic codes, in squared distances.
        temperature: f32 = 0.5, in 1e-4..=1e4;
        /// Dropout on what each block adds.
        dropout: f32 = 0.0, in 0.0..=0.9;
        /// Dropout on attention probabilities.
        attention_dropout: f32 = 0.0, in 0.0..=0.9;
        /// Dropout on the inputs.
        embedding_dropout: f32 = 0.0, in 0.0..=0.9;
        /// First values: PyTorch's defaults, or normal with deviation 0.02, which is small for small widths.
        init: WeightInit = WeightInit::Published;
    }
}

declare_plugin! {
    prior "ar": ArConfig => Ar::new;
}

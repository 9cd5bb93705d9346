//! The plain autoregressive baseline: one transformer over all codes of an image as a flat sequence, position by
//! position, at each position depth by depth. Its blocks are GPT's or LlamaGen's.

mod body;
mod llama;
mod model;
mod sample;
#[cfg(test)]
mod tests;

pub use llama::{Rotary, StartRotation, swiglu_width};
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

rqlab_sdk::choice! {
    /// What the transformer is made of.
    pub enum BlockKind {
        /// GPT-2's blocks with learned positions.
        Gpt = "gpt",
        /// LlamaGen's blocks: RMS norms, SwiGLU, no biases, rotary positions by row and column instead of learned ones, and where
        /// a position has several codes a learned vector for each depth.
        Llama = "llama",
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
        /// The transformer's blocks. LlamaGen-B: `ar(block: llama, width: 768, heads: 12, layers: 12, init: gpt)`.
        block: BlockKind = BlockKind::Gpt;
        /// With llama: the hidden width of its SwiGLU is 8/3 of the model width, up to a multiple of this.
        mlp_multiple: usize = 256, in 1..=65536;
        /// With llama: how queries and keys of the condition are turned, which has no cell.
        start_rotation: StartRotation = StartRotation::Zero;
        /// What stands for a code at the input: a learned vector, or its frozen codebook vector through a linear map.
        embedding: Embedding = Embedding::Learned;
        /// Whether it is told the class of the image.
        condition: ConditionKind = ConditionKind::Class;
        /// With gpt: one position embedding for the whole sequence, or one for positions in the map and one for depths.
        position: Position = Position::Flat;
        /// Predict the codes, or soft distributions over the codebook.
        targets: TargetKind = TargetKind::Hard;
        /// Feed in the nearest codes, or codes drawn from the soft distributions.
        codes: CodeKind = CodeKind::Nearest;
        /// Temperature of soft targets and stochastic codes, in squared distances.
        temperature: f32 = 0.5, in 1e-4..=1e4;
        /// Dropout on what each block adds.
        dropout: f32 = 0.0, in 0.0..=0.9;
        /// Dropout on attention probabilities; with gpt alone.
        attention_dropout: f32 = 0.0, in 0.0..=0.9;
        /// Dropout on the inputs.
        embedding_dropout: f32 = 0.0, in 0.0..=0.9;
        /// First values: PyTorch's defaults, or normal with deviation 0.02, which is small for small widths; with llama the logits
        /// are then zero at first, as published.
        init: WeightInit = WeightInit::Published;
    }
}

declare_plugin! {
    prior "ar": ArConfig => Ar::new;
}

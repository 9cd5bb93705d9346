//! The plain autoregressive baseline: one transformer over all codes of an image as a flat sequence, position by
//! position, at each position depth by depth; or over its vectors, one of each position, which a diffusion draws. Its blocks
//! are GPT's, LlamaGen's or RAR's; positions come in raster order or in another.

mod body;
mod condition;
mod head;
mod input;
mod llama;
mod model;
mod order;
mod output;
mod position;
mod rar;
mod sample;
#[cfg(test)]
mod tests;

pub use llama::{Rotary, StartRotation, swiglu_width};
pub use model::Ar;
pub use order::{Order, random_share};
pub use sample::ArState;

use rqlab_sdk::nn::ConditionKind;
use rqlab_sdk::nn::codes::{CodeKind, Embedding, TargetKind};
use rqlab_sdk::nn::diffusion::{NoiseSchedule, TokenLoss};
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
    /// What stands for the condition at the input.
    pub enum ConditionRows {
        /// Rows of a table of its own.
        Own = "own",
        /// Rows of the codes' table: class c has the vector of code c, and no condition that of code 0, as in the transformer of
        /// VQGAN (Esser et al., CVPR 2021).
        Codes = "codes",
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
        /// RAR's blocks: the condition and the place in the sequence modulate every layer norm, queries and keys are normalised,
        /// and inputs know their own position and that of the code that follows. A text modulates by the mean of its tokens.
        Rar = "rar",
    }
}

config! {
    /// A plain autoregressive transformer over the flattened codes: T x D of them in one sequence. With a diffusion at each
    /// position instead of distributions over codes, over T vectors: those of a continuous bottleneck, or for each position the
    /// sum of its codes' embeddings, of which a sample is the nearest codes.
    pub struct ArConfig {
        /// Model width (d_model).
        width: usize = 128, in 1..=16384;
        /// Attention heads; they divide the width.
        heads: usize = 4, in 1..=256;
        /// Blocks.
        layers: usize = 6, in 1..=256;
        /// The transformer's blocks. LlamaGen-B: `ar(block: llama, width: 768, heads: 12, layers: 12, init: gpt)`. RAR-B:
        /// `ar(block: rar, order: annealed, width: 768, heads: 16, layers: 24, dropout: 0.1, attention_dropout: 0.1, init: gpt)`.
        block: BlockKind = BlockKind::Gpt;
        /// In which order the positions of the map are predicted. `zigzag`: every other row backwards; `spiral`: inwards from the
        /// upper left corner; `random`: another for each image and step, and one that is fixed at evaluation, whose likelihood
        /// it then is; `annealed`: random, then raster (RAR). In random orders gpt and llama get embeddings of the position that
        /// follows, which rar always has.
        order: Order = Order::Raster;
        /// With `order: annealed`: the shares of the training between which the share of images in random order falls linearly from
        /// 1 to 0. Published: the same, 125,000 and 187,500 of 250,000 steps.
        anneal: [f32; 2] = [0.5, 0.75], in 0.0..=1.0;
        /// With rar: the hidden width of its MLP; by default 4 times the model width. Published: RAR-XXL has 6144 at 1408.
        mlp_width: Option<usize> = None, in 1..=65536;
        /// With llama: the hidden width of its SwiGLU is 8/3 of the model width, up to a multiple of this.
        mlp_multiple: usize = 256, in 1..=65536;
        /// With llama: how queries and keys of the condition are turned, whose tokens have no cell.
        start_rotation: StartRotation = StartRotation::Zero;
        /// With llama: the base of the angles that rotary positions turn by. Published: 10,000.
        rotary_base: f32 = 10000.0, in 1.0..=1e9;
        /// With llama: what its norms add to the mean square. Published: 1e-5.
        norm_eps: f32 = 1e-5, in 1e-12..=0.1;
        /// How a token is predicted, given those before it.
        loss: TokenLoss = TokenLoss::CrossEntropy;
        /// What stands for a code at the input: a learned vector, or its frozen codebook vector through a linear map. Under a
        /// diffusion it is the vector that this models, through a linear map.
        embedding: Embedding = Embedding::Learned;
        /// Whether it is told the class of the image, or its text.
        condition: ConditionKind = ConditionKind::Class;
        /// What stands for the condition. VQGAN's transformer: `codes`.
        condition_rows: ConditionRows = ConditionRows::Own;
        /// With gpt, and with llama in random orders: one position embedding for the whole sequence, or one for positions in the
        /// map and one for depths.
        position: Position = Position::Flat;
        /// With gpt: the rows of its one position table, of which those of the codes are used; by default as many as these. The
        /// transformer of VQGAN has a `block_size`.
        position_rows: Option<usize> = None, in 1..=1048576;
        /// With gpt: whether the map to logits has a bias, which that of VQGAN's transformer has not.
        classifier_bias: bool = true;
        /// Predict the codes, or soft distributions over the codebook.
        targets: TargetKind = TargetKind::Hard;
        /// Feed in the nearest codes, or codes drawn from the soft distributions.
        codes: CodeKind = CodeKind::Nearest;
        /// Temperature of soft targets and stochastic codes, in squared distances.
        temperature: f32 = 0.5, in 1e-4..=1e4;
        /// Dropout on what each block adds; with rar also inside its MLP, as published.
        dropout: f32 = 0.0, in 0.0..=0.9;
        /// Dropout on attention probabilities; not with llama.
        attention_dropout: f32 = 0.0, in 0.0..=0.9;
        /// Dropout on the inputs; not with rar.
        embedding_dropout: f32 = 0.0, in 0.0..=0.9;
        /// First values: PyTorch's defaults, or normal with deviation 0.02, which is small for small widths; with llama the logits
        /// are then zero at first, as published.
        init: WeightInit = WeightInit::Published;
        /// Model width of the diffusion's network. MAR's models have 1024, 1280 and 1536.
        head_width: usize = 128, in 1..=16384;
        /// Blocks of the diffusion's network. MAR's models have 6, 8 and 12.
        head_layers: usize = 3, in 1..=256;
        /// Draws of noise per vector in training. MAR: 4.
        noise_draws: usize = 4, in 1..=1024;
        /// How noise grows with the steps of the diffusion. MAR: cosine.
        noise_schedule: NoiseSchedule = NoiseSchedule::Linear;
        /// Steps of the diffusion in training. MAR: 1000.
        noise_steps: usize = 1000, in 2..=100000;
        /// Steps of the diffusion in sampling, evenly spaced among those of training; or of the flow. MAR: 100.
        sampling_steps: usize = 100, in 1..=100000, sampling;
    }
}

declare_plugin! {
    prior "ar": ArConfig => Ar::new;
}

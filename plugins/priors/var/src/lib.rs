//! Next-scale prediction: a transformer goes from the coarsest map of codes to the finest, and predicts all codes of a map at
//! once from what the maps before it stand for.
//!
//! Tian et al., "Visual autoregressive modeling: scalable image generation via next-scale prediction" (NeurIPS 2024). The
//! tokenizer is `multi_scale`, whose level says which positions are of which scale and what the next one sees of them.

mod block;
mod model;
mod sample;
#[cfg(test)]
mod tests;

pub use model::NextScale;
pub use sample::NextScaleState;

use rqlab_sdk::nn::ConditionKind;
use rqlab_sdk::nn::codes::{CodeKind, TargetKind};
use rqlab_sdk::prelude::*;

config! {
    /// A next-scale prior over the codes of `multi_scale`: all codes of a scale are predicted at once, and drawn apart, from
    /// those of coarser scales; its likelihood is exact. It needs two scales or more. The condition starts the first scale and
    /// modulates every norm; one of several tokens, such as a text, also stands before the first scale, and its mean modulates.
    ///
    /// VAR-d16 is `var(width: 1024, heads: 16, layers: 16, drop_path: 0.067)`, d20, d24 and d30 have 20, 24 and 30 heads and
    /// layers of 64 channels per head, and `drop_path` 0.1 depth / 24. Published samples take `guidance_schedule: linear`, which
    /// goes over the scales, up to a scale of 2.5 (the published cfg of 1.5 is that less 1), `top_k: 900`, `top_p: 0.96`.
    pub struct VarConfig {
        /// Model width (d_model). Published: 64 per layer.
        width: usize = 128, in 1..=16384;
        /// Attention heads; they divide the width. Published: one per layer.
        heads: usize = 4, in 1..=256;
        /// Blocks.
        layers: usize = 6, in 1..=256;
        /// The hidden width of a block's perceptron, as a multiple of the model width.
        mlp_ratio: f32 = 4.0, in 0.01..=64.0;
        /// Whether queries and keys have length 1 and scores a learned temperature per head, as in the published models; without,
        /// scores are a quarter of the usual ones.
        normalize_attention: bool = true;
        /// Whether all blocks share the map that modulates their norms, and differ by a table, as VAR-d36 for 512 x 512 does.
        shared_modulation: bool = false;
        /// Whether it is told the class of the image, or its text.
        condition: ConditionKind = ConditionKind::Class;
        /// Predict the codes, or soft distributions over the codebook at each scale.
        targets: TargetKind = TargetKind::Hard;
        /// Feed in the nearest codes, or codes drawn from the soft distributions, which later scales then follow.
        codes: CodeKind = CodeKind::Nearest;
        /// Temperature of soft targets and stochastic codes, in squared distances.
        temperature: f32 = 0.5, in 1e-4..=1e4;
        /// Share of images for which what the last block adds is left out in training; it grows linearly from 0 at the first.
        drop_path: f32 = 0.0, in 0.0..=0.9;
    }
}

declare_plugin! {
    prior "var": VarConfig => NextScale::new;
}

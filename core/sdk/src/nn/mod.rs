//! Building blocks. Each makes its parameters under the names of the published checkpoints and starts them as PyTorch
//! does by default, unless a page says otherwise.
//!
//! Every block is built by `new(&params, sizes..)`, where `params` is the scope of its own, and run by `forward`. Maps are
//! `[B, H, W, C]`, sequences `[B, T, C]`; weights keep the published layouts: `[O, I]` and `[O, I, kh, kw]`.

mod codebook;
pub mod codes;
mod condition;
mod conv;
mod depth_dropout;
pub mod diffusion;
mod entropy;
mod estimator;
mod grid;
mod held;
mod linear;
mod norm;
mod normalize;
mod orders;
mod patches;
mod projection;
mod resample;
mod residual;
mod rotation;
mod sampling;
mod soft_codes;
mod spatial_attention;
pub mod transformer;

pub use codebook::{
    Clusters, CodebookInit, DeadCodes, EmaCodebook, EmaRule, FirstBatch, RestartDraw, Settled, k_means,
    restart_candidates, sample_vectors,
};
pub use condition::{ConditionEmbedding, ConditionKind};
pub use conv::Conv2d;
pub use depth_dropout::DepthDropout;
pub use entropy::{CodeEntropies, EntropyAnnealing, EntropyEps};
pub use estimator::Estimator;
pub use grid::{BitOrder, GridAxis, GridCodes, GridSettings};
pub use held::{Gathered, Held, Losses, side_by_side};
pub use linear::Linear;
pub use norm::{BatchNorm, GroupNorm, LayerNorm};
pub use normalize::l2_normalize;
pub use orders::Orders;
pub use patches::{patchify, unpatchify};
pub use projection::Projection;
pub use resample::{Downsample, Downsampling, Upsample};
pub use residual::ResidualBlock;
pub use rotation::rotate_to;
pub use sampling::{CodeSteps, is_guided, sample_codes};
pub use soft_codes::{SoftCodes, code_tokens, soft_codes};
pub use spatial_attention::SpatialAttention;

#[cfg(test)]
mod testing;

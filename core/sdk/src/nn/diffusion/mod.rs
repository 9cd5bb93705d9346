//! Diffusion of single vectors: a small network turns noise into a token, given what a transformer knows of it, so that a
//! prior of vectors needs no codes (Li et al., "Autoregressive image generation without vector quantization", NeurIPS 2024).
//!
//! [`DiffusionHead`] is the whole of it, for any prior: a loss of vectors given conditions, a variational bound, and
//! samples. It is made of a process ([`GaussianDiffusion`] or [`flow`]) and a network ([`DenoisingMlp`]). [`TokenVectors`] are
//! what it models.

pub mod flow;
mod gaussian;
mod head;
mod mlp;
mod timesteps;
mod vectors;

pub use gaussian::{DiffusionLosses, GaussianDiffusion, NoiseSchedule, Predicted};
pub use head::{DiffusionHead, DiffusionHeadConfig, HeadLoss, HeadNoise, HeadRequest, HeadSampler, Process};
pub use mlp::DenoisingMlp;
pub use timesteps::{ddim_timesteps, respaced_timesteps};
pub use vectors::{TokenLoss, TokenVectors};

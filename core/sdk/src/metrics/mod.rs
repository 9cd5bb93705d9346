//! Measures of reconstructions, samples and codes: every definition of the lab in one place.
//!
//! - Images `[B, H, W, C]`: [`mse`], [`psnr`], [`psnr_pooled`], [`Ssim`]; as pictures of 8 bits, [`Levels`].
//! - Features `[N, F]` of two sets of images: [`frechet_distance`] of their [`Gaussian`]s, [`frechet_extrapolated`],
//!   [`kernel_distance`], [`unit_discrepancy`], [`prdc`], [`nearest_neighbours`]. On other features than Inception's, the
//!   first is not FID and the third is not KID.
//! - Class probabilities `[N, K]`: [`inception_score`].
//! - Codes `[.., D]`: [`CodeCounts`], [`usage`], [`perplexity`], [`entropy_bits`], [`overlap`], [`nominal_bits`],
//!   [`entropy_coded_bits`]; usage and entropy as published codes take them, [`RecentUsage`], [`ScaleHits`],
//!   [`usage_above`], [`entropy_bits_eps`], [`perplexity_eps`].
//!
//! Values come in as `f32` and everything is computed in `f64`. Results do not depend on the number of threads.

mod codes;
mod error;
mod features;
mod gaussian;
mod image;
mod inception_score;
mod kernel_distance;
mod levels;
mod precision_recall;
mod ssim;

pub use codes::{
    CodeCounts, RecentUsage, ScaleHits, entropy_bits, entropy_bits_eps, entropy_coded_bits, jaccard, nominal_bits,
    overlap, perplexity, perplexity_eps, usage, usage_above,
};
pub use error::{Error, Result};
pub use features::Features;
pub use gaussian::{
    Extrapolated, Gaussian, Moments, extrapolation_sizes, extrapolation_subsets, frechet_distance, frechet_extrapolated,
};
pub use image::{DataRange, Images, mse, psnr, psnr_pooled};
pub use inception_score::{InceptionScore, inception_score};
pub use kernel_distance::{KernelDistance, kernel_distance, kernel_distance_subsets, subset_indices, unit_discrepancy};
pub use levels::Levels;
pub use precision_recall::{
    Ball, Nearest, Prdc, PrecisionRecall, knn_radii, manifold_membership, nearest_neighbours, prdc, precision_recall,
};
pub use ssim::{Border, Ssim, Window};

//! Measures of reconstructions, samples and codes: every definition of the lab in one place.
//!
//! - Images `[B, H, W, C]`: [`mse`], [`psnr`], [`psnr_pooled`], [`Ssim`].
//! - Features `[N, F]` of two sets of images: [`frechet_distance`] of their [`Gaussian`]s, [`kernel_distance`],
//!   [`precision_recall`]. On other features than Inception's, the first is not FID and the second is not KID.
//! - Class probabilities `[N, K]`: [`inception_score`].
//! - Codes `[.., D]`: [`CodeCounts`], [`usage`], [`perplexity`], [`entropy_bits`], [`overlap`], [`nominal_bits`],
//!   [`entropy_coded_bits`].
//!
//! Values come in as `f32` and everything is computed in `f64`. Results do not depend on the number of threads.

mod codes;
mod error;
mod features;
mod gaussian;
mod image;
mod inception_score;
mod kernel_distance;
mod precision_recall;
mod ssim;

pub use codes::{CodeCounts, entropy_bits, entropy_coded_bits, jaccard, nominal_bits, overlap, perplexity, usage};
pub use error::{Error, Result};
pub use features::Features;
pub use gaussian::{Gaussian, Moments, frechet_distance};
pub use image::{DataRange, Images, mse, psnr, psnr_pooled};
pub use inception_score::{InceptionScore, inception_score};
pub use kernel_distance::{KernelDistance, kernel_distance, kernel_distance_subsets, subset_indices};
pub use precision_recall::{PrecisionRecall, knn_radii, manifold_membership, precision_recall};
pub use ssim::Ssim;

//! Kernels on plain slices: parallel over the global rayon pool, or, in sampling, over a team of threads that stay awake
//! (`team.rs`); vectorised by run-time dispatch.
//!
//! A kernel's result does not depend on the order in which threads run: work is cut into pieces by size alone, and
//! sums over pieces are added in order; a team shares out numbers that are each summed by one thread. At a fixed number of threads results are bit-equal from run to run.

pub(crate) mod attention;
pub(crate) mod attention_few;
pub(crate) mod averages;
pub(crate) mod cached;
pub(crate) mod coarse;
pub(crate) mod coarse_kernel;
pub(crate) mod coarse_scan;
pub(crate) mod conv;
pub(crate) mod conv_weight;
pub(crate) mod decoder;
pub(crate) mod dispatch;
pub(crate) mod elementwise;
pub(crate) mod gather;
pub(crate) mod gemm;
pub(crate) mod gemm_tn;
pub(crate) mod group_norm;
pub(crate) mod kernel;
pub(crate) mod layer_norm;
pub(crate) mod mask;
pub(crate) mod math;
pub(crate) mod memory;
pub(crate) mod nearest;
pub(crate) mod optim;
pub(crate) mod output;
pub(crate) mod pack;
pub(crate) mod packed;
pub(crate) mod peak;
pub(crate) mod product;
pub(crate) mod resample;
pub(crate) mod rows;
pub(crate) mod sampling;
pub(crate) mod score;
pub(crate) mod scratch;
pub(crate) mod sift;
pub(crate) mod split;
pub(crate) mod squared;
pub(crate) mod strided;
pub(crate) mod strip;
pub(crate) mod sum;
pub(crate) mod team;
pub(crate) mod vector;
pub(crate) mod winograd;
mod winograd_transform;
mod winograd_weight;

pub(crate) use output::{Output, buffer, buffers};

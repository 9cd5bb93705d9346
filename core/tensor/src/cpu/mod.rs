//! Kernels on plain slices: parallel over the global rayon pool, or, in sampling, over a team of threads that spin
//! between regions (`threads/team.rs`); vectorised by run-time dispatch (`isa/`).
//!
//! A kernel's result does not depend on the order in which threads run: work is cut into pieces by size alone, and sums
//! over pieces are added in order; a team shares out elements that are each summed by one thread. At a fixed number of
//! threads results are bit-equal from run to run. A kernel's twin on a GPU has its name in `cuda/`.

pub(crate) mod attention;
pub(crate) mod conv;
pub(crate) mod denoiser;
pub(crate) mod gemm;
pub(crate) mod isa;
pub(crate) mod loops;
pub(crate) mod memory;
pub(crate) mod nearest;
pub(crate) mod norm;
pub(crate) mod optim;
pub(crate) mod raster;
pub(crate) mod sampling;
pub(crate) mod threads;

pub(crate) use memory::output::{Output, buffer, buffers};

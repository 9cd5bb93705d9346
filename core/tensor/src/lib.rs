//! What computes: one runtime-shaped [`Tensor`] over dfdx (its tape, and the memory of GPUs), and the operations of
//! image tokenizers and autoregressive priors on it.
//!
//! - Shapes are known at run time; every operation checks them and returns a [`Result`].
//! - Layout is row-major with the channel last: images and feature maps are `[B, H, W, C]`, sequences `[B, T, C]`.
//!   A feature map is therefore a matrix of `B*H*W` rows to a linear layer, to a normalisation and to a quantizer.
//! - Gradients flow to tensors that ask for them ([`Tensor::leaf`], [`Var`]) while a [`Tape`] is recording.
//! - `ops/` holds one file per operation: shape check, forward, backward. `cpu/` holds the kernels that work on plain slices,
//!   `cuda/` those of GPUs, in folders of the same names. All `unsafe` of the crate stands in these two.
//!
//! This crate knows nothing of images, plugins or files.

mod codes;
pub mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod error;
pub mod ops;
pub mod ranks;
pub mod rng;
mod storage;
mod tape;
mod tensor;
mod threads;
mod var;

pub use codes::Codes;
pub use cpu::isa::peak::peak_flops;
pub use error::{Error, Result};
pub use rng::{Rng, Share};
pub use storage::Device;
pub use tape::{Gradients, Tape, no_grad};
pub use tensor::Tensor;
pub use threads::{
    beside_the_first, device, device_in_words, host_reads, instructions, instructions_asked_for, precision,
    precision_asked_for, set_threads, threads, wait_for_device,
};
pub use var::Var;

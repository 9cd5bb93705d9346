//! Published checkpoints: every system's file is imported and computes what its authors' code did, is exported with equal bits,
//! and is what sweeps and pictures stand on. They lie in `shared/checkpoints` beside the workspace or above it, more of them in the
//! folder that `RQLAB_CHECKPOINTS` names.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::print_stderr, reason = "it says when it skips")]

mod priors;
mod published;
mod tokenizers;

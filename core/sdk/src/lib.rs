//! What a plugin author sees: the contracts that components implement, building blocks to make them of, typed
//! configuration, and the declaration that makes a crate a plugin.
//!
//! A plugin is a crate of a file or two that depends on this one alone:
//!
//! ```ignore
//! use rqlab_sdk::prelude::*;
//!
//! config! {
//!     /// Rounds every latent to the nearest multiple of a step.
//!     pub struct RoundConfig {
//!         /// The distance between neighbouring values.
//!         step: f32 = 0.5, in 1e-3..=10.0;
//!     }
//! }
//!
//! struct Round { .. }
//! impl Quantizer for Round { .. }
//!
//! declare_plugin! { quantizer "round": RoundConfig => Round::new }
//! ```
//!
//! The crate is built as one shared library that the runner and all plugins link, so that there is one tensor library,
//! one thread pool and one set of tensor ids in the process.

// Lets `config!` name this crate from inside and from plugins alike.
extern crate self as rqlab_sdk;

pub mod checkpoint;
pub mod config;
pub mod contracts;
mod error;
pub mod files;
pub mod metrics;
pub mod networks;
pub mod nn;
pub mod optim;
pub mod params;
pub mod plugin;
pub mod prelude;
pub mod resize;
pub mod testing;

pub use error::{Error, Result};
pub use rqlab_tensor as tensor;
#[doc(hidden)]
pub use serde;

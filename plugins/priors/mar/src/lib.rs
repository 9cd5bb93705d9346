//! MAR (Li et al., "Autoregressive image generation without vector quantization", NeurIPS 2024): autoregressive models in
//! raster or random order, causal or masked and bidirectional, one token per step or many, of codes by cross entropy or of
//! vectors by diffusion: one component whose settings span Table 1 of the paper.

mod block;
mod causal;
mod config;
mod head;
mod masked;
mod model;
mod order;
mod sample;
#[cfg(test)]
mod tests;

pub use config::{Attention, CausalCondition, Cell, MarConfig, Order, Preset, TokensPerStep};
pub use model::Mar;
pub use order::{masked_count, steps_of};
pub use sample::{Draws, Streams};

use rqlab_sdk::declare_plugin;

declare_plugin! {
    prior "mar": MarConfig => Mar::new;
}

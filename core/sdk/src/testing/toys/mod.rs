//! Small components that use what the contracts allow and few systems need at once: an objective with a critic, an
//! autoencoder of two levels, a prior of vectors, a continuous bottleneck, a quantizer that holds another, and one to
//! be held. They show how such
//! components are written, and serve tests of whatever runs components.

mod codes;
mod critic;
mod gaussian;
mod noise;
mod scaled;
mod two_levels;

pub use codes::{ToyCodes, ToyCodesConfig, ToyQuantizers};
pub use critic::{ToyCritic, ToyCriticConfig};
pub use gaussian::{ToyGaussian, ToyGaussianConfig};
pub use noise::{ToyNoise, ToyNoiseConfig};
pub use scaled::{ToyScaled, ToyScaledConfig};
pub use two_levels::{ToyTwoLevels, ToyTwoLevelsConfig};

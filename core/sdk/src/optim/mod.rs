//! What trains parameters: the weighted sum of objectives, the gradients of a step that parts and ranks share, Adam and AdamW with
//! clipping, the learning rate over time, an average of the weights.
//!
//! All state is saved and restored as named tensors, so that a resumed run goes on bit for bit.

mod adam;
mod average;
mod gradients;
mod schedule;
mod weighted;

pub use adam::{Adam, AdamSettings, GradientNorm};
pub use average::WeightAverage;
pub use gradients::StepGradients;
pub use schedule::{PublishedWarmup, Schedule};
pub use weighted::{WeightedSum, weighted_sum};

//! Networks that images are measured with: published ones, whose weights come from files and are never trained here, and the
//! laboratory's own classifier.
//!
//! Each published one takes images `[B, H, W, 3]` in [-1, 1], brings them to what it was trained on, and gives features.
//! Parameters have the names and layouts of the published files, so that a conversion to safetensors changes neither.

mod classifier;
mod dinov2;
mod inception;
mod lpips;
mod pool;
mod resnet50;
mod weights;

pub use classifier::LabClassifier;
pub use dinov2::{Dinov2, Dinov2Config, Dinov2Tokens};
pub use inception::{Inception, InceptionMaps};
pub use lpips::{Lpips, Vgg16, directions};
pub use resnet50::Resnet50;
pub use weights::Weights;

//! Published networks that images are measured with. Their weights come from files; nothing here is trained.
//!
//! Each takes images `[B, H, W, 3]` in [-1, 1], brings them to what it was trained on, and gives features. Parameters have
//! the names and layouts of the published files, so that a conversion to safetensors changes neither.

mod dinov2;
mod inception;
mod lpips;
mod pool;
mod weights;

pub use dinov2::{Dinov2, Dinov2Config, Dinov2Tokens};
pub use inception::{Inception, InceptionMaps};
pub use lpips::{Lpips, Vgg16};
pub use weights::Weights;

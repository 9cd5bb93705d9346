//! What most plugins need, by name.

pub use crate::config::Config;
pub use crate::contracts::{
    Autoencoder, AutoencoderContext, Bottleneck, CodeShape, Dataset, DatasetContext, DatasetInfo, Images, MapShape,
    Mode, Prior, PriorContext, PriorLevel, PriorLoss, Quantized, Quantizer, QuantizerContext, SampleRequest, SoftCodes,
    Split, Targets, TokenBatch, TokenRequest,
};
pub use crate::params::{Init, Params};
pub use crate::tensor::{Codes, Rng, Tensor, Var};
pub use crate::{Error, Result, config, declare_plugin};

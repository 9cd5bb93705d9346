//! What most plugins need, by name.

pub use crate::config::{AutoencoderCall, Config, ObjectiveCall, PriorCall, QuantizerCall};
pub use crate::contracts::{
    Attribute, Autoencoder, AutoencoderContext, Bottleneck, Bound, CaptionInfo, CodeSpace, Components, Condition,
    ConditionSpace, CriticTraining, Dataset, DatasetContext, DatasetInfo, Given, Guidance, GuidanceSchedule, Images,
    LevelInfo, Loss, MapShape, Mode, Objective, ObjectiveContext, Prior, PriorContext, PriorLoss, Quantized, Quantizer,
    QuantizerContext, Reconstruction, SampleRequest, Scales, Split, Summary, Targets, TokenBatch, TokenRequest,
    TokenSpace, Tokens, Weight,
};
pub use crate::params::{Init, Params};
pub use crate::tensor::{Codes, Rng, Tensor, Var};
pub use crate::{Error, Result, config, declare_plugin};

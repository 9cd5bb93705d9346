//! Components that hold others: a residual quantizer of any quantizer, a prior around another.

use super::{
    Autoencoder, AutoencoderContext, Objective, ObjectiveContext, Prior, PriorContext, Quantizer, QuantizerContext,
};
use crate::config::Call;
use crate::{Error, Result};
use std::fmt;
use std::sync::Arc;

/// Builds components by the names that experiment files call them by. The runner provides one that knows every loaded
/// plugin.
pub trait Builder: Send + Sync {
    /// Builds an autoencoder.
    ///
    /// # Errors
    /// A name that no plugin provides, a configuration that it refuses.
    fn autoencoder(&self, call: &Call, cx: &AutoencoderContext) -> Result<Box<dyn Autoencoder>>;

    /// Builds a quantizer.
    ///
    /// # Errors
    /// As for [`Builder::autoencoder`].
    fn quantizer(&self, call: &Call, cx: &QuantizerContext) -> Result<Box<dyn Quantizer>>;

    /// Builds a prior.
    ///
    /// # Errors
    /// As for [`Builder::autoencoder`].
    fn prior(&self, call: &Call, cx: &PriorContext) -> Result<Box<dyn Prior>>;

    /// Builds an objective.
    ///
    /// # Errors
    /// As for [`Builder::autoencoder`].
    fn objective(&self, call: &Call, cx: &ObjectiveContext) -> Result<Box<dyn Objective>>;
}

/// A handle to a [`Builder`], for components whose configuration calls others. Cheap to clone.
#[derive(Clone)]
pub struct Components(Arc<dyn Builder>);

impl Components {
    /// A handle to `builder`.
    pub fn new(builder: impl Builder + 'static) -> Self {
        Self(Arc::new(builder))
    }

    /// A handle that can build nothing: for components that call no other, as in most unit tests.
    pub fn none() -> Self {
        Self::new(Nothing)
    }
}

impl std::ops::Deref for Components {
    type Target = dyn Builder;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

impl fmt::Debug for Components {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Components")
    }
}

struct Nothing;

impl Nothing {
    fn refuse<T>(call: &Call) -> Result<T> {
        Err(Error::Unsupported(format!("`{}` cannot be built here: no plugin is loaded", call.name)))
    }
}

impl Builder for Nothing {
    fn autoencoder(&self, call: &Call, _: &AutoencoderContext) -> Result<Box<dyn Autoencoder>> {
        Self::refuse(call)
    }

    fn quantizer(&self, call: &Call, _: &QuantizerContext) -> Result<Box<dyn Quantizer>> {
        Self::refuse(call)
    }

    fn prior(&self, call: &Call, _: &PriorContext) -> Result<Box<dyn Prior>> {
        Self::refuse(call)
    }

    fn objective(&self, call: &Call, _: &ObjectiveContext) -> Result<Box<dyn Objective>> {
        Self::refuse(call)
    }
}

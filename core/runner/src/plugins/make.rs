//! Building components from their calls. A plugin that panics gives an error, not a dead process.

use crate::job::Call;
use crate::plugins::{Plugins, Provided};
use rqlab_sdk::contracts::{
    Autoencoder, AutoencoderContext, Dataset, DatasetContext, Prior, PriorContext, Quantizer, QuantizerContext,
};
use rqlab_sdk::plugin::{Build, Kind};
use rqlab_sdk::{Error, Result};
use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

impl Plugins {
    /// Opens a data set.
    ///
    /// # Errors
    /// Those of [`Plugins::planned`] and of the constructor.
    pub fn dataset(&self, call: &Call, context: &DatasetContext) -> Result<Box<dyn Dataset>> {
        let found = self.planned(Kind::Dataset, call)?;
        match found.component.build {
            Build::Dataset(build) => guard(found, || build(&call.config, context)),
            _ => Err(other_kind(found)),
        }
    }

    /// Builds an autoencoder.
    ///
    /// # Errors
    /// As for [`Plugins::dataset`].
    pub fn autoencoder(&self, call: &Call, context: &AutoencoderContext) -> Result<Box<dyn Autoencoder>> {
        let found = self.planned(Kind::Autoencoder, call)?;
        match found.component.build {
            Build::Autoencoder(build) => guard(found, || build(&call.config, context)),
            _ => Err(other_kind(found)),
        }
    }

    /// Builds a quantizer.
    ///
    /// # Errors
    /// As for [`Plugins::dataset`].
    pub fn quantizer(&self, call: &Call, context: &QuantizerContext) -> Result<Box<dyn Quantizer>> {
        let found = self.planned(Kind::Quantizer, call)?;
        match found.component.build {
            Build::Quantizer(build) => guard(found, || build(&call.config, context)),
            _ => Err(other_kind(found)),
        }
    }

    /// Builds a prior.
    ///
    /// # Errors
    /// As for [`Plugins::dataset`].
    pub fn prior(&self, call: &Call, context: &PriorContext) -> Result<Box<dyn Prior>> {
        let found = self.planned(Kind::Prior, call)?;
        match found.component.build {
            Build::Prior(build) => guard(found, || build(&call.config, context)),
            _ => Err(other_kind(found)),
        }
    }
}

fn other_kind(found: &Provided) -> Error {
    Error::Unsupported(format!("`{}` is a {}", found.component.name, found.component.build.kind()))
}

fn guard<T>(found: &Provided, build: impl FnOnce() -> Result<T>) -> Result<T> {
    quietly(|| catch_unwind(AssertUnwindSafe(build))).unwrap_or_else(|panic| {
        Err(Error::Unsupported(format!(
            "the plugin {} panicked while it built `{}`: {}",
            found.origin.plugin,
            found.component.name,
            panic_text(panic.as_ref())
        )))
    })
}

/// What a panic said.
pub(super) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Runs something that may panic without the default message on standard error: the caller reports it.
pub(super) fn quietly<T>(work: impl FnOnce() -> T) -> T {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !QUIET.get() {
                usual(panic);
            }
        }));
    });
    let before = QUIET.replace(true);
    let result = work();
    QUIET.set(before);
    result
}

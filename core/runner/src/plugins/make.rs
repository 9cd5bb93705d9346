//! Building components from their calls. A plugin that panics gives an error, not a dead process.

use crate::job::Call;
use crate::plugins::{Plugins, Provided};
use rqlab_sdk::config;
use rqlab_sdk::contracts::{
    Autoencoder, AutoencoderContext, Builder, Components, Dataset, DatasetContext, Objective, ObjectiveContext, Prior,
    PriorContext, Quantizer, QuantizerContext,
};
use rqlab_sdk::plugin::{Build, Kind};
use rqlab_sdk::{Error, Result};
use std::any::Any;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

/// Builds what a call asks for by the plugin that it was planned with; components within its configuration by those that
/// they were planned with.
macro_rules! builders {
    ($($(#[doc = $doc:literal])* $method:ident: $kind:ident, $Context:ident;)+) => {
        impl Plugins { $(
            $(#[doc = $doc])*
            ///
            /// # Errors
            /// Those of [`Plugins::planned`] and of the constructor.
            pub fn $method(&self, call: &Call, context: &$Context) -> Result<Box<dyn $kind>> {
                let context = $Context { components: self.components(&call.plugins), ..context.clone() };
                self.nested(&call.plugins).$method(&config::Call { name: call.name.clone(), text: call.config.clone() }, &context)
            }
        )+ }

        impl Builder for Nested { $(
            fn $method(&self, call: &config::Call, context: &$Context) -> Result<Box<dyn $kind>> {
                let found = self.plugins.planned(Kind::$kind, &call.name, &self.planned)?;
                match found.component.build {
                    Build::$kind(build) => guard(found, || build(&call.text, context)),
                    _ => Err(other_kind(found)),
                }
            }
        )+ }

        impl Builder for Within { $(
            fn $method(&self, call: &config::Call, context: &$Context) -> Result<Box<dyn $kind>> {
                self.0.$method(call, context).map_err(|error| match error {
                    Error::Config(error) => error.within(&call.name).into(),
                    other => other,
                })
            }
        )+ }
    };
}
builders! {
    /// Builds an autoencoder.
    autoencoder: Autoencoder, AutoencoderContext;
    /// Builds a quantizer.
    quantizer: Quantizer, QuantizerContext;
    /// Builds a prior.
    prior: Prior, PriorContext;
    /// Builds an objective.
    objective: Objective, ObjectiveContext;
}

impl Plugins {
    /// Opens a data set.
    ///
    /// # Errors
    /// Those of [`Plugins::planned`] and of the constructor.
    pub fn dataset(&self, call: &Call, context: &DatasetContext) -> Result<Box<dyn Dataset>> {
        let found = self.planned(Kind::Dataset, &call.name, &call.plugins)?;
        match found.component.build {
            Build::Dataset(build) => guard(found, || build(&call.config, context)),
            _ => Err(other_kind(found)),
        }
    }

    /// What components build those with that their configuration calls.
    fn components(&self, planned: &BTreeMap<String, String>) -> Components {
        Components::new(Within(self.nested(planned)))
    }

    fn nested(&self, planned: &BTreeMap<String, String>) -> Nested {
        Nested { plugins: self.clone(), planned: planned.clone() }
    }
}

/// The plugins, and the digests that those of a call had when it was planned.
struct Nested {
    plugins: Plugins,
    planned: BTreeMap<String, String>,
}

/// Builds the components that others hold: what is wrong with the configuration of one names it.
struct Within(Nested);

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
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Runs something that may panic without the default message on standard error: the caller reports it.
pub(crate) fn quietly<T>(work: impl FnOnce() -> T) -> T {
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

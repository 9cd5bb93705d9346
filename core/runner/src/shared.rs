//! Settings that many stages of a plan have in common.

use rqlab_sdk::config::{Config, ConfigError, Scope};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

/// Settings, cheap to clone. They are written as if each stage had its own; the texts of their identity are made once.
#[derive(Debug)]
pub struct Shared<C>(Arc<Inner<C>>);

#[derive(Debug)]
struct Inner<C> {
    settings: C,
    trained: OnceLock<String>,
    sampled: OnceLock<String>,
}

impl<C: Config> Shared<C> {
    /// [`Config::identity`].
    ///
    /// # Errors
    /// A setting that cannot be written.
    pub fn identity(&self, scope: Scope) -> Result<&str, ConfigError> {
        let text = match scope {
            Scope::Training => &self.0.trained,
            Scope::Sampling => &self.0.sampled,
        };
        match text.get() {
            Some(text) => Ok(text),
            None => {
                let made = self.0.settings.identity(scope)?;
                Ok(text.get_or_init(|| made))
            }
        }
    }
}

impl<C> From<C> for Shared<C> {
    fn from(settings: C) -> Self {
        Self(Arc::new(Inner { settings, trained: OnceLock::new(), sampled: OnceLock::new() }))
    }
}

impl<C> Clone for Shared<C> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<C> Deref for Shared<C> {
    type Target = C;

    fn deref(&self) -> &C {
        &self.0.settings
    }
}

impl<C: Serialize> Serialize for Shared<C> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.settings.serialize(serializer)
    }
}

impl<'de, C: Deserialize<'de>> Deserialize<'de> for Shared<C> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        C::deserialize(deserializer).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::settings::Evaluation;

    #[test]
    fn identities_are_those_of_the_settings() {
        let settings = Evaluation::parse("(images: 7)").unwrap();
        let shared = Shared::from(settings.clone());
        for scope in [Scope::Training, Scope::Sampling, Scope::Training] {
            assert_eq!(shared.clone().identity(scope).unwrap(), settings.identity(scope).unwrap());
        }
        assert_eq!(shared.images, 7);
    }
}

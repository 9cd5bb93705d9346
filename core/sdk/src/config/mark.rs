//! Which fields of a configuration determine which results.

use super::{ConfigError, dialect};
use serde::Serialize;

/// What a field does not determine, so that a change of it repeats no more work than it must. Most fields carry no mark: they
/// determine all results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// It changes no result: where a file lies, how often a checkpoint is written, how large a cache is. Written `local`.
    Local,
    /// It changes how a trained model is sampled, and nothing of how it is trained. Written `sampling`.
    Sampling,
}

impl Mark {
    /// The word in a declaration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Sampling => "sampling",
        }
    }

    /// What it means, in words.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Local => "changes no result",
            Self::Sampling => "changes sampling alone: what was trained stays as it is",
        }
    }
}

/// What work is named by a configuration's [`Config::identity`](super::Config::identity).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Training, and what else does not sample: only fields without a mark count.
    Training,
    /// Sampling: all fields count but those that are local.
    Sampling,
}

impl Scope {
    /// Whether a field with that mark counts.
    pub fn counts(self, mark: Option<Mark>) -> bool {
        match mark {
            None => true,
            Some(Mark::Sampling) => self == Self::Sampling,
            Some(Mark::Local) => false,
        }
    }
}

/// `(a:1,b:2)`, of the fields that count in a scope.
#[doc(hidden)]
pub struct IdentityText {
    scope: Scope,
    fields: Vec<String>,
}

impl IdentityText {
    /// No field yet.
    pub fn new(scope: Scope) -> Self {
        Self { scope, fields: vec![] }
    }

    /// Adds a field, if one of that mark counts.
    pub fn field<T: Serialize>(mut self, name: &str, mark: Option<Mark>, value: &T) -> Result<Self, ConfigError> {
        if self.scope.counts(mark) {
            let value = dialect().to_string(value).map_err(ConfigError::unwritable)?;
            self.fields.push(format!("{name}:{value}"));
        }
        Ok(self)
    }

    /// The text.
    pub fn end(self) -> String {
        format!("({})", self.fields.join(","))
    }
}

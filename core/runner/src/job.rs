//! What is to be done: trials, and the jobs that they share.
//!
//! A job is one stage of one or more trials. Its id is the digest of everything that determines its result, so that
//! equal work has one id, is done once, and is found again by any later experiment.

use crate::id::Id;
use crate::plan::Resolved;
use crate::stages::AnyStage;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

/// A component as an experiment calls it, resolved. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Call(Arc<Called>);

/// What a [`Call`] holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Called {
    /// The component's name.
    pub name: String,
    /// Its configuration with all defaults filled in, without the name: `(depth:4,codebook:512,...)`. What is built.
    pub config: String,
    /// The part of it that determines what training leaves: neither local nor sampling fields.
    pub trained: String,
    /// The part of it that determines what sampling leaves: all but local fields.
    pub sampled: String,
    /// Digests of the plugin's file, its own and those of all components within its configuration: `quantizer rq` to digest.
    pub plugins: BTreeMap<String, String>,
}

impl From<Called> for Call {
    fn from(called: Called) -> Self {
        Self(Arc::new(called))
    }
}

impl Deref for Call {
    type Target = Called;

    fn deref(&self) -> &Called {
        &self.0
    }
}

impl Serialize for Call {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.as_ref().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Call {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Called::deserialize(deserializer).map(Self::from)
    }
}

/// A stage with its id, which is its name in the store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Format of this description and of what the stage leaves, [`crate::store::FORMAT`].
    pub format: u32,
    /// Digest (blake3, hex) of everything that determines the stage's result.
    pub id: Id,
    /// What is to be done.
    pub stage: AnyStage,
    /// Directory that relative paths of a data set are taken from.
    #[serde(with = "crate::any_path")]
    pub base: Arc<Path>,
    /// Digest of the data set's contents.
    pub data_digest: Id,
}

/// One combination of the axes, with one seed.
#[derive(Debug, Clone)]
pub struct Trial {
    /// Digest of the ids of its measuring jobs (first 8 digits are shown).
    pub id: Id,
    /// Its axes' values, as the report shows them: path to text. Every trial has every axis of the experiment.
    pub axes: Arc<BTreeMap<String, String>>,
    /// The seed.
    pub seed: u64,
    /// What it asks for, whatever the seed.
    pub(crate) resolved: Arc<Resolved>,
    /// Digest of its resolved configuration without the seed: trials that have it in common repeat one another.
    pub configuration: Id,
    /// The jobs that it consists of, in an order in which they can run.
    pub jobs: Vec<Id>,
}

//! What is to be done: trials, and the jobs that they share.
//!
//! A job is one stage of one or more trials. Its id is the digest of everything that determines its result, so that
//! equal work has one id, is done once, and is found again by any later experiment.

use crate::stages::AnyStage;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A component as an experiment calls it, resolved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Call {
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

/// A stage with its id, which is its name in the store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Format of this description and of what the stage leaves, [`crate::store::FORMAT`].
    pub format: u32,
    /// Digest (blake3, hex) of everything that determines the stage's result.
    pub id: String,
    /// What is to be done.
    pub stage: AnyStage,
    /// Directory that relative paths of a data set are taken from.
    #[serde(with = "crate::any_path")]
    pub base: PathBuf,
    /// Digest of the data set's contents.
    pub data_digest: String,
}

/// One combination of the axes, with one seed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// Digest of the ids of its measuring jobs (first 8 digits are shown).
    pub id: String,
    /// Its axes' values, as the report shows them: path to text. Every trial has every axis of the experiment.
    pub axes: BTreeMap<String, String>,
    /// The seed.
    pub seed: u64,
    /// The experiment file that is this trial alone, resolved, as RON over several lines.
    pub config: String,
    /// Digest of its resolved configuration without the seed: trials that have it in common repeat one another.
    pub configuration: String,
    /// Every resolved setting by its path, such as `tokenizer_training.lr`.
    pub settings: BTreeMap<String, String>,
    /// The jobs that it consists of, in an order in which they can run.
    pub jobs: Vec<String>,
}

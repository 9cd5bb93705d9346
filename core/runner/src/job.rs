//! What is to be done: trials, and the jobs that they share.
//!
//! A job is one stage of one or more trials. Its id is the digest of everything that determines its result, so that
//! equal work has one id, is done once, and is found again by any later experiment.

use crate::settings::{Evaluation, PriorTraining, TokenizerTraining};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A component as an experiment calls it, resolved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Call {
    /// The component's name.
    pub name: String,
    /// Its configuration with all defaults filled in, without the name: `(depth:4,codebook:512,...)`.
    pub config: String,
    /// Digest of the plugin's file.
    pub plugin: String,
}

/// One stage's work.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Stage {
    /// Trains the small classifier whose features quality is measured on. Depends on the data alone.
    Classifier {
        /// The data set.
        data: Call,
        /// Training steps.
        steps: u64,
    },
    /// Trains autoencoder and quantizer.
    Tokenizer {
        /// The data set.
        data: Call,
        /// The autoencoder.
        autoencoder: Call,
        /// The quantizer, built once for every level of the autoencoder.
        quantizer: Call,
        /// How.
        training: TokenizerTraining,
        /// Of initial values, batches and augmentation.
        seed: u64,
    },
    /// Encodes the training images once, for the prior.
    Codes {
        /// The tokenizer's job.
        tokenizer: String,
        /// Images that are encoded; none for all.
        images: Option<usize>,
    },
    /// Trains the prior.
    Prior {
        /// The tokenizer's job.
        tokenizer: String,
        /// The codes' job.
        codes: String,
        /// The prior.
        prior: Call,
        /// How.
        training: PriorTraining,
        /// Of initial values, batches and draws.
        seed: u64,
    },
    /// Measures a tokenizer on the test split.
    Reconstruction {
        /// The tokenizer's job.
        tokenizer: String,
        /// The classifier's job; none for data without classes.
        classifier: Option<String>,
        /// What is measured.
        evaluation: Evaluation,
    },
    /// Measures a prior: likelihood, samples, speed.
    Generation {
        /// The tokenizer's job.
        tokenizer: String,
        /// The prior's job.
        prior: String,
        /// The classifier's job; none for data without classes.
        classifier: Option<String>,
        /// What is measured.
        evaluation: Evaluation,
    },
}

impl Stage {
    /// The name in progress bars, logs and directories.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Classifier { .. } => "classifier",
            Self::Tokenizer { .. } => "tokenizer",
            Self::Codes { .. } => "codes",
            Self::Prior { .. } => "prior",
            Self::Reconstruction { .. } => "reconstruction",
            Self::Generation { .. } => "generation",
        }
    }

    /// The jobs that must be done before.
    pub fn needs(&self) -> Vec<&str> {
        match self {
            Self::Classifier { .. } | Self::Tokenizer { .. } => vec![],
            Self::Codes { tokenizer, .. } => vec![tokenizer],
            Self::Prior { tokenizer, codes, .. } => vec![tokenizer, codes],
            Self::Reconstruction { tokenizer, classifier, .. } => {
                [Some(tokenizer), classifier.as_ref()].into_iter().flatten().map(String::as_str).collect()
            }
            Self::Generation { tokenizer, prior, classifier, .. } => {
                [Some(tokenizer), Some(prior), classifier.as_ref()].into_iter().flatten().map(String::as_str).collect()
            }
        }
    }
}

/// A stage with its name in the store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Digest (blake3, hex) of the stage, of the digests of its data, and of the format of results.
    pub id: String,
    /// What is to be done.
    pub stage: Stage,
    /// Directory that relative paths of a data set are taken from.
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
    /// The jobs that it consists of, in an order in which they can run.
    pub jobs: Vec<String>,
}

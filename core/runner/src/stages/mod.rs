//! What a job does. One file a stage, on models that plugins build.
//!
//! A stage reads the results of the stages that it stands on, works, and leaves `result.safetensors` and its measures.
//! Training checkpoints as it goes, and goes on from the last checkpoint; the result is the same as without a break.

mod classifier;
mod codes;
mod data;
mod features;
mod generation;
mod means;
mod model;
mod prior;
mod reconstruction;
mod tokenizer;
mod train;

pub use model::{Tokenizer, load_prior, load_tokenizer, open_dataset};

use crate::job::{Job, Stage};
use crate::jobs::Reporter;
use crate::plugins::Plugins;
use crate::store::{Done, StageDir, Store};
use rqlab_sdk::Result;

/// What a stage works with.
pub struct Context<'a> {
    store: &'a Store,
    job: &'a Job,
    plugins: &'a Plugins,
    reporter: &'a mut Reporter,
}

impl Context<'_> {
    fn dir(&self) -> StageDir {
        self.store.stage(&self.job.id)
    }
}

/// Does a job.
///
/// # Errors
/// Whatever its stage could not do.
pub fn run(store: &Store, job: &Job, plugins: &Plugins, reporter: &mut Reporter) -> Result<Done> {
    let mut cx = Context { store, job, plugins, reporter };
    match &job.stage {
        Stage::Classifier { data, steps } => classifier::run(&mut cx, data, *steps),
        Stage::Tokenizer { data, autoencoder, quantizer, training, seed } => {
            tokenizer::run(&mut cx, data, (autoencoder, quantizer), training, *seed)
        }
        Stage::Codes { tokenizer, images } => codes::run(&mut cx, tokenizer, *images),
        Stage::Prior { tokenizer, codes, prior, training, seed } => {
            prior::run(&mut cx, tokenizer, codes, prior, training, *seed)
        }
        Stage::Reconstruction { tokenizer, classifier, evaluation } => {
            reconstruction::run(&mut cx, tokenizer, classifier.as_deref(), evaluation)
        }
        Stage::Generation { tokenizer, prior, classifier, evaluation } => {
            generation::run(&mut cx, tokenizer, prior, classifier.as_deref(), evaluation)
        }
    }
}

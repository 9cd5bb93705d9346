//! The last pass: the stages of each combination with each seed, and their names.

use super::dry::Measured;
use super::{Combination, Resolved, text};
use crate::identity;
use crate::job::{Job, Trial};
use crate::settings::Evaluation;
use crate::spec::document::Document;
use crate::stages::{
    AnyStage, DescribeReference, EncodeTokens, MeasurePrior, MeasureTokenizer, Stage, TrainClassifier, TrainPrior,
    TrainTokenizer, of_level,
};
use crate::store::FORMAT;
use rqlab_sdk::config::Config;
use rqlab_sdk::{Error, Result};

/// Jobs as they are thought of.
struct Jobs<'a> {
    resolved: &'a Resolved,
    measured: &'a Measured,
    list: Vec<Job>,
}

impl Jobs<'_> {
    /// Adds a stage, and returns its name.
    fn add(&mut self, stage: impl Stage) -> Result<String> {
        let data_digest = self.measured.data_digest.clone();
        let id = identity::of_stage(&stage, &data_digest)?;
        let base = self.resolved.base.clone();
        self.list.push(Job { format: FORMAT, id: id.clone(), stage: AnyStage::new(stage), base, data_digest });
        Ok(id)
    }
}

/// The stages of one combination with one seed.
///
/// # Errors
/// A setting that cannot be written as text.
pub(super) fn of_trial(
    document: &Document,
    combination: &Combination,
    resolved: &Resolved,
    measured: &Measured,
    seed: u64,
) -> Result<(Trial, Vec<Job>)> {
    let mut jobs = Jobs { resolved, measured, list: Vec::new() };
    let (evaluation, data) = (&resolved.evaluation, &resolved.data);
    let features = if measured.model.classes.len() >= 2 {
        let precision = evaluation.precision;
        let steps = evaluation.classifier_steps;
        let classifier = jobs.add(TrainClassifier { data: data.clone(), steps, precision })?;
        let reference = DescribeReference {
            data: data.clone(),
            classifier: classifier.clone(),
            images: evaluation.images,
            precision,
        };
        let reference = jobs.add(reference)?;
        Some([classifier, reference])
    } else {
        None
    };
    let training = &resolved.tokenizer_training;
    let tokenizer = jobs.add(TrainTokenizer {
        data: data.clone(),
        autoencoder: resolved.autoencoder.clone(),
        quantizers: resolved.quantizers.clone(),
        objectives: resolved.objectives.clone(),
        training: training.clone(),
        seed,
    })?;
    let mut measuring = vec![jobs.add(MeasureTokenizer {
        tokenizer: tokenizer.clone(),
        features: features.clone(),
        evaluation: of_reconstruction(evaluation),
    })?];
    if !resolved.priors.is_empty() {
        let tokens = jobs.add(EncodeTokens {
            tokenizer: tokenizer.clone(),
            images: resolved.prior_training.images,
            latents: measured.model.latents,
            precision: training.precision,
        })?;
        let mut priors = Vec::new();
        for level in 0..measured.model.levels.len() {
            priors.push(jobs.add(TrainPrior {
                tokenizer: tokenizer.clone(),
                tokens: tokens.clone(),
                level,
                prior: of_level(&resolved.priors, level)?.clone(),
                training: resolved.prior_training.clone(),
                seed,
            })?);
        }
        measuring.push(jobs.add(MeasurePrior { tokenizer, priors, features, evaluation: evaluation.clone() })?);
    }
    let trial = Trial {
        id: identity::digest(&measuring),
        axes: combination.axes.clone(),
        seed,
        config: text::of_trial(document, resolved, seed),
        jobs: jobs.list.iter().map(|job| job.id.clone()).collect(),
    };
    Ok((trial, jobs.list))
}

/// The settings that a reconstruction's measures depend on, the others at their defaults: drawing more samples does not
/// measure the tokenizer again.
fn of_reconstruction(evaluation: &Evaluation) -> Evaluation {
    let Ok(defaults) = Evaluation::parse("()").map_err(Error::from) else { return evaluation.clone() };
    Evaluation {
        images: evaluation.images,
        pictures: evaluation.pictures,
        classifier_steps: evaluation.classifier_steps,
        precision: evaluation.precision,
        ..defaults
    }
}

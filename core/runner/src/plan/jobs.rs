//! The fifth pass: the stages of each combination with each seed, and their ids.

use super::axes::{CASE, NOT_APPLICABLE};
use super::components::Resolved;
use super::left_out;
use super::models::{Measured, Model, Modelled};
use super::setups::Combination;
use crate::experiment::document::Document;
use crate::experiment::{Complaints, Diagnostic, Piece};
use crate::id::Id;
use crate::identity;
use crate::job::{Call, Job, Trial};
use crate::settings::{Evaluation, PriorTraining, TokenizerTraining};
use crate::stages::{
    AnyStage, Captioned, DescribeForProtocol, DescribeReference, DescribeTraining, EncodeCaptions, EncodeTokens,
    MeasureByProtocol, MeasurePerturbation, MeasurePrior, MeasureSamplesByProtocol, MeasureTokenizer, Stage,
    TrainAttributes, TrainClassifier, TrainPrior, TrainTokenizer, Variants, of_level,
};
use crate::store::FORMAT;
use rqlab_reports::Protocol;
use rqlab_sdk::config::{Config, Scope};
use rqlab_sdk::{Error, Result};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// What is to be done.
#[derive(Default)]
pub(super) struct Planned {
    /// The trials, each once.
    pub(super) trials: Vec<Trial>,
    /// The jobs, each once, in an order in which they can run.
    pub(super) jobs: Vec<Job>,
    /// The models of each trial, by its id.
    pub(super) models: HashMap<Id, Arc<Model>>,
    /// Where in `jobs` the job of an id stands.
    pub(super) places: HashMap<Id, usize>,
    /// Images and weights that are not on this machine, each place once.
    pub(super) absent: Vec<Diagnostic>,
    /// Measures that images or samples are too few for, a sentence for each reason.
    pub(super) left_out: Vec<String>,
}

/// The trials and jobs of all combinations with all seeds.
pub(super) fn of(document: &Document, modelled: Vec<Modelled>, complaints: &mut Complaints) -> Planned {
    let mut planned = Planned::default();
    left_out::find(document, &modelled).into_iter().for_each(|found| complaints.push(found));
    planned.left_out = left_out::too_few(&modelled);
    let (mut trials, mut absent) = (HashMap::new(), HashSet::new());
    for Modelled { combination, resolved, measured } in modelled {
        planned.absent.extend(measured.absent.iter().filter(|one| absent.insert((*one).clone())).cloned());
        let case = combination.case.clone();
        let found = Found::of(combination, resolved, measured).map_err(|error| Diagnostic::error(error.to_string()));
        let Some(found) = complaints.take(found) else { continue };
        for &seed in &document.seeds {
            let of_trial = of_trial(&found, seed).map_err(|error| Diagnostic::error(error.to_string()));
            let Some((trial, jobs)) = complaints.take(of_trial) else { continue };
            match trials.get(&trial.id).and_then(|&place: &usize| planned.trials.get_mut(place)) {
                Some(other) => same_trial(other, &trial, case.as_ref(), complaints),
                None => {
                    trials.insert(trial.id.clone(), planned.trials.len());
                    planned.models.insert(trial.id.clone(), found.measured.model.clone());
                    planned.trials.push(trial);
                }
            }
            for job in jobs {
                planned.places.entry(job.id.clone()).or_insert_with(|| {
                    planned.jobs.push(job);
                    planned.jobs.len() - 1
                });
            }
        }
    }
    planned
}

/// What is known of a combination whatever the seed.
struct Found {
    resolved: Arc<Resolved>,
    measured: Measured,
    configuration: Id,
    axes: Arc<BTreeMap<String, String>>,
}

impl Found {
    fn of(combination: Combination, resolved: Resolved, measured: Measured) -> Result<Self> {
        let configuration = configuration(&resolved, &measured.digest)?;
        Ok(Self { resolved: Arc::new(resolved), measured, configuration, axes: Arc::new(combination.axes) })
    }
}

/// Two blocks of a sweep meet in one trial: it counts once.
fn same_trial(first: &mut Trial, second: &Trial, case: Option<&Piece>, complaints: &mut Complaints) {
    let (Some(name), Some(other)) = (case, first.axes.get(CASE).cloned()) else { return };
    if other == NOT_APPLICABLE {
        Arc::make_mut(&mut first.axes).insert(CASE.to_owned(), second.axes.get(CASE).cloned().unwrap_or_default());
    } else if other != name.text() {
        complaints.push(
            Diagnostic::warning(format!("the case `{}` is the same as `{other}`", name.text()))
                .at(name, "")
                .help(format!("both give equal trials, which count once, as `{other}`")),
        );
    }
}

/// Jobs as they are thought of.
struct Jobs<'a> {
    resolved: &'a Resolved,
    measured: &'a Measured,
    list: Vec<Job>,
}

impl Jobs<'_> {
    /// Adds a stage, and returns its id.
    fn add(&mut self, stage: impl Stage) -> Result<Id> {
        let data_digest = self.measured.digest.clone();
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
fn of_trial(found: &Found, seed: u64) -> Result<(Trial, Vec<Job>)> {
    let Found { resolved, measured, .. } = found;
    let mut jobs = Jobs { resolved, measured, list: Vec::new() };
    let (evaluation, data) = (&resolved.evaluation.all, &resolved.data);
    let features = if measured.model.data.info.classes.len() >= 2 {
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
        quantizers: resolved.quantizers.to_vec(),
        objectives: resolved.objectives.to_vec(),
        classifier: features.as_ref().map(|[classifier, _]| classifier.clone()).filter(|_| measured.model.classifier),
        training: TokenizerTraining::clone(training),
        from: resolved.tokenizer_from.clone(),
        seed,
    })?;
    let mut measuring = vec![jobs.add(MeasureTokenizer {
        tokenizer: tokenizer.clone(),
        features: features.clone(),
        evaluation: resolved.evaluation.of_reconstruction.clone(),
    })?];
    let mut generation = None;
    if !resolved.priors.is_empty() {
        let priors = of_priors(&mut jobs, &tokenizer, &resolved.priors, &resolved.prior_training, seed, false)?;
        let training = jobs.add(DescribeTraining {
            data: data.clone(),
            classifier: features.as_ref().map(|[classifier, _]| classifier.clone()),
            images: learnt_from(&jobs, &resolved.prior_training),
            precision: evaluation.precision,
        })?;
        let (tokenizer, features, training) = (tokenizer.clone(), features.clone(), Some(training));
        let evaluation = resolved.evaluation.of_generation.clone();
        let (calls, attributes) = (resolved.priors.to_vec(), attributes(&mut jobs)?);
        let drawn = MeasurePrior { tokenizer, priors, calls, features, attributes, training, evaluation, probe: false };
        generation = Some(jobs.add(drawn)?);
        measuring.extend(generation.clone());
    }
    for protocol in evaluation.published_protocols() {
        if let Some(generation) = &generation {
            measuring.extend(samples_by_protocol(&mut jobs, &tokenizer, generation, protocol)?);
        }
        let weights = |setting| evaluation.weights(setting, &resolved.base);
        measuring.push(jobs.add(MeasureByProtocol {
            tokenizer: tokenizer.clone(),
            protocol,
            extractor: weights(Evaluation::extractor_setting(protocol)),
            lpips: weights("lpips"),
            images: evaluation.images,
            precision: evaluation.precision,
        })?);
    }
    measuring.extend(predictors(&mut jobs, &tokenizer, features.as_ref(), seed)?);
    let trial = Trial {
        id: identity::digest(&measuring),
        configuration: found.configuration.clone(),
        axes: found.axes.clone(),
        seed,
        resolved: resolved.clone(),
        jobs: jobs.list.iter().map(|job| job.id.clone()).collect(),
    };
    Ok((trial, jobs.list))
}

/// The digest of what a combination asks for, whatever the seed and wherever its data lie.
fn configuration(resolved: &Resolved, data: &str) -> Result<Id> {
    let calls = |calls: &[Call]| calls.iter().map(|call| format!("{}{}", call.name, call.sampled)).collect::<String>();
    Ok(identity::digest(&[
        data.to_owned(),
        calls(std::slice::from_ref(&resolved.data)),
        calls(std::slice::from_ref(&resolved.autoencoder)),
        calls(&resolved.quantizers),
        calls(&resolved.priors),
        calls(&resolved.objectives),
        serde_json::json!([
            resolved.tokenizer_training.identity(Scope::Sampling)?,
            resolved.prior_training.identity(Scope::Sampling)?,
            resolved.evaluation.all.identity(Scope::Sampling)?,
        ])
        .to_string(),
    ]))
}

/// A protocol's measures of samples; none where the weights of its network are not given.
fn samples_by_protocol(jobs: &mut Jobs<'_>, tokenizer: &Id, generation: &Id, protocol: Protocol) -> Result<Option<Id>> {
    let resolved = jobs.resolved;
    let evaluation = &resolved.evaluation.all;
    let Some(extractor) = evaluation.weights(Evaluation::extractor_setting(protocol), &resolved.base) else {
        return Ok(None);
    };
    let precision = evaluation.precision;
    let images = evaluation.protocol_references.unwrap_or(usize::MAX).min(jobs.measured.model.data.info.train);
    let (data, weights) = (resolved.data.clone(), extractor.clone());
    let reference = jobs.add(DescribeForProtocol { data, protocol, extractor: weights, images, precision })?;
    let (tokenizer, generation) = (tokenizer.clone(), generation.clone());
    let samples = [evaluation.samples, evaluation.sampling_seeds.len()];
    let stage = MeasureSamplesByProtocol { tokenizer, generation, reference, protocol, extractor, samples, precision };
    Ok(Some(jobs.add(stage)?))
}

/// The classifier of what captions name, where priors are told some that name something.
fn attributes(jobs: &mut Jobs<'_>) -> Result<Option<Id>> {
    let (data, evaluation) = (jobs.resolved.data.clone(), &jobs.resolved.evaluation.all);
    if jobs.measured.model.attributes == 0 {
        return Ok(None);
    }
    let (steps, precision) = (evaluation.classifier_steps, evaluation.precision);
    jobs.add(TrainAttributes { data, steps, precision }).map(Some)
}

/// The tokens of the captions that priors are told, if they are told some.
fn captions(jobs: &mut Jobs<'_>, training: &PriorTraining) -> Result<Option<Captioned>> {
    let Some(text) = jobs.measured.model.text else { return Ok(None) };
    let job = jobs.add(EncodeCaptions {
        data: jobs.resolved.data.clone(),
        images: learnt_from(jobs, training),
        length: training.text_length,
        vocabulary: training.text_vocabulary,
        tokenizer: jobs.resolved.text_tokenizer.as_ref().map(|(file, _)| file.clone()),
    })?;
    Ok(Some(Captioned { job, text }))
}

/// How many training images priors learn from.
fn learnt_from(jobs: &Jobs<'_>, training: &PriorTraining) -> usize {
    training.images.unwrap_or(usize::MAX).min(jobs.measured.model.data.info.train)
}

/// The priors of all levels, trained on the tokenizer's tokens: their ids.
fn of_priors(
    jobs: &mut Jobs<'_>,
    tokenizer: &Id,
    calls: &[Call],
    training: &PriorTraining,
    seed: u64,
    probe: bool,
) -> Result<Vec<Id>> {
    let (resolved, model) = (jobs.resolved, &jobs.measured.model);
    let tokens = jobs.add(EncodeTokens {
        tokenizer: tokenizer.clone(),
        images: learnt_from(jobs, training),
        latents: model.latents && !probe,
        variants: Variants::of(training.augmentation, model.variants),
        precision: resolved.tokenizer_training.precision,
    })?;
    let captions = if probe { None } else { captions(jobs, training)? };
    let prior = |level| {
        jobs.add(TrainPrior {
            tokenizer: tokenizer.clone(),
            tokens: tokens.clone(),
            level,
            prior: of_level(calls, level)?.clone(),
            training: training.clone(),
            from: resolved.prior_from.get(level).filter(|_| !probe).cloned(),
            captions: captions.clone(),
            seed,
            probe,
        })
    };
    (0..model.levels.len()).map(prior).collect()
}

/// The measures of a tokenizer that tell how well a prior will do on it: images of perturbed codes, and a small prior that is
/// the same for all tokenizers. They are of codes.
fn predictors(jobs: &mut Jobs<'_>, tokenizer: &Id, features: Option<&[Id; 2]>, seed: u64) -> Result<Vec<Id>> {
    let (resolved, mut ids) = (jobs.resolved, Vec::new());
    let evaluation = &resolved.evaluation.all;
    if !of_codes(&jobs.measured.model) {
        return Ok(ids);
    }
    if let (Some(features), false) = (features, evaluation.perturbation.is_empty()) {
        let evaluation = resolved.evaluation.of_perturbation.clone();
        let (tokenizer, features) = (tokenizer.clone(), features.clone());
        ids.push(jobs.add(MeasurePerturbation { tokenizer, features, evaluation })?);
    }
    if let Some(probe) = &resolved.probe {
        let text = format!("(steps: {}, batch: 32, lr: 3e-3)", evaluation.probe_steps);
        let training = PriorTraining::parse(&text).map_err(Error::from)?;
        let training = PriorTraining { precision: evaluation.precision, ..training };
        let priors = of_priors(jobs, tokenizer, std::slice::from_ref(probe), &training, seed, true)?;
        let evaluation = resolved.evaluation.of_probe.clone();
        let (tokenizer, features) = (tokenizer.clone(), features.cloned());
        let (calls, attributes, training) = (vec![], None, None);
        let probed = MeasurePrior { tokenizer, priors, calls, features, attributes, training, evaluation, probe: true };
        ids.push(jobs.add(probed)?);
    }
    Ok(ids)
}

/// Whether all tokens are codes.
pub(super) fn of_codes(model: &Model) -> bool {
    model.levels.iter().all(|level| level.code_space().is_some())
}

//! `rqlab plan --json`: the plan for programs.

use crate::experiment::Diagnostic;
use crate::job::{Job, Trial};
use crate::plan::estimate::{Forecast, History};
use crate::plan::{Model, NOT_APPLICABLE, Plan, disk, memory};
use crate::store::Store;
use rqlab_sdk::{Error, Result};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A plan as JSON.
#[derive(Serialize)]
struct Planned<'a> {
    /// The experiment's name, file and question.
    name: &'a str,
    file: &'a Path,
    question: &'a str,
    /// What the command line changed.
    changed: &'a [String],
    seeds: &'a [u64],
    axes: Vec<Axis<'a>>,
    trials: Vec<OfTrial<'a>>,
    jobs: Vec<OfJob<'a>>,
    /// What is probably not meant.
    warnings: Vec<&'a str>,
    /// Data that are not on this machine.
    absent: Vec<&'a str>,
    /// Bytes of memory that the largest trial takes at least.
    memory_bytes: u64,
    /// Bytes on disk that what is not done yet takes at least.
    disk_bytes: u64,
    /// Seconds of work that is left, one job at a time, as far as is known, and the number of jobs of which nothing is known.
    seconds: f64,
    jobs_of_unknown_length: usize,
}

#[derive(Serialize)]
struct Axis<'a> {
    path: &'a str,
    values: &'a [String],
}

#[derive(Serialize)]
struct OfTrial<'a> {
    id: &'a str,
    name: String,
    seed: u64,
    /// The value of each axis that means something to it, by its path.
    axes: BTreeMap<&'a str, &'a str>,
    jobs: Vec<&'a str>,
    is_done: bool,
    #[serde(flatten)]
    model: Option<OfModel>,
}

#[derive(Serialize)]
struct OfModel {
    autoencoder_parameters: usize,
    quantizer_parameters: usize,
    prior_parameters: Option<usize>,
    nominal_bits: Option<f64>,
}

#[derive(Serialize)]
struct OfJob<'a> {
    id: &'a str,
    stage: &'static str,
    /// The jobs that must be done before.
    needs: Vec<&'a str>,
    is_done: bool,
    /// Why its result cannot be used, though it is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    damage: Option<&'a str>,
    /// Seconds that it will take, if anything like it was done before.
    seconds: Option<f64>,
    folder: PathBuf,
}

/// The plan in JSON, where so many ranks train together.
///
/// # Errors
/// JSON cannot hold it, such as a path that is no text.
pub(super) fn text<'a>(plan: &'a Plan, history: &'a History, runs: &Path, ranks: usize) -> Result<String> {
    let (experiment, forecast) = (&plan.experiment, history.forecast(plan));
    let store = Store::at(runs);
    let estimate = forecast.estimate(&plan.jobs);
    let messages = |list: &'a [Diagnostic]| list.iter().map(|one| one.message.as_str()).collect();
    let planned = Planned {
        name: &experiment.name,
        file: &experiment.path,
        question: &experiment.question,
        changed: &experiment.changed,
        seeds: &experiment.seeds,
        axes: experiment.axes.iter().map(|axis| Axis { path: &axis.path, values: &axis.values }).collect(),
        trials: plan.trials.iter().map(|trial| of_trial(plan, trial, history)).collect(),
        jobs: plan.jobs.iter().map(|job| of_job(job, history, &forecast, &store)).collect(),
        warnings: messages(&plan.warnings),
        absent: messages(&plan.absent),
        memory_bytes: memory::most(plan, ranks) as u64,
        disk_bytes: disk::needed(plan, |job| history.is_done(job)) as u64,
        seconds: estimate.seconds,
        jobs_of_unknown_length: estimate.unknown,
    };
    serde_json::to_string_pretty(&planned).map_err(|error| Error::Data(format!("the plan cannot be written: {error}")))
}

fn of_trial<'a>(plan: &'a Plan, trial: &'a Trial, history: &History) -> OfTrial<'a> {
    let axes = trial.axes.iter().filter(|(_, value)| *value != NOT_APPLICABLE);
    let of_model = |model: &Model| OfModel {
        autoencoder_parameters: model.autoencoder,
        quantizer_parameters: model.quantizer,
        prior_parameters: model.prior,
        nominal_bits: model.nominal_bits(),
    };
    OfTrial {
        id: &trial.id,
        name: plan.experiment.name_of(trial),
        seed: trial.seed,
        axes: axes.map(|(path, value)| (path.as_str(), value.as_str())).collect(),
        jobs: trial.jobs.iter().map(|id| &**id).collect(),
        is_done: trial.jobs.iter().all(|id| plan.job(id).is_some_and(|job| history.is_done(job))),
        model: plan.models.get(&trial.id).map(|model| of_model(model)),
    }
}

fn of_job<'a>(job: &'a Job, history: &'a History, forecast: &Forecast<'_>, store: &Store) -> OfJob<'a> {
    OfJob {
        id: &job.id,
        stage: job.stage.name(),
        needs: job.stage.needs(),
        is_done: history.is_done(job),
        damage: history.unusable(job),
        seconds: forecast.seconds(job),
        folder: store.stage(&job.id).folder().to_owned(),
    }
}

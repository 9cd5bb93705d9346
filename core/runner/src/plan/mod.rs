//! From an experiment to what is to be done: trials, and the jobs that they share.
//!
//! Everything that can be wrong is found here, before any work: every component is resolved and built once on a store
//! of parameters that only counts.

mod catalog;
mod dry;
pub mod estimate;
mod expand;
mod jobs;
mod text;

pub use dry::Model;
pub use expand::NOT_APPLICABLE;

use crate::job::{Call, Job, Trial};
use crate::plugins::Plugins;
use crate::settings::{Evaluation, PriorTraining, TokenizerTraining};
use crate::spec::component::{Setup, Slot};
use crate::spec::diagnostic::{Complaints, Diagnostic, Invalid, Severity};
use crate::spec::document::Document;
use crate::spec::{find, read};
use catalog::Catalog;
use expand::Combination;
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

/// What an experiment is about, for plans and reports.
#[derive(Debug, Clone, PartialEq)]
pub struct Experiment {
    /// The stem of its file.
    pub name: String,
    /// Its file.
    pub path: PathBuf,
    /// The question.
    pub question: String,
    /// The comment at the head of the file.
    pub header: String,
    /// What varies.
    pub axes: Vec<Axis>,
    /// The seeds.
    pub seeds: Vec<u64>,
    /// The measure in the foreground.
    pub headline: String,
    /// What the report is to judge.
    pub comparisons: Vec<Comparison>,
    /// What the command line set, as `path=value`.
    pub overrides: Vec<String>,
}

/// What varies, and the values that occur, as in [`Trial::axes`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Axis {
    /// The path, or `case`.
    pub path: String,
    /// The values in the order in which they are written.
    pub values: Vec<String>,
}

/// A comparison, its values as in [`Trial::axes`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comparison {
    /// The measure.
    pub metric: String,
    /// The axis.
    pub along: String,
    /// From this value of it.
    pub from: String,
    /// To this one.
    pub to: String,
    /// Other axes at fixed values.
    pub at: BTreeMap<String, String>,
}

/// What is to be done.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What it is about.
    pub experiment: Experiment,
    /// The trials, each once.
    pub trials: Vec<Trial>,
    /// The jobs, each once, in an order in which they can run.
    pub jobs: Vec<Job>,
    /// The models of each trial, by its id.
    pub models: BTreeMap<String, Model>,
    /// What is probably not meant.
    pub warnings: Vec<Diagnostic>,
    /// Data that are not on this machine: it can be planned, not worked on. Each place once.
    pub absent: Vec<Diagnostic>,
}

impl Plan {
    /// The job of that id.
    pub fn job(&self, id: &str) -> Option<&Job> {
        self.jobs.iter().find(|job| job.id == id)
    }
}

/// Finds, reads and plans an experiment: what every command that takes an experiment begins with.
///
/// # Errors
/// Everything that is wrong with it.
pub fn open(name: &str, set: &[String], seeds: Option<&[u64]>, plugins: &Plugins) -> Result<Plan, Invalid> {
    let path = find(name)?;
    let (document, warnings) = read(&path, set, seeds)?;
    let mut plan = plan(&document, plugins)?;
    plan.warnings.splice(0..0, warnings);
    Ok(plan)
}

/// What one combination asks for, resolved.
struct Resolved {
    data: Call,
    autoencoder: Call,
    /// One per level, or one for all.
    quantizers: Vec<Call>,
    /// One per level, or one for all; empty if there is no prior.
    priors: Vec<Call>,
    objectives: Vec<Call>,
    tokenizer_training: TokenizerTraining,
    prior_training: PriorTraining,
    evaluation: Evaluation,
    base: PathBuf,
}

/// Plans an experiment.
///
/// # Errors
/// Everything that its components, its axes or its conditions object to.
pub fn plan(document: &Document, plugins: &Plugins) -> Result<Plan, Invalid> {
    let catalog = Catalog::new(plugins);
    let mut complaints = Complaints::default();
    let expanded = expand::expand(document, &catalog, &mut complaints);
    let mut ready: Vec<(Combination, Resolved, dry::Measured)> = Vec::new();
    let mut builder = dry::Builder::new(plugins);
    for combination in expanded.combinations {
        let Some(resolved) = resolve(&combination.setup, &catalog, &mut complaints) else { continue };
        match builder.build(&combination.setup, &resolved) {
            Ok(measured) => ready.push((combination, resolved, measured)),
            Err(diagnostic) => complaints.push(diagnostic),
        }
    }
    let comparisons = expand::comparisons(document, &expanded.axes, &mut complaints);
    let headline = document.headline.as_ref().map_or("psnr".to_owned(), |piece| piece.text().to_owned());
    let mut plan = Plan {
        experiment: Experiment {
            name: document.name.clone(),
            path: document.path.clone(),
            question: document.question.clone(),
            header: document.header.clone(),
            axes: expanded.axes,
            seeds: document.seeds.clone(),
            headline,
            comparisons,
            overrides: document.overrides.iter().map(|o| format!("{}={}", o.path.text(), o.value.text())).collect(),
        },
        trials: vec![],
        jobs: vec![],
        models: BTreeMap::new(),
        warnings: vec![],
        absent: vec![],
    };
    let mut known = HashSet::new();
    for (combination, resolved, measured) in &ready {
        plan.absent
            .extend(measured.absent.iter().filter(|absent| !plan.absent.contains(absent)).cloned().collect::<Vec<_>>());
        for &seed in &document.seeds {
            let (trial, jobs) = match jobs::of_trial(document, combination, resolved, measured, seed) {
                Ok(planned) => planned,
                Err(error) => {
                    complaints.push(Diagnostic::error(error.to_string()));
                    continue;
                }
            };
            match plan.trials.iter_mut().find(|other| other.id == trial.id) {
                Some(other) => same_trial(other, &trial, &combination.case, &mut complaints),
                None => {
                    plan.models.insert(trial.id.clone(), measured.model.clone());
                    plan.trials.push(trial);
                }
            }
            plan.jobs.extend(jobs.into_iter().filter(|job| known.insert(job.id.clone())));
        }
    }
    plan.warnings = complaints.finish()?;
    Ok(plan)
}

/// Two blocks of a sweep meet in one trial: it counts once.
fn same_trial(
    first: &mut Trial,
    second: &Trial,
    case: &Option<crate::spec::source::Piece>,
    complaints: &mut Complaints,
) {
    const CASE: &str = "case";
    let (Some(name), Some(other)) = (case, first.axes.get(CASE).cloned()) else { return };
    if other == NOT_APPLICABLE {
        first.axes.insert(CASE.to_owned(), second.axes.get(CASE).cloned().unwrap_or_default());
    } else if other != name.text() {
        complaints.push(
            Diagnostic::warning(format!("the case `{}` is the same as `{other}`", name.text()))
                .at(name, "")
                .help(format!("both give equal trials, which count once, as `{other}`")),
        );
    }
}

fn resolve(setup: &Setup, catalog: &Catalog, complaints: &mut Complaints) -> Option<Resolved> {
    let data = catalog.call(setup, Slot::Data, complaints);
    let autoencoder = catalog.call(setup, Slot::Autoencoder, complaints);
    let quantizer = catalog.call(setup, Slot::Quantizer, complaints);
    let prior = setup.get(Slot::Prior).map(|_| catalog.call(setup, Slot::Prior, complaints));
    let tokenizer_training = catalog.settings::<TokenizerTraining>(setup, Slot::TokenizerTraining, complaints);
    let prior_training = catalog.settings::<PriorTraining>(setup, Slot::PriorTraining, complaints);
    if let (Some(training), Some(written)) = (&tokenizer_training, setup.get(Slot::TokenizerTraining))
        && training.quantize_after >= training.steps
    {
        let (after, steps) = (training.quantize_after, training.steps);
        let message = format!("no step trains the quantizer: it starts after {after} steps of {steps}");
        let field = ["quantize_after", "steps"].into_iter().find(|field| written.field(field).is_some());
        complaints.push(Diagnostic { severity: Severity::Warning, ..written.complaint(field, &message) });
    }
    let evaluation = catalog.settings::<Evaluation>(setup, Slot::Evaluation, complaints);
    let priors = match prior {
        Some(call) => vec![call?],
        None => vec![],
    };
    let objectives = catalog.call(setup, Slot::Objective, complaints);
    Some(Resolved {
        data: data?,
        autoencoder: autoencoder?,
        quantizers: vec![quantizer?],
        priors,
        objectives: vec![objectives?],
        tokenizer_training: tokenizer_training?,
        prior_training: prior_training?,
        evaluation: evaluation?,
        base: base(setup),
    })
}

/// Where the data set's relative paths start: where its `path` is written, or else its call.
fn base(setup: &Setup) -> PathBuf {
    let data = setup.get(Slot::Data);
    let origin = data.and_then(|data| data.field("path").map(|e| &e.value).or(Some(&data.whole)));
    let dir = origin.map_or(Path::new(""), |piece| piece.source.dir.as_path());
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    std::fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned())
}

//! From an experiment to what is to be done: trials, and the jobs that they share.
//!
//! Everything that can be wrong is found here, before any work: every component is resolved and built once on a store
//! of parameters that only counts.

mod catalog;
mod dry;
pub mod estimate;
mod expand;
mod text;

pub use dry::{Model, quantizer_scope};
pub use expand::NOT_APPLICABLE;

use crate::job::{Call, Job, Stage, Trial};
use crate::plugins::Plugins;
use crate::settings::{Evaluation, PriorTraining, TokenizerTraining};
use crate::spec::component::{Setup, Slot};
use crate::spec::diagnostic::{Complaints, Diagnostic, Invalid, Severity};
use crate::spec::document::Document;
use crate::spec::{find, read};
use catalog::Catalog;
use expand::Combination;
use rqlab_sdk::config::Config;
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

/// Goes into every id: a change of what stages do to equal input must change it.
const FORMAT: &str = "rqlab results 1";

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
#[derive(Debug, Clone, PartialEq)]
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
    quantizer: Call,
    prior: Option<Call>,
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
            let (trial, jobs) = trial(document, combination, resolved, measured, seed);
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
    let prior = match prior {
        Some(call) => Some(call?),
        None => None,
    };
    Some(Resolved {
        data: data?,
        autoencoder: autoencoder?,
        quantizer: quantizer?,
        prior,
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

/// The stages of one combination with one seed.
fn trial(
    document: &Document,
    combination: &Combination,
    resolved: &Resolved,
    measured: &dry::Measured,
    seed: u64,
) -> (Trial, Vec<Job>) {
    let mut jobs = Vec::new();
    let mut add = |stage: Stage| {
        let id = id(&stage, &measured.data_digest);
        let job = Job { id: id.clone(), stage, base: resolved.base.clone(), data_digest: measured.data_digest.clone() };
        jobs.push(job);
        id
    };
    let evaluation = &resolved.evaluation;
    let classifier = (measured.model.classes.len() >= 2)
        .then(|| add(Stage::Classifier { data: resolved.data.clone(), steps: evaluation.classifier_steps }));
    let tokenizer = add(Stage::Tokenizer {
        data: resolved.data.clone(),
        autoencoder: resolved.autoencoder.clone(),
        quantizer: resolved.quantizer.clone(),
        training: resolved.tokenizer_training.clone(),
        seed,
    });
    let reconstruction = Stage::Reconstruction {
        tokenizer: tokenizer.clone(),
        classifier: classifier.clone(),
        evaluation: of_reconstruction(evaluation),
    };
    let mut measuring = vec![add(reconstruction)];
    if let Some(prior) = &resolved.prior {
        let codes = add(Stage::Codes { tokenizer: tokenizer.clone(), images: resolved.prior_training.images });
        let prior = add(Stage::Prior {
            tokenizer: tokenizer.clone(),
            codes,
            prior: prior.clone(),
            training: resolved.prior_training.clone(),
            seed,
        });
        measuring.push(add(Stage::Generation { tokenizer, prior, classifier, evaluation: evaluation.clone() }));
    }
    let trial = Trial {
        id: digest(&measuring),
        axes: combination.axes.clone(),
        seed,
        config: text::of_trial(document, resolved, seed),
        jobs: jobs.iter().map(|job| job.id.clone()).collect(),
    };
    (trial, jobs)
}

/// The settings that a reconstruction's measures depend on, the others at their defaults: drawing more samples does not
/// measure the tokenizer again.
fn of_reconstruction(evaluation: &Evaluation) -> Evaluation {
    let Ok(defaults) = Evaluation::parse("()") else { return evaluation.clone() };
    Evaluation {
        images: evaluation.images,
        pictures: evaluation.pictures,
        classifier_steps: evaluation.classifier_steps,
        ..defaults
    }
}

/// A stage's name in the store.
fn id(stage: &Stage, data_digest: &str) -> String {
    // A stage is made of numbers, texts and lists: JSON can write all of them.
    let stage = serde_json::to_string(stage).unwrap_or_default();
    digest(&[FORMAT.to_owned(), stage, data_digest.to_owned()])
}

fn digest(parts: &[String]) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

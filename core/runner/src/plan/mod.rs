//! From an experiment to what is to be done: trials, and the jobs that they share.
//!
//! Everything that can be wrong is found here, before any work: every component is resolved and built once on a store
//! of parameters that only counts.
//!
//! A plan is made in five passes, each a function of what the one before gave: the text of the files becomes a
//! [`Document`] ([`experiment`](crate::experiment)); that becomes combinations of what all slots hold (`setups`); these
//! become resolved components and settings (`components`); these become models that only count (`models`); and these
//! become stages with their ids (`jobs`).

pub mod augmentation;
mod axes;
pub mod catalog;
pub mod codebooks;
mod comparisons;
mod components;
mod data;
pub mod disk;
mod drawing;
mod dry;
pub mod estimate;
mod evaluations;
mod jobs;
pub mod known;
mod left_out;
pub mod memory;
mod models;
mod setups;
mod text;
mod values;

pub use axes::NOT_APPLICABLE;
pub(crate) use components::{Resolved, resolve_call};
pub use data::DataSet;
pub use models::Model;

use crate::experiment::document::Document;
use crate::experiment::path::Path;
use crate::experiment::sweep::Block;
use crate::experiment::{Complaints, Diagnostic, Invalid, find, read};
use crate::id::Id;
use crate::job::{Job, Trial};
use crate::plugins::Plugins;
use crate::ui::{counted, in_line};
use catalog::Catalog;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

/// What an experiment is about, for plans and reports.
#[derive(Debug, Clone, Default, PartialEq)]
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
    /// The paths that named cases set, those of the axis `case`.
    pub case_paths: Vec<String>,
    /// The seeds.
    pub seeds: Vec<u64>,
    /// The measure in the foreground.
    pub headline: String,
    /// What is judged beside it where the file asks for nothing.
    pub judged_also: Vec<String>,
    /// What the report is to judge.
    pub comparisons: Vec<Comparison>,
    /// What the command line changed, as `path=value` and `seeds=0,1`; empty if nothing.
    pub changed: Vec<String>,
}

impl Experiment {
    /// What a trial is, by the axes that mean something to it, in their order: `depth=4 codebook=256`.
    pub fn name_of(&self, trial: &Trial) -> String {
        let value = |axis: &Axis| {
            let text = trial.axes.get(&axis.path).filter(|text| *text != NOT_APPLICABLE)?;
            Some(format!("{}={}", axis.label, in_line(text)))
        };
        self.axes.iter().filter_map(value).collect::<Vec<_>>().join(" ")
    }
}

/// What varies, and the values that occur, as in [`Trial::axes`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Axis {
    /// The path, or `case`.
    pub path: String,
    /// The end of the path that tells it from the other axes: `depth`, or `tokenizer_training.lr` beside `prior_training.lr`.
    pub label: String,
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
    pub models: HashMap<Id, Arc<Model>>,
    /// What is probably not meant.
    pub warnings: Vec<Diagnostic>,
    /// Images and weights that are not on this machine: it can be planned, not worked on. Each place once.
    pub absent: Vec<Diagnostic>,
    /// Measures that images or samples are too few for: a sentence for each reason.
    pub left_out: Vec<String>,
    /// Where in `jobs` the job of an id stands.
    places: HashMap<Id, usize>,
}

impl Plan {
    /// The job of that id.
    pub fn job(&self, id: &str) -> Option<&Job> {
        self.places.get(id).and_then(|&place| self.jobs.get(place))
    }

    /// Whose each job is: the name of its one trial with the seed, or how many trials share it.
    pub fn owners(&self) -> HashMap<Id, String> {
        let mut owners: HashMap<Id, (&Trial, usize)> = HashMap::new();
        for trial in &self.trials {
            for id in &trial.jobs {
                owners.entry(id.clone()).or_insert((trial, 0)).1 += 1;
            }
        }
        let named = |(id, (trial, count)): (Id, (&Trial, usize))| match count {
            1 => (id, format!("{} seed {}", self.experiment.name_of(trial), trial.seed).trim().to_owned()),
            count => (id, counted(count, "trial")),
        };
        owners.into_iter().map(named).collect()
    }

    /// Leaves one of its trials, and the jobs of this.
    pub fn keep_only(&mut self, trial: Trial) {
        self.jobs.retain(|job| trial.jobs.contains(&job.id));
        self.places = self.jobs.iter().enumerate().map(|(place, job)| (job.id.clone(), place)).collect();
        self.trials = vec![trial];
    }

    /// The data sets of all trials, each once, in the trials' order.
    pub fn data(&self) -> Vec<&DataSet> {
        let sets = self.trials.iter().filter_map(|trial| Some(&*self.models.get(&trial.id)?.data));
        let mut known = HashSet::new();
        sets.filter(|set| known.insert((set.name.as_str(), set.info.digest.as_str()))).collect()
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

/// What the command line changed of the file.
fn changed(document: &Document) -> Vec<String> {
    let set = document.overrides.iter().map(|set| format!("{}={}", set.path.text(), set.value.text()));
    let seeds: Vec<String> = document.seeds.iter().map(u64::to_string).collect();
    set.chain(document.other_seeds.then(|| format!("seeds={}", seeds.join(",")))).collect()
}

/// The paths that named cases set, each once.
fn case_paths(document: &Document) -> Vec<String> {
    let cases = document.blocks.iter().filter(|block| matches!(block, Block::Cases(_)));
    let paths: BTreeSet<&str> = cases.flat_map(Block::paths).map(Path::text).collect();
    paths.into_iter().map(str::to_owned).collect()
}

/// Plans an experiment.
///
/// # Errors
/// Everything that its components, its axes or its conditions object to.
pub fn plan(document: &Document, plugins: &Plugins) -> Result<Plan, Invalid> {
    let catalog = Catalog::new(plugins);
    let mut complaints = Complaints::default();
    let setups = setups::expand(document, &catalog, &mut complaints);
    let comparisons = comparisons::check(document, &setups.axes, &mut complaints);
    let resolved = components::resolve(&document.question, setups.combinations, &catalog, &mut complaints);
    let modelled = models::build(resolved, plugins, &mut complaints);
    let planned = jobs::of(document, modelled, &mut complaints);
    let warnings = complaints.finish()?;
    let experiment = Experiment {
        name: document.name.clone(),
        path: document.path.clone(),
        question: document.question.clone(),
        header: document.header.clone(),
        axes: setups.axes.into_iter().map(|shown| shown.axis).collect(),
        case_paths: case_paths(document),
        seeds: document.seeds.clone(),
        headline: comparisons::headline(document),
        judged_also: comparisons::judged_also(document),
        comparisons,
        changed: changed(document),
    };
    let jobs::Planned { trials, jobs, models, places, absent, left_out } = planned;
    Ok(Plan { experiment, trials, jobs, models, warnings, absent, left_out, places })
}

//! All that is known to be wanted: the plans of the experiments under a folder, and of those changes of them that have a report.

use super::{Plan, open};
use crate::experiment::{Invalid, experiments_under};
use crate::place::Recorded;
use crate::plugins::Plugins;
use crate::stages::{TrainPrior, TrainTokenizer};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// An experiment as a file, or as a command line changed it.
#[derive(Debug)]
pub struct Known {
    /// Its file.
    pub file: PathBuf,
    /// What the command line changed, as `path=value` and `seeds=0,1`; empty if nothing.
    pub changed: Vec<String>,
    /// The folder of its report, if it has one.
    pub report: Option<PathBuf>,
    /// What it would run, or why that is not known.
    pub plan: Result<Plan, Invalid>,
}

/// Plans every experiment under `folder`, and every report in `out` that has a file.
pub fn all(folder: &Path, out: &Path, plugins: &Plugins) -> Vec<Known> {
    let files = experiments_under(folder);
    let mut wanted: Vec<(PathBuf, Vec<String>, Option<PathBuf>)> = Vec::new();
    for Recorded { folder, experiment, changed } in crate::place::recorded(out) {
        wanted.push((experiment, changed, Some(folder)));
    }
    let has_report = |file: &Path| {
        let file = std::fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
        wanted.iter().any(|(other, changed, _)| *other == file && changed.is_empty())
    };
    let without: Vec<PathBuf> = files.into_iter().filter(|file| !has_report(file)).collect();
    wanted.extend(without.into_iter().map(|file| (file, Vec::new(), None)));
    wanted.sort();
    let known = wanted.into_iter().map(|(file, changed, report)| {
        let (seeds, set): (Vec<&String>, Vec<&String>) = changed.iter().partition(|change| change.starts_with(SEEDS));
        let seeds =
            seeds.first().map(|text| text[SEEDS.len()..].split(',').filter_map(|seed| seed.parse().ok()).collect());
        let set: Vec<String> = set.into_iter().cloned().collect();
        let seeds: Option<Vec<u64>> = seeds;
        let plan = open(&file.display().to_string(), &set, seeds.as_deref(), plugins);
        Known { file, changed, report, plan }
    });
    known.collect()
}

/// How a change of the seeds is written.
const SEEDS: &str = "seeds=";

impl Known {
    /// The ids of the stages that it needs: those of its jobs, and those whose weights its trainings start from.
    pub fn needs(&self) -> BTreeSet<String> {
        let Ok(plan) = &self.plan else { return BTreeSet::new() };
        let own = plan.jobs.iter().map(|job| job.id.to_string());
        let given = plan.jobs.iter().filter_map(|job| {
            let of_tokenizer = job.stage.is::<TrainTokenizer>().and_then(|stage| stage.from.as_ref());
            let of_prior = job.stage.is::<TrainPrior>().and_then(|stage| stage.from.as_ref());
            // A finished stage is named by the file of its result: `RUNS/stages/ID/result.safetensors`.
            let folder = of_tokenizer.or(of_prior)?.path.parent()?.file_name()?;
            Some(folder.to_string_lossy().into_owned())
        });
        own.chain(given).collect()
    }
}

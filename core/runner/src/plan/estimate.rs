//! How long jobs will take, from how long earlier ones took.

use crate::job::Job;
use crate::stages::Stage;
use std::collections::HashMap;
use std::fs;
use std::path::Path;

/// What earlier work in a folder of runs tells.
#[derive(Debug, Default)]
pub struct History {
    done: HashMap<String, f64>,
    jobs: HashMap<String, Job>,
}

/// How long a plan will take, one job after another.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Estimate {
    /// Seconds of the jobs of which something is known.
    pub seconds: f64,
    /// Jobs of which nothing is known.
    pub unknown: usize,
}

impl History {
    /// Reads the finished stages under `runs/stages`. What cannot be read counts as not done.
    pub fn read(runs: &Path) -> Self {
        let mut history = Self::default();
        for entry in fs::read_dir(runs.join("stages")).into_iter().flatten().flatten() {
            let id = entry.file_name().to_string_lossy().into_owned();
            let json = |name: &str| fs::read(entry.path().join(name)).ok();
            let seconds = json("done.json")
                .and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok())
                .map(|done| done.get("seconds").and_then(serde_json::Value::as_f64).unwrap_or_default());
            // As in `StageDir::done`: a stage whose result was deleted is done again.
            if let Some(seconds) = seconds.filter(|_| entry.path().join("result.safetensors").exists()) {
                history.done.insert(id.clone(), seconds);
            }
            if let Some(job) = json("job.json").and_then(|bytes| serde_json::from_slice::<Job>(&bytes).ok()) {
                history.jobs.insert(id, job);
            }
        }
        history
    }

    /// Whether the job's stage is complete.
    pub fn is_done(&self, job: &Job) -> bool {
        self.done.contains_key(&job.id)
    }

    /// The seconds that a job will take; none if nothing like it was done before. Of the finished stages those are taken
    /// that are most like it: with the same components of the same configuration, whatever the seed and the steps, or else with
    /// the same components. Their time is scaled by the work that each names.
    pub fn seconds(&self, job: &Job, plan: &[Job]) -> Option<f64> {
        let lookup = |id: &str| plan.iter().find(|job| job.id == id).or_else(|| self.jobs.get(id));
        [true, false].into_iter().find_map(|configured| {
            let wanted = likeness(&*job.stage, configured, &lookup);
            let rates: Vec<f64> = self
                .jobs
                .values()
                .filter(|other| {
                    other.stage.name() == job.stage.name() && likeness(&*other.stage, configured, &lookup) == wanted
                })
                .filter_map(|other| Some(self.done.get(&other.id)? / other.stage.work().max(1.0)))
                .collect();
            let mean = rates.iter().sum::<f64>() / rates.len() as f64;
            (!rates.is_empty()).then(|| mean * job.stage.work().max(1.0))
        })
    }

    /// The time of all jobs that are not done.
    pub fn estimate<'a>(&self, jobs: impl IntoIterator<Item = &'a Job>, plan: &[Job]) -> Estimate {
        let mut estimate = Estimate::default();
        for job in jobs.into_iter().filter(|job| !self.is_done(job)) {
            match self.seconds(job, plan) {
                Some(seconds) => estimate.seconds += seconds,
                None => estimate.unknown += 1,
            }
        }
        estimate
    }
}

/// What two stages must have in common to take the same time per unit of work: the components that they build, if
/// `configured` with their configuration, and the same of the stages that they stand on.
fn likeness<'a>(stage: &dyn Stage, configured: bool, lookup: &impl Fn(&str) -> Option<&'a Job>) -> Vec<String> {
    let mut parts = vec![stage.exclusive().to_string()];
    for call in stage.calls() {
        parts.push(call.name.clone());
        if configured {
            parts.push(call.config.clone());
        }
    }
    for id in stage.needs() {
        match lookup(id) {
            Some(job) => parts.extend(likeness(&*job.stage, configured, lookup)),
            None => parts.push(id.to_owned()),
        }
    }
    parts
}

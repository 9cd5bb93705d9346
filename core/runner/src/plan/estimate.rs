//! How long jobs will take, from how long earlier ones took.

use crate::job::Job;
use crate::stages::Stage;
use crate::store::{Standing, Store};
use rqlab_sdk::Error;
use std::collections::HashMap;
use std::path::Path;

/// What earlier work in a folder of runs tells.
#[derive(Debug, Default)]
pub struct History {
    done: HashMap<String, f64>,
    /// What is wrong with stages that are damaged or cannot be read.
    unusable: HashMap<String, String>,
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
    /// Reads the finished stages under `runs/stages`. What is damaged or cannot be read counts as not done.
    pub fn read(runs: &Path) -> Self {
        let store = Store::at(runs);
        let mut history = Self::default();
        for id in store.ids() {
            let stage = store.stage(&id);
            match stage.standing() {
                Ok(Standing::Done(done)) => {
                    history.done.insert(id.clone(), done.seconds);
                }
                Ok(Standing::Unfinished) => {}
                Ok(Standing::Damaged(damage)) => {
                    history.unusable.insert(id.clone(), Error::from(damage).to_string());
                }
                Err(error) => {
                    history.unusable.insert(id.clone(), error.to_string());
                }
            }
            if let Ok(job) = stage.job() {
                history.jobs.insert(id, job);
            }
        }
        history
    }

    /// What is wrong with the stage of a job that is damaged or cannot be read.
    pub fn unusable(&self, job: &Job) -> Option<&str> {
        self.unusable.get(&job.id).map(String::as_str)
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

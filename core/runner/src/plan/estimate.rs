//! How long jobs will take, from how long earlier ones took.

use crate::id::Id;
use crate::identity::digest;
use crate::job::Job;
use crate::plan::Plan;
use crate::store::{Standing, Store};
use rqlab_sdk::Error;
use std::cell::RefCell;
use std::collections::HashMap;
use std::path::Path;

/// What earlier work in a folder of runs tells.
#[derive(Debug, Default)]
pub struct History {
    done: HashMap<Id, f64>,
    /// What is wrong with stages that are damaged or cannot be read.
    unusable: HashMap<Id, String>,
    jobs: HashMap<Id, Job>,
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
        for id in store.ids().into_iter().map(Id::from) {
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

    /// What it foretells of the jobs of a plan.
    pub fn forecast<'a>(&'a self, plan: &'a Plan) -> Forecast<'a> {
        let mut forecast = Forecast { history: self, plan, likenesses: RefCell::default(), rates: HashMap::new() };
        for job in self.jobs.values() {
            if let Some(seconds) = self.done.get(&job.id) {
                let rate = forecast.rates.entry(forecast.likeness(job)).or_insert((0.0, 0));
                *rate = (rate.0 + seconds / job.stage.work().max(1.0), rate.1 + 1);
            }
        }
        forecast
    }
}

/// How long the jobs of a plan will take, by how long jobs took that are like them: that build the same components of the
/// same configuration, and stand on stages that do, whatever the seed and the steps. Of another model or other data nothing is
/// known: what a step of it costs does not follow from what one of these did.
pub struct Forecast<'a> {
    history: &'a History,
    plan: &'a Plan,
    /// Of each job that was asked for.
    likenesses: RefCell<HashMap<Id, Id>>,
    /// By likeness: seconds for a unit of work, summed over jobs, and their number.
    rates: HashMap<Id, (f64, usize)>,
}

impl Forecast<'_> {
    /// The seconds that a job will take; none if nothing like it was done before.
    pub fn seconds(&self, job: &Job) -> Option<f64> {
        if self.rates.is_empty() {
            return None;
        }
        let &(sum, count) = self.rates.get(&self.likeness(job))?;
        Some(sum / count as f64 * job.stage.work().max(1.0))
    }

    /// The time of those of some jobs that are not done.
    pub fn estimate<'b>(&self, jobs: impl IntoIterator<Item = &'b Job>) -> Estimate {
        let mut estimate = Estimate::default();
        for job in jobs.into_iter().filter(|job| !self.history.is_done(job)) {
            match self.seconds(job) {
                Some(seconds) => estimate.seconds += seconds,
                None => estimate.unknown += 1,
            }
        }
        estimate
    }

    /// The digest of what two jobs must have in common to take the same time for a unit of work.
    fn likeness(&self, job: &Job) -> Id {
        if let Some(known) = self.likenesses.borrow().get(&job.id) {
            return known.clone();
        }
        let mut parts = vec![job.stage.name().to_owned(), job.data_digest.to_string()];
        for call in job.stage.calls() {
            parts.extend([call.name.clone(), call.sampled.clone()]);
        }
        for id in job.stage.needs() {
            let needed = self.plan.job(id).or_else(|| self.history.jobs.get(id));
            parts.push(needed.map_or_else(|| id.to_owned(), |job| self.likeness(job).to_string()));
        }
        let likeness = digest(&parts);
        self.likenesses.borrow_mut().insert(job.id.clone(), likeness.clone());
        likeness
    }
}

//! Which jobs of a plan are done, and which wait for what. A run begins with what earlier runs have done.

use super::{Event, Outcome, Outcomes, Scheduler, Sink};
use crate::job::Job;
use crate::store::{Damage, Standing};
use rqlab_sdk::Result;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

/// Jobs that are done, and jobs that wait.
pub(crate) struct Agenda<'a> {
    /// By the id of each job, the ids of all that it stands on, near and far: a stage may read what those that it needs were
    /// made of, and that may have to be made again though they do not.
    needs: BTreeMap<&'a str, BTreeSet<&'a str>>,
    /// What became of those that nothing more is to be done for.
    pub(crate) outcomes: Outcomes,
    /// The others, in an order in which they can run.
    pub(crate) waiting: Vec<&'a Job>,
    /// When those of them had failed that are tried again nevertheless. What fails later, in whatever process, has failed.
    pub(super) failed_before: BTreeMap<&'a str, SystemTime>,
}

impl Agenda<'_> {
    /// The ids of all that a job stands on.
    fn needs_of(&self, job: &Job) -> impl Iterator<Item = &str> {
        self.needs.get(job.id.as_str()).into_iter().flatten().copied()
    }

    /// Whether all is done that a job stands on.
    pub(crate) fn is_ready(&self, job: &Job) -> bool {
        self.needs_of(job).all(|id| matches!(self.outcomes.get(id), Some(Outcome::Cached | Outcome::Done)))
    }

    /// The jobs that could be done now, or are being done.
    pub(crate) fn ready(&self) -> impl Iterator<Item = &Job> {
        self.waiting.iter().copied().filter(|job| self.is_ready(job))
    }

    /// Why a job cannot be tried: one that it stands on failed.
    pub(crate) fn cause_of_block(&self, job: &Job) -> Option<String> {
        self.needs_of(job).find_map(|id| self.outcomes.get(id)?.error().map(str::to_owned))
    }
}

impl Scheduler<'_> {
    /// Takes what earlier runs have done, but for what is damaged, which is set aside to be done again.
    pub(crate) fn begin<'a>(&self, jobs: &'a [Job], sink: &mut dyn Sink) -> Agenda<'a> {
        let mut needs = BTreeMap::<&str, BTreeSet<&str>>::new();
        for job in jobs {
            let near = job.stage.needs();
            let far = near.iter().filter_map(|id| needs.get(id)).flatten().copied();
            let all = far.chain(near.iter().copied()).collect();
            needs.insert(&job.id, all);
        }
        let mut agenda =
            Agenda { needs, outcomes: Outcomes::new(), waiting: Vec::new(), failed_before: BTreeMap::new() };
        for (job, standing) in jobs.iter().zip(self.verified(jobs)) {
            let stage = self.store.stage(&job.id);
            match standing {
                Ok(Standing::Done(_)) => {
                    // What stays is in nobody's way.
                    let _ = stage.drop_state();
                    // The experiment, and its data with it, may have moved since; and a description may be damaged.
                    if !stage.describes(job) {
                        let described = stage.describe_again(job).map(|aside| aside.map(|aside| aside.to_string()));
                        if let Some(warning) = described.unwrap_or_else(|error| Some(error.to_string())) {
                            sink.event(&Event::Warned { job, warning: &warning });
                        }
                    }
                    agenda.outcomes.insert(job.id.clone(), Outcome::Cached);
                    continue;
                }
                Ok(Standing::Damaged(damage)) => self.set_aside(job, damage, sink),
                // What cannot be read is met again when the job is to start, and fails alone.
                Ok(Standing::Unfinished) | Err(_) => {}
            }
            if !self.crew {
                agenda.failed_before.extend(stage.failed_at().map(|at| (job.id.as_str(), at)));
            }
            agenda.waiting.push(job);
        }
        agenda
    }

    /// Sets a damaged file aside, unless somebody works on its stage by now.
    fn set_aside(&self, job: &Job, damage: Damage, sink: &mut dyn Sink) {
        let aside = match self.store.leases().take(&job.id, false) {
            Ok(None) => return,
            Ok(Some(_lease)) => self.store.stage(&job.id).set_aside(damage).map(|aside| aside.to_string()),
            Err(error) => Err(error),
        };
        let warning = aside.unwrap_or_else(|error| error.to_string());
        sink.event(&Event::Warned { job, warning: &warning });
    }

    /// How it stands with each job, by all bytes of its result; on several threads, since that reads whole files. Of a crew, who
    /// gave the order has done that.
    fn verified(&self, jobs: &[Job]) -> Vec<Result<Standing>> {
        let next = AtomicUsize::new(0);
        let found = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..self.threads.min(jobs.len()) {
                scope.spawn(|| {
                    while let Some((place, job)) =
                        Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|n| Some((n, jobs.get(n)?)))
                    {
                        let stage = self.store.stage(&job.id);
                        let standing = if self.crew { stage.standing() } else { stage.verified() };
                        found.lock().unwrap_or_else(PoisonError::into_inner).push((place, standing));
                    }
                });
            }
        });
        let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
        found.sort_by_key(|(place, _)| *place);
        found.into_iter().map(|(_, standing)| standing).collect()
    }
}

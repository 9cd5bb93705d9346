//! Doing what a plan lacks, and rendering its report: what `sweep`, `run` and `report` share.

use crate::cluster::watch::{Watch, Watched};
use crate::cluster::{PlanFile, Settings, Submission};
use crate::collect::{Collected, collect};
use crate::job::Job;
use crate::jobs::launcher::Local;
use crate::jobs::sinks::{EventsFile, Owners, for_people};
use crate::jobs::{End, Outcome, Outcomes, Scheduler, Sinks, Stopped};
use crate::place::Place;
use crate::plan::Plan;
use crate::provenance::{here, provenance};
use crate::ranks::Ranks;
use crate::repeat::Repeat;
use crate::store::{Standing, Store};
use crate::ui::say;
use rqlab_reports::Status;
use rqlab_sdk::tensor::Device;
use rqlab_sdk::{Error, Result};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Where work and report go, and how much of the machine is used.
#[derive(Debug, Clone)]
pub struct Options {
    /// Folder of the stages.
    pub runs: PathBuf,
    /// Where the report goes.
    pub place: Place,
    /// The command that does it again.
    pub repeat: Repeat,
    /// Jobs at once.
    pub jobs: usize,
    /// Threads that they share.
    pub threads: usize,
    /// Where they compute.
    pub device: Device,
    /// Arguments that every worker gets: plugin folders, device.
    pub worker_arguments: Vec<OsString>,
    /// How many ranks train a stage together.
    pub ranks: Ranks,
    /// How work is put into a cluster's queue, if it is done there.
    pub cluster: Option<Settings>,
    /// No progress, no summary.
    pub quiet: bool,
}

/// What a sweep came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The page.
    pub page: PathBuf,
    /// What the report found, in sentences.
    pub verdicts: Vec<String>,
    /// What may lead to a wrong moral, in sentences.
    pub warnings: Vec<String>,
    /// Trials by status: done, failed, missing.
    pub trials: [usize; 3],
    /// Each error, with the names of the trials that failed of it.
    pub failures: Vec<(String, Vec<String>)>,
}

impl Summary {
    /// Whether every trial was done.
    pub fn complete(&self) -> bool {
        self.trials[1] + self.trials[2] == 0
    }
}

/// Why work did not come to its end.
#[derive(Debug)]
pub enum Unfinished {
    /// A signal stopped it.
    Stopped(Stopped),
    /// A signal came while a cluster worked: it goes on.
    Left(i32),
    /// It could not be done.
    Error(Error),
}

impl From<Error> for Unfinished {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// Does the plan's jobs and renders its report.
///
/// # Errors
/// A store that cannot be written, a report that cannot be written, a signal. A failed trial is no error: it
/// is counted in the summary.
pub fn sweep(plan: &Plan, options: &Options) -> Result<Summary, Unfinished> {
    let store = Store::open(&options.runs)?;
    // A report that cannot be written should be known before hours of work.
    options.place.take()?;
    let outcomes = run_jobs(plan, options, &store)?;
    Ok(render(plan, options, &store, &outcomes)?)
}

/// Does the plan's jobs, without a report, and tells what became of each.
///
/// # Errors
/// As for [`sweep`].
pub fn run_jobs(plan: &Plan, options: &Options, store: &Store) -> Result<Outcomes, Unfinished> {
    let program = std::env::current_exe().map_err(Error::file("rqlab"))?;
    let mut sinks = Sinks::default();
    match EventsFile::open(store) {
        Ok(file) => sinks.0.push(Box::new(file)),
        Err(error) => say(format!("warning: {error}; what happens is not kept there")),
    }
    if !options.quiet {
        sinks.0.push(for_people(Owners(plan.owners())));
    }
    if let Some(settings) = &options.cluster {
        let worker = [vec![program.into()], options.worker_arguments.clone()].concat();
        let submission = &Submission::of(store, &plan.jobs)?;
        let watch = Watch { store, submission, settings, worker, quiet: options.quiet };
        return match watch.run(&PlanFile::of(plan), &mut sinks)? {
            Watched::All(outcomes) => Ok(outcomes),
            Watched::Left(signal) => Err(Unfinished::Left(signal)),
        };
    }
    let mut launcher = Local::new(program, options.worker_arguments.clone(), store, options.ranks.clone());
    let scheduler = Scheduler { store, slots: options.jobs.max(1), threads: options.threads.max(1), crew: false };
    let outcomes = match scheduler.run(&plan.jobs, &mut launcher, &mut sinks)? {
        End::All(outcomes) => outcomes,
        End::Stopped(stopped) => return Err(Unfinished::Stopped(stopped)),
    };
    for job in &plan.jobs {
        if let Some(Outcome::Blocked(cause)) = outcomes.get(&job.id) {
            // What cannot be noted is in the outcomes all the same.
            let _ = note_blocked(store, job, cause);
        }
    }
    Ok(outcomes)
}

/// Notes why a job was not tried, unless somebody tries it, or has done it meanwhile.
fn note_blocked(store: &Store, job: &Job, cause: &str) -> Result<()> {
    let stage = store.stage(&job.id);
    let Some(_lease) = store.leases().take_from_gone(&job.id, false)? else { return Ok(()) };
    if let Standing::Done(_) = stage.standing()? {
        return Ok(());
    }
    stage.prepare(job)?;
    stage.leave_untried(cause)
}

/// Renders the report of what is there, and of what became of the jobs that were just run. Where an earlier report has
/// results, and this one has none or lacks some that are in the store and cannot be read, it goes beside that one.
///
/// # Errors
/// A report that cannot be written.
pub fn render(plan: &Plan, options: &Options, store: &Store, outcomes: &Outcomes) -> Result<Summary> {
    let Collected { mut results, unusable } = collect(plan, store, outcomes, provenance(plan), here(), &options.repeat);
    let count = |status| results.trials.iter().filter(|trial| trial.status == status).count();
    let trials = [count(Status::Done), count(Status::Failed), count(Status::Missing)];
    let mut place = options.place.clone();
    if (unusable || trials[0] == 0 && trials[1] > 0) && has_results(&place.folder) {
        place = place.for_failures();
    }
    place.take()?;
    results.name.clone_from(&place.name);
    let written = rqlab_reports::write(&results, &place.folder).map_err(|e| Error::Data(e.to_string()))?;
    let mut failures: Vec<(String, Vec<String>)> = Vec::new();
    for trial in results.trials.iter().filter(|trial| trial.status == Status::Failed) {
        let name = format!("{} seed {}", trial.name, trial.seed.unwrap_or(0)).trim().to_owned();
        let error = trial.error.clone().unwrap_or_default();
        match failures.iter_mut().find(|(known, _)| *known == error) {
            Some((_, names)) => names.push(name),
            None => failures.push((error, vec![name])),
        }
    }
    let (verdicts, warnings) = (rqlab_reports::verdicts(&results), rqlab_reports::warnings(&results));
    Ok(Summary { page: written.page, verdicts, warnings, trials, failures })
}

/// Whether the report in a folder has a trial that was done.
fn has_results(out: &Path) -> bool {
    let table = std::fs::read_to_string(out.join("results.csv")).unwrap_or_default();
    table.lines().skip(1).any(|row| row.split(',').any(|cell| cell == "done"))
}

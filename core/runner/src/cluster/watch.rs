//! What `rqlab sweep --launcher slurm` does: it sees to it that there are workers, and takes from the store what they have done.

use super::settings::Settings;
use super::slurm::{Slurm, Task};
use super::submission::{PlanFile, Submission};
use crate::jobs::{Agenda, Event, Outcome, Outcomes, Scheduler, Sink, listen};
use crate::store::{self, Lease, Standing, Store};
use crate::ui::{counted, say};
use rqlab_sdk::{Error, Result};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How often the store is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// The same for each job that may be done by now: a look asks the file system about each.
const LOOK_FOR_EACH: Duration = Duration::from_millis(2);
/// How often the queue is asked.
const ASK: Duration = Duration::from_secs(10);
/// How long after a submission more workers may be submitted.
const SETTLE: Duration = Duration::from_secs(30);

/// Watches over work in a queue.
pub struct Watch<'a> {
    /// Where the work is kept.
    pub store: &'a Store,
    /// The plan.
    pub submission: &'a Submission,
    /// How workers are put into the queue.
    pub settings: &'a Settings,
    /// How a worker is started: the program, and its arguments before the command.
    pub worker: Vec<OsString>,
    /// Whether to say nothing but errors.
    pub quiet: bool,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Watched {
    /// Every job was done, failed, or could not be tried.
    All(Outcomes),
    /// A signal came before that; the workers go on.
    Left(i32),
}

/// Where it stands.
struct State<'a> {
    agenda: Agenda<'a>,
    /// The right to submit.
    lease: Option<Lease>,
    /// What was seen of another's.
    seen: store::Watch,
    /// When workers were last submitted here.
    submitted: Option<Instant>,
    /// Whether anything was done since.
    has_moved: bool,
    /// What was said last of the queue, and of nodes.
    said: BTreeSet<String>,
}

impl Watch<'_> {
    /// Sees to it that the jobs are done, by workers that are in the queue, or that it submits.
    ///
    /// # Errors
    /// The queue does not take workers; all have ended, and nothing more is done.
    pub fn run(&self, plan: &PlanFile, sink: &mut dyn Sink) -> Result<Watched> {
        let jobs = &plan.jobs;
        let scheduler = Scheduler { store: self.store, slots: 0, threads: 1, crew: false };
        let agenda = scheduler.begin(jobs, sink);
        sink.event(&Event::Planned { jobs: jobs.len(), waiting: &agenda.waiting });
        let (sender, signals) = mpsc::channel();
        let _listening = listen(move |signal| {
            // Who would hear of it has ended.
            let _ = sender.send(signal);
        });
        let (lease, seen, submitted, has_moved) = (None, store::Watch::default(), None, true);
        let mut state = State { agenda, lease, seen, submitted, has_moved, said: BTreeSet::new() };
        self.attach(&mut state, plan)?;
        let mut asked: Option<Instant> = None;
        loop {
            self.take_ends(&mut state, sink);
            if state.agenda.waiting.is_empty() {
                sink.event(&Event::Finished { signal: None });
                return Ok(Watched::All(state.agenda.outcomes));
            }
            if asked.is_none_or(|at| at.elapsed() >= ASK) {
                asked = Some(Instant::now());
                self.ask(&mut state)?;
            }
            let pause = LOOK + LOOK_FOR_EACH * state.agenda.ready().count().try_into().unwrap_or(u32::MAX);
            if let Ok(signal) = signals.recv_timeout(pause) {
                sink.event(&Event::Finished { signal: Some(signal) });
                return Ok(Watched::Left(signal));
            }
        }
    }

    /// Finds the workers that are in the queue, or submits some.
    fn attach(&self, state: &mut State<'_>, plan: &PlanFile) -> Result<()> {
        let waiting = state.agenda.waiting.len();
        if waiting == 0 {
            return Ok(());
        }
        let alive = self.alive()?;
        self.take_lease(state)?;
        if !alive.is_empty() || state.lease.is_none() {
            self.say(format!("{} of this plan in the queue: attached to them", counted(alive.len(), "worker")));
            return Ok(());
        }
        // What failed is tried again; what fails from now on has failed for all workers.
        for job in &state.agenda.waiting {
            if let Some(_lease) = self.store.leases().take_from_gone(&job.id, false)? {
                self.store.stage(&job.id).forget_failure()?;
            }
        }
        self.submission.write(plan)?;
        let ready = state.agenda.ready().count();
        self.submit(state, ready)
    }

    /// Takes the right to submit, or keeps it.
    fn take_lease(&self, state: &mut State<'_>) -> Result<()> {
        if state.lease.as_mut().is_some_and(Lease::beat) {
            return Ok(());
        }
        if let Some(found) = self.submission.submitter(self.store)?
            && state.seen.stale(&found, Instant::now()).is_some()
        {
            self.store.leases().break_stale(&found)?;
        }
        state.lease = self.submission.take(self.store)?;
        Ok(())
    }

    fn submit(&self, state: &mut State<'_>, wanted: usize) -> Result<()> {
        let tasks = wanted.clamp(1, self.settings.workers());
        self.submission.submit(Slurm, self.settings, &self.worker, tasks)?;
        (state.submitted, state.has_moved) = (Some(Instant::now()), false);
        self.say(format!("submitted {}; their logs: {}", counted(tasks, "worker"), self.submission.logs().display()));
        Ok(())
    }

    /// Takes what has been done, and what has failed.
    fn take_ends(&self, state: &mut State<'_>, sink: &mut dyn Sink) {
        let agenda = &mut state.agenda;
        let held: BTreeSet<String> =
            self.store.leases().all().unwrap_or_default().into_iter().map(|found| found.id).collect();
        let mut place = 0;
        while let Some(&job) = agenda.waiting.get(place) {
            let stage = self.store.stage(&job.id);
            let outcome = match agenda.cause_of_block(job) {
                Some(cause) => Some((Outcome::Blocked(cause), 0.0)),
                None if !agenda.is_ready(job) || held.contains(job.id.as_str()) => None,
                None => match (stage.standing(), stage.failed()) {
                    (Ok(Standing::Done(done)), _) => Some((Outcome::Done, done.seconds)),
                    (Ok(Standing::Unfinished), Some(failed)) => Some((Outcome::Failed(failed.error), 0.0)),
                    _ => None,
                },
            };
            let Some((outcome, seconds)) = outcome else {
                place += 1;
                continue;
            };
            sink.event(&Event::Ended { job, outcome: &outcome, seconds });
            agenda.outcomes.insert(job.id.clone(), outcome);
            agenda.waiting.remove(place);
            state.has_moved = true;
        }
    }

    /// Asks the queue who is alive, and submits more workers where there is more to do than they do.
    ///
    /// # Errors
    /// All have ended, and nothing would come of more.
    fn ask(&self, state: &mut State<'_>) -> Result<()> {
        self.take_lease(state)?;
        if self.submission.is_cancelled() {
            return Err(Error::Data("the work was cancelled; the same command begins it again".to_owned()));
        }
        let alive = match self.alive() {
            Ok(alive) => alive,
            Err(error) => {
                self.say_once(state, format!("{error}; the work goes on, and is looked at in its files"));
                return Ok(());
            }
        };
        for trouble in self.submission.troubles()? {
            self.say_once(state, format!("warning: {trouble}"));
        }
        let pending = alive.iter().filter(|task| task.state == "PENDING").count();
        if let Some(first) = alive.iter().find(|task| task.state == "PENDING") {
            self.say_once(state, format!("{} in the queue ({})", counted(pending, "worker"), first.reason));
        }
        if state.lease.is_none() {
            return Ok(());
        }
        if alive.is_empty() {
            return self.without_workers(state);
        }
        let held = self.store.leases().all()?.len();
        let free = state.agenda.ready().count().saturating_sub(held);
        let room = self.settings.workers().saturating_sub(alive.len());
        let is_settled = state.submitted.is_none_or(|at| at.elapsed() >= SETTLE);
        if free > 0 && room > 0 && pending == 0 && is_settled {
            self.submit(state, free.min(room))?;
        }
        Ok(())
    }

    /// All workers have ended, though there is work left.
    fn without_workers(&self, state: &mut State<'_>) -> Result<()> {
        // They may have done the rest as we asked.
        if state.submitted.is_some_and(|at| at.elapsed() < ASK) {
            return Ok(());
        }
        let left = counted(state.agenda.waiting.len(), "job");
        if Slurm.was_cancelled(&self.submission.arrays()?)? {
            return Err(Error::Data(format!(
                "the workers were cancelled, with {left} to do; the same command goes on"
            )));
        }
        if state.has_moved {
            let ready = state.agenda.ready().count();
            return self.submit(state, ready);
        }
        let why = self.submission.why_they_ended()?;
        Err(Error::Data(format!("all workers have ended, with {left} to do: {why}")))
    }

    fn alive(&self) -> Result<Vec<Task>> {
        Slurm.alive(&self.submission.arrays()?)
    }

    fn say(&self, text: String) {
        if !self.quiet {
            say(text);
        }
    }

    fn say_once(&self, state: &mut State<'_>, text: String) {
        if state.said.insert(text.clone()) {
            self.say(text);
        }
    }
}

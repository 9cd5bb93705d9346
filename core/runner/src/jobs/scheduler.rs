//! Which job runs when, and what becomes of it.

use super::{Progress, Step};
use crate::job::{Job, Stage};
use crate::store::Store;
use rqlab_sdk::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Sender};
use std::thread;

/// A worker that a signal ended (a kill, the system short of memory) is started this many times before its job fails.
const ATTEMPTS: usize = 3;

/// What became of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It had been done by an earlier run.
    Cached,
    /// It was done now.
    Done,
    /// It could not be done, and why.
    Failed(String),
    /// It was not tried, because a job that it needs failed.
    Blocked(String),
}

/// Runs jobs.
pub struct Scheduler<'a> {
    /// Where the work is kept.
    pub store: &'a Store,
    /// The program and the arguments that every worker gets (plugins, device), before those that name its job.
    pub worker: (PathBuf, Vec<String>),
    /// Jobs at once.
    pub slots: usize,
    /// Threads that the machine's jobs share.
    pub threads: usize,
}

enum Event {
    Step(String, Step),
    Ended(String, std::io::Result<ExitStatus>),
}

impl Scheduler<'_> {
    /// Does `jobs`, which stand in an order in which they can run. A failed job fails alone: what does not need it goes on.
    ///
    /// # Errors
    /// Only what concerns all of them: the store cannot be written, no worker can be started.
    pub fn run(&self, jobs: &[Job], progress: &mut Progress) -> Result<BTreeMap<String, Outcome>> {
        let mut outcomes = BTreeMap::new();
        for job in jobs.iter().filter(|job| self.store.stage(&job.id).done().is_some()) {
            // The experiment, and its data with it, may have moved since; and a description may be damaged.
            let stage = self.store.stage(&job.id);
            if stage.job().ok().as_ref() != Some(job) {
                stage.prepare(job)?;
            }
            outcomes.insert(job.id.clone(), Outcome::Cached);
        }
        let mut waiting: Vec<&Job> = jobs.iter().filter(|job| !outcomes.contains_key(&job.id)).collect();
        progress.start(jobs, &waiting);

        let (sender, events) = mpsc::channel();
        let mut attempts: BTreeMap<String, usize> = BTreeMap::new();
        let mut running: BTreeSet<String> = BTreeSet::new();
        let mut alone = false;
        loop {
            block(&mut waiting, &mut outcomes);
            while let Some(next) = waiting.iter().position(|job| self.can_start(job, &outcomes, running.len(), alone)) {
                let job = waiting.remove(next);
                alone = is_exclusive(job);
                self.start(job, &sender)?;
                progress.begin(job);
                running.insert(job.id.clone());
            }
            if running.is_empty() {
                break;
            }
            match events.recv() {
                Ok(Event::Step(id, step)) => progress.step(&id, &step),
                Ok(Event::Ended(id, status)) => {
                    running.remove(&id);
                    alone = false;
                    let Some(job) = jobs.iter().find(|job| job.id == id) else { continue };
                    let tries = attempts.entry(id.clone()).or_insert(0);
                    *tries += 1;
                    match self.judge(job, status) {
                        Verdict::Done => {
                            progress.end(job, &Outcome::Done);
                            outcomes.insert(id, Outcome::Done);
                        }
                        Verdict::Killed(_) if *tries < ATTEMPTS => waiting.insert(0, job),
                        Verdict::Failed(error) | Verdict::Killed(error) => {
                            self.store.stage(&id).fail(&error)?;
                            let outcome = Outcome::Failed(error);
                            progress.end(job, &outcome);
                            outcomes.insert(id, outcome);
                        }
                    }
                }
                Err(_) => break,
            }
        }
        progress.finish();
        Ok(outcomes)
    }

    fn can_start(&self, job: &Job, outcomes: &BTreeMap<String, Outcome>, running: usize, alone: bool) -> bool {
        let ready =
            job.stage.needs().iter().all(|id| matches!(outcomes.get(*id), Some(Outcome::Cached | Outcome::Done)));
        let room = if is_exclusive(job) { running == 0 } else { running < self.slots && !alone };
        ready && room
    }

    fn start(&self, job: &Job, sender: &Sender<Event>) -> Result<()> {
        let stage = self.store.stage(&job.id);
        stage.prepare(job)?;
        let log = File::options().create(true).append(true).open(stage.log()).map_err(Error::file(stage.log()))?;
        let threads = if is_exclusive(job) { self.threads } else { (self.threads / self.slots).max(1) };
        let (program, arguments) = &self.worker;
        let mut child = Command::new(program)
            .args(arguments)
            .args(["--threads", &threads.to_string(), "work", "--id", &job.id, "--runs"])
            .arg(self.store.root())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .map_err(Error::file(program))?;
        let (sender, id) = (sender.clone(), job.id.clone());
        thread::spawn(move || {
            follow(&mut child, &id, &sender);
            // The worker's standard input stays open up to here.
            let _ = sender.send(Event::Ended(id, child.wait()));
        });
        Ok(())
    }

    fn judge(&self, job: &Job, status: std::io::Result<ExitStatus>) -> Verdict {
        let stage = self.store.stage(&job.id);
        match status {
            Ok(status) if status.success() && stage.done().is_some() => Verdict::Done,
            Ok(status) if status.code().is_none() => Verdict::Killed(format!(
                "the worker was ended from outside ({status}) {ATTEMPTS} times; is the machine short of memory?"
            )),
            Ok(status) => Verdict::Failed(match stage.failed() {
                Some(failed) => failed.error,
                None => {
                    format!("the worker ended with {status} and said no more than its log, {}", stage.log().display())
                }
            }),
            Err(error) => Verdict::Failed(format!("the worker could not be waited for: {error}")),
        }
    }
}

enum Verdict {
    Done,
    Killed(String),
    Failed(String),
}

/// Speed is measured without neighbours.
fn is_exclusive(job: &Job) -> bool {
    matches!(&job.stage, Stage::Generation { evaluation, .. } if !evaluation.speed.is_empty())
}

/// Takes out of `waiting` whatever needs a job that failed.
fn block(waiting: &mut Vec<&Job>, outcomes: &mut BTreeMap<String, Outcome>) {
    loop {
        let doomed = waiting.iter().enumerate().find_map(|(i, job)| {
            let cause = job.stage.needs().into_iter().find_map(|id| match outcomes.get(id) {
                Some(Outcome::Failed(error) | Outcome::Blocked(error)) => Some(error.clone()),
                _ => None,
            })?;
            Some((i, cause))
        });
        let Some((i, cause)) = doomed else { return };
        outcomes.insert(waiting.remove(i).id.clone(), Outcome::Blocked(cause));
    }
}

fn follow(child: &mut Child, id: &str, sender: &Sender<Event>) {
    let Some(stdout) = child.stdout.take() else { return };
    for line in BufReader::new(stdout).lines().map_while(std::result::Result::ok) {
        if let Ok(step) = serde_json::from_str(&line) {
            let _ = sender.send(Event::Step(id.to_owned(), step));
        }
    }
}

//! Which job runs when, and what becomes of it.

use super::{Progress, Step, Stopped, stop};
use crate::job::{Job, Stage};
use crate::store::Store;
use rqlab_sdk::{Error, Result};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
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

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Every job was done, failed, or could not be tried.
    All(BTreeMap<String, Outcome>),
    /// A signal came before that. All workers have ended, and nothing that they were writing is left half-written.
    Stopped(Stopped),
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
    Signal(i32),
}

impl Scheduler<'_> {
    /// Does `jobs`, which stand in an order in which they can run. A failed job fails alone: what does not need it goes on.
    ///
    /// # Errors
    /// Only what concerns all of them: the store cannot be written, no worker can be started.
    pub fn run(&self, jobs: &[Job], progress: &mut Progress) -> Result<End> {
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
        // A worker ends when its standard input does.
        let mut running: BTreeMap<String, Option<ChildStdin>> = BTreeMap::new();
        let mut alone = false;
        let teller = sender.clone();
        let _listening = stop::listen(move |signal| drop(teller.send(Event::Signal(signal))));
        loop {
            block(&mut waiting, &mut outcomes);
            while let Some(next) = waiting.iter().position(|job| self.can_start(job, &outcomes, running.len(), alone)) {
                let job = waiting.remove(next);
                alone = is_exclusive(job);
                running.insert(job.id.clone(), self.start(job, &sender)?);
                progress.begin(job);
            }
            if running.is_empty() {
                break;
            }
            match events.recv() {
                Ok(Event::Step(id, step)) => progress.step(&id, &step),
                Ok(Event::Signal(signal)) => {
                    progress.finish();
                    let under_way = self.end_workers(running, &events);
                    let done = jobs.iter().filter(|job| self.store.stage(&job.id).done().is_some()).count();
                    let name = |job: &Job| under_way.contains(&job.id).then(|| job.stage.name());
                    let under_way = jobs.iter().filter_map(name).collect();
                    return Ok(End::Stopped(Stopped { signal, done, jobs: jobs.len(), under_way }));
                }
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
        Ok(End::All(outcomes))
    }

    /// Ends all workers, waits for them, and removes what they were writing. Returns the jobs that are not done.
    fn end_workers(&self, mut running: BTreeMap<String, Option<ChildStdin>>, events: &Receiver<Event>) -> Vec<String> {
        running.values_mut().for_each(|stdin| drop(stdin.take()));
        let mut under_way = Vec::new();
        while !running.is_empty() {
            match events.recv() {
                Ok(Event::Ended(id, _)) => {
                    running.remove(&id);
                    let stage = self.store.stage(&id);
                    stage.remove_half_written();
                    if stage.done().is_none() {
                        under_way.push(id);
                    }
                }
                Ok(_) => {}
                Err(_) => break,
            }
        }
        under_way
    }

    fn can_start(&self, job: &Job, outcomes: &BTreeMap<String, Outcome>, running: usize, alone: bool) -> bool {
        let ready =
            job.stage.needs().iter().all(|id| matches!(outcomes.get(*id), Some(Outcome::Cached | Outcome::Done)));
        let room = if is_exclusive(job) { running == 0 } else { running < self.slots && !alone };
        ready && room
    }

    /// Starts the worker of a job. It ends at once when what is returned is dropped.
    fn start(&self, job: &Job, sender: &Sender<Event>) -> Result<Option<ChildStdin>> {
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
        let stdin = child.stdin.take();
        let (sender, id) = (sender.clone(), job.id.clone());
        thread::spawn(move || {
            follow(&mut child, &id, &sender);
            let _ = sender.send(Event::Ended(id, child.wait()));
        });
        Ok(stdin)
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

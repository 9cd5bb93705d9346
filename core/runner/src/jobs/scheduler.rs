//! Which job runs when, and what becomes of it.

use super::{Event, Exit, Launcher, Share, Sink, Stopped, Ticket, Update, is_exclusive, stop};
use crate::job::Job;
use crate::store::Store;
use rqlab_sdk::Result;
use std::collections::BTreeMap;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

/// A worker that something outside ended (a kill, the system short of memory) is started this many times before its job fails.
const ATTEMPTS: usize = 3;
/// A signal is heard after at most this long.
const WAIT: Duration = Duration::from_millis(50);
/// What ended a worker may end this process as well, as Ctrl-C does, and is heard here at most this much later.
const LATER: Duration = Duration::from_millis(200);

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

/// How all of them ended.
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
    /// Jobs at once.
    pub slots: usize,
    /// Threads that the jobs of a machine share.
    pub threads: usize,
}

/// A job that was submitted.
struct Running<'a> {
    job: &'a Job,
    since: Instant,
}

/// Where a run of jobs stands.
struct State<'a> {
    waiting: Vec<&'a Job>,
    running: BTreeMap<Ticket, Running<'a>>,
    attempts: BTreeMap<&'a str, usize>,
    outcomes: BTreeMap<String, Outcome>,
}

impl Scheduler<'_> {
    /// Does `jobs`, which stand in an order in which they can run. A failed job fails alone: what does not need it goes on.
    ///
    /// # Errors
    /// Only what concerns all of them: the store cannot be written, no worker can be started.
    pub fn run(&self, jobs: &[Job], launcher: &mut dyn Launcher, sink: &mut dyn Sink) -> Result<End> {
        let mut state = self.begin(jobs)?;
        sink.event(&Event::Planned { jobs: jobs.len(), waiting: &state.waiting });
        let (sender, signals) = mpsc::channel();
        let _listening = stop::listen(move |signal| {
            // Who would hear of it has ended.
            let _ = sender.send(signal);
        });
        let signal = self.drive(&mut state, launcher, sink, &signals)?;
        let end = match signal {
            None => End::All(state.outcomes),
            Some(signal) => {
                end_workers(state.running, launcher)?;
                let is_done = |job: &&Job| self.store.stage(&job.id).done().is_some();
                let done = jobs.iter().filter(is_done).count();
                let begun = |job: &&Job| state.attempts.contains_key(&*job.id) && !state.outcomes.contains_key(&job.id);
                let begun: Vec<&Job> = jobs.iter().filter(begun).collect();
                begun.iter().for_each(|job| self.store.stage(&job.id).remove_half_written());
                let under_way = begun.into_iter().filter(|job| !is_done(job)).map(|job| job.stage.name()).collect();
                End::Stopped(Stopped { signal, done, jobs: jobs.len(), under_way })
            }
        };
        sink.event(&Event::Finished { signal });
        Ok(end)
    }

    /// Takes what earlier runs have done.
    fn begin<'a>(&self, jobs: &'a [Job]) -> Result<State<'a>> {
        let mut outcomes = BTreeMap::new();
        for job in jobs.iter().filter(|job| self.store.stage(&job.id).done().is_some()) {
            // The experiment, and its data with it, may have moved since; and a description may be damaged.
            let stage = self.store.stage(&job.id);
            if stage.job().ok().as_ref() != Some(job) {
                stage.prepare(job)?;
            }
            outcomes.insert(job.id.clone(), Outcome::Cached);
        }
        let waiting = jobs.iter().filter(|job| !outcomes.contains_key(&job.id)).collect();
        Ok(State { waiting, running: BTreeMap::new(), attempts: BTreeMap::new(), outcomes })
    }

    /// Submits jobs and takes their ends until none is left, or until a signal, which it returns.
    fn drive(
        &self,
        state: &mut State<'_>,
        launcher: &mut dyn Launcher,
        sink: &mut dyn Sink,
        signals: &Receiver<i32>,
    ) -> Result<Option<i32>> {
        loop {
            if let Ok(signal) = signals.try_recv() {
                return Ok(Some(signal));
            }
            state.block(sink);
            while let Some(next) = state.waiting.iter().position(|job| self.can_start(job, state)) {
                let job = state.waiting.remove(next);
                self.store.stage(&job.id).prepare(job)?;
                let ticket = launcher.submit(job, &self.share(job))?;
                state.running.insert(ticket, Running { job, since: Instant::now() });
                let attempt = state.attempts.entry(&job.id).or_default();
                *attempt += 1;
                sink.event(&Event::Started { job, attempt: *attempt });
            }
            if state.running.is_empty() {
                return Ok(None);
            }
            let mut signal = None;
            for update in launcher.poll(WAIT)? {
                match update {
                    Update::Progress(ticket, progress) => {
                        if let Some(Running { job, .. }) = state.running.get(&ticket) {
                            sink.event(&Event::Progress { job, progress: &progress });
                        }
                    }
                    Update::Ended(ticket, exit) => {
                        let Some(Running { job, since }) = state.running.remove(&ticket) else { continue };
                        if matches!(exit, Exit::Interrupted(_)) {
                            signal = signal.or_else(|| signals.recv_timeout(LATER).ok());
                        }
                        if signal.is_none() {
                            self.take_end(state, job, exit, since.elapsed().as_secs_f64(), sink)?;
                        }
                    }
                }
            }
            if signal.is_some() {
                return Ok(signal);
            }
        }
    }

    fn can_start(&self, job: &Job, state: &State<'_>) -> bool {
        let done = |id: &str| matches!(state.outcomes.get(id), Some(Outcome::Cached | Outcome::Done));
        let alone = state.running.values().any(|running| is_exclusive(running.job));
        let room = match is_exclusive(job) {
            true => state.running.is_empty(),
            false => state.running.len() < self.slots && !alone,
        };
        room && job.stage.needs().into_iter().all(done)
    }

    fn share(&self, job: &Job) -> Share {
        let exclusive = is_exclusive(job);
        let threads = if exclusive { self.threads } else { (self.threads / self.slots.max(1)).max(1) };
        Share { threads, exclusive }
    }

    /// Says what the end of a worker means to its job.
    fn take_end<'a>(
        &self,
        state: &mut State<'a>,
        job: &'a Job,
        exit: Exit,
        seconds: f64,
        sink: &mut dyn Sink,
    ) -> Result<()> {
        let stage = self.store.stage(&job.id);
        let done = stage.done().is_some();
        let outcome = match exit {
            // The last that a worker writes says that it is done: what ends it then is late.
            Exit::Success | Exit::Interrupted(_) if done => Outcome::Done,
            Exit::Interrupted(cause) if state.attempts.get(job.id.as_str()).is_some_and(|&n| n < ATTEMPTS) => {
                sink.event(&Event::Interrupted { job, cause: &cause });
                state.waiting.insert(0, job);
                return Ok(());
            }
            Exit::Interrupted(cause) => Outcome::Failed(format!(
                "the worker was ended from outside ({cause}) {ATTEMPTS} times; is the machine short of memory?"
            )),
            Exit::Success | Exit::Failure(_) => {
                let how = if let Exit::Failure(how) = exit { how } else { "success, but without a result".to_owned() };
                Outcome::Failed(match stage.failed() {
                    Some(failed) => failed.error,
                    None => {
                        format!("the worker ended with {how} and said no more than its log, {}", stage.log().display())
                    }
                })
            }
        };
        if let Outcome::Failed(error) = &outcome {
            stage.fail(error)?;
        }
        sink.event(&Event::Ended { job, outcome: &outcome, seconds });
        state.outcomes.insert(job.id.clone(), outcome);
        Ok(())
    }
}

/// Cancels all workers, and waits until they have ended.
fn end_workers(mut running: BTreeMap<Ticket, Running<'_>>, launcher: &mut dyn Launcher) -> Result<()> {
    running.keys().try_for_each(|ticket| launcher.cancel(ticket))?;
    while !running.is_empty() {
        for update in launcher.poll(WAIT)? {
            if let Update::Ended(ticket, _) = update {
                running.remove(&ticket);
            }
        }
    }
    Ok(())
}

impl State<'_> {
    /// Gives up what needs a job that failed.
    fn block(&mut self, sink: &mut dyn Sink) {
        loop {
            let doomed = self.waiting.iter().enumerate().find_map(|(place, job)| {
                let cause = job.stage.needs().into_iter().find_map(|id| match self.outcomes.get(id) {
                    Some(Outcome::Failed(error) | Outcome::Blocked(error)) => Some(error.clone()),
                    _ => None,
                })?;
                Some((place, Outcome::Blocked(cause)))
            });
            let Some((place, outcome)) = doomed else { return };
            let job = self.waiting.remove(place);
            sink.event(&Event::Ended { job, outcome: &outcome, seconds: 0.0 });
            self.outcomes.insert(job.id.clone(), outcome);
        }
    }
}

//! Which job runs when, and what becomes of it.

use super::{Event, Exit, Launcher, Share, Sink, Stopped, Ticket, Update, is_exclusive, stop};
use crate::id::Id;
use crate::job::Job;
use crate::store::{Standing, Store};
use rqlab_sdk::Result;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Mutex, PoisonError};
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

impl Outcome {
    /// Why it was not done.
    pub fn error(&self) -> Option<&str> {
        match self {
            Self::Failed(error) | Self::Blocked(error) => Some(error),
            Self::Cached | Self::Done => None,
        }
    }
}

/// What became of jobs, by their ids.
pub type Outcomes = BTreeMap<Id, Outcome>;

/// How all of them ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Every job was done, failed, or could not be tried.
    All(Outcomes),
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
    /// How long its log was then.
    log: u64,
}

/// Where a run of jobs stands.
struct State<'a> {
    /// By the id of each job, the ids of all that it stands on, near and far: a stage may read what those that it needs were
    /// made of, and that may have to be made again though they do not.
    needs: BTreeMap<&'a str, BTreeSet<&'a str>>,
    waiting: Vec<&'a Job>,
    running: BTreeMap<Ticket, Running<'a>>,
    attempts: BTreeMap<&'a str, usize>,
    outcomes: Outcomes,
}

impl Scheduler<'_> {
    /// Does `jobs`, which stand in an order in which they can run. A failed job fails alone: what does not need it goes on.
    ///
    /// # Errors
    /// Only what concerns all of them: no worker can be started.
    pub fn run(&self, jobs: &[Job], launcher: &mut dyn Launcher, sink: &mut dyn Sink) -> Result<End> {
        let mut state = self.begin(jobs, sink);
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
                let is_done = |job: &&Job| matches!(self.store.stage(&job.id).standing(), Ok(Standing::Done(_)));
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

    /// Takes what earlier runs have done, but for what is damaged, which is set aside to be done again.
    fn begin<'a>(&self, jobs: &'a [Job], sink: &mut dyn Sink) -> State<'a> {
        let mut needs = BTreeMap::<&str, BTreeSet<&str>>::new();
        for job in jobs {
            let near = job.stage.needs();
            let far = near.iter().filter_map(|id| needs.get(id)).flatten().copied();
            let all = far.chain(near.iter().copied()).collect();
            needs.insert(&job.id, all);
        }
        let mut state = State {
            needs,
            waiting: Vec::new(),
            running: BTreeMap::new(),
            attempts: BTreeMap::new(),
            outcomes: BTreeMap::new(),
        };
        for (job, standing) in jobs.iter().zip(self.verified(jobs)) {
            let stage = self.store.stage(&job.id);
            match standing {
                Ok(Standing::Done(_)) => {
                    // The experiment, and its data with it, may have moved since; and a description may be damaged.
                    if stage.job().ok().as_ref() != Some(job)
                        && let Err(error) = stage.describe(job)
                    {
                        sink.event(&Event::Warned { job, warning: &error.to_string() });
                    }
                    state.outcomes.insert(job.id.clone(), Outcome::Cached);
                }
                Ok(Standing::Damaged(damage)) => {
                    let warning = stage.set_aside(damage).map_or_else(|e| e.to_string(), |aside| aside.to_string());
                    sink.event(&Event::Warned { job, warning: &warning });
                    state.waiting.push(job);
                }
                // What cannot be read is met again when the job is to start, and fails alone.
                Ok(Standing::Unfinished) | Err(_) => state.waiting.push(job),
            }
        }
        state
    }

    /// How it stands with each job, by all bytes of its result; on several threads, since that reads whole files.
    fn verified(&self, jobs: &[Job]) -> Vec<Result<Standing>> {
        let next = AtomicUsize::new(0);
        let found = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..self.threads.min(jobs.len()) {
                scope.spawn(|| {
                    while let Some((place, job)) =
                        Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|n| Some((n, jobs.get(n)?)))
                    {
                        let standing = self.store.stage(&job.id).verified();
                        found.lock().unwrap_or_else(PoisonError::into_inner).push((place, standing));
                    }
                });
            }
        });
        let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
        found.sort_by_key(|(place, _)| *place);
        found.into_iter().map(|(_, standing)| standing).collect()
    }

    /// Makes a job's directory ready for its worker.
    ///
    /// # Errors
    /// Something is there and cannot be read or written.
    fn prepare(&self, job: &Job, sink: &mut dyn Sink) -> Result<()> {
        let stage = self.store.stage(&job.id);
        stage.standing()?;
        for aside in stage.prepare(job)? {
            sink.event(&Event::Warned { job, warning: &aside.to_string() });
        }
        Ok(())
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
                if let Err(error) = self.prepare(job, sink) {
                    self.end(state, job, Outcome::Failed(error.to_string()), 0.0, sink);
                    state.block(sink);
                    continue;
                }
                let log = self.store.stage(&job.id).log_length();
                let ticket = launcher.submit(job, &self.share(job))?;
                state.running.insert(ticket, Running { job, since: Instant::now(), log });
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
                    Update::Warning(ticket, warning) => {
                        if let Some(Running { job, .. }) = state.running.get(&ticket) {
                            sink.event(&Event::Warned { job, warning: &warning });
                        }
                    }
                    Update::Ended(ticket, exit) => {
                        let Some(running) = state.running.remove(&ticket) else { continue };
                        if matches!(exit, Exit::Interrupted(_)) {
                            signal = signal.or_else(|| signals.recv_timeout(LATER).ok());
                        }
                        if signal.is_none() {
                            self.take_end(state, running, exit, sink);
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
        room && state.needs_of(job).all(done)
    }

    fn share(&self, job: &Job) -> Share {
        let exclusive = is_exclusive(job);
        let threads = if exclusive { self.threads } else { (self.threads / self.slots.max(1)).max(1) };
        Share { threads, exclusive }
    }

    /// Says what the end of a worker means to its job.
    fn take_end<'a>(&self, state: &mut State<'a>, running: Running<'a>, exit: Exit, sink: &mut dyn Sink) {
        let Running { job, since, log } = running;
        let stage = self.store.stage(&job.id);
        stage.remove_half_written();
        let outcome = match (stage.standing(), exit) {
            // The last that a worker writes says that it is done: what ends it then is late.
            (Ok(Standing::Done(_)), Exit::Success | Exit::Interrupted(_)) => Outcome::Done,
            (Err(error), _) => Outcome::Failed(error.to_string()),
            (_, Exit::Interrupted(cause)) if state.attempts.get(job.id.as_str()).is_some_and(|&n| n < ATTEMPTS) => {
                sink.event(&Event::Interrupted { job, cause: &cause });
                state.waiting.insert(0, job);
                return;
            }
            (_, Exit::Interrupted(cause)) => Outcome::Failed(format!(
                "the worker was ended from outside ({cause}) {ATTEMPTS} times; is the machine short of memory?"
            )),
            (_, Exit::Success) => self.last_words(job, "success, but without a result", log),
            (_, Exit::Failure(how)) => self.last_words(job, &how, log),
        };
        self.end(state, job, outcome, since.elapsed().as_secs_f64(), sink);
    }

    /// Why a job failed, in its worker's own words: what it noted, or else the last that its log says after `log` bytes.
    fn last_words(&self, job: &Job, how: &str, log: u64) -> Outcome {
        let stage = self.store.stage(&job.id);
        if let Some(failed) = stage.failed() {
            return Outcome::Failed(failed.error);
        }
        let path = stage.log().display().to_string();
        Outcome::Failed(match stage.last_words(log) {
            Some(words) if words.starts_with("memory allocation of") => {
                format!(
                    "the worker ended with {how}: {words}; ask for less at once, as with `batch` or `speed` ({path})"
                )
            }
            Some(words) => format!("the worker ended with {how}; its last words in {path}: {words}"),
            None => format!("the worker ended with {how} and said nothing in its log, {path}"),
        })
    }

    /// Notes and tells the end of a job.
    fn end(&self, state: &mut State<'_>, job: &Job, outcome: Outcome, seconds: f64, sink: &mut dyn Sink) {
        if let Outcome::Failed(error) = &outcome {
            // A disk may be full, a folder another user's: the outcome is told all the same.
            let _ = self.store.stage(&job.id).fail(error);
        }
        sink.event(&Event::Ended { job, outcome: &outcome, seconds });
        state.outcomes.insert(job.id.clone(), outcome);
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
    /// The ids of all that a job stands on.
    fn needs_of(&self, job: &Job) -> impl Iterator<Item = &str> {
        self.needs.get(job.id.as_str()).into_iter().flatten().copied()
    }

    /// Gives up what needs a job that failed.
    fn block(&mut self, sink: &mut dyn Sink) {
        loop {
            let doomed = self.waiting.iter().enumerate().find_map(|(place, job)| {
                let cause = self.needs_of(job).find_map(|id| match self.outcomes.get(id) {
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

//! Which job runs when, and what becomes of it.

use super::agenda::Agenda;
use super::others::Others;
use super::{Event, Exit, Launcher, Share, Sink, Stopped, Ticket, Update, is_exclusive, stop};
use crate::id::Id;
use crate::job::Job;
use crate::store::{Lease, StageDir, Standing, Store};
use rqlab_sdk::Result;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

/// A worker that something outside ended (a kill, the system short of memory) is started this many times before its job fails.
const ATTEMPTS: usize = 3;
/// How long one of a crew waits for others, with nothing to do.
const PATIENCE: Duration = Duration::from_secs(60);
/// Lines of a log that are told of a job that failed without a word of its worker: what starts ranks says more than one.
const LINES: usize = 10;
/// A signal is heard after at most this long.
const WAIT: Duration = Duration::from_millis(50);
/// What ended a worker may end this process as well, as Ctrl-C does, and is heard here at most this much later.
const LATER: Duration = Duration::from_millis(200);

/// What became of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It had been done by another run, before this one or beside it.
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
    /// Whether it is one of a crew that works on one order: what has failed for one has failed for all, and none waits long for
    /// others where it could leave the machine.
    pub crew: bool,
}

/// A job that was submitted.
struct Running<'a> {
    job: &'a Job,
    since: Instant,
    /// How long its log was then.
    log: u64,
    /// The token of its lease.
    lease: String,
}

/// What came of taking a job.
enum Claim {
    /// This process has its lease, and its directory is ready.
    Ours(Lease),
    /// Another process has it.
    Elsewhere,
    /// There is nothing left to do.
    Over(Outcome),
}

/// Where a run of jobs stands.
struct State<'a> {
    agenda: Agenda<'a>,
    running: BTreeMap<Ticket, Running<'a>>,
    attempts: BTreeMap<&'a str, usize>,
    others: Others,
    /// Since when it has had nothing to do but wait for others.
    idle: Option<Instant>,
}

impl Scheduler<'_> {
    /// Does `jobs`, which stand in an order in which they can run. A failed job fails alone: what does not need it goes on.
    ///
    /// # Errors
    /// Only what concerns all of them: no worker can be started.
    pub fn run(&self, jobs: &[Job], launcher: &mut dyn Launcher, sink: &mut dyn Sink) -> Result<End> {
        let agenda = self.begin(jobs, sink);
        sink.event(&Event::Planned { jobs: jobs.len(), waiting: &agenda.waiting });
        let (running, attempts, others) = (BTreeMap::new(), BTreeMap::new(), Others::default());
        let mut state = State { agenda, running, attempts, others, idle: None };
        // Whoever was killed at the end of its work, too, left a lease.
        state.others.look(&self.store.leases(), &BTreeSet::new(), &state.agenda.waiting, Instant::now(), sink)?;
        let (sender, signals) = mpsc::channel();
        let _listening = stop::listen(move |signal| {
            // Who would hear of it has ended.
            let _ = sender.send(signal);
        });
        let signal = self.drive(&mut state, launcher, sink, &signals)?;
        let end = match signal {
            None => End::All(state.agenda.outcomes),
            Some(signal) => {
                self.end_workers(state.running, launcher)?;
                let is_done = |job: &&Job| matches!(self.store.stage(&job.id).standing(), Ok(Standing::Done(_)));
                let done = jobs.iter().filter(is_done).count();
                let begun =
                    |job: &&Job| state.attempts.contains_key(&*job.id) && !state.agenda.outcomes.contains_key(&job.id);
                let begun: Vec<&Job> = jobs.iter().filter(begun).collect();
                let under_way = begun.into_iter().filter(|job| !is_done(job)).map(|job| job.stage.name()).collect();
                End::Stopped(Stopped { signal, done, jobs: jobs.len(), under_way })
            }
        };
        sink.event(&Event::Finished { signal });
        Ok(end)
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
            self.start(state, launcher, sink)?;
            if state.running.is_empty() {
                if !state.agenda.waiting.iter().any(|job| state.agenda.is_ready(job)) {
                    return Ok(None);
                }
                match state.idle {
                    Some(since) if self.crew && since.elapsed() >= PATIENCE => return Ok(None),
                    Some(_) => {}
                    None => {
                        state.idle = Some(Instant::now());
                        sink.event(&Event::Waiting { others: state.others.count() });
                    }
                }
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
                        self.let_go(&running, |stage| {
                            if signal.is_none() {
                                self.take_end(state, &running, stage, exit, sink);
                            }
                        });
                    }
                }
            }
            if signal.is_some() {
                return Ok(signal);
            }
        }
    }

    /// Starts what can start: jobs whose lease can be taken. Takes what others have done meanwhile.
    fn start(&self, state: &mut State<'_>, launcher: &mut dyn Launcher, sink: &mut dyn Sink) -> Result<()> {
        state.block(sink);
        if state.agenda.waiting.is_empty() {
            return Ok(());
        }
        let leases = self.store.leases();
        let own = state.running.values().map(|running| running.lease.as_str()).collect();
        state.others.look(&leases, &own, &state.agenda.waiting, Instant::now(), sink)?;
        let mut place = 0;
        while let Some(&job) = state.agenda.waiting.get(place).filter(|_| self.has_room(state)) {
            if !state.agenda.is_ready(job) || !self.can_start(job, state) {
                place += 1;
                continue;
            }
            match self.claim(job, state, sink)? {
                Claim::Elsewhere => place += 1,
                Claim::Over(outcome) => {
                    state.agenda.waiting.remove(place);
                    end(state, job, outcome, 0.0, sink);
                    state.block(sink);
                    place = 0;
                }
                Claim::Ours(lease) => {
                    state.agenda.waiting.remove(place);
                    let log = self.store.stage(&job.id).log_length();
                    let ticket = launcher.submit(job, &self.share(job), lease.token())?;
                    let running = Running { job, since: Instant::now(), log, lease: lease.hand_over() };
                    state.running.insert(ticket, running);
                    let attempt = state.attempts.entry(&job.id).or_default();
                    *attempt += 1;
                    state.idle = None;
                    sink.event(&Event::Started { job, attempt: *attempt });
                }
            }
        }
        Ok(())
    }

    /// Takes a job that can start, unless others have it, or have done it.
    ///
    /// # Errors
    /// No leases can be taken.
    fn claim(&self, job: &Job, state: &mut State<'_>, sink: &mut dyn Sink) -> Result<Claim> {
        let (stage, leases) = (self.store.stage(&job.id), self.store.leases());
        let Some(lease) = leases.take(&job.id, is_exclusive(job))? else {
            state.others.met(&leases, &job.id);
            return Ok(Claim::Elsewhere);
        };
        match stage.standing() {
            Ok(Standing::Done(_)) => return Ok(Claim::Over(Outcome::Cached)),
            Err(error) => return Ok(Claim::Over(Outcome::Failed(error.to_string()))),
            Ok(Standing::Unfinished | Standing::Damaged(_)) => {}
        }
        if stage.failed_at().is_some_and(|at| state.agenda.failed_before.get(job.id.as_str()) != Some(&at))
            && let Some(failed) = stage.failed()
        {
            return Ok(Claim::Over(Outcome::Failed(failed.error)));
        }
        if is_exclusive(job) {
            // Another process may have begun something since the last look.
            let own = BTreeSet::from([lease.token()]);
            state.others.look_again();
            state.others.look(&leases, &own, &state.agenda.waiting, Instant::now(), sink)?;
            if state.others.keep_from_starting(true) {
                return Ok(Claim::Elsewhere);
            }
        }
        match stage.prepare(job) {
            Ok(aside) => {
                aside.iter().for_each(|aside| sink.event(&Event::Warned { job, warning: &aside.to_string() }));
                Ok(Claim::Ours(lease))
            }
            Err(error) => Ok(Claim::Over(Outcome::Failed(error.to_string()))),
        }
    }

    /// Gives up the lease of a job whose worker has ended, after what is to be done while nobody else can take it.
    fn let_go(&self, running: &Running<'_>, last: impl FnOnce(&StageDir)) {
        let (id, leases) = (&running.job.id, self.store.leases());
        let stage = self.store.stage(id);
        // Where it was broken, files are another's by now.
        if leases.is_held(id, &running.lease) {
            stage.remove_half_written();
        }
        last(&stage);
        leases.release(id, &running.lease);
    }

    fn has_room(&self, state: &State<'_>) -> bool {
        state.running.len() < self.slots && !state.running.values().any(|running| is_exclusive(running.job))
    }

    fn can_start(&self, job: &Job, state: &State<'_>) -> bool {
        let alone = is_exclusive(job);
        (!alone || state.running.is_empty()) && !state.others.hold(&job.id) && !state.others.keep_from_starting(alone)
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
        running: &Running<'a>,
        stage: &StageDir,
        exit: Exit,
        sink: &mut dyn Sink,
    ) {
        let &Running { job, since, log, .. } = running;
        let outcome = match (stage.standing(), exit) {
            // The last that a worker writes says that it is done: what ends it then is late, as is one that another overtook.
            (Ok(Standing::Done(_)), _) => Outcome::Done,
            (Err(error), _) => Outcome::Failed(error.to_string()),
            (_, Exit::Interrupted(cause)) if state.attempts.get(job.id.as_str()).is_some_and(|&n| n < ATTEMPTS) => {
                sink.event(&Event::Interrupted { job, cause: &cause });
                state.agenda.waiting.insert(0, job);
                return;
            }
            (_, Exit::Interrupted(cause)) => Outcome::Failed(format!(
                "the worker was ended from outside ({cause}) {ATTEMPTS} times; is the machine short of memory?"
            )),
            (_, Exit::Success) => self.last_words(job, "success, but without a result", log),
            (_, Exit::Failure(how)) => self.last_words(job, &how, log),
        };
        if let Outcome::Failed(error) = &outcome {
            // A disk may be full, a folder another user's: the outcome is told all the same.
            let _ = stage.fail(error);
        }
        end(state, job, outcome, since.elapsed().as_secs_f64(), sink);
    }

    /// Why a job failed, in its worker's own words: what it noted, or else the last that its log says after `log` bytes.
    fn last_words(&self, job: &Job, how: &str, log: u64) -> Outcome {
        let stage = self.store.stage(&job.id);
        if let Some(failed) = stage.failed() {
            return Outcome::Failed(failed.error);
        }
        let path = stage.log().display().to_string();
        let words = stage.last_words(log, LINES);
        Outcome::Failed(match words.last() {
            Some(last) if last.starts_with("memory allocation of") => {
                format!(
                    "the worker ended with {how}: {last}; ask for less at once, as with `batch` or `speed` ({path})"
                )
            }
            Some(_) => format!("the worker ended with {how}; its last words in {path}: {}", words.join("\n  ")),
            None => format!("the worker ended with {how} and said nothing in its log, {path}"),
        })
    }

    /// Cancels all workers, and waits until they have ended.
    fn end_workers(&self, mut running: BTreeMap<Ticket, Running<'_>>, launcher: &mut dyn Launcher) -> Result<()> {
        running.keys().try_for_each(|ticket| launcher.cancel(ticket))?;
        while !running.is_empty() {
            for update in launcher.poll(WAIT)? {
                if let Update::Ended(ticket, _) = update
                    && let Some(ended) = running.remove(&ticket)
                {
                    self.let_go(&ended, |_| {});
                }
            }
        }
        Ok(())
    }
}

/// Notes and tells the end of a job.
fn end(state: &mut State<'_>, job: &Job, outcome: Outcome, seconds: f64, sink: &mut dyn Sink) {
    sink.event(&Event::Ended { job, outcome: &outcome, seconds });
    state.agenda.outcomes.insert(job.id.clone(), outcome);
}

impl State<'_> {
    /// Gives up what needs a job that failed.
    fn block(&mut self, sink: &mut dyn Sink) {
        let mut place = 0;
        while let Some(&job) = self.agenda.waiting.get(place) {
            let Some(cause) = self.agenda.cause_of_block(job) else {
                place += 1;
                continue;
            };
            let outcome = Outcome::Blocked(cause);
            self.agenda.waiting.remove(place);
            sink.event(&Event::Ended { job, outcome: &outcome, seconds: 0.0 });
            self.agenda.outcomes.insert(job.id.clone(), outcome);
        }
    }
}

//! What happens while jobs run, and who is told.

mod bars;
mod file;
mod lines;

pub use bars::Bars;
pub use file::EventsFile;
pub use lines::Lines;

use super::{Outcome, Progress};
use crate::id::Id;
use crate::job::Job;
use std::collections::HashMap;
use std::io::IsTerminal;

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event<'a> {
    /// Jobs are about to be done.
    Planned {
        /// Jobs in all.
        jobs: usize,
        /// Those that are not done yet.
        waiting: &'a [&'a Job],
    },
    /// A job was started.
    Started {
        /// The job.
        job: &'a Job,
        /// Which attempt this is, from 1.
        attempt: usize,
    },
    /// A job is so far.
    Progress {
        /// The job.
        job: &'a Job,
        /// How far.
        progress: &'a Progress,
    },
    /// Something is not as it should be with a job's files or data; the work goes on.
    Warned {
        /// The job.
        job: &'a Job,
        /// What its user should know.
        warning: &'a str,
    },
    /// There is nothing to do until other processes have done what they do.
    Waiting {
        /// How many jobs they do.
        others: usize,
    },
    /// Something outside ended a job's worker; another attempt follows.
    Interrupted {
        /// The job.
        job: &'a Job,
        /// What ended it.
        cause: &'a str,
    },
    /// A job was done, failed, or is not tried because one that it needs failed.
    Ended {
        /// The job.
        job: &'a Job,
        /// What came of it.
        outcome: &'a Outcome,
        /// Seconds since its last attempt was started; 0 if none was.
        seconds: f64,
    },
    /// All has ended, by itself or by a signal.
    Finished {
        /// The signal.
        signal: Option<i32>,
    },
}

/// Who is told what happens. A sink cannot stop the work: what it cannot show or write is lost to it.
pub trait Sink {
    /// Takes note of an event.
    fn event(&mut self, event: &Event<'_>);
}

/// Several sinks, told in turn.
#[derive(Default)]
pub struct Sinks(pub Vec<Box<dyn Sink>>);

impl Sink for Sinks {
    fn event(&mut self, event: &Event<'_>) {
        self.0.iter_mut().for_each(|sink| sink.event(event));
    }
}

/// Whose each job is, in words: `depth=4 seed 1`, or `6 trials`.
#[derive(Debug, Clone, Default)]
pub struct Owners(pub HashMap<Id, String>);

impl Owners {
    /// Whose a job is; the first digits of its id where that is not known.
    fn name<'a>(&'a self, job: &'a Job) -> &'a str {
        self.0.get(&job.id).map_or_else(|| job.id.get(..8).unwrap_or(&job.id), String::as_str)
    }

    /// A job in a line: its stage, and whose it is.
    fn job(&self, job: &Job) -> String {
        format!("{} of {}", job.stage.name(), self.name(job))
    }
}

/// What a person on standard error sees: bars on a terminal, a line per job elsewhere, with whose it is.
pub fn for_people(owners: Owners) -> Box<dyn Sink> {
    if std::io::stderr().is_terminal() { Box::new(Bars::of(owners)) } else { Box::new(Lines::of(owners)) }
}

/// What a line says of waiting for others.
fn waits(others: usize) -> String {
    let who = if others == 1 { "another process does a job" } else { "other processes do jobs" };
    format!("{who} that the rest needs, or measures speed: waiting (`rqlab status` shows who does what)")
}

/// What a line says of a job that failed.
fn failed(job: &Job, error: &str, owners: &Owners) -> String {
    format!("failed  {}: {error}", owners.job(job))
}

/// What a line says of a warning.
fn warned(job: &Job, warning: &str, owners: &Owners) -> String {
    format!("warning  {}: {warning}", owners.job(job))
}

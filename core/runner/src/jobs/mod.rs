//! Who does the work: one process per job, as many at once as there are slots; beside any number of other processes that do jobs of
//! the same store.
//!
//! ```text
//! plan's jobs --> Scheduler --submit, cancel--> Launcher --> worker: Reporter --> stages/<id>/events.jsonl
//!                   |   ^                          |
//!                 Event '---------- poll ----------'
//!                   v
//!                 Sinks: bars, lines, runs/events.jsonl
//! ```
//!
//! The [`Scheduler`] decides which job runs when, and what its end means. It takes a stage's lease for the worker that is to do
//! it; what others hold leases of, it leaves to them, and takes what they leave. It knows a [`Launcher`] by its trait alone, so
//! that work can be done elsewhere than in processes of this machine ([`launcher::Local`]). What happens is an [`Event`] to any
//! number of [`Sink`]s. A worker ([`run_worker`]) does one job; the points of its curves can be read while it trains
//! ([`curves`]).

mod agenda;
pub mod curves;
mod holding;
pub mod launcher;
mod others;
mod scheduler;
pub mod sinks;
mod stop;
mod worker;

pub(crate) use agenda::Agenda;
pub use holding::{Asked, end_when_asked};
pub(crate) use holding::{Training, give_up, hold};
pub use launcher::{Exit, Launcher, Share, Ticket, Update};
pub use scheduler::{End, Outcome, Outcomes, Scheduler};
pub use sinks::{Event, Sink, Sinks};
pub(crate) use stop::listen;
pub use stop::{end_process, outlive_file_limit};
pub(crate) use worker::multiplies_as_asked;
pub use worker::{Reporter, peak_memory_mib, run_worker};

use crate::job::Job;
use serde::{Deserialize, Serialize};

/// Jobs that a signal stopped: Ctrl-C, or the system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stopped {
    /// The signal.
    pub signal: i32,
    /// Jobs that are done.
    pub done: usize,
    /// Jobs in all.
    pub jobs: usize,
    /// The stages of those that were being done.
    pub under_way: Vec<&'static str>,
}

/// How far a worker is: what it says on its standard output, as a line of JSON each time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Units of work done.
    pub done: u64,
    /// Units of work in all.
    pub total: u64,
    /// What may be worth seeing beside the bar, such as the last loss.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// What a worker says on its standard output, a line of JSON each time: how far it is, a warning, or why it ends before its job
/// is done where no exit code can tell, since what started its ranks would take one for a failure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Line {
    Progress(Progress),
    Warning { warning: String },
    Farewell { farewell: String },
}

/// Rough relative cost of a job, for a bar over all of them.
fn weight(job: &Job) -> u64 {
    job.stage.work().max(1.0) as u64
}

/// Whether a job must run without neighbours, because it measures speed.
fn is_exclusive(job: &Job) -> bool {
    job.stage.exclusive()
}

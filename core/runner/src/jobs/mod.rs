//! Who does the work: one process a job, as many at once as there are slots.
//!
//! The parent holds the store's lock and starts `rqlab work` for each job. A worker says how far it is on its standard
//! output (a line of JSON each time), writes its log to a file, and ends when its standard input does: a parent that is
//! killed takes its workers along, and none is left to write into a store that a later run has opened. A parent that is asked
//! to stop, by Ctrl-C or by the system, ends its workers the same way, waits for them, and says how the work goes on.

mod progress;
mod scheduler;
mod stop;
mod worker;

pub use progress::Progress;
pub use scheduler::{End, Outcome, Scheduler};
pub use stop::end_process;
pub use worker::{Reporter, peak_memory_mib, work};

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

/// What a worker says on its standard output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Units of work done.
    pub done: u64,
    /// Units of work in all.
    pub total: u64,
    /// What may be worth seeing beside the bar, such as the last loss.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

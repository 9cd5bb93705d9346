//! How a job gets to run somewhere.

mod local;

pub use local::Local;

use super::Progress;
use crate::job::Job;
use rqlab_sdk::Result;
use std::time::Duration;

/// What runs jobs: processes of this machine, a cluster's queue.
///
/// A launcher starts what it is given, says how far it is, and says once that it has ended. It decides nothing: the
/// [`Scheduler`](super::Scheduler) has prepared the stage's directory before, submits a job when what it needs is done, and reads
/// from the store what came of it. Everything that a job leaves is in the store, so that workers elsewhere need a file system
/// in common, and one variable: `RQLAB_GPU` tells a worker the precision of its stage, which counts in the stage's id and which
/// the worker does not look up itself.
pub trait Launcher {
    /// Has a job run with its share of the machine, and returns at once. The worker takes over the lease that was taken for it. The
    /// ticket has not been given out before.
    ///
    /// # Errors
    /// That concern all jobs: the worker cannot be started, the queue cannot be reached.
    fn submit(&mut self, job: &Job, share: &Share, lease: &str) -> Result<Ticket>;

    /// What has happened since the last call, in order; waits for the first of it, at most so long.
    ///
    /// # Errors
    /// As for [`Launcher::submit`]. That one job ended badly is no error, but an [`Exit`].
    fn poll(&mut self, wait: Duration) -> Result<Vec<Update>>;

    /// Asks a job to end. It is gone when [`Launcher::poll`] says so.
    ///
    /// # Errors
    /// As for [`Launcher::submit`].
    fn cancel(&mut self, ticket: &Ticket) -> Result<()>;
}

/// What a job may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Threads to compute with.
    pub threads: usize,
    /// Whether it must have the machine to itself, because it measures speed.
    pub exclusive: bool,
}

/// A submitted job, as its launcher calls it: the number of a process, of a queue's entry. Another attempt is another ticket.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub String);

/// What a launcher has to say.
#[derive(Debug, Clone, PartialEq)]
pub enum Update {
    /// How far a job is. A launcher that does not know says nothing.
    Progress(Ticket, Progress),
    /// Something that its user should know: the work goes on.
    Warning(Ticket, String),
    /// It has ended, and nothing of it runs any more.
    Ended(Ticket, Exit),
}

/// How a worker ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// By itself, without an error: the store holds its result.
    Success,
    /// By itself, with an error or a crash: the store may know more than this word on how. Another attempt would end alike.
    Failure(String),
    /// By something outside it, as this says: a kill, a preemption, a node that failed. Another attempt goes on where it was.
    Interrupted(String),
}

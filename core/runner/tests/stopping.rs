//! A signal cancels what a launcher runs. A process of its own, since signals are the whole process's.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use rqlab::job::Job;
use rqlab::jobs::{End, Exit, Launcher, Scheduler, Share, Sinks, Stopped, Ticket, Update};
use rqlab::store::Store;
use rqlab_sdk::Result;
use signal_hook::consts::SIGTERM;
use std::time::Duration;

/// Jobs without end, but for a cancellation. The first poll asks this process to stop.
#[derive(Default)]
struct Endless {
    submitted: Vec<Ticket>,
    cancelled: Vec<Ticket>,
    polled: bool,
}

impl Launcher for Endless {
    fn submit(&mut self, job: &Job, _: &Share) -> Result<Ticket> {
        self.submitted.push(Ticket(job.id.clone()));
        Ok(Ticket(job.id.clone()))
    }

    fn poll(&mut self, _: Duration) -> Result<Vec<Update>> {
        if !std::mem::replace(&mut self.polled, true) {
            signal_hook::low_level::raise(SIGTERM).unwrap();
        }
        let ended = |ticket: &Ticket| Update::Ended(ticket.clone(), Exit::Interrupted("cancelled".to_owned()));
        Ok(self.cancelled.iter().map(ended).collect())
    }

    fn cancel(&mut self, ticket: &Ticket) -> Result<()> {
        self.cancelled.push(ticket.clone());
        Ok(())
    }
}

#[test]
fn a_signal_cancels_all_jobs_and_waits_for_their_ends() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let plan = common::plan_of("    prior: guess,\n    axes: { \"quantizer.depth\": [1, 2] },");
    let scheduler = Scheduler { store: &store, slots: 2, threads: 2 };
    let mut launcher = Endless::default();
    let end = scheduler.run(&plan.jobs, &mut launcher, &mut Sinks::default()).unwrap();
    let jobs = plan.jobs.len();
    let under_way = vec!["classifier", "tokenizer"];
    assert_eq!(end, End::Stopped(Stopped { signal: SIGTERM, done: 0, jobs, under_way }));
    launcher.submitted.sort();
    launcher.cancelled.sort();
    assert_eq!((launcher.submitted.len(), &launcher.submitted), (2, &launcher.cancelled));
}

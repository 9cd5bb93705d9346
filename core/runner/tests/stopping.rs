//! A signal cancels what a launcher runs. A process of its own, since signals are the whole process's.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use rqlab::job::Job;
use rqlab::jobs::{End, Event, Exit, Launcher, Scheduler, Share, Sink, Stopped, Ticket, Update};
use rqlab::store::Store;
use rqlab_sdk::Result;
use signal_hook::consts::SIGTERM;
use std::time::Duration;

/// Jobs without end, but for a cancellation. The first poll asks this process to stop; the same signal has ended `dead` of the
/// workers before.
#[derive(Default)]
struct Endless {
    submitted: Vec<Ticket>,
    cancelled: Vec<Ticket>,
    polled: bool,
    dead: usize,
}

impl Launcher for Endless {
    fn submit(&mut self, job: &Job, _: &Share, _: &str) -> Result<Ticket> {
        self.submitted.push(Ticket(job.id.to_string()));
        Ok(Ticket(job.id.to_string()))
    }

    fn poll(&mut self, _: Duration) -> Result<Vec<Update>> {
        let ended = |ticket: &Ticket| Update::Ended(ticket.clone(), Exit::Interrupted("signal".to_owned()));
        if !std::mem::replace(&mut self.polled, true) {
            signal_hook::low_level::raise(SIGTERM).unwrap();
            return Ok(self.submitted[..self.dead].iter().map(ended).collect());
        }
        Ok(self.cancelled.iter().map(ended).collect())
    }

    fn cancel(&mut self, ticket: &Ticket) -> Result<()> {
        self.cancelled.push(ticket.clone());
        Ok(())
    }
}

/// Whether anything was said to have been interrupted, and to go on.
#[derive(Default)]
struct GoesOn(bool);

impl Sink for GoesOn {
    fn event(&mut self, event: &Event<'_>) {
        self.0 |= matches!(event, Event::Interrupted { .. });
    }
}

#[test]
fn a_signal_cancels_all_jobs_and_waits_for_their_ends() {
    let plan = common::plan_of("    prior: guess,\n    axes: { \"quantizer.depth\": [1, 2] },");
    for dead in 0..=2 {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let scheduler = Scheduler { store: &store, slots: 2, threads: 2, crew: false };
        let (mut launcher, mut sink) = (Endless { dead, ..Endless::default() }, GoesOn::default());
        let end = scheduler.run(&plan.jobs, &mut launcher, &mut sink).unwrap();
        let jobs = plan.jobs.len();
        let under_way = vec!["classifier", "tokenizer"];
        assert_eq!(end, End::Stopped(Stopped { signal: SIGTERM, done: 0, jobs, under_way }));
        assert!(!sink.0, "a worker that Ctrl-C ended is not said to go on");
        let mut living = launcher.submitted.split_off(dead);
        living.sort();
        launcher.cancelled.sort();
        assert_eq!((launcher.submitted.len(), living), (dead, launcher.cancelled));
    }
}

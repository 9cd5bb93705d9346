//! Jobs run wherever a launcher has them run: here in a queue of toys, which the scheduler knows by the trait alone.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use common::plan_of;
use rqlab::id::Id;
use rqlab::job::Job;
use rqlab::jobs::launcher::Local;
use rqlab::jobs::sinks::EventsFile;
use rqlab::jobs::{End, Event, Exit, Launcher, Outcome, Progress, Scheduler, Share, Sink, Sinks, Ticket, Update};
use rqlab::plan::Plan;
use rqlab::ranks::Ranks;
use rqlab::store::{Done, Store};
use rqlab_sdk::{Error, Result};
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

/// Holds what it is given, and does the oldest job when it is asked what happened.
struct Queue<'a> {
    store: &'a Store,
    waiting: VecDeque<(Ticket, Job, Share)>,
    /// The share of every submission, with the number of those that waited before it.
    submitted: Vec<(String, Share, usize)>,
    attempts: BTreeMap<Id, usize>,
    /// How an attempt at a job ends.
    ends: fn(&Job, usize) -> Exit,
}

impl<'a> Queue<'a> {
    fn new(store: &'a Store, ends: fn(&Job, usize) -> Exit) -> Self {
        Self { store, waiting: VecDeque::new(), submitted: Vec::new(), attempts: BTreeMap::new(), ends }
    }
}

impl Launcher for Queue<'_> {
    fn submit(&mut self, job: &Job, share: &Share, lease: &str) -> Result<Ticket> {
        assert!(self.store.leases().is_held(&job.id, lease), "nobody else can take it");
        let stage = self.store.stage(&job.id);
        assert_eq!(stage.job()?, *job, "its directory is prepared");
        for needed in job.stage.needs() {
            assert!(self.store.stage(needed).done()?.is_some(), "what it needs is done");
        }
        let ticket = Ticket(format!("entry {}", self.submitted.len()));
        self.submitted.push((job.stage.name().to_owned(), *share, self.waiting.len()));
        self.waiting.push_back((ticket.clone(), job.clone(), *share));
        Ok(ticket)
    }

    fn poll(&mut self, _: Duration) -> Result<Vec<Update>> {
        let Some((ticket, job, _)) = self.waiting.pop_front() else { return Ok(vec![]) };
        let attempt = self.attempts.entry(job.id.clone()).or_default();
        *attempt += 1;
        let exit = (self.ends)(&job, *attempt);
        if exit == Exit::Success {
            let stage = self.store.stage(&job.id);
            std::fs::write(stage.result(), "numbers").map_err(Error::file(stage.result()))?;
            stage.finish(Done::default())?;
        }
        let progress = Progress { done: 1, total: 2, note: String::new() };
        Ok(vec![Update::Progress(ticket.clone(), progress), Update::Ended(ticket, exit)])
    }

    fn cancel(&mut self, ticket: &Ticket) -> Result<()> {
        panic!("{ticket:?} was cancelled, though nobody asked to stop");
    }
}

/// Writes down what it is told: `tokenizer: started 1`.
struct Notes(Rc<RefCell<Vec<String>>>);

impl Sink for Notes {
    fn event(&mut self, event: &Event<'_>) {
        self.0.borrow_mut().push(match event {
            Event::Planned { jobs, waiting } => format!("{} of {jobs} jobs", waiting.len()),
            Event::Started { job, attempt } => format!("{}: started {attempt}", job.stage.name()),
            Event::Progress { job, progress } => {
                format!("{}: {} of {}", job.stage.name(), progress.done, progress.total)
            }
            Event::Warned { job, warning } => format!("{}: warning: {warning}", job.stage.name()),
            Event::Waiting { others } => format!("waits for {others}"),
            Event::Interrupted { job, cause } => format!("{}: {cause}", job.stage.name()),
            Event::Ended { job, outcome, .. } => format!("{}: {outcome:?}", job.stage.name()),
            Event::Finished { signal } => format!("finished {signal:?}"),
        });
    }
}

/// One tokenizer, two priors, which all measure speed.
fn plan() -> Plan {
    plan_of("    prior: guess,\n    axes: { \"prior.width\": [32, 64] },")
}

/// Runs the jobs of a plan on a queue, and tells what a sink was told.
fn run(plan: &Plan, queue: &mut Queue<'_>) -> Result<(BTreeMap<Id, Outcome>, Vec<String>)> {
    let scheduler = Scheduler { store: queue.store, slots: 2, threads: 8, crew: false };
    let notes = Rc::new(RefCell::new(Vec::new()));
    let mut sinks = Sinks(vec![Box::new(Notes(notes.clone())), Box::new(EventsFile::open(queue.store)?)]);
    match scheduler.run(&plan.jobs, queue, &mut sinks)? {
        End::All(outcomes) => Ok((outcomes, notes.take())),
        End::Stopped(stopped) => panic!("{stopped:?}"),
    }
}

#[test]
fn every_job_is_done_though_each_first_attempt_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let lost_once = |_: &Job, attempt| match attempt {
        1 => Exit::Interrupted("preempted".to_owned()),
        _ => Exit::Success,
    };
    let mut queue = Queue::new(&store, lost_once);
    let plan = plan();
    let (outcomes, notes) = run(&plan, &mut queue).unwrap();
    assert!(outcomes.len() == plan.jobs.len() && outcomes.values().all(|outcome| *outcome == Outcome::Done));
    let of_tokens: Vec<&str> = notes.iter().filter_map(|note| note.strip_prefix("tokens: ")).collect();
    assert_eq!(of_tokens, ["started 1", "1 of 2", "preempted", "started 2", "1 of 2", "Done"]);
    assert_eq!(notes.first(), Some(&format!("{0} of {0} jobs", plan.jobs.len())));
    assert_eq!(notes.last().map(String::as_str), Some("finished None"));

    // Nothing is done twice.
    let (outcomes, notes) = run(&plan, &mut Queue::new(&store, |_, _| panic!("all is done"))).unwrap();
    assert!(outcomes.values().all(|outcome| *outcome == Outcome::Cached));
    assert_eq!(notes, [format!("0 of {} jobs", plan.jobs.len()), "finished None".to_owned()]);
}

#[test]
fn what_is_lost_three_times_fails_with_all_that_needs_it_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let mut queue = Queue::new(&store, |job, _| match job.stage.name() {
        "tokens" => Exit::Interrupted("out of memory".to_owned()),
        _ => Exit::Success,
    });
    let plan = plan();
    let (outcomes, notes) = run(&plan, &mut queue).unwrap();
    let of = |name: &str| -> Vec<&Outcome> {
        plan.jobs.iter().filter(|job| job.stage.name() == name).map(|job| &outcomes[&job.id]).collect()
    };
    let [Outcome::Failed(error)] = of("tokens")[..] else { panic!("{:?}", of("tokens")) };
    assert!(error.contains("(out of memory) 3 times"), "{error}");
    assert_eq!(notes.iter().filter(|note| note.starts_with("tokens: started")).count(), 3);
    let blocked = Outcome::Blocked(error.clone());
    assert_eq!((of("prior"), of("generation")), (vec![&blocked; 2], vec![&blocked; 2]));
    assert_eq!((of("tokenizer"), of("reconstruction")), (vec![&Outcome::Done], vec![&Outcome::Done]));
}

#[test]
fn a_failure_is_told_in_the_words_of_the_worker_and_not_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let mut queue = Queue::new(&store, |_, _| Exit::Failure("exit status: 101".to_owned()));
    let plan = plan();
    let (outcomes, _) = run(&plan, &mut queue).unwrap();
    let tokenizer = plan.jobs.iter().find(|job| job.stage.name() == "tokenizer").unwrap();
    let log = store.stage(&tokenizer.id).log();
    let said = format!("the worker ended with exit status: 101 and said nothing in its log, {}", log.display());
    assert_eq!(outcomes[&tokenizer.id], Outcome::Failed(said));
    assert_eq!(queue.attempts[&tokenizer.id], 1);
}

#[test]
fn jobs_share_the_machine_but_for_those_that_measure_speed() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let mut queue = Queue::new(&store, |_, _| Exit::Success);
    run(&plan(), &mut queue).unwrap();
    for (name, share, before) in &queue.submitted {
        match name.as_str() {
            "generation" => assert_eq!((*share, *before), (Share { threads: 8, exclusive: true }, 0)),
            _ => assert!(*share == Share { threads: 4, exclusive: false } && *before < 2, "{name} {share:?} {before}"),
        }
    }
    assert!(queue.submitted.iter().any(|(.., before)| *before == 1), "two at once");
}

#[test]
fn events_are_lines_of_json() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let mut queue = Queue::new(&store, |job, _| match job.stage.name() {
        "prior" => Exit::Failure("exit status: 1".to_owned()),
        _ => Exit::Success,
    });
    let plan = plan_of("    prior: guess,");
    run(&plan, &mut queue).unwrap();
    let text = std::fs::read_to_string(folder.path().join("events.jsonl")).unwrap();
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let jobs = plan.jobs.len();
    assert!(lines.iter().all(|line| line["time"].as_f64().is_some_and(|time| time > 1e9)));
    assert_eq!(
        (&lines[0]["event"], &lines[0]["jobs"], &lines[0]["waiting"]),
        (&"planned".into(), &jobs.into(), &jobs.into())
    );
    assert_eq!(lines.last().unwrap()["event"], "finished");
    let of =
        |event: &str, stage: &str| lines.iter().find(|line| line["event"] == event && line["stage"] == stage).unwrap();
    let tokens = &plan.jobs.iter().find(|job| job.stage.name() == "tokens").unwrap().id;
    assert_eq!(
        (&of("started", "tokens")["job"], &of("started", "tokens")["attempt"]),
        (&tokens.as_str().into(), &1.into())
    );
    assert_eq!(
        (&of("ended", "tokens")["outcome"], &of("ended", "tokens")["error"]),
        (&"done".into(), &serde_json::Value::Null)
    );
    assert_eq!(of("ended", "prior")["outcome"], "failed");
    let blocked = of("ended", "generation");
    assert!(blocked["outcome"] == "blocked" && blocked["error"].as_str().unwrap().contains("exit status: 1"));
}

/// A crash comes from inside: another attempt would end alike. A kill does not.
#[test]
#[cfg(target_os = "linux")]
fn a_crash_is_told_in_the_last_words_of_the_log_and_not_tried_again() {
    let plan = plan();
    for (script, attempts, expected) in [
        (
            "echo earlier; echo memory allocation of 9 bytes failed; echo stack backtrace:; echo '  0: rust_oom'; echo '     at x.rs:1'; kill -ABRT $$",
            1,
            "SIGABRT): memory allocation of 9",
        ),
        ("echo; echo -----; echo it was the last word; echo ----; kill -SEGV $$", 1, "log.txt: it was the last word"),
        ("echo there are not enough slots; echo for two; exit 213", 1, "exit status: 213; its last words"),
        ("kill -KILL $$", 3, "was ended from outside (signal: 9 (SIGKILL)) 3 times"),
        ("exit 137", 3, "was ended from outside (exit status: 137) 3 times"),
        ("kill -XFSZ $$", 1, "and said nothing in its log, "),
        ("echo 'note: run with'; kill -KILL $$", 3, "was ended from outside (signal: 9 (SIGKILL)) 3 times"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let tokenizer: Vec<Job> = plan.jobs.iter().filter(|job| job.stage.name() == "tokenizer").cloned().collect();
        let arguments = ["-c".into(), format!("ulimit -c 0; {{ {script}; }} >&2").into()];
        let mut local = Local::new("/bin/sh".into(), arguments.to_vec(), &store, Ranks::default());
        let scheduler = Scheduler { store: &store, slots: 1, threads: 1, crew: false };
        let notes = Rc::new(RefCell::new(Vec::new()));
        let End::All(outcomes) = scheduler.run(&tokenizer, &mut local, &mut Notes(notes.clone())).unwrap() else {
            panic!("nobody stopped it")
        };
        let Outcome::Failed(error) = &outcomes[&tokenizer[0].id] else { panic!("{outcomes:?}") };
        assert!(error.contains(expected), "{error}");
        assert_eq!(notes.borrow().iter().filter(|note| note.contains(": started ")).count(), attempts, "{script}");
    }
}

#[test]
fn a_launcher_that_cannot_be_reached_ends_the_run() {
    struct Gone;
    impl Launcher for Gone {
        fn submit(&mut self, _: &Job, _: &Share, _: &str) -> Result<Ticket> {
            Err(Error::Data("the queue does not answer".to_owned()))
        }
        fn poll(&mut self, _: Duration) -> Result<Vec<Update>> {
            Ok(vec![])
        }
        fn cancel(&mut self, _: &Ticket) -> Result<()> {
            Ok(())
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let scheduler = Scheduler { store: &store, slots: 2, threads: 2, crew: false };
    let error = scheduler.run(&plan().jobs, &mut Gone, &mut Sinks::default()).unwrap_err();
    assert_eq!(error.to_string(), "the queue does not answer");
}

//! A member of a crew: what a task of an array does.

use super::settings::GRACE;
use super::slurm::Slurm;
use super::submission::{PlanFile, Submission};
use crate::job::Job;
use crate::jobs::launcher::Local;
use crate::jobs::sinks::{EventsFile, Owners, for_people};
use crate::jobs::{End, Event, Outcome, Scheduler, Sink, Sinks, Stopped};
use crate::plugins::Plugins;
use crate::ranks::Ranks;
use crate::store::Store;
use crate::ui::say;
use rqlab_sdk::{Error, Result};
use signal_hook::consts::SIGUSR2;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::SystemTime;

/// What a member works with.
pub struct Crew<'a> {
    /// The plan.
    pub submission: &'a Submission,
    /// Where the work is kept.
    pub store: &'a Store,
    /// The plugins of this machine.
    pub plugins: &'a Plugins,
    /// Jobs at once.
    pub slots: usize,
    /// Threads that they share.
    pub threads: usize,
    /// Arguments that every worker gets: plugin folders, device.
    pub worker_arguments: Vec<OsString>,
    /// How many ranks train a stage together.
    pub ranks: Ranks,
}

/// The task that this process runs in: `12_3`, the array's job and the task's index.
pub fn task() -> String {
    let variable = |name: &str| env::var(name).ok().filter(|value| value.bytes().all(|byte| byte.is_ascii_digit()));
    let index = variable("SLURM_ARRAY_TASK_ID").unwrap_or_else(|| std::process::id().to_string());
    format!("{}_{index}", variable("SLURM_ARRAY_JOB_ID").unwrap_or_else(|| "0".to_owned()))
}

/// The processors that Slurm gave to the task.
pub fn processors() -> Option<usize> {
    let number = |name: &str| env::var(name).ok()?.parse().ok().filter(|&count| count > 0);
    number("SLURM_CPUS_PER_TASK").or_else(|| number("SLURM_CPUS_ON_NODE"))
}

impl Crew<'_> {
    /// Does what can be done of the plan, until there is nothing left, or a signal. Near its time limit the task is put back into
    /// the queue, if it has achieved anything.
    ///
    /// # Errors
    /// The plan cannot be read; plugins are lacking here; a time limit in which nothing is achieved.
    pub fn work(&self) -> Result<Option<Stopped>> {
        let (task, plan) = (task(), self.submission.read()?);
        if let Some(trouble) = self.lacks(&plan.jobs) {
            self.submission.sign_in(&task, Some(trouble.clone()))?;
            return Err(Error::Unsupported(trouble));
        }
        self.submission.sign_in(&task, None)?;
        let achieved = Achieved { store: self.store.clone(), seen: Rc::default() };
        let seen = achieved.seen.clone();
        let PlanFile { jobs, owners, .. } = plan;
        let mut sinks = Sinks(vec![Box::new(achieved), for_people(Owners(owners))]);
        let log = self.submission.logs().join(format!("{task}.jsonl"));
        match EventsFile::at(&log) {
            Ok(file) => sinks.0.push(Box::new(file)),
            Err(error) => say(format!("warning: {error}; what happens is not kept there")),
        }
        let program = env::current_exe().map_err(Error::file("rqlab"))?;
        let mut launcher = Local::new(program, self.worker_arguments.clone(), self.store, self.ranks.clone());
        let scheduler = Scheduler { store: self.store, slots: self.slots, threads: self.threads, crew: true };
        match scheduler.run(&jobs, &mut launcher, &mut sinks)? {
            End::All(_) => Ok(None),
            End::Stopped(stopped) if stopped.signal == SIGUSR2 => {
                self.go_on_later(&task, seen.take().any()).map(|()| Some(stopped))
            }
            End::Stopped(stopped) => Ok(Some(stopped)),
        }
    }

    /// Puts the task back into the queue.
    fn go_on_later(&self, task: &str, has_achieved: bool) -> Result<()> {
        if !has_achieved {
            let trouble = format!(
                "no stage was done and no checkpoint kept before the time limit, of which the last {GRACE} s are for ending: \
                 give the tasks more --time"
            );
            self.submission.sign_in(task, Some(trouble.clone()))?;
            return Err(Error::Unsupported(trouble));
        }
        if env::var_os("SLURM_JOB_ID").is_none() {
            return Ok(());
        }
        say("the time limit is near: the task goes back into the queue");
        // By its index: the number of a job is that of a whole array, too.
        Slurm.requeue(task)
    }

    /// Which plugins of some jobs are not here, or are others.
    fn lacks(&self, jobs: &[Job]) -> Option<String> {
        let here: BTreeSet<(String, &str)> = self
            .plugins
            .provided()
            .into_iter()
            .map(|provided| {
                let component = &provided.component;
                (crate::plugins::key(component.build.kind(), component.name), provided.origin.digest.as_str())
            })
            .collect();
        let needed: BTreeSet<(&String, &String)> =
            jobs.iter().flat_map(|job| job.stage.calls()).flat_map(|call| &call.plugins).collect();
        let lacking = needed.into_iter().filter(|(name, digest)| !here.contains(&((*name).clone(), digest.as_str())));
        let names: Vec<&str> = lacking.map(|(name, _)| name.as_str()).collect();
        (!names.is_empty()).then(|| {
            let searched: Vec<String> = self.plugins.searched().iter().map(|dir| dir.display().to_string()).collect();
            format!(
                "this machine lacks plugins that the plan was made with, or has others: {}; searched {}: put the same rqlab, \
                 with its plugins, where all nodes see it",
                names.join(", "),
                searched.join(", ")
            )
        })
    }
}

/// Notes whether anything is achieved: a stage done, a checkpoint kept.
struct Achieved {
    store: Store,
    seen: Rc<RefCell<Seen>>,
}

#[derive(Default)]
struct Seen {
    is_done: bool,
    /// The checkpoints of what was begun, and when they had been kept.
    checkpoints: Vec<(PathBuf, Option<SystemTime>)>,
}

fn kept(checkpoint: &PathBuf) -> Option<SystemTime> {
    std::fs::metadata(checkpoint).and_then(|about| about.modified()).ok()
}

impl Seen {
    fn any(&self) -> bool {
        self.is_done || self.checkpoints.iter().any(|(path, before)| kept(path).is_some_and(|now| Some(now) != *before))
    }
}

impl Sink for Achieved {
    fn event(&mut self, event: &Event<'_>) {
        match event {
            Event::Started { job, .. } => {
                let path = self.store.stage(&job.id).state();
                let before = kept(&path);
                self.seen.borrow_mut().checkpoints.push((path, before));
            }
            Event::Ended { outcome: Outcome::Done, .. } => self.seen.borrow_mut().is_done = true,
            _ => {}
        }
    }
}

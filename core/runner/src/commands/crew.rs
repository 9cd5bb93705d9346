//! `rqlab crew`: what a task of a cluster does. Not for people.

use crate::cli::Global;
use crate::cluster::Submission;
use crate::cluster::crew::{Crew, processors, task};
use crate::commands::sweep::jobs_at_once;
use crate::commands::{Failure, Outcome, load_plugins, threads};
use crate::ranks::Ranks;
use crate::store::Store;
use rqlab_sdk::tensor::device;
use std::ffi::OsString;
use std::path::Path;

pub(super) fn run(global: &Global, plan: &Path, runs: &Path, jobs: Option<u16>) -> Result<Outcome, Failure> {
    let submission = Submission::at(plan, runs);
    let store = Store::open(runs)?;
    let plugins = load_plugins(global).inspect_err(|failure| {
        if let Failure::Input(invalid) = failure {
            // Who watches tells it; the log has it in any case.
            let _ = submission.sign_in(&task(), Some(invalid.to_string()));
        }
    })?;
    let threads = global.threads.map(usize::from).or_else(processors).unwrap_or_else(|| threads(global));
    let mut worker_arguments: Vec<OsString> = vec!["--device".into(), device().to_string().into()];
    for folder in &global.plugins {
        worker_arguments.extend(["--plugins".into(), folder.into()]);
    }
    let ranks = Ranks::asked(global.ranks)?;
    ranks.check().inspect_err(|lacking| {
        let _ = submission.sign_in(&task(), Some(lacking.message.clone()));
    })?;
    let slots = jobs_at_once(jobs, threads, device(), ranks.count);
    let crew =
        Crew { submission: &submission, store: &store, plugins: &plugins, slots, threads, worker_arguments, ranks };
    match crew.work()? {
        None => Ok(Outcome::Done),
        Some(stopped) => Err(Failure::Stopped(stopped)),
    }
}

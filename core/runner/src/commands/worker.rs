//! `rqlab worker`: what a sweep starts for each job. Not for people.

use crate::cli::Global;
use crate::commands::{Failure, Outcome, load_plugins};
use crate::jobs::{Asked, end_when_asked, run_worker};
use crate::ranks::connect;
use crate::store::Store;
use std::path::Path;

pub(super) fn run(global: &Global, id: &str, lease: Option<&str>, runs: &Path) -> Result<Outcome, Failure> {
    let store = Store::open(runs)?;
    let ranks = connect(usize::from(global.ranks.unwrap_or(1))).inspect_err(|error| {
        // What cannot be noted is said in the log.
        let _ = store.stage(id).fail(&error.to_string());
    })?;
    if lease.is_some() {
        let asked = if ranks.size() == 1 { Asked::Alone } else { Asked::WithOthers };
        end_when_asked(ranks.rank() == 0, asked);
    }
    let plugins = load_plugins(global)?;
    // The store has the error already, and the parent shows it.
    match run_worker(&store, id, lease, &plugins, &ranks) {
        Ok(()) => Ok(Outcome::Done),
        Err(_) if ranks.size() == 1 => Ok(Outcome::SomeFailed),
        // Others may wait for this rank in the midst of a step: what started them ends them when one ends without a farewell.
        Err(_) => std::process::exit(1),
    }
}

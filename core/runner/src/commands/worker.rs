//! `rqlab worker`: what a sweep starts for each job. Not for people.

use crate::cli::Global;
use crate::commands::{Failure, Outcome, load_plugins};
use crate::jobs::{end_with_parent, run_worker};
use crate::store::Store;
use std::path::Path;

pub(super) fn run(global: &Global, id: &str, runs: &Path, lifeline: bool) -> Result<Outcome, Failure> {
    if lifeline {
        end_with_parent();
    }
    let store = Store::open(runs)?;
    let plugins = load_plugins(global)?;
    // The store has the error already, and the parent shows it.
    Ok(if run_worker(&store, id, &plugins).is_ok() { Outcome::Done } else { Outcome::SomeFailed })
}

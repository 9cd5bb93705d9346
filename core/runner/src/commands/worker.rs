//! `rqlab worker`: what a sweep starts for each job. Not for people.

use crate::cli::Global;
use crate::commands::{Failure, Outcome, load_plugins};
use crate::jobs::{end_when_asked, run_worker};
use crate::store::Store;
use std::path::Path;

pub(super) fn run(global: &Global, id: &str, lease: Option<&str>, runs: &Path) -> Result<Outcome, Failure> {
    if lease.is_some() {
        end_when_asked();
    }
    let store = Store::open(runs)?;
    let plugins = load_plugins(global)?;
    // The store has the error already, and the parent shows it.
    Ok(if run_worker(&store, id, lease, &plugins).is_ok() { Outcome::Done } else { Outcome::SomeFailed })
}

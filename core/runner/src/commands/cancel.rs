//! `rqlab cancel`: ends the work of an experiment on a cluster.

use crate::cli::{ExperimentArgs, Global};
use crate::cluster::{Slurm, Submission};
use crate::commands::{Failure, Outcome, open};
use crate::experiment::Diagnostic;
use crate::store::Store;
use crate::ui::{Ui, counted};

pub(super) fn run(global: &Global, arguments: &ExperimentArgs, ui: Ui) -> Result<Outcome, Failure> {
    Slurm.check()?;
    let (_plugins, plan) = open(global, arguments, ui)?;
    let submission = Submission::of(&Store::at(&arguments.runs), &plan.jobs)?;
    if !submission.folder().exists() {
        let message = format!("nothing was submitted for {} in {}", plan.experiment.name, arguments.runs.display());
        return Err(Diagnostic::error(message).help("give the same --set, --seeds and --runs as to the sweep").into());
    }
    let cancelled = submission.cancel(Slurm)?;
    ui.line(format!("{} cancelled; finished stages and checkpoints are kept", counted(cancelled, "worker")))?;
    Ok(Outcome::Done)
}

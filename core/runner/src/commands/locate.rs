//! `rqlab where`: where a trial's work lies.

use crate::cli::{Global, WhereArgs};
use crate::collect::{short, shown};
use crate::commands::{Failure, Outcome, load_to_plan};
use crate::experiment::Diagnostic;
use crate::job::Trial;
use crate::plan::Plan;
use crate::plan::known::{self, Known};
use crate::store::{Standing, Store};
use crate::ui::Ui;
use std::path::PathBuf;

/// The most trials that are shown.
const SHOWN: usize = 20;

pub(super) fn run(global: &Global, arguments: &WhereArgs, ui: Ui) -> Result<Outcome, Failure> {
    let known = known::all(&arguments.experiments, &arguments.out, &load_to_plan(global)?);
    let store = Store::at(&arguments.runs);
    let begins = |id: &str| id.starts_with(arguments.trial.as_str());
    let mut found = Vec::new();
    for (one, plan) in known.iter().filter_map(|one| Some((one, one.plan.as_ref().ok()?))) {
        let trials = plan.trials.iter().filter(|trial| begins(&trial.id) || trial.jobs.iter().any(|id| begins(id)));
        found.extend(trials.map(|trial| (one, plan, trial)));
    }
    if found.is_empty() {
        let unknown = known.iter().filter(|one| one.plan.is_err()).map(|one| shown(&one.file));
        let unknown: Vec<String> = unknown.collect();
        let mut error = Diagnostic::error(format!(
            "no trial or stage begins with `{}` in the experiments under {}, nor in those whose reports lie under {}",
            arguments.trial,
            arguments.experiments.display(),
            arguments.out.display()
        ))
        .help("name the folder of your experiments with --experiments, that of your reports with --out");
        if !unknown.is_empty() {
            error = error.help(format!(
                "what these would run is not known, since they cannot be planned: {}",
                unknown.join(", ")
            ));
        }
        return Err(error.into());
    }
    for (one, plan, trial) in found.iter().take(SHOWN) {
        show(one, plan, trial, &store, ui)?;
    }
    if found.len() > SHOWN {
        ui.line(format!("and {} more trials", found.len() - SHOWN))?;
    }
    Ok(Outcome::Done)
}

fn show(known: &Known, plan: &Plan, trial: &Trial, store: &Store, ui: Ui) -> Result<(), Failure> {
    let changed: String = known.changed.iter().map(|change| format!(", {change}")).collect();
    let name = format!("{} seed {}", plan.experiment.name_of(trial), trial.seed);
    ui.line(format!("{} {}  of {}{changed}", ui.strong(short(&trial.id)), name.trim(), shown(&known.file)))?;
    let mut lines: Vec<(String, &str, PathBuf)> = Vec::new();
    for job in trial.jobs.iter().filter_map(|id| plan.job(id)) {
        let stage = store.stage(&job.id);
        let standing = match stage.standing() {
            Ok(Standing::Done(_)) => "done",
            Ok(Standing::Damaged(_)) | Err(_) => "damaged",
            Ok(Standing::Unfinished) if store.leases().find(&job.id)?.is_some() => "running",
            Ok(Standing::Unfinished) if stage.failed().is_some() => "failed",
            Ok(Standing::Unfinished) => "not done",
        };
        lines.push((job.stage.name().to_owned(), standing, stage.folder().to_owned()));
    }
    if let Some(report) = &known.report {
        let page = report.join("index.html");
        lines.push(("report".to_owned(), if page.is_file() { "written" } else { "not written" }, page));
    }
    let width = lines.iter().map(|(name, ..)| name.len()).max().unwrap_or(0);
    for (name, standing, path) in lines {
        ui.line(format!("  {name:width$}  {standing:8}  {}", shown(&path)))?;
    }
    Ok(())
}

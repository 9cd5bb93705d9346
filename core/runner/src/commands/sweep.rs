//! `rqlab sweep`, `rqlab run` and `rqlab report`.

use crate::cli::{ExperimentArgs, Global, LauncherArgs, SweepArgs};
use crate::cluster::{Settings, Slurm};
use crate::collect::{collect, short, shown};
use crate::commands::{Failure, Outcome, mention_another_format, open};
use crate::experiment::Diagnostic;
use crate::gpu::DeviceChoice;
use crate::job::{Job, Trial};
use crate::jobs::Outcomes;
use crate::place::Place;
use crate::plan::{Plan, disk, memory};
use crate::provenance::{here, provenance};
use crate::ranks::Ranks;
use crate::repeat::Repeat;
use crate::store::{Standing, Store};
use crate::sweep::{Options, Summary, render, run_jobs, sweep};
use crate::ui::{Ui, duration};
use rqlab_sdk::Error;
use rqlab_sdk::tensor::Device;
use std::ffi::OsString;
use std::path::Path;
use std::time::Instant;

/// Jobs that share a GPU if nothing else is said: while one's process prepares a step, others compute; and each takes memory.
const GPU_JOBS: usize = 4;

/// Does every trial of an experiment and renders its report.
pub(super) fn run_sweep(
    global: &Global,
    arguments: &ExperimentArgs,
    how: &SweepArgs,
    launcher: &LauncherArgs,
    ui: Ui,
) -> Result<Outcome, Failure> {
    let cluster = launcher.settings()?.map(|settings| Settings { jobs: how.jobs.or(settings.jobs), ..settings });
    if let Some(settings) = &cluster {
        settings.check()?;
        Slurm.check()?;
    }
    let ranks = Ranks::asked(global.ranks)?;
    if cluster.is_none() {
        ranks.check()?;
    }
    let (_plugins, plan) = open(global, arguments, ui)?;
    ranks.divide(&plan.jobs)?;
    mention_another_format(&arguments.runs, ui);
    for data in plan.data() {
        ui.note(format!("{}: {}", data.name, data.headline()));
    }
    let too_large = match &cluster {
        None => too_large_for_this_machine(global, &plan, ranks.count),
        // How much memory nodes and their GPUs have is not known here.
        Some(settings) if settings.gpus.is_some() || is_gpu(global) => None,
        Some(settings) => settings.memory()?.and_then(|memory| memory::refusal_of_tasks(&plan, ranks.count, memory)),
    };
    fits(too_large, &plan, &arguments.runs)?;
    let started = Instant::now();
    let mut options = options(global, arguments, how, &plan, ui)?;
    if let Some(settings) = cluster {
        options.worker_arguments = crew_arguments(global, &settings, options.ranks.count)?;
        options.cluster = Some(settings);
    }
    let summary = sweep(&plan, &options)?;
    ui.note(format!("{} in {}", counts(&summary), duration(started.elapsed().as_secs_f64())));
    conclude(&summary, ui)
}

/// Renders the report of what is there.
pub(super) fn run_report(
    global: &Global,
    arguments: &ExperimentArgs,
    how: &SweepArgs,
    ui: Ui,
) -> Result<Outcome, Failure> {
    let (_plugins, plan) = open(global, arguments, ui)?;
    mention_another_format(&arguments.runs, ui);
    let mut options = options(global, arguments, how, &plan, ui)?;
    options.repeat = options.repeat.without_machine();
    let summary = render(&plan, &options, &Store::open(&arguments.runs)?, &Outcomes::new())?;
    ui.note(counts(&summary));
    conclude(&summary, ui)
}

/// Does one trial and prints its measures.
pub(super) fn run_trial(
    global: &Global,
    arguments: &ExperimentArgs,
    how: &SweepArgs,
    trial: Option<&str>,
    ui: Ui,
) -> Result<Outcome, Failure> {
    let ranks = Ranks::asked(global.ranks)?;
    ranks.check()?;
    let (_plugins, mut plan) = open(global, arguments, ui)?;
    mention_another_format(&arguments.runs, ui);
    let chosen = choose(&plan, trial)?.clone();
    plan.keep_only(chosen);
    ranks.divide(&plan.jobs)?;
    fits(too_large_for_this_machine(global, &plan, ranks.count), &plan, &arguments.runs)?;
    let options = options(global, arguments, how, &plan, ui)?;
    let store = Store::open(&options.runs)?;
    let outcomes = run_jobs(&plan, &options, &store)?;
    let results = collect(&plan, &store, &outcomes, provenance(&plan), here(), &options.repeat).results;
    for trial in &results.trials {
        if let Some(error) = &trial.error {
            ui.error(error);
            return Ok(Outcome::SomeFailed);
        }
        ui.line(ui.strong(format!("{} seed {}", trial.name, trial.seed.unwrap_or(0)).trim()))?;
        let lines: Vec<(String, String)> =
            trial.readings.iter().map(|reading| (reading.quantity().to_string(), reading.shown())).collect();
        let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        for (name, value) in &lines {
            ui.line(format!("  {name:width$}  {value}"))?;
        }
    }
    Ok(Outcome::Done)
}

/// The trial whose id begins with `id`; without one, the only trial there is.
pub(super) fn choose<'a>(plan: &'a Plan, id: Option<&str>) -> Result<&'a Trial, Failure> {
    const LISTED: usize = 20;
    let line = |t: &Trial| format!("{}  {} seed {}", short(&t.id), plan.experiment.name_of(t), t.seed);
    let mut known: Vec<String> = plan.trials.iter().map(line).take(LISTED).collect();
    if plan.trials.len() > LISTED {
        known.push(format!("and {} more", plan.trials.len() - LISTED));
    }
    let known = || known.join("\n");
    let found: Vec<&Trial> = plan.trials.iter().filter(|trial| id.is_none_or(|id| trial.id.starts_with(id))).collect();
    match (found.as_slice(), id) {
        ([one], _) => Ok(one),
        ([], _) => Err(Diagnostic::error(format!("no trial begins with `{}`", id.unwrap_or_default()))
            .help(format!("the trials are\n{}", known()))
            .into()),
        (_, Some(id)) => {
            Err(Diagnostic::error(format!("several trials begin with `{id}`")).help("give more digits").into())
        }
        (all, None) => {
            Err(Diagnostic::error(format!("the experiment has {} trials: say which with --trial", all.len()))
                .help(format!("pin the axes with --set and --seeds, or take one of\n{}", known()))
                .into())
        }
    }
}

/// Why this machine has too little memory, if its processor computes. How much a GPU has is not known here.
fn too_large_for_this_machine(global: &Global, plan: &Plan, ranks: usize) -> Option<Diagnostic> {
    (global.device.resolve().0 == Device::Cpu).then(|| memory::refusal(plan, ranks)).flatten()
}

/// Whether a GPU was asked for.
fn is_gpu(global: &Global) -> bool {
    matches!(global.device, DeviceChoice::Named(Device::Cuda(_)))
}

/// Refuses what is too large for memory, or for the disk.
fn fits(too_large: Option<Diagnostic>, plan: &Plan, runs: &Path) -> Result<(), Failure> {
    let store = Store::at(runs);
    let is_done = |job: &Job| matches!(store.stage(&job.id).standing(), Ok(Standing::Done(_)));
    let refusal = too_large.or_else(|| disk::refusal(disk::needed(plan, is_done), runs));
    refusal.map_or(Ok(()), |refusal| Err(refusal.into()))
}

/// The arguments of rqlab in a task of a cluster: what this one was given, with paths that mean the same there.
fn crew_arguments(global: &Global, settings: &Settings, ranks: usize) -> Result<Vec<OsString>, Failure> {
    let mut arguments: Vec<OsString> = vec!["--device".into(), global.device.to_string().into()];
    for folder in &global.plugins {
        arguments.extend(["--plugins".into(), std::path::absolute(folder).map_err(Error::file(folder))?.into()]);
    }
    if let Some(threads) = settings.cpus.or(global.threads) {
        arguments.extend(["--threads".into(), threads.to_string().into()]);
    }
    arguments.extend(["--ranks".into(), ranks.to_string().into()]);
    Ok(arguments)
}

fn options(
    global: &Global,
    arguments: &ExperimentArgs,
    how: &SweepArgs,
    plan: &Plan,
    ui: Ui,
) -> Result<Options, Failure> {
    let place = Place::of(&plan.experiment, &how.out, how.name.as_deref())?;
    if let Some(word) = &place.word {
        ui.note(format!("{word}: this one goes to {}", shown(&place.folder)));
    }
    let threads = crate::commands::threads(global);
    let (device, _) = global.device.resolve();
    let ranks = Ranks::asked(global.ranks)?;
    let at_once = jobs_at_once(how.jobs, threads, device, ranks.count);
    let mut worker_arguments: Vec<OsString> = vec!["--device".into(), device.to_string().into()];
    for folder in &global.plugins {
        worker_arguments.extend(["--plugins".into(), folder.into()]);
    }
    Ok(Options {
        runs: arguments.runs.clone(),
        place,
        repeat: Repeat::of(global, arguments, Some(how)),
        jobs: at_once,
        threads,
        device,
        worker_arguments,
        ranks,
        cluster: None,
        quiet: ui.is_quiet(),
    })
}

/// Jobs at once: as many as there are threads, or one for each rank of a job, but fewer on a GPU.
pub(super) fn jobs_at_once(asked: Option<u16>, threads: usize, device: Device, ranks: usize) -> usize {
    let by_itself = if device == Device::Cpu { (threads / ranks).max(1) } else { GPU_JOBS };
    let at_once = asked.map_or(by_itself, usize::from);
    at_once.min(threads.max(1))
}

fn counts(summary: &Summary) -> String {
    let [done, failed, missing] = summary.trials;
    let mut text = format!("{done} of {} trials done", done + failed + missing);
    if failed > 0 {
        text.push_str(&format!(", {failed} failed"));
    }
    if missing > 0 {
        text.push_str(&format!(", {missing} not run"));
    }
    text
}

fn conclude(summary: &Summary, ui: Ui) -> Result<Outcome, Failure> {
    for (error, trials) in &summary.failures {
        let who = match trials.as_slice() {
            [one] => one.clone(),
            [first, ..] => format!("{} trials, the first being {first}", trials.len()),
            [] => continue,
        };
        ui.error(format!("{who}: {error}"));
    }
    for warning in &summary.warnings {
        ui.line(format!("Warning: {warning}"))?;
    }
    for verdict in &summary.verdicts {
        ui.line(verdict)?;
    }
    ui.line(shown(&summary.page))?;
    Ok(if summary.trials[1] == 0 { Outcome::Done } else { Outcome::SomeFailed })
}

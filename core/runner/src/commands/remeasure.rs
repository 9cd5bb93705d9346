//! `rqlab remeasure`: times the speeds of finished trials again, and nothing else.

use crate::cli::{ExperimentArgs, Global};
use crate::commands::sweep::choose;
use crate::commands::{Failure, Outcome, mention_another_format, open};
use crate::experiment::Diagnostic;
use crate::job::Job;
use crate::jobs::{give_up, hold, multiplies_as_asked};
use crate::machine;
use crate::plan::Plan;
use crate::provenance::environment;
use crate::repeat::Repeat;
use crate::stages::MeasurePrior;
use crate::store::{Done, Remeasured, Standing, Store};
use crate::ui::{Ui, counted};
use rqlab_reports::{BUSY, Reading};
use rqlab_sdk::Error;

pub(super) fn run(
    global: &Global,
    arguments: &ExperimentArgs,
    trial: Option<&str>,
    ui: Ui,
) -> Result<Outcome, Failure> {
    let (plugins, mut plan) = open(global, arguments, ui)?;
    mention_another_format(&arguments.runs, ui);
    if let Some(trial) = trial {
        let chosen = choose(&plan, Some(trial))?.clone();
        plan.keep_only(chosen);
    }
    let repeat = Repeat::of(global, arguments, None);
    let store = Store::open(&arguments.runs)?;
    let found = timed(&plan, &store, &repeat)?;
    let owners = plan.owners();
    let mut busy = 0.0_f64;
    for (job, stage, done) in &found {
        multiplies_as_asked(job)?;
        // Sweeps that this machine runs on the folder begin nothing meanwhile.
        let Some(lease) = store.leases().take_from_gone(&job.id, true)? else {
            let who = store.leases().find(&job.id)?.map_or_else(String::new, |found| found.who());
            return Err(Error::Data(format!("{} is being worked on ({who}): wait for it", job.stage.name())).into());
        };
        hold(lease);
        ui.line(ui.strong(owners.get(&job.id).map_or(job.stage.name(), String::as_str)))?;
        let speeds = stage.time_again(&plugins, &store, &store.stage(&job.id))?;
        for line in compared(done, &speeds) {
            ui.line(line)?;
        }
        busy = speeds
            .iter()
            .filter(|reading| reading.measure == "other_load")
            .fold(busy, |most, load| most.max(load.value));
        let again = Remeasured { when: machine::now(), environment: environment(&*job.stage, 1) };
        store.stage(&job.id).amend(|done| done.remeasure(speeds, again))?;
    }
    give_up();
    if busy > BUSY {
        ui.note(format!(
            "other programs used {:.0}% of the processors meanwhile: these speeds are too low; end them, or wait, and measure again",
            100.0 * busy
        ));
    }
    ui.note(format!("`{}` shows them", repeat.report()));
    Ok(Outcome::Done)
}

/// The jobs of the plan that time sampling and are done.
///
/// # Errors
/// There is none; one that is damaged.
fn timed<'a>(
    plan: &'a Plan,
    store: &Store,
    repeat: &Repeat,
) -> Result<Vec<(&'a Job, &'a MeasurePrior, Done)>, Failure> {
    let measuring = plan.jobs.iter().filter_map(|job| Some((job, job.stage.is::<MeasurePrior>()?)));
    let all: Vec<(&Job, &MeasurePrior)> = measuring.filter(|(_, stage)| stage.is_timed()).collect();
    if all.is_empty() {
        return Err(Diagnostic::error("there is no speed to measure again: no trial times its sampling")
            .help("a trial does that if it has a `prior`, at the batch sizes of `evaluation: (speed: [1, 16])`")
            .into());
    }
    let mut found = Vec::new();
    for (job, stage) in &all {
        match store.stage(&job.id).verified()? {
            Standing::Done(done) => found.push((*job, *stage, *done)),
            Standing::Unfinished => {}
            Standing::Damaged(damage) => return Err(Error::from(damage).into()),
        }
    }
    if found.is_empty() {
        let many =
            if all.len() == 1 { "the trial".to_owned() } else { format!("none of {}", counted(all.len(), "trial")) };
        let is_done = if all.len() == 1 { "is not done" } else { "is done" };
        return Err(Error::Data(format!(
            "there is no speed to measure again: {many} that times its sampling {is_done}; run `{}` first",
            repeat.sweep()
        ))
        .into());
    }
    Ok(found)
}

/// Each speed before and now, with the quartiles of its rounds.
fn compared(done: &Done, now: &[Reading]) -> Vec<String> {
    let of = |readings: &[Reading], measure: &str, like: &Reading| {
        readings.iter().find(|other| other.measure == measure && other.at == like.at).map(|reading| reading.value)
    };
    let shown = |value: Option<f64>| value.map_or("–".to_owned(), |value| format!("{value:.1}"));
    let speeds = now.iter().filter(|reading| reading.measure.ends_with("_per_second"));
    let lines: Vec<(String, String)> = speeds
        .map(|speed| {
            let quartile = |which: &str| shown(of(now, &format!("{}_{which}_quartile", speed.measure), speed));
            let before = shown(of(&done.timings, &speed.measure, speed));
            let text = format!(
                "{before} → {:.1} images/s, half of the rounds {} to {}",
                speed.value,
                quartile("lower"),
                quartile("upper")
            );
            (speed.quantity().to_string(), text)
        })
        .collect();
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    lines.into_iter().map(|(name, text)| format!("  {name:width$}  {text}")).collect()
}

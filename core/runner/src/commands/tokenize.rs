//! `rqlab tokenize` and `rqlab detokenize`.

use crate::cli::{ExperimentArgs, Global, TokenizerArgs};
use crate::commands::sweep::choose;
use crate::commands::{Failure, Outcome, load_plugins, open};
use crate::import::open_tokenizer;
use crate::own_images::{detokenize, files, tokenize};
use crate::plan::Plan;
use crate::plugins::short_path;
use crate::repeat::Repeat;
use crate::sheets::require_done;
use crate::stages::{MeasurePrior, MeasureTokenizer, Tokenizer, load_tokenizer};
use crate::store::Store;
use crate::ui::{Ui, counted};
use rqlab_sdk::Error;
use std::path::{Path, PathBuf};

/// What was imported under a name, or lies in a file of that name.
pub(super) fn imported(arguments: &TokenizerArgs) -> Option<PathBuf> {
    let named = PathBuf::from(&arguments.tokenizer);
    if named.extension().is_some_and(|end| end == "safetensors") {
        return Some(named);
    }
    let file = arguments.imports.join(format!("{}.safetensors", arguments.tokenizer));
    file.is_file().then_some(file)
}

/// The stages of a trial that are done: its tokenizer's, and its priors'.
pub(super) fn stages_of_trial(
    global: &Global,
    arguments: &TokenizerArgs,
    plan: &Plan,
) -> Result<(Store, String, Vec<String>), Failure> {
    let trial = choose(plan, arguments.trial.as_deref())?;
    let jobs = || plan.jobs.iter().filter(|job| trial.jobs.contains(&job.id));
    let measured = jobs().find_map(|job| job.stage.is::<MeasureTokenizer>());
    let measured = measured.ok_or_else(|| Error::Unsupported("this trial has no tokenizer".to_owned()))?;
    let priors = jobs().find_map(|job| job.stage.is::<MeasurePrior>().filter(|stage| !stage.probe));
    let priors = priors.map_or(vec![], |stage| stage.priors.iter().map(ToString::to_string).collect());
    let store = Store::open(&arguments.runs)?;
    let repeat = Repeat::of(global, &experiment(arguments), None);
    require_done(&store, &[&measured.tokenizer], &repeat)?;
    Ok((store, measured.tokenizer.to_string(), priors))
}

/// The arguments of the experiment that is named.
pub(super) fn experiment(arguments: &TokenizerArgs) -> ExperimentArgs {
    let TokenizerArgs { tokenizer, set, seeds, runs, .. } = arguments.clone();
    ExperimentArgs { experiment: tokenizer, set, seeds, runs }
}

fn open_named(global: &Global, arguments: &TokenizerArgs, ui: Ui) -> Result<Tokenizer, Failure> {
    if let Some(file) = imported(arguments) {
        return Ok(open_tokenizer(&load_plugins(global)?, &file)?);
    }
    let (plugins, plan) = open(global, &experiment(arguments), ui)?;
    let (store, tokenizer, _) = stages_of_trial(global, arguments, &plan)?;
    Ok(load_tokenizer(&plugins, &store, &tokenizer)?.1)
}

pub(super) fn run_tokenize(
    global: &Global,
    arguments: &TokenizerArgs,
    images: &[PathBuf],
    output: &Path,
    ui: Ui,
) -> Result<Outcome, Failure> {
    let files = files(images)?;
    let model = open_named(global, arguments, ui)?;
    let tokenized = tokenize(&model, &files, &ui.progress())?;
    tokenized.checkpoint.save(output)?;
    if tokenized.scaled > 0 {
        let shape = model.image();
        let scaled = counted(tokenized.scaled, "picture");
        ui.note(format!("{scaled} scaled and cut to {} x {}, the tokenizer's size", shape.height, shape.width));
    }
    ui.line(short_path(output))?;
    Ok(Outcome::Done)
}

pub(super) fn run_detokenize(
    global: &Global,
    arguments: &TokenizerArgs,
    codes: &Path,
    output: &Path,
    ui: Ui,
) -> Result<Outcome, Failure> {
    let model = open_named(global, arguments, ui)?;
    for path in detokenize(&model, codes, output, &ui.progress())? {
        ui.line(short_path(&path))?;
    }
    Ok(Outcome::Done)
}

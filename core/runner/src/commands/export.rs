//! `rqlab export`.

use crate::cli::{Global, TokenizerArgs};
use crate::commands::tokenize::{experiment, imported, stages_of_trial};
use crate::commands::{Failure, Outcome, load_plugins, open};
use crate::import::{Made, export, made};
use crate::plugins::short_path;
use crate::stages::{TrainPrior, TrainTokenizer, load_tokenizer};
use crate::store::Store;
use crate::ui::Ui;
use rqlab_sdk::Error;
use rqlab_sdk::checkpoint::Checkpoint;
use std::path::Path;

pub(super) fn run(
    global: &Global,
    arguments: &TokenizerArgs,
    system: Option<&str>,
    prior: Option<u16>,
    output: &Path,
    ui: Ui,
) -> Result<Outcome, Failure> {
    let needs_system = || {
        let message = "say whose names they are to have with --system; a wrong name lists those that are known";
        Error::Unsupported(message.to_owned())
    };
    let exported = if let Some(file) = imported(arguments) {
        let checkpoint = Checkpoint::load_sealed(&file)?;
        let system = system.or(checkpoint.metadata.get("system").map(String::as_str)).ok_or_else(needs_system)?;
        export(&checkpoint.tensors, &made(&load_plugins(global)?, &file, &checkpoint)?, system)?
    } else {
        let (plugins, plan) = open(global, &experiment(arguments), ui)?;
        let system = system.ok_or_else(needs_system)?;
        let (store, tokenizer, priors) = stages_of_trial(global, arguments, &plan)?;
        match prior {
            None => {
                let (data, model) = load_tokenizer(&plugins, &store, &tokenizer)?;
                let components = components(&store, &tokenizer)?;
                let made = Made { components, depth: model.depth(), channels: Some(data.info().image[2]) };
                export(&model.params.state(), &made, system)?
            }
            Some(level) => {
                let id = priors.get(usize::from(level) - 1).ok_or_else(|| {
                    Error::Unsupported(format!("this trial has no prior of level {level}: it has {}", priors.len()))
                })?;
                let made = Made { components: components(&store, id)?, ..Made::default() };
                export(&store.stage(id).load_result()?.tensors, &made, system)?
            }
        }
    };
    if let Some(by) = exported.metadata.get("made_by") {
        ui.note(format!("what computes with it must be set as this is, which names and shapes do not tell: {by}"));
    }
    exported.save(output)?;
    ui.line(short_path(output))?;
    Ok(Outcome::Done)
}

/// What a stage trains: an autoencoder and quantizers, or a prior; each by its name and its settings.
fn components(store: &Store, stage: &str) -> Result<Vec<(String, String)>, Error> {
    let job = store.stage(stage).job()?;
    let of_tokenizer = job.stage.is::<TrainTokenizer>().into_iter();
    let of_tokenizer = of_tokenizer.flat_map(|stage| [&stage.autoencoder].into_iter().chain(&stage.quantizers));
    let of_prior = job.stage.is::<TrainPrior>().map(|stage| &stage.prior);
    Ok(of_tokenizer.chain(of_prior).map(|call| (call.name.clone(), call.config.clone())).collect())
}

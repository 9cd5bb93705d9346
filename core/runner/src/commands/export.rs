//! `rqlab export`.

use crate::cli::{Global, TokenizerArgs};
use crate::commands::tokenize::{experiment, imported, stages_of_trial};
use crate::commands::{Failure, Outcome, load_plugins, open};
use crate::import::{export, open_tokenizer};
use crate::plugins::short_path;
use crate::stages::load_tokenizer;
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
        let is_prior = checkpoint.metadata.contains_key("prior");
        let depth = if is_prior { 0 } else { open_tokenizer(&load_plugins(global)?, &file)?.depth() };
        export(&checkpoint.tensors, depth, system)?
    } else {
        let (plugins, plan) = open(global, &experiment(arguments), ui)?;
        let system = system.ok_or_else(needs_system)?;
        let (store, tokenizer, priors) = stages_of_trial(global, arguments, &plan)?;
        match prior {
            None => {
                let (_, model) = load_tokenizer(&plugins, &store, &tokenizer)?;
                export(&model.params.state(), model.depth(), system)?
            }
            Some(level) => {
                let id = priors.get(usize::from(level) - 1).ok_or_else(|| {
                    Error::Unsupported(format!("this trial has no prior of level {level}: it has {}", priors.len()))
                })?;
                export(&store.stage(id).load_result()?.tensors, 0, system)?
            }
        }
    };
    exported.save(output)?;
    ui.line(short_path(output))?;
    Ok(Outcome::Done)
}

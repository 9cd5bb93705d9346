//! `rqlab import`.

use crate::cli::{Global, ImportArgs};
use crate::commands::sweep::choose;
use crate::commands::{Failure, Outcome, load_plugins};
use crate::import::{Expression, Request, import};
use crate::plugins::{Plugins, short_path};
use crate::ui::{Ui, thousands};
use rqlab_sdk::{Error, files};
use std::io::Write;

pub(super) fn run(global: &Global, arguments: &ImportArgs, ui: Ui) -> Result<Outcome, Failure> {
    let name = &arguments.name;
    let (weights, experiment) = (format!("{name}.safetensors"), format!("{name}.ron"));
    let [weights_path, experiment_path] = [&weights, &experiment].map(|file| arguments.imports.join(file));
    if let Some(there) = [&weights_path, &experiment_path].into_iter().find(|path| path.exists() && !arguments.replace)
    {
        let message = format!("{} is there: choose another name, or add --replace", there.display());
        return Err(Error::Data(message).into());
    }
    let plugins = load_plugins(global)?;
    let imported = import(
        &Request {
            file: arguments.file.clone(),
            config: arguments.config.clone(),
            weights: arguments.weights,
            system: arguments.system.clone(),
            size: arguments.size,
            trial: arguments.trial.as_deref().map(|trial| of_trial(trial, &plugins)).transpose()?,
        },
        &plugins,
    )?;
    std::fs::create_dir_all(&arguments.imports).map_err(Error::file(&arguments.imports))?;
    imported.checkpoint.save(&weights_path)?;
    let text = imported.experiment(&weights);
    files::write_atomically(&experiment_path, |out| out.write_all(text.as_bytes()))?;
    ui.line(format!("{}: {}, {} numbers", imported.system, imported.about, thousands(imported.numbers())))?;
    for (slot, call) in &imported.components {
        ui.line(format!("  {slot}: {call}"))?;
    }
    ui.line(format!("{}\n{}", short_path(&weights_path), short_path(&experiment_path)))?;
    if imported.has_averages {
        ui.note("the file holds the average of these weights, too: `--weights ema` takes that");
    }
    Ok(Outcome::Done)
}

/// The components of `EXPERIMENT#ID`, or of the one trial of `EXPERIMENT`. Its images need not be here.
fn of_trial(name: &str, plugins: &Plugins) -> Result<Expression, Failure> {
    let (experiment, id) = name.split_once('#').map_or((name, None), |(experiment, id)| (experiment, Some(id)));
    let plan = crate::plan::open(experiment, &[], None, plugins)?;
    let trial = choose(&plan, id)?;
    Ok(Expression::of_trial(&plan, trial)?)
}

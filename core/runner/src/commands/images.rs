//! `rqlab sample` and `rqlab reconstruct`.

use crate::cli::{ExperimentArgs, Global, ReconstructArgs, SampleArgs};
use crate::collect::shown;
use crate::commands::sweep::choose;
use crate::commands::{Failure, Outcome, mention_another_format, open};
use crate::experiment::Diagnostic;
use crate::experiment::diagnostic::suggestion;
use crate::repeat::Repeat;
use crate::sheets::{SampleOptions, Sheet, Shows, expect_png, reconstruct, sample};
use crate::store::Store;
use crate::ui::{Ui, counted};
use rqlab_sdk::tensor::ops::sampling::Draw;
use std::path::Path;

pub(super) fn run_sample(
    global: &Global,
    arguments: &ExperimentArgs,
    how: &SampleArgs,
    ui: Ui,
) -> Result<Outcome, Failure> {
    expect_png(&how.output)?;
    let (plugins, plan) = open(global, arguments, ui)?;
    mention_another_format(&arguments.runs, ui);
    let trial = choose(&plan, how.trial.as_deref())?;
    let repeat = Repeat::of(global, arguments, None);
    let classes = plan.models.get(&trial.id).map_or(&[][..], |model| &model.data.info.classes);
    let options = SampleOptions {
        count: how.count,
        shows: shows(how, classes)?,
        draw: Draw { temperature: how.temperature, top_k: how.top_k, top_p: how.top_p },
        guidance: how.guidance,
        seed: how.seed,
    };
    let Sheet { path, unread } =
        sample(&plan, trial, &Store::open(&arguments.runs)?, &plugins, &options, &repeat, &how.output)?;
    if unread.cut > 0 {
        let message =
            format!("--text: the prior reads shorter texts: the last {} are cut", counted(unread.cut, "token"));
        ui.diagnostic(&Diagnostic::warning(message));
    }
    if !unread.unknown.is_empty() {
        let message = format!("--text: no training caption has the words `{}`", unread.unknown.join("`, `"));
        ui.diagnostic(&Diagnostic::warning(message));
    }
    tell(path.as_deref(), ui)
}

/// What the samples are to show, if that is said.
fn shows(how: &SampleArgs, classes: &[String]) -> Result<Option<Shows>, Diagnostic> {
    Ok(match (&how.class, &how.text) {
        (_, Some(text)) => Some(Shows::Text(text.clone())),
        (Some(name), None) => Some(Shows::Class(class(name, classes)?)),
        (None, None) => None,
    })
}

pub(super) fn run_reconstruct(
    global: &Global,
    arguments: &ExperimentArgs,
    how: &ReconstructArgs,
    ui: Ui,
) -> Result<Outcome, Failure> {
    expect_png(&how.output)?;
    let (plugins, plan) = open(global, arguments, ui)?;
    mention_another_format(&arguments.runs, ui);
    let trial = choose(&plan, how.trial.as_deref())?;
    let repeat = Repeat::of(global, arguments, None);
    let store = Store::open(&arguments.runs)?;
    let path = reconstruct(&plan, trial, &store, &plugins, how.count, &repeat, &how.output)?;
    tell(path.as_deref(), ui)
}

/// The class of that name; where none is called so, that of the number.
fn class(name: &str, classes: &[String]) -> Result<u32, Diagnostic> {
    let number = || name.parse().ok().filter(|&number| number < classes.len());
    let found = classes.iter().position(|class| class == name).or_else(number);
    found.map(|class| class as u32).ok_or_else(|| {
        let mut error = Diagnostic::error(format!("--class: there is no class `{name}`"));
        error.help = match classes {
            [] => vec!["the images have no classes: leave `--class` out".to_owned()],
            classes => suggestion(name, "classes", classes.iter().map(String::as_str)),
        };
        error
    })
}

/// Says where the picture is; nothing beside one that went to standard output itself.
fn tell(path: Option<&Path>, ui: Ui) -> Result<Outcome, Failure> {
    if let Some(path) = path {
        ui.line(shown(path))?;
    }
    Ok(Outcome::Done)
}

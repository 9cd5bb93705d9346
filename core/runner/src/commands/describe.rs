//! `rqlab describe`: what may be written in an experiment.

use crate::commands::{Failure, Outcome};
use crate::describe;
use crate::experiment::diagnostic::suggestion;
use crate::experiment::{Diagnostic, Slot};
use crate::plugins::Plugins;
use crate::ui::Ui;

/// Tells all that is known of a name: a slot of experiments, a component, or both.
pub(super) fn run(plugins: &Plugins, name: &str, ui: Ui) -> Result<Outcome, Failure> {
    let all = plugins.provided();
    let slot = Slot::named(name).map(|slot| describe::slot(slot, plugins, ui));
    let components = all.iter().filter(|provided| provided.component.name == name);
    let protocols = (name == describe::PROTOCOLS).then(|| describe::protocols(ui));
    let texts: Vec<String> =
        slot.into_iter().chain(protocols).chain(components.map(|provided| describe::component(provided, ui))).collect();
    if texts.is_empty() {
        let mut error = Diagnostic::error(format!("nothing is called `{name}`: neither a component nor a slot"));
        let slots = Slot::ALL.map(Slot::name).into_iter().chain([describe::PROTOCOLS]);
        error.help = suggestion(name, "components and slots", all.iter().map(|p| p.component.name).chain(slots));
        if !plugins.refused().is_empty() {
            error = error.help("some plugins were refused; `rqlab plugins list` says why");
        }
        return Err(error.into());
    }
    ui.line(texts.join("\n\n"))?;
    Ok(Outcome::Done)
}

//! `rqlab describe`: what may be written in an experiment.

use crate::commands::{Failure, Outcome};
use crate::describe::{self, SECTIONS, Section};
use crate::experiment::diagnostic::suggestion;
use crate::experiment::{Diagnostic, Slot};
use crate::plugins::Plugins;
use crate::ui::Ui;

/// Tells all that is known of a name: a field of experiments, a component, or both; without a name, what there is.
pub(super) fn run(plugins: &Plugins, name: Option<&str>, ui: Ui) -> Result<Outcome, Failure> {
    let Some(name) = name else {
        ui.line(describe::overview(plugins, ui))?;
        return Ok(Outcome::Done);
    };
    let all = plugins.provided();
    let slot = Slot::named(name).map(|slot| describe::slot(slot, plugins, ui));
    let components = all.iter().filter(|provided| provided.component.name == name);
    let protocols = (name == describe::PROTOCOLS).then(|| describe::protocols(ui));
    let section = Section::named(name).map(|section| section.told(ui));
    let fields = slot.into_iter().chain(section).chain(protocols);
    let texts: Vec<String> = fields.chain(components.map(|provided| describe::component(provided, ui))).collect();
    if texts.is_empty() {
        let mut error =
            Diagnostic::error(format!("nothing is called `{name}`: neither a component nor a field of experiments"));
        let sections = SECTIONS.iter().map(|section| section.name);
        let fields = Slot::ALL.map(Slot::name).into_iter().chain(sections).chain([describe::PROTOCOLS]);
        error.help = suggestion(name, "components and fields", all.iter().map(|p| p.component.name).chain(fields));
        if !plugins.refused().is_empty() {
            error = error.help("some plugins were refused; `rqlab plugins list` says why");
        }
        return Err(error.into());
    }
    ui.line(texts.join("\n\n"))?;
    Ok(Outcome::Done)
}

//! `rqlab plugins`.

use crate::cli::{Global, PluginsCommand};
use crate::commands::{Failure, Outcome, load_plugins};
use crate::describe;
use crate::experiment::Diagnostic;
use crate::plugins::{Plugins, build, new, short_path};
use crate::ui::Ui;
use anstyle::AnsiColor;
use comfy_table::{Table, presets};
use rqlab_sdk::plugin::Kind;

pub(super) fn run(global: &Global, command: &PluginsCommand, ui: Ui) -> Result<Outcome, Failure> {
    match command {
        PluginsCommand::List => list(&load_plugins(global)?, ui)?,
        PluginsCommand::Describe { name } => {
            return crate::commands::describe::run(&load_plugins(global)?, Some(name), ui);
        }
        PluginsCommand::Probe { file } => Plugins::try_out(file)?,
        PluginsCommand::New { name, kind, dir } => {
            let dir = dir.clone().unwrap_or_else(|| name.into());
            if let Ok(taken) = load_plugins(global)?.find(Kind::from(*kind), name) {
                let message =
                    format!("there is a {} `{name}` already, from {}", Kind::from(*kind).name(), taken.origin.plugin);
                return Err(Diagnostic::error(message).help("choose another name").into());
            }
            new::create(name, Kind::from(*kind), &dir)?;
            ui.line(format!("made {}", short_path(&dir)))?;
            ui.note(format!("build it with `rqlab plugins build {}`", short_path(&dir)));
        }
        PluginsCommand::Build { dir, out, test } => {
            let built = build::build(dir, out.as_deref(), *test)?;
            ui.line(format!("built {}", short_path(&built)))?;
        }
    }
    Ok(Outcome::Done)
}

fn list(plugins: &Plugins, ui: Ui) -> Result<(), Failure> {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(["kind", "name", "plugin", "file", "what it is"]);
    for provided in plugins.provided() {
        let component = &provided.component;
        let doc = (component.describe)().doc;
        table.add_row([
            component.build.kind().name().to_owned(),
            component.name.to_owned(),
            provided.origin.plugin.clone(),
            short_path(&provided.origin.path),
            describe::summary(&doc),
        ]);
    }
    if plugins.provided().is_empty() {
        let dirs: Vec<String> = plugins.searched().iter().map(|dir| dir.display().to_string()).collect();
        ui.line(format!("no plugins in {}", dirs.join(", ")))?;
    } else {
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        ui.line(table.to_string().lines().map(str::trim_end).collect::<Vec<_>>().join("\n"))?;
    }
    for refused in plugins.refused() {
        let name = refused.plugin.as_deref().unwrap_or("a plugin");
        let head = ui.colour(AnsiColor::Red, &format!("refused  {name}  {}", short_path(&refused.path)));
        ui.line(format!("\n{head}\n         {}", refused.reason))?;
    }
    Ok(())
}

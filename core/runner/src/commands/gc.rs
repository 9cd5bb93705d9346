//! `rqlab gc`: deletes finished work that nothing needs any more.

use crate::cli::{GcArgs, Global};
use crate::collect::shown;
use crate::commands::{Failure, Outcome, load_to_plan};
use crate::experiment::{Diagnostic, experiments_under};
use crate::plan::known;
use crate::store::Store;
use crate::ui::{Ui, bytes, counted};
use rqlab_sdk::Error;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{IsTerminal, Write};
use std::path::Path;

/// A stage that nothing needs.
struct Unneeded {
    id: String,
    /// What it is: `tokenizer`.
    name: String,
    bytes: u64,
}

pub(super) fn run(global: &Global, arguments: &GcArgs, ui: Ui) -> Result<Outcome, Failure> {
    let store = Store::at(&arguments.runs);
    if let Some(busy) = store.leases().all()?.into_iter().find(|found| !found.is_left()) {
        let message =
            format!("{} works in {} now, on what may stand on other stages", busy.who(), shown(&arguments.runs));
        return Err(Diagnostic::error(message).help("wait until nobody does: `rqlab status` says who").into());
    }
    let found = unneeded(global, arguments, &store, ui)?;
    if found.is_empty() {
        ui.line(format!("{}: every stage is needed", shown(&arguments.runs)))?;
        return Ok(Outcome::Done);
    }
    for line in by_kind(&found) {
        ui.line(format!("  {line}"))?;
    }
    let total = found.iter().map(|stage| stage.bytes).sum();
    let all = format!(
        "{} that no experiment under {} needs, {}",
        counted(found.len(), "stage"),
        shown(&arguments.experiments),
        bytes(total)
    );
    if arguments.dry_run {
        ui.line(format!("{all}: nothing was deleted"))?;
        return Ok(Outcome::Done);
    }
    if !arguments.yes && !agreed(&all)? {
        ui.line("nothing was deleted")?;
        return Ok(Outcome::Done);
    }
    let deleted = found.iter().map(|stage| delete(&store, &stage.id)).collect::<Result<Vec<bool>, Error>>()?;
    let count = deleted.into_iter().filter(|deleted| *deleted).count();
    ui.line(format!("{} deleted", counted(count, "stage")))?;
    Ok(Outcome::Done)
}

/// The stages that no experiment needs, nor a report that was made with other settings.
///
/// # Errors
/// There is no experiment, or of one it is not known what it needs.
fn unneeded(global: &Global, arguments: &GcArgs, store: &Store, ui: Ui) -> Result<Vec<Unneeded>, Failure> {
    if experiments_under(&arguments.experiments).is_empty() {
        let message =
            format!("there is no experiment under {}: nothing would be needed", arguments.experiments.display());
        return Err(Diagnostic::error(message).help("name the folder of your experiments").into());
    }
    let known = known::all(&arguments.experiments, &arguments.out, &load_to_plan(global)?);
    let (mut needed, mut here, mut absent) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
    for one in &known {
        let name = [vec![shown(&one.file)], one.changed.clone()].concat().join(" --set ");
        match &one.plan {
            Ok(plan) if plan.absent.is_empty() => {
                needed.extend(one.needs());
                here.extend(plan.jobs.iter().map(|job| job.data_digest.to_string()));
            }
            Ok(_) => absent.push(name),
            Err(invalid) if invalid.is_lack() => absent.push(name),
            Err(invalid) if one.report.is_none() => {
                ui.invalid(invalid);
                let message = format!("nothing is deleted: what {name} needs is not known");
                return Err(Diagnostic::error(message)
                    .help("mend it, move it out of the folder, or name the folder of your own experiments: `rqlab gc DIR`")
                    .into());
            }
            Err(_) => {
                ui.note(format!("{name} has a report, and can be planned no more: its stages count as not needed"))
            }
        }
    }
    if !absent.is_empty() {
        ui.note(format!("data are not here of {}: stages on data of no other experiment are kept", absent.join(", ")));
    }
    let mut found = Vec::new();
    for id in store.ids().into_iter().filter(|id| !needed.contains(id)) {
        let stage = store.stage(&id);
        let job = stage.job().ok();
        let may_be_of_absent = job.as_ref().is_some_and(|job| !here.contains(job.data_digest.as_str()));
        if absent.is_empty() || !may_be_of_absent {
            let name = job.map_or("of another version", |job| job.stage.name()).to_owned();
            found.push(Unneeded { bytes: size(stage.folder()), id, name });
        }
    }
    Ok(found)
}

/// A line for each kind of stage.
fn by_kind(found: &[Unneeded]) -> Vec<String> {
    let mut kinds: BTreeMap<&str, (usize, u64)> = BTreeMap::new();
    for stage in found {
        let (count, bytes) = kinds.entry(&stage.name).or_default();
        *count += 1;
        *bytes += stage.bytes;
    }
    kinds.into_iter().map(|(name, (count, size))| format!("{count} {name}, {}", bytes(size))).collect()
}

/// Asks on standard error, and reads the answer from standard input.
///
/// # Errors
/// There is nobody to ask.
fn agreed(what: &str) -> Result<bool, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Diagnostic::error(format!("{what}: nobody is here to agree"))
            .help("`--yes` deletes them, `--dry-run` only lists them")
            .into());
    }
    let mut answer = String::new();
    let _ = write!(std::io::stderr(), "Delete {what}? [y/N] ");
    std::io::stdin().read_line(&mut answer).map_err(Error::file("standard input"))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Deletes a stage, unless somebody works on it by now. Says whether it did.
fn delete(store: &Store, id: &str) -> Result<bool, Error> {
    let Some(_lease) = store.leases().take_from_gone(id, false)? else { return Ok(false) };
    let stage = store.stage(id);
    // Cut off in between, it is not done, and nobody takes what is left for its result.
    for path in [stage.file("done.json"), stage.folder().to_owned()] {
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        match removed {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(Error::file(path)(error)),
            _ => {}
        }
    }
    Ok(true)
}

/// Bytes of the files in a folder.
fn size(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).filter(fs::Metadata::is_file).map(|about| about.len()).sum()
}

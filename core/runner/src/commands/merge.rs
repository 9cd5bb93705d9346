//! `rqlab merge`: takes finished stages over from another folder of runs.

use crate::collect::{short, shown};
use crate::commands::{Failure, Outcome, have_stages, mention_another_format};
use crate::experiment::Diagnostic;
use crate::store::{StageDir, Standing, Store};
use crate::ui::{Ui, counted};
use rqlab_sdk::{Error, Result};
use std::fs;
use std::path::Path;

/// What became of one stage of the other folder.
enum Merged {
    Taken,
    /// It is done here, too.
    Here,
    /// It is not finished there.
    Unfinished,
    /// Somebody works on it here.
    Busy,
}

pub(super) fn run(runs: &Path, other: &Path, ui: Ui) -> Result<Outcome, Failure> {
    let from = Store::at(other);
    have_stages(other)?;
    mention_another_format(other, ui);
    let store = Store::open(runs)?;
    if fs::canonicalize(other).ok() == fs::canonicalize(runs).ok() {
        return Err(Diagnostic::error(format!("{} is the folder itself", other.display())).into());
    }
    let (mut taken, mut here, mut unfinished, mut failed) = (0, 0, 0, 0);
    let mut ids = from.ids();
    ids.sort();
    for id in ids {
        match merge(&from.stage(&id), &store, &id) {
            Ok(Merged::Taken) => taken += 1,
            Ok(Merged::Here) => here += 1,
            Ok(Merged::Unfinished) => unfinished += 1,
            Ok(Merged::Busy) => {
                failed += 1;
                ui.note(format!("{} is being worked on here: it was left", short(&id)));
            }
            Err(error) => {
                failed += 1;
                ui.error(error);
            }
        }
    }
    ui.line(format!(
        "{}: {} taken over, {here} were here, {unfinished} not finished there, {failed} left",
        shown(runs),
        counted(taken, "stage")
    ))?;
    Ok(if failed == 0 { Outcome::Done } else { Outcome::SomeFailed })
}

/// Takes a stage over, if it is finished there and sound, and not finished here.
fn merge(from: &StageDir, store: &Store, id: &str) -> Result<Merged> {
    let to = store.stage(id);
    if let Standing::Done(_) = to.standing()? {
        return Ok(Merged::Here);
    }
    match from.verified()? {
        Standing::Unfinished => return Ok(Merged::Unfinished),
        Standing::Damaged(damage) => return Err(Error::Checkpoint(damage.to_string())),
        Standing::Done(_) => {}
    }
    let Some(_lease) = store.leases().take_from_gone(id, false)? else { return Ok(Merged::Busy) };
    to.take_over(from)?;
    Ok(Merged::Taken)
}

//! `rqlab status`: who does what in a folder of runs.

use crate::cluster::PLAN;
use crate::collect::short;
use crate::commands::{Failure, Outcome, have_stages};
use crate::home::at_home;
use crate::jobs::curves;
use crate::machine;
use crate::store::{Failed, Found, Standing, Store};
use crate::ui::{Ui, counted, duration};
use std::path::Path;

/// The most failures that are shown.
const SHOWN: usize = 20;

pub(super) fn run(runs: &Path, ui: Ui) -> Result<Outcome, Failure> {
    if !runs.exists() && runs == at_home("runs") {
        ui.line(format!("{}: nothing was run here yet", ui.strong(&runs.display().to_string())))?;
        return Ok(Outcome::Done);
    }
    have_stages(runs)?;
    let store = Store::at(runs);
    ui.line(format!("{}: {}", ui.strong(&runs.display().to_string()), counts(&store)))?;
    let held = store.leases().all()?;
    if held.is_empty() {
        ui.line("nobody works here now")?;
    }
    for found in &held {
        ui.line(format!("  {}", worked_on(&store, found)))?;
    }
    let (untried, failed): (Vec<_>, Vec<_>) = failures(&store).into_iter().partition(|(_, failed)| failed.untried);
    for (name, Failed { error, .. }) in failed.iter().take(SHOWN) {
        ui.line(format!("  {name} failed: {}", error.lines().next().unwrap_or_default()))?;
    }
    if failed.len() > SHOWN {
        ui.line(format!("  and {} more", failed.len() - SHOWN))?;
    }
    if !untried.is_empty() {
        ui.line(format!("  {} not tried, since what they need failed", counted(untried.len(), "stage")))?;
    }
    Ok(Outcome::Done)
}

/// What failed or was not tried, such as `tokenizer 1a2b3c4d`, and why.
fn failures(store: &Store) -> Vec<(String, Failed)> {
    let of = |id: String| {
        let stage = store.stage(&id);
        let failed = stage.failed().filter(|_| matches!(stage.standing(), Ok(Standing::Unfinished)))?;
        let name = stage.job().map_or("stage", |job| job.stage.name());
        Some((format!("{name} {}", short(&id)), failed))
    };
    store.ids().into_iter().filter_map(of).collect()
}

/// How it stands with all stages, as `41 stages done, 2 failed, 3 unfinished`.
fn counts(store: &Store) -> String {
    let (mut done, mut failed, mut unfinished, mut damaged) = (0, 0, 0, 0);
    for id in store.ids() {
        let stage = store.stage(&id);
        match stage.standing() {
            Ok(Standing::Done(_)) => done += 1,
            Ok(Standing::Damaged(_)) | Err(_) => damaged += 1,
            Ok(Standing::Unfinished) if stage.failed().is_some() => failed += 1,
            Ok(Standing::Unfinished) => unfinished += 1,
        }
    }
    let others = [(failed, "failed"), (unfinished, "unfinished"), (damaged, "damaged")];
    let others = others.into_iter().filter(|(count, _)| *count > 0).map(|(count, how)| format!(", {count} {how}"));
    format!("{} done{}", counted(done, "stage"), others.collect::<String>())
}

/// What somebody does: `tokenizer 1a2b3c4d by node7, process 4711, since 2026-11-28T05:35:48Z, step 40, heard of 3 s ago`.
fn worked_on(store: &Store, found: &Found) -> String {
    let stage = store.stage(&found.id);
    let mut text = match found.id.strip_prefix(PLAN) {
        Some(id) => format!("watching over plan {} by {}", short(id), found.who()),
        None => {
            let name = stage.job().map_or("stage", |job| job.stage.name());
            format!("{name} {} by {}", short(&found.id), found.who())
        }
    };
    if let Some(holder) = &found.holder {
        text.push_str(&format!(", since {}", holder.since));
    }
    if let Some(points) = curves::read(&stage).last() {
        text.push_str(&format!(", step {}", points.step));
    }
    if found.holder.as_ref().is_some_and(|holder| holder.is_near() && !holder.is_there()) {
        text.push_str(", which is gone: the next sweep takes it over");
    } else if let Some(seconds) = store.leases().heard(&found.id).and_then(machine::seconds_since) {
        text.push_str(&format!(", heard of {} ago", duration(seconds)));
    }
    text
}

//! `rqlab watch`: sweeps again whenever the experiment or a plugin changes.
//!
//! Each sweep is a process of its own, so that it loads the plugins as they are then; what is done stays done.

use crate::cli::{ExperimentArgs, Global, SweepArgs};
use crate::collect::shown;
use crate::commands::{Failure, Outcome};
use crate::experiment::find;
use crate::plugins::Search;
use crate::ui::Ui;
use notify::{EventKind, RecursiveMode, Watcher};
use rqlab_sdk::Error;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

/// A change is acted on when this long has passed without another: an editor or a compiler writes several times.
const SETTLE: Duration = Duration::from_millis(400);

pub(super) fn run(global: &Global, arguments: &ExperimentArgs, how: &SweepArgs, ui: Ui) -> Result<Outcome, Failure> {
    let experiment = find(&arguments.experiment)?;
    let folder = experiment.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned();
    let search = Search::usual(global.plugins.clone());
    let mut folders: Vec<PathBuf> = search.named.into_iter().chain(search.usual).collect();
    folders.push(folder);
    folders.retain(|folder| folder.is_dir());

    let (sender, changes) = channel();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if let Ok(event) = event {
            let _ = sender.send(event);
        }
    })
    .map_err(cannot_watch)?;
    for folder in &folders {
        watcher.watch(folder, RecursiveMode::NonRecursive).map_err(cannot_watch)?;
    }
    loop {
        // What is wrong with the file is said by the sweep itself; the next change may mend it.
        let _ = sweep_command(global, arguments, how)?.status().map_err(Error::file("rqlab"))?;
        ui.note(format!("watching {} and the plugins; Ctrl-C ends", shown(&experiment)));
        match next_change(&changes) {
            Some(path) => ui.note(format!("{} has changed", shown(&path))),
            None => return Ok(Outcome::Done),
        }
    }
}

fn cannot_watch(error: notify::Error) -> Error {
    Error::Data(format!("files cannot be watched: {error}"))
}

fn sweep_command(global: &Global, arguments: &ExperimentArgs, how: &SweepArgs) -> Result<Command, Error> {
    let mut command = Command::new(std::env::current_exe().map_err(Error::file("rqlab"))?);
    command.args(global.arguments());
    let mut add = |flag: &str, value: OsString| {
        command.arg(flag).arg(value);
    };
    add("sweep", arguments.experiment.clone().into());
    for set in &arguments.set {
        add("--set", set.into());
    }
    if let Some(seeds) = &arguments.seeds {
        add("--seeds", seeds.to_string().into());
    }
    add("--runs", arguments.runs.clone().into());
    add("--out", how.out.clone().into());
    if let Some(name) = &how.name {
        add("--name", name.into());
    }
    if let Some(jobs) = how.jobs {
        add("--jobs", jobs.to_string().into());
    }
    Ok(command)
}

/// Waits for a change of an experiment or a library, and until things have settled.
fn next_change(changes: &Receiver<notify::Event>) -> Option<PathBuf> {
    let mut seen = None;
    loop {
        let event = match seen {
            None => changes.recv().ok()?,
            Some(_) => match changes.recv_timeout(SETTLE) {
                Ok(event) => event,
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return seen,
            },
        };
        if matches!(event.kind, EventKind::Access(_)) {
            continue;
        }
        let matters = |path: &&PathBuf| path.extension().is_some_and(|e| e == "ron" || e == "so" || e == "dylib");
        seen = seen.or_else(|| event.paths.iter().find(matters).cloned());
    }
}

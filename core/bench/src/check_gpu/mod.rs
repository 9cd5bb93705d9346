//! `rqlab check-gpu`: what a GPU must show, in the order of worth, for whoever has one for a few minutes.
//!
//! `steps` says what is done: a process each, with a limit of its own (`step`). What it showed is read from its log or its files
//! (`reading`) and written before the next one begins (`shown`), so that whatever ends this program, what was shown stays.

mod cli;
mod reading;
mod shown;
mod step;
mod steps;

pub use cli::{CheckArgs, Cli};

use rqlab::cli::Global;
use rqlab::commands::{Failure, Outcome};
use rqlab::gpu::DeviceChoice;
use rqlab::ui::Ui;
use rqlab_sdk::tensor::Device;
use rqlab_sdk::{Error, Result};
use shown::{End, Results};
use std::fs;
use std::time::{Duration, Instant};
use step::Step;
use steps::{DEVICE, PYTORCH, Place};

/// A step is not begun with less time than this.
const LEAST: Duration = Duration::from_secs(3);

/// Takes the steps, and says what came of them.
///
/// # Errors
/// No GPU answers; a folder that cannot be written.
pub fn run(global: &Global, how: &CheckArgs, ui: Ui) -> Result<Outcome, Failure> {
    let place = place(global, how)?;
    let agreement = steps::agreement(&place);
    if how.list {
        for step in agreement.iter().chain(&steps::speed(&place, None)) {
            ui.line(format!("{:34} {:>4} s  {}", step.name, step.limit.as_secs(), step.what))?;
        }
        return Ok(Outcome::Done);
    }
    let end = Instant::now() + Duration::from_secs(how.limit);
    let mut results = Results::create(&place.out, &place.device)?;
    let mut take = |step: &Step| -> Result<End, Failure> {
        let left = end.saturating_duration_since(Instant::now());
        let shown = if left < LEAST { step.too_late() } else { step.take(&place, left)? };
        ui.line(shown.line())?;
        let end = shown.end;
        results.add(shown)?;
        Ok(end)
    };
    let mut torch = None;
    for step in &agreement {
        let ended = take(step)?;
        if step.name == DEVICE && ended != End::Passed {
            let log = fs::read_to_string(step.log(&place)).unwrap_or_default();
            let why = reading::refusal(&log).unwrap_or_else(|| "`rqlab doctor` did not end in time".to_owned());
            return Err(Error::Unsupported(format!("no GPU can be checked: {why}")).into());
        }
        if step.name == PYTORCH && ended == End::Passed {
            torch = Some(&place.python);
        }
    }
    for step in &steps::speed(&place, torch) {
        take(step)?;
    }
    ui.line(format!("\n{}", results.table()))?;
    Ok(if results.all_passed() { Outcome::Done } else { Outcome::SomeFailed })
}

/// Where everything lies.
fn place(global: &Global, how: &CheckArgs) -> Result<Place> {
    let device = match global.device {
        DeviceChoice::Auto => Device::Cuda(0),
        DeviceChoice::Named(device) | DeviceChoice::Chosen(device) => device,
    };
    let Device::Cuda(ordinal) = device else {
        return Err(Error::Unsupported("check-gpu needs a GPU: leave --device out, or write cuda:N".to_owned()));
    };
    let program = std::env::current_exe().and_then(fs::canonicalize).map_err(Error::file("rqlab-check-gpu"))?;
    let beside = |name: &str| program.with_file_name(name);
    let above = |name: &str| beside("..").join(name);
    let mut peers = how.peers.clone();
    if peers.is_empty() {
        peers.extend(fs::read_dir(above("peers")).into_iter().flatten().flatten().map(|entry| entry.path()));
        peers.sort();
    }
    Ok(Place {
        rqlab: beside("rqlab"),
        tests: how.tests.clone().unwrap_or_else(|| above("tests")),
        peers,
        python: how.python.clone().unwrap_or_else(|| "python3".into()),
        out: std::path::absolute(&how.out).map_err(Error::file(&how.out))?,
        device,
        ordinal,
    })
}

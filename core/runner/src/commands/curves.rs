//! `rqlab curves`: the curves of stages, while they train and after.

use crate::cli::{CurvesArgs, ExperimentArgs, Global};
use crate::collect;
use crate::commands::{Failure, Outcome, mention_another_format, open_to_plan};
use crate::experiment::Diagnostic;
use crate::jobs::curves::read;
use crate::plan::Plan;
use crate::store::{StageDir, Standing, Store};
use crate::ui::Ui;
use rqlab_reports::{Quantity, Reading};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// How often a file that grows is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// Characters of a curve that is drawn in a line.
const WIDTH: usize = 24;

/// A stage that may have curves.
struct Stage {
    dir: StageDir,
    /// Its kind and the first digits of its id: `tokenizer 1a2b3c4d`.
    name: String,
    /// What it is part of.
    of: String,
    /// Whether somebody works on it.
    is_held: bool,
}

pub(super) fn run(global: &Global, experiment: &ExperimentArgs, how: &CurvesArgs, ui: Ui) -> Result<Outcome, Failure> {
    let stages = match by_id(&experiment.runs, &experiment.experiment)? {
        Some(stage) => vec![stage],
        None => of_plan(&open_to_plan(global, experiment, ui)?.1, &experiment.runs),
    };
    mention_another_format(&experiment.runs, ui);
    if how.points || how.follow {
        return print_points(&stages, how, ui);
    }
    let mut any = false;
    for stage in &stages {
        any |= show(stage, how, ui)?;
    }
    if !any {
        let wanted = match how.only.as_slice() {
            [] => String::new(),
            only => format!(" whose name begins with {}", only.join(" or ")),
        };
        ui.note(format!("no stage has taken a point of a curve{wanted} yet"));
    }
    Ok(Outcome::Done)
}

/// The stage whose id begins so, if the text looks like one and there is one.
fn by_id(runs: &Path, text: &str) -> Result<Option<Stage>, Diagnostic> {
    let looks_like_it = text.len() >= 4 && text.chars().all(|c| c.is_ascii_hexdigit());
    let entries = if looks_like_it { fs::read_dir(runs.join("stages")).ok() } else { None };
    let ids = entries.into_iter().flatten().flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let found: Vec<String> = ids.filter(|id| id.starts_with(text)).collect();
    match found.as_slice() {
        [] => Ok(None),
        [id] => {
            let (dir, is_held) = dir_of(runs, id);
            let name = dir.job().map_or("stage", |job| job.stage.name());
            Ok(Some(Stage { name: format!("{name} {}", collect::short(id)), of: String::new(), dir, is_held }))
        }
        _ => Err(Diagnostic::error(format!("several stages begin with `{text}`")).help("give more digits")),
    }
}

/// The directory of a stage, and whether somebody works on it.
fn dir_of(runs: &Path, id: &str) -> (StageDir, bool) {
    let store = Store::at(runs);
    (store.stage(id), matches!(store.leases().find(id), Ok(Some(_))))
}

/// The stages of an experiment, each once.
fn of_plan(plan: &Plan, runs: &Path) -> Vec<Stage> {
    let mut owners = plan.owners();
    let mut stage = |job: &crate::job::Job| {
        let of = owners.remove(&job.id).unwrap_or_default();
        let name = format!("{} {}", job.stage.name(), collect::short(&job.id));
        let (dir, is_held) = dir_of(runs, &job.id);
        Stage { dir, name, of, is_held }
    };
    plan.jobs.iter().map(&mut stage).collect()
}

impl Stage {
    fn has_ended(&self) -> bool {
        self.is_done() || self.dir.failed().is_some()
    }

    fn is_done(&self) -> bool {
        matches!(self.dir.standing(), Ok(Standing::Done(_)))
    }

    fn state(&self) -> &'static str {
        match () {
            () if self.is_done() => "done",
            () if self.dir.failed().is_some() => "failed",
            () if self.is_held => "running",
            () => "not finished",
        }
    }
}

/// Prints a line per curve that is wanted: its last value and its shape. Says whether there are any.
fn show(stage: &Stage, how: &CurvesArgs, ui: Ui) -> Result<bool, Failure> {
    let points = read(&stage.dir);
    let Some(last) = points.last() else { return Ok(false) };
    let mut curves: BTreeMap<Quantity, Vec<f64>> = BTreeMap::new();
    for reading in points.iter().flat_map(|points| &points.points).filter(|reading| how.wants(reading)) {
        curves.entry(reading.quantity()).or_default().push(reading.value);
    }
    let curves: Vec<(String, Vec<f64>)> = curves.into_iter().map(|(what, values)| (what.to_string(), values)).collect();
    if curves.is_empty() {
        return Ok(false);
    }
    let of = if stage.of.is_empty() { String::new() } else { format!("  {}", stage.of) };
    ui.line(format!("{}{of}, step {}, {}", ui.strong(&stage.name), last.step, stage.state()))?;
    let width = curves.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    for (name, values) in curves {
        let last = values.last().map_or("-".to_owned(), |value| number(*value));
        ui.line(format!("  {name:width$}  {last:>10}  {}", ui.faint(&shape(&values))))?;
    }
    Ok(true)
}

/// Prints every point as a row between tabs, and if asked for those that follow, until the stages have ended.
fn print_points(stages: &[Stage], how: &CurvesArgs, ui: Ui) -> Result<Outcome, Failure> {
    ui.line("stage\tid\tstep\tmeasure\tvalue")?;
    // The last step that was printed of each.
    let mut printed = vec![0; stages.len()];
    loop {
        // Asked before its points are read, so that the last are not missed.
        let ended = stages.iter().all(Stage::has_ended);
        for (stage, printed) in stages.iter().zip(&mut printed) {
            let before = *printed;
            for points in read(&stage.dir).into_iter().filter(|points| points.step > before) {
                *printed = points.step;
                let name = stage.name.replace(' ', "\t");
                for reading in points.points.iter().filter(|reading| how.wants(reading)) {
                    ui.line(format!("{name}\t{}\t{}\t{}", points.step, reading.quantity(), reading.value))?;
                }
            }
        }
        if ended || !how.follow {
            return Ok(Outcome::Done);
        }
        std::thread::sleep(LOOK);
    }
}

impl CurvesArgs {
    fn wants(&self, reading: &Reading) -> bool {
        let column = reading.quantity().to_string();
        let names = [reading.measure.as_str(), column.as_str()];
        self.only.is_empty() || self.only.iter().any(|only| names.iter().any(|name| name.starts_with(only.as_str())))
    }
}

/// Five digits.
fn number(value: f64) -> String {
    match value.abs() {
        size if size != 0.0 && !(1e-3..1e6).contains(&size) => format!("{value:.3e}"),
        size if size >= 100.0 => format!("{value:.2}"),
        _ => format!("{value:.5}"),
    }
}

/// A curve as a row of blocks, from its lowest value to its highest.
fn shape(values: &[f64]) -> String {
    const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let columns = values.len().min(WIDTH);
    let mean = |column: usize| {
        let part = &values[column * values.len() / columns..(column + 1) * values.len() / columns];
        part.iter().sum::<f64>() / part.len() as f64
    };
    let means: Vec<f64> = (0..columns).map(mean).collect();
    let (low, high) = means.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), &v| (l.min(v), h.max(v)));
    let block = |value: f64| if high > low { ((value - low) / (high - low) * 7.0).round() as usize } else { 0 };
    means.into_iter().map(|value| BLOCKS[block(value)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_is_drawn_from_its_lowest_to_its_highest() {
        assert_eq!(shape(&[8.0, 4.0, 2.0, 1.0]), "█▄▂▁");
        assert_eq!(shape(&[3.0, 3.0]), "▁▁");
        assert_eq!(shape(&[]), "");
        let falling: Vec<f64> = (0..1000).map(|n| -f64::from(n)).collect();
        let drawn = shape(&falling);
        assert_eq!((drawn.chars().count(), drawn.chars().next(), drawn.chars().last()), (WIDTH, Some('█'), Some('▁')));
    }

    #[test]
    fn numbers_have_five_digits_or_so() {
        assert_eq!(
            [0.0, 0.071_234_5, 1234.567, 1e-5, 2.5e7].map(number),
            ["0.00000", "0.07123", "1234.57", "1.000e-5", "2.500e7"]
        );
    }
}

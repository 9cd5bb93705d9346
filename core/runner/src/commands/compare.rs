//! `rqlab compare`: two reports side by side.

use crate::cli::CompareArgs;
use crate::commands::{Failure, Outcome};
use crate::experiment::Diagnostic;
use crate::home::at_home;
use crate::ui::{Ui, counted};
use comfy_table::{CellAlignment, Table, presets};
use rqlab_reports::{Change, Changes, Movement, RECORD, Results, compare, read};
use rqlab_sdk::Error;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Settings, configurations or trials that are named before the rest is counted.
const NAMED: usize = 8;

/// Says what moved from one report to the other.
pub(super) fn run(arguments: &CompareArgs, ui: Ui) -> Result<Outcome, Failure> {
    let (before, after) = (open(&arguments.before)?, open(&arguments.after)?);
    let changes = compare(&before, &after, arguments.margin);
    if arguments.json {
        let text = serde_json::to_string_pretty(&changes);
        ui.line(text.map_err(|e| Error::Data(format!("the comparison cannot be written as JSON: {e}")))?)?;
    }
    comparable(&changes, &before, &after)?;
    if !arguments.json {
        ui.line(overview(&changes, &before, &after, arguments.all, ui))?;
    }
    Ok(if changes.is_moved() { Outcome::Moved } else { Outcome::Done })
}

/// Reads the record of a report that is named by its folder, a file in it, or its name under `reports/out`.
fn open(named: &Path) -> Result<Results, Failure> {
    let usual = at_home("reports").join("out").join(named);
    let place = if named.exists() { named.to_owned() } else { usual.clone() };
    let folder: PathBuf = if place.is_file() { place.parent().unwrap_or(&place).to_owned() } else { place };
    if !folder.is_dir() {
        let error = Diagnostic::error(format!("there is no report {}, nor {}", named.display(), usual.display()));
        return Err(error.help("name a report's folder, as `rqlab sweep` prints it").into());
    }
    if !folder.join(RECORD).is_file() {
        let error = Diagnostic::error(format!("{} has no {RECORD}, which comparisons read", folder.display()));
        let help =
            "if it is a report of an earlier version, `rqlab report EXPERIMENT` writes it anew from what is done";
        return Err(error.help(help).into());
    }
    read(&folder).map_err(|error| {
        let help = "`rqlab report EXPERIMENT` writes it anew from what is done";
        Diagnostic::error(error.to_string()).help(help).into()
    })
}

/// Complains if no number and no trial can be set beside another.
fn comparable(changes: &Changes, before: &Results, after: &Results) -> Result<(), Failure> {
    if changes.common == 0 {
        let axes = |of: &Results| match of.axes.as_slice() {
            [] => "no axes".to_owned(),
            axes => axes.iter().map(|axis| axis.path.as_str()).collect::<Vec<_>>().join(", "),
        };
        let error = Diagnostic::error(format!("{} and {} have no configuration in common", before.name, after.name));
        let help =
            format!("configurations are matched by their axes' values: {} there, {} here", axes(before), axes(after));
        return Err(error.help(help).into());
    }
    if changes.compared() == 0 && changes.unfinished.is_empty() {
        let error = Diagnostic::error(format!("no number of {} can be set beside one of {}", before.name, after.name));
        let mut help: Vec<String> = reasons(changes).into_iter().map(|one| one.sentence).collect();
        if help.is_empty() {
            help.push("no trial is done on both sides".to_owned());
        }
        return Err(help.into_iter().fold(error, Diagnostic::help).into());
    }
    Ok(())
}

/// What is printed for people.
fn overview(changes: &Changes, before: &Results, after: &Results, all: bool, ui: Ui) -> String {
    let mut parts = vec![format!(
        "{} → {}: {} in common",
        ui.strong(&before.name),
        ui.strong(&after.name),
        counted(changes.common, "configuration")
    )];
    let sides = [("before", &changes.only_before), ("after", &changes.only_after)];
    parts.extend(
        sides.iter().filter(|(_, only)| !only.is_empty()).map(|(side, only)| {
            format!("only {side}: {}, {}", counted(only.len(), "configuration"), listed(only, "; "))
        }),
    );
    let settings = changes.settings.iter().map(|one| format!("{} ({} → {})", one.path, one.before, one.after));
    let settings: Vec<String> = settings.collect();
    if !settings.is_empty() {
        parts.push(format!("settings that differ: {}", listed(&settings, ", ")));
    }
    let (old, new) = &changes.programs;
    if old != new {
        parts.push(format!("computed by: {} → {}", old.join(", "), new.join(", ")));
    }
    if !changes.unfinished.is_empty() {
        let trial = |one: &rqlab_reports::Unfinished| {
            let seed = one.seed.map_or(String::new(), |seed| format!(" seed {seed}"));
            format!("{}{seed} ({} → {})", one.configuration, one.before.as_str(), one.after.as_str())
        };
        let trials: Vec<String> = changes.unfinished.iter().map(trial).collect();
        parts.push(format!("done on one side only: {}", listed(&trials, ", ")));
    }
    let shown: Vec<&Change> = changes.numbers.iter().filter(|change| all || change.movement.is_moved()).collect();
    if !shown.is_empty() {
        parts.push(format!("\n{}\n", table(&shown)));
    }
    parts.extend(counts(changes));
    parts.join("\n")
}

/// One row a number.
fn table(numbers: &[&Change]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(["configuration", "measure", "before", "after", "difference", "", "seeds", ""]);
    for change in numbers {
        let (before, after) = change.sides();
        let way = change.better.map_or("", |better| if better { "better" } else { "worse" });
        table.add_row([
            change.configuration.clone(),
            change.label.clone(),
            before,
            after,
            change.shown(),
            way.to_owned(),
            change
                .images
                .map_or(change.seeds.to_string(), |images| format!("{}, {}", change.seeds, counted(images, "image"))),
            change.movement.words().to_owned(),
        ]);
    }
    for column in [2, 3, 6] {
        table.column_mut(column).into_iter().for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    }
    table
}

/// How many numbers moved, did not, and could not be judged.
fn counts(changes: &Changes) -> Vec<String> {
    let mut of_each: BTreeMap<Movement, usize> = BTreeMap::new();
    for change in &changes.numbers {
        *of_each.entry(change.movement).or_default() += 1;
    }
    let line = |what: &str, belongs: fn(Movement) -> bool| {
        let those: Vec<(&Movement, &usize)> = of_each.iter().filter(|(movement, _)| belongs(**movement)).collect();
        let words: Vec<String> =
            those.iter().map(|(movement, count)| format!("{count} {}", movement.words())).collect();
        let total = those.iter().map(|(_, count)| **count).sum();
        let words = if words.is_empty() { String::new() } else { format!(": {}", words.join(", ")) };
        format!("{} {what}{words}", counted(total, "number"))
    };
    let mut lines = vec![
        line("moved", Movement::is_moved),
        line("did not move", |movement| !movement.is_moved() && !movement.is_unjudged()),
        line("could not be judged", Movement::is_unjudged),
    ];
    lines.extend(reasons(changes).into_iter().map(|Reason { sentence, count, measures }| {
        format!("  {count} withheld ({}): {sentence}", listed(&measures, ", "))
    }));
    lines
}

/// Why numbers were withheld.
#[derive(Debug, PartialEq, Eq)]
struct Reason {
    sentence: String,
    /// How many numbers.
    count: usize,
    /// The measures that they are of.
    measures: Vec<String>,
}

/// Why numbers were withheld: a reason that several measures have is told once.
fn reasons(changes: &Changes) -> Vec<Reason> {
    let withheld = |change: &Change| Some((change.label.clone(), change.reason.clone()?));
    merged(changes.numbers.iter().filter_map(withheld))
}

/// Reasons with the labels of their measures, those merged that differ in the label alone.
fn merged(reasons: impl IntoIterator<Item = (String, String)>) -> Vec<Reason> {
    let mut merged: BTreeMap<String, Reason> = BTreeMap::new();
    for (label, sentence) in reasons {
        let general = of_several(&sentence, &label);
        let reason = merged.entry(general.clone()).or_insert(Reason { sentence, count: 0, measures: vec![] });
        reason.count += 1;
        if !reason.measures.contains(&label) {
            reason.measures.push(label);
        }
        if reason.measures.len() > 1 {
            reason.sentence = general;
        }
    }
    merged.into_values().collect()
}

/// What is said of one measure as it is said of several.
fn of_several(sentence: &str, label: &str) -> String {
    let mut chars = label.chars();
    let capital: String = chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default();
    let begins = |verb: &str| (format!("{capital} {verb} "), format!("Each {verb} "));
    [
        begins("compares"),
        begins("depends"),
        (format!(" difference in {label} may"), " difference in them may".to_owned()),
    ]
    .iter()
    .fold(sentence.to_owned(), |text, (one, several)| text.replace(one, several))
}

/// The first few, and how many more there are.
fn listed(all: &[String], between: &str) -> String {
    let (named, rest) = all.split_at(all.len().min(NAMED));
    let rest = if rest.is_empty() { String::new() } else { format!(", and {} more", rest.len()) };
    format!("{}{rest}", named.join(between))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn a_reason_of_several_measures_is_told_once() {
        let machines = |label: &str| {
            let how = "The two sides were computed on different machines: threads 2 → 1.";
            (label.to_owned(), format!("{how} A difference in {label} may come from the machines."))
        };
        let seeds = "FID depends on the number of samples, and the two sides have 64 and 128.";
        let told = merged([
            machines("training time"),
            machines("sampling"),
            machines("sampling"),
            ("FID".to_owned(), seeds.to_owned()),
        ]);
        let [fid, speeds] = told.as_slice() else { panic!("{told:?}") };
        assert_eq!((fid.sentence.as_str(), fid.count), (seeds, 1));
        assert_eq!((speeds.count, speeds.measures.join(", ").as_str()), (3, "training time, sampling"));
        assert!(
            speeds.sentence.ends_with("threads 2 → 1. A difference in them may come from the machines."),
            "{speeds:?}"
        );
    }
}

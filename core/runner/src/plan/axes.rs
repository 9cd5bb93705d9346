//! The axes by name, and the value of each in every combination as the user sees it.

use crate::experiment::condition::Subject;
use crate::experiment::document::Document;
use crate::experiment::raw;
use crate::experiment::source::Piece;
use crate::experiment::sweep::Block;
use crate::experiment::{Path, Written};
use crate::plan::Axis;
use crate::plan::catalog::Catalog;
use crate::plan::setups::Combination;
use crate::plan::values::at;
use std::collections::{HashMap, HashSet};

/// The value of an axis for a trial whose components do not have it.
pub const NOT_APPLICABLE: &str = "–";
/// The axis of named cases.
pub(super) const CASE: &str = "case";

/// An axis, and how its values are shown.
pub(super) struct ShownAxis {
    pub(super) axis: Axis,
    labels: Labels,
}

impl ShownAxis {
    /// How a value is shown that is written somewhere else.
    pub(super) fn label(&self, piece: &Piece) -> String {
        self.labels.of(piece.text())
    }
}

/// How calls are shown: by their names, where these tell them apart.
#[derive(Default)]
struct Labels {
    /// The name of a call.
    names: HashMap<String, String>,
    /// How many different calls have a name.
    calls: HashMap<String, usize>,
}

impl Labels {
    fn add(&mut self, written: &Written) {
        if matches!(written, Written::Value(_)) {
            return;
        }
        let name = written.short();
        if self.names.insert(raw::display(written.whole().text()), name.clone()).is_none() {
            *self.calls.entry(name).or_default() += 1;
        }
    }

    fn of(&self, text: &str) -> String {
        let shown = raw::display(text);
        match self.names.get(&shown) {
            Some(name) if self.calls.get(name) == Some(&1) => name.clone(),
            _ => shown,
        }
    }
}

/// Names the axes, and gives every combination its values.
pub(super) fn name(document: &Document, combinations: &mut [Combination], catalog: &Catalog<'_>) -> Vec<ShownAxis> {
    let axes = subjects(document).into_iter().map(|(subject, written)| match &subject {
        Subject::Case(_) => of_cases(&written, combinations),
        Subject::Path(path) => of_path(path, &written, combinations, catalog),
    });
    let mut axes: Vec<ShownAxis> = axes.collect();
    let paths: Vec<String> = axes.iter().map(|shown| shown.axis.path.clone()).collect();
    for shown in &mut axes {
        shown.axis.label = label(&shown.axis.path, &paths).to_owned();
    }
    axes
}

/// The shortest end of a path, at its dots, that no other path has: `lr`, or `tokenizer_training.lr` beside `prior_training.lr`.
fn label<'a>(path: &'a str, all: &[String]) -> &'a str {
    let ends_so =
        |other: &String, end: &str| other == end || other.strip_suffix(end).is_some_and(|rest| rest.ends_with('.'));
    let ends = path.rmatch_indices('.').map(|(dot, _)| &path[dot + 1..]).chain([path]);
    ends.into_iter().find(|end| all.iter().filter(|other| ends_so(other, end)).count() == 1).unwrap_or(path)
}

/// What varies, and the values that are written for it.
fn subjects(document: &Document) -> Vec<(Subject, Vec<Piece>)> {
    let mut subjects: Vec<(Subject, Vec<Piece>)> = Vec::new();
    let mut add = |subject: Subject, values: Vec<Piece>| match subjects
        .iter_mut()
        .find(|(known, _)| known.text() == subject.text())
    {
        Some((_, all)) => all.extend(values),
        None => subjects.push((subject, values)),
    };
    for block in &document.blocks {
        match block {
            Block::Grid(axes) | Block::Zip(axes) => {
                axes.iter().for_each(|axis| add(Subject::Path(axis.path.clone()), axis.values.clone()));
            }
            Block::Cases(cases) => {
                let names: Vec<Piece> = cases.iter().map(|(name, _)| name.clone()).collect();
                if let Some(first) = names.first().cloned() {
                    add(Subject::Case(first), names);
                }
            }
        }
    }
    subjects
}

fn of_cases(written: &[Piece], combinations: &mut [Combination]) -> ShownAxis {
    let values = combinations.iter_mut().map(|combination| {
        let text = combination.case.as_ref().map_or(NOT_APPLICABLE, Piece::text).to_owned();
        combination.axes.insert(CASE.to_owned(), text.clone());
        text
    });
    let seen = values.collect();
    let values = in_order(written.iter().map(|piece| piece.text().to_owned()).collect(), seen);
    ShownAxis { axis: Axis { path: CASE.to_owned(), label: String::new(), values }, labels: Labels::default() }
}

fn of_path(path: &Path, written: &[Piece], combinations: &mut [Combination], catalog: &Catalog<'_>) -> ShownAxis {
    let found: Vec<Option<Written>> = combinations.iter().map(|c| at(path, &c.setup, catalog)).collect();
    let mut labels = Labels::default();
    found.iter().flatten().for_each(|written| labels.add(written));
    let mut seen = Vec::new();
    for (combination, found) in combinations.iter_mut().zip(found) {
        let text = match found {
            Some(written) => labels.of(written.whole().text()),
            None if path.is_whole() => "None".to_owned(),
            None => NOT_APPLICABLE.to_owned(),
        };
        seen.push(text.clone());
        combination.axes.insert(path.text().to_owned(), text);
    }
    let values = in_order(written.iter().map(|piece| labels.of(piece.text())).collect(), seen);
    ShownAxis { axis: Axis { path: path.text().to_owned(), label: String::new(), values }, labels }
}

/// The values that occur, each once: in the order in which they are written, then those that come from elsewhere.
fn in_order(mut values: Vec<String>, seen: Vec<String>) -> Vec<String> {
    let occurring: HashSet<&String> = seen.iter().collect();
    values.retain(|value| occurring.contains(value));
    values.extend(seen);
    let mut known = HashSet::new();
    values.retain(|value| known.insert(value.clone()));
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_as_long_as_it_takes_to_tell_axes_apart() {
        let labels = |paths: &[&str]| {
            let all: Vec<String> = paths.iter().map(|&path| path.to_owned()).collect();
            all.iter().map(|path| label(path, &all).to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(labels(&["quantizer.depth", "quantizer.codebook", "case"]), ["depth", "codebook", "case"]);
        assert_eq!(
            labels(&["tokenizer_training.lr", "prior_training.lr", "prior"]),
            ["tokenizer_training.lr", "prior_training.lr", "prior"]
        );
        assert_eq!(
            labels(&["quantizer.1.depth", "quantizer.2.depth", "prior.depth"]),
            ["1.depth", "2.depth", "prior.depth"]
        );
        // One path at the end of another: only the longer has an end of its own beside it.
        assert_eq!(labels(&["lr", "prior_training.lr"]), ["lr", "prior_training.lr"]);
    }
}

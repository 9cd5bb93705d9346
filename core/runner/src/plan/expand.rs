//! Axes, cases, exclusions and conditions, as a list of combinations.

use crate::plan::catalog::Catalog;
use crate::plan::{Axis, Comparison};
use crate::spec::component::{Assignment, Component, Path, Setup};
use crate::spec::diagnostic::{Complaints, Diagnostic, suggestion};
use crate::spec::document::{Condition, Document, Subject};
use crate::spec::raw;
use crate::spec::source::Piece;
use crate::spec::sweep::{Block, Point};
use std::collections::{BTreeMap, HashSet};

/// The value of an axis for a trial whose components do not have it.
pub const NOT_APPLICABLE: &str = "–";
const CASE: &str = "case";

/// One combination of the axes.
pub(super) struct Combination {
    /// The name of its case.
    pub(super) case: Option<Piece>,
    /// What all slots hold.
    pub(super) setup: Setup,
    /// The value of every axis, as the user sees it.
    pub(super) axes: BTreeMap<String, String>,
}

pub(super) struct Expanded {
    pub(super) combinations: Vec<Combination>,
    pub(super) axes: Vec<Axis>,
}

pub(super) fn expand(document: &Document, catalog: &Catalog, complaints: &mut Complaints) -> Expanded {
    // What the command line sets no axis varies: a field, or a component with the fields that it names.
    let names = |path: &Path| match (&path.field, document.setup.get(path.slot)) {
        (Some(field), Some(component)) => component.field(field.text()).is_some(),
        _ => false,
    };
    let pinned = |path: &Path| {
        let whole = |set: &Assignment| set.path.field.is_none() && set.path.slot == path.slot && names(path);
        document.overrides.iter().any(|set| set.path.text() == path.text() || whole(set))
    };
    let mut applied = HashSet::new();
    let mut matched = HashSet::new();
    let mut combinations = Vec::new();
    let mut excluded = 0;
    let points: Vec<Point> = document.blocks.iter().flat_map(|block| block.points(pinned)).collect();
    for point in &points {
        let mut setup = document.setup.clone();
        apply(&mut setup, &point.assignments, &mut applied, complaints);
        // `--set` has the last word, also about a component that an axis put there.
        let fields: Vec<Assignment> = document.overrides.iter().filter(|o| o.path.field.is_some()).cloned().collect();
        apply(&mut setup, &fields, &mut applied, complaints);
        for when in &document.when {
            if holds(&when.at, &setup, point, catalog) {
                matched.insert(when.at.piece.origin());
                let free: Vec<Assignment> = when.set.iter().filter(|set| !pinned(&set.path)).cloned().collect();
                apply(&mut setup, &free, &mut applied, complaints);
                apply(&mut setup, &fields, &mut applied, complaints);
            }
        }
        let mut keep = true;
        for condition in &document.exclude {
            if holds(condition, &setup, point, catalog) {
                matched.insert(condition.piece.origin());
                keep = false;
            }
        }
        if keep {
            combinations.push(Combination { case: point.case.clone(), setup, axes: BTreeMap::new() });
        } else {
            excluded += 1;
        }
    }
    if combinations.is_empty() && excluded > 0 {
        let mut error = Diagnostic::error("`exclude` leaves nothing to run");
        for condition in document.exclude.iter().filter(|c| matched.contains(&c.piece.origin())) {
            error = match error.at {
                None => error.at(&condition.piece, ""),
                Some(_) => error.also(&condition.piece, ""),
            };
        }
        complaints.push(error);
    }
    let whens = document.when.iter().map(|when| &when.at);
    for condition in document.exclude.iter().chain(whens).filter(|c| !matched.contains(&c.piece.origin())) {
        let of_nothing =
            condition.at.iter().find_map(|(subject, _)| unknown_subject(subject, document, &points, catalog));
        complaints.push(of_nothing.unwrap_or_else(|| {
            Diagnostic::warning("no combination has these values").at(&condition.piece, "this changes nothing")
        }));
    }
    let all = points.iter().flat_map(|point| &point.assignments).chain(&document.overrides);
    for assignment in all.filter(|a| !applied.contains(&a.path.piece.origin()) && a.path.field.is_some()) {
        let slot = assignment.path.slot;
        if !combinations.is_empty() && combinations.iter().all(|c| c.setup.get(slot).is_none()) {
            complaints.push(
                Diagnostic::error(format!(
                    "`{}` names nothing: the experiment has no `{slot}`",
                    assignment.path.text()
                ))
                .at(&assignment.path.piece, ""),
            );
        }
    }
    let axes = axes(document, &mut combinations, catalog);
    Expanded { combinations, axes }
}

/// Puts values in place: whole components first, so that fields go into them.
fn apply(setup: &mut Setup, list: &[Assignment], applied: &mut HashSet<(usize, usize)>, complaints: &mut Complaints) {
    let (wholes, fields): (Vec<_>, Vec<_>) = list.iter().partition(|a| a.path.field.is_none());
    for assignment in wholes.into_iter().chain(fields) {
        if complaints.take(setup.set(assignment)) == Some(true) {
            applied.insert(assignment.path.piece.origin());
        }
    }
}

/// What a combination has under a path, as the user sees it: a component's name, a field's value or its default.
fn value(subject: &Subject, setup: &Setup, case: Option<&Piece>, catalog: &Catalog) -> Option<String> {
    let path = match subject {
        Subject::Case(_) => return case.map(|piece| piece.text().to_owned()),
        Subject::Path(path) => path,
    };
    let component = setup.get(path.slot);
    let Some(field) = &path.field else {
        return Some(component.map_or("None", Component::name).to_owned());
    };
    if component.is_none() && path.slot.kind().is_some() {
        return None;
    }
    if let Some(entry) = component.and_then(|component| component.field(field.text())) {
        return Some(raw::display(entry.value.text()));
    }
    let description = catalog.description(path.slot, component)?;
    let known = description.fields.iter().find(|known| known.name == field.text())?;
    known.default.as_deref().map(raw::display)
}

fn holds(condition: &Condition, setup: &Setup, point: &Point, catalog: &Catalog) -> bool {
    condition.at.iter().all(|(subject, wanted)| fits(subject, wanted, setup, point.case.as_ref(), catalog))
}

/// Whether a combination has a value. A call fits if the name is the same and the fields that it gives are.
fn fits(subject: &Subject, wanted: &Piece, setup: &Setup, case: Option<&Piece>, catalog: &Catalog) -> bool {
    let found = value(subject, setup, case, catalog);
    let Subject::Path(Path { slot, field: None, .. }) = subject else {
        return found == Some(raw::display(wanted.text()));
    };
    match Component::read(*slot, wanted) {
        Ok(Some(pattern)) if slot.kind().is_some() => {
            let same = |entry: &raw::Entry| {
                let path = Path { slot: *slot, field: Some(entry.key.clone()), piece: entry.key.clone() };
                fits(&Subject::Path(path), &entry.value, setup, case, catalog)
            };
            found.as_deref() == Some(pattern.name()) && pattern.fields.iter().all(same)
        }
        _ => found == Some(raw::display(wanted.text())),
    }
}

/// A complaint if a condition is about a field that no combination has.
fn unknown_subject(subject: &Subject, document: &Document, points: &[Point], catalog: &Catalog) -> Option<Diagnostic> {
    let Subject::Path(Path { slot, field: Some(field), piece }) = subject else {
        let no_case = matches!(subject, Subject::Case(_)) && points.iter().all(|point| point.case.is_none());
        return no_case.then(|| Diagnostic::error("the experiment has no cases").at(subject.piece(), ""));
    };
    let component = document.setup.get(*slot);
    let described = catalog.description(*slot, component)?;
    if described.fields.iter().any(|known| known.name == field.text()) {
        return None;
    }
    let set = |assignment: &Assignment| assignment.path.slot == *slot && assignment.path.field.is_none();
    if points.iter().any(|point| point.assignments.iter().any(set)) {
        return None;
    }
    let name = component.map_or(slot.name(), |c| if c.name().is_empty() { slot.name() } else { c.name() });
    let mut error = Diagnostic::error(format!("`{name}` has no field `{}`", field.text())).at(piece, "");
    error.help = suggestion(field.text(), "its fields", described.fields.iter().map(|f| f.name));
    Some(error)
}

/// Names the axes, and gives every combination its values.
fn axes(document: &Document, combinations: &mut [Combination], catalog: &Catalog) -> Vec<Axis> {
    let mut subjects: Vec<(Subject, Vec<Piece>)> = Vec::new();
    for block in &document.blocks {
        let mut add = |subject: Subject, values: Vec<Piece>| match subjects
            .iter_mut()
            .find(|(known, _)| known.text() == subject.text())
        {
            Some((_, all)) => all.extend(values),
            None => subjects.push((subject, values)),
        };
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
    let mut axes = Vec::new();
    for (subject, written) in &subjects {
        let path = match subject {
            Subject::Case(_) => CASE.to_owned(),
            Subject::Path(path) => path.text().to_owned(),
        };
        let label = labels(subject, combinations);
        let mut values: Vec<String> = written.iter().map(|piece| label(piece.text())).collect();
        let mut seen = Vec::new();
        for combination in combinations.iter_mut() {
            let text = match subject {
                Subject::Path(Path { slot, field: None, .. }) => {
                    combination.setup.get(*slot).map_or("None".to_owned(), |component| label(component.whole.text()))
                }
                _ => value(subject, &combination.setup, combination.case.as_ref(), catalog)
                    .unwrap_or_else(|| NOT_APPLICABLE.to_owned()),
            };
            seen.push(text.clone());
            combination.axes.insert(path.clone(), text);
        }
        values.retain(|value| seen.contains(value));
        values.extend(seen);
        let mut known = HashSet::new();
        values.retain(|value| known.insert(value.clone()));
        axes.push(Axis { path, values });
    }
    axes
}

/// How the values of an axis are shown: components by their names, where these tell them apart.
fn labels(subject: &Subject, combinations: &[Combination]) -> impl Fn(&str) -> String + use<> {
    let mut calls: Vec<(String, String)> = Vec::new();
    if let Subject::Path(Path { slot, field: None, .. }) = subject {
        for component in combinations.iter().filter_map(|c| c.setup.get(*slot)) {
            let call = (component.name().to_owned(), raw::display(component.whole.text()));
            if !calls.contains(&call) {
                calls.push(call);
            }
        }
    }
    move |text: &str| {
        let shown = raw::display(text);
        match calls.iter().find(|(_, call)| *call == shown) {
            Some((name, _)) if calls.iter().filter(|(other, _)| other == name).count() == 1 => name.clone(),
            _ => shown,
        }
    }
}

/// Checks what the report is to judge, and gives its values the form that trials show.
pub(super) fn comparisons(document: &Document, axes: &[Axis], complaints: &mut Complaints) -> Vec<Comparison> {
    if let Some(headline) = &document.headline {
        metric(headline, complaints);
    }
    let mut list = Vec::new();
    for compare in &document.compare {
        let metric_name = match (&compare.metric, &document.headline) {
            (Some(piece), _) => {
                metric(piece, complaints);
                piece.text().to_owned()
            }
            (None, Some(headline)) => headline.text().to_owned(),
            (None, None) => "psnr".to_owned(),
        };
        let from = shown(&compare.along, &compare.from, axes, document, complaints);
        let to = shown(&compare.along, &compare.to, axes, document, complaints);
        let mut at = BTreeMap::new();
        for (subject, piece) in &compare.at.at {
            if let Some(text) = shown(subject, piece, axes, document, complaints) {
                at.insert(subject.text().to_owned(), text);
            }
        }
        if let (Some(from), Some(to)) = (from, to) {
            let along = compare.along.text().to_owned();
            list.push(Comparison { metric: metric_name, along, from, to, at });
        }
    }
    list
}

fn shown(
    subject: &Subject,
    wanted: &Piece,
    axes: &[Axis],
    document: &Document,
    complaints: &mut Complaints,
) -> Option<String> {
    let Some(axis) = axes.iter().find(|axis| axis.path == subject.text()) else {
        let mut error = Diagnostic::error(format!("`{}` is no axis of this experiment", subject.text()));
        error = error.at(subject.piece(), "");
        error.help = suggestion(subject.text(), "axes", axes.iter().map(|axis| axis.path.as_str()));
        complaints.push(error);
        return None;
    };
    let text = raw::display(wanted.text());
    let found = axis.values.iter().find(|value| **value == text || value.split('(').next() == Some(&text));
    // A value that `--set` pinned away, or that an exclusion removed, leaves the comparison without trials.
    if found.is_none() {
        let pinned = document.overrides.iter().any(|o| o.path.text().starts_with(subject.text()));
        if !pinned && !axis.values.is_empty() {
            let values: Vec<String> = axis.values.iter().map(|value| format!("`{value}`")).collect();
            complaints.push(
                Diagnostic::error(format!("the axis `{}` has no value {text}", axis.path))
                    .at(wanted, "")
                    .help(format!("its values: {}", values.join(", "))),
            );
        }
    }
    found.cloned()
}

/// Whether a report knows the measure.
fn metric(piece: &Piece, complaints: &mut Complaints) {
    let name = piece.text();
    if let Err(wrong) = rqlab_reports::quantity(name) {
        let unknown = matches!(wrong, rqlab_reports::NameError::Unknown { .. });
        let mut error = Diagnostic::error(wrong.to_string()).at(piece, "");
        if unknown {
            error.help = suggestion(name, "measures", rqlab_reports::measure_names());
        }
        complaints.push(error);
    }
}

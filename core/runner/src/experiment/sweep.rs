//! Which combinations an experiment tries.

use crate::experiment::diagnostic::{Complaints, Diagnostic, suggestion};
use crate::experiment::path::{Assignment, Path};
use crate::experiment::raw;
use crate::experiment::source::Piece;
use std::collections::HashSet;

/// An axis: what varies, and its values.
#[derive(Debug, Clone, PartialEq)]
pub struct Axis {
    /// What varies.
    pub path: Path,
    /// Its values.
    pub values: Vec<Piece>,
    /// The list as it was written.
    pub list: Piece,
}

/// A part of a sweep.
#[derive(Debug, Clone, PartialEq)]
pub enum Block {
    /// Every combination of all values.
    Grid(Vec<Axis>),
    /// The first values of all axes together, then the second, ...
    Zip(Vec<Axis>),
    /// Named sets of values.
    Cases(Vec<(Piece, Vec<Assignment>)>),
}

/// One combination.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Point {
    /// The case's name.
    pub case: Option<Piece>,
    /// What is set.
    pub assignments: Vec<Assignment>,
}

impl Block {
    /// What it varies.
    pub fn paths(&self) -> Vec<&Path> {
        match self {
            Self::Grid(axes) | Self::Zip(axes) => axes.iter().map(|axis| &axis.path).collect(),
            Self::Cases(cases) => cases.iter().flat_map(|(_, set)| set.iter().map(|set| &set.path)).collect(),
        }
    }

    /// Reads `grid({..})`, `zip({..})` or `cases({..})`.
    pub fn read(piece: &Piece, complaints: &mut Complaints) -> Option<Self> {
        let names = ["grid", "zip", "cases"];
        let expected = "expected `grid({..})`, `zip({..})` or `cases({..})`";
        let Some((name, arguments)) = raw::call(piece) else {
            complaints.push(Diagnostic::error("a part of a sweep must be a call").at(piece, expected));
            return None;
        };
        let inner = arguments.text().strip_prefix('(').and_then(|text| text.strip_suffix(')'));
        let Some(inner) = inner.map(|text| arguments.part(text).trimmed()) else {
            complaints.push(Diagnostic::error("a part of a sweep must be a call").at(piece, expected));
            return None;
        };
        // A comma may follow the one argument.
        let inner = match inner.text().strip_suffix(',') {
            Some(text) => inner.part(text).trimmed(),
            None => inner,
        };
        match name.text() {
            "grid" => Some(Self::Grid(once_each(axes(&inner, complaints)?, complaints))),
            "zip" => Self::zip(&inner, complaints),
            "cases" => Self::cases(&inner, complaints),
            other => {
                let mut error = Diagnostic::error(format!("there is no `{other}`")).at(&name, "");
                error.help = suggestion(other, "parts of a sweep", names);
                complaints.push(error);
                None
            }
        }
    }

    fn zip(piece: &Piece, complaints: &mut Complaints) -> Option<Self> {
        let axes = axes(piece, complaints)?;
        if let Some(other) = axes.iter().find(|axis| axis.values.len() != axes[0].values.len()) {
            let count = |axis: &Axis| match axis.values.len() {
                1 => "1 value".to_owned(),
                n => format!("{n} values"),
            };
            complaints.push(
                Diagnostic::error("the axes of a zip must be equally long")
                    .at(&other.list, count(other))
                    .also(&axes[0].list, count(&axes[0])),
            );
            return None;
        }
        Some(Self::Zip(axes))
    }

    fn cases(piece: &Piece, complaints: &mut Complaints) -> Option<Self> {
        let entries = complaints.take(raw::map(piece))?;
        if entries.is_empty() {
            complaints.push(Diagnostic::error("there is no case").at(piece, ""));
            return None;
        }
        let mut cases = Vec::new();
        for entry in entries {
            let sets = complaints.take(raw::map(&entry.value))?;
            cases.push((entry.key, assignments(sets, complaints)));
        }
        Some(Self::Cases(cases))
    }

    /// The axes; none of cases.
    pub fn axes(&self) -> &[Axis] {
        match self {
            Self::Grid(axes) | Self::Zip(axes) => axes,
            Self::Cases(_) => &[],
        }
    }

    /// How many combinations it has, or the largest number that there is. An axis that is `pinned` has one value, which is set
    /// elsewhere.
    pub fn count(&self, pinned: impl Fn(&Path) -> bool) -> usize {
        match self {
            Self::Grid(axes) => {
                let free = axes.iter().filter(|axis| !pinned(&axis.path));
                free.fold(1, |count, axis| count.saturating_mul(axis.values.len()))
            }
            Self::Zip(axes) => axes.first().map_or(0, |axis| axis.values.len()),
            Self::Cases(cases) => cases.len(),
        }
    }

    /// The combinations. An axis that is `pinned` has one value, which is set elsewhere.
    pub fn points(&self, pinned: impl Fn(&Path) -> bool) -> Vec<Point> {
        match self {
            Self::Grid(axes) => {
                let mut points = vec![Point::default()];
                for axis in axes.iter().filter(|axis| !pinned(&axis.path)) {
                    let extend = |point: &Point, value: &Piece| {
                        let mut point = point.clone();
                        point.assignments.push(Assignment { path: axis.path.clone(), value: value.clone() });
                        point
                    };
                    points = points.iter().flat_map(|p| axis.values.iter().map(move |v| extend(p, v))).collect();
                }
                points
            }
            Self::Zip(axes) => {
                let length = axes.first().map_or(0, |axis| axis.values.len());
                let free: Vec<&Axis> = axes.iter().filter(|axis| !pinned(&axis.path)).collect();
                let at = |i: usize, axis: &&Axis| Assignment { path: axis.path.clone(), value: axis.values[i].clone() };
                let point = |i| Point { case: None, assignments: free.iter().map(|axis| at(i, axis)).collect() };
                (0..length).map(point).collect()
            }
            Self::Cases(cases) => cases
                .iter()
                .map(|(name, sets)| Point {
                    case: Some(name.clone()),
                    assignments: sets.iter().filter(|set| !pinned(&set.path)).cloned().collect(),
                })
                .collect(),
        }
    }
}

/// Reads `{ "path": [values], .. }`.
pub fn axes(piece: &Piece, complaints: &mut Complaints) -> Option<Vec<Axis>> {
    let entries = complaints.take(raw::map(piece))?;
    if entries.is_empty() {
        complaints.push(Diagnostic::error("there is no axis").at(piece, ""));
        return None;
    }
    let mut axes = Vec::new();
    let mut whole = true;
    for entry in entries {
        let Some(path) = complaints.take(Path::parse(&entry.key)) else {
            whole = false;
            continue;
        };
        match raw::list(&entry.value) {
            Err(_) => {
                let error = Diagnostic::error(format!("the axis `{}` needs a list of values", path.text()));
                complaints.push(error.at(&entry.value, "expected `[.., ..]`"));
                whole = false;
            }
            Ok(values) if values.is_empty() => {
                let error = Diagnostic::error(format!("the axis `{}` has no values", path.text()));
                complaints.push(error.at(&entry.value, "an empty list leaves nothing to run"));
                whole = false;
            }
            Ok(values) => axes.push(Axis { path, values, list: entry.value }),
        }
    }
    whole.then_some(axes)
}

/// Complains of values that an axis of a grid has twice.
pub fn once_each(axes: Vec<Axis>, complaints: &mut Complaints) -> Vec<Axis> {
    for axis in &axes {
        let mut seen = HashSet::new();
        for value in &axis.values {
            let text = raw::display(value.text());
            if !seen.insert(text.clone()) {
                let message = format!("the axis `{}` has the value {text} twice", axis.path.text());
                complaints.push(Diagnostic::error(message).at(value, "equal trials count once"));
            }
        }
    }
    axes
}

/// Reads the entries of `{ "path": value, .. }`.
pub fn assignments(entries: Vec<raw::Entry>, complaints: &mut Complaints) -> Vec<Assignment> {
    let read = |entry: raw::Entry| {
        complaints.take(Path::parse(&entry.key)).map(|path| Assignment { path, value: entry.value })
    };
    entries.into_iter().filter_map(read).collect()
}

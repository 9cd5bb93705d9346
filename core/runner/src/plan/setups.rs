//! The second pass: axes, cases, exclusions and conditions, as a list of combinations and what all slots hold in each.

use crate::experiment::diagnostic::{Complaints, Diagnostic};
use crate::experiment::document::Document;
use crate::experiment::reach::Reached;
use crate::experiment::source::Piece;
use crate::experiment::sweep::Point;
use crate::experiment::{Assignment, Setup, Written};
use crate::plan::axes::{self, ShownAxis};
use crate::plan::catalog::Catalog;
use crate::plan::values::{at, holds, unknown};
use std::collections::{BTreeMap, HashMap, HashSet};

/// One combination of the axes.
pub(super) struct Combination {
    /// The name of its case.
    pub(super) case: Option<Piece>,
    /// What all slots hold.
    pub(super) setup: Setup,
    /// The value of every axis, as the user sees it.
    pub(super) axes: BTreeMap<String, String>,
}

pub(super) struct Setups {
    pub(super) combinations: Vec<Combination>,
    pub(super) axes: Vec<ShownAxis>,
}

/// Where a piece stands: tells equal texts in different places apart.
type Origin = (usize, usize);

pub(super) fn expand(document: &Document, catalog: &Catalog<'_>, complaints: &mut Complaints) -> Setups {
    let mut expansion = Expansion { document, catalog, applied: HashMap::new(), matched: HashSet::new() };
    let points: Vec<Point> =
        document.blocks.iter().flat_map(|block| block.points(|path| document.pins(path))).collect();
    let setups: Vec<(Option<Piece>, Setup)> =
        points.iter().map(|point| (point.case.clone(), expansion.setup(point, complaints))).collect();
    let kept: Vec<bool> = setups.iter().map(|(case, setup)| expansion.keeps(case.as_ref(), setup)).collect();
    let none = !kept.contains(&true);
    if none && !setups.is_empty() {
        complaints.push(expansion.nothing_left());
    }
    expansion.unmatched(&setups, complaints);
    if !none {
        expansion.unapplied(&points, complaints);
    }
    drop(points);
    let kept = setups.into_iter().zip(kept).filter(|(_, keeps)| *keeps);
    let combination = |((case, setup), _)| Combination { case, setup, axes: BTreeMap::new() };
    let mut combinations: Vec<Combination> = kept.map(combination).collect();
    let axes = axes::name(document, &mut combinations, catalog);
    Setups { combinations, axes }
}

struct Expansion<'a> {
    document: &'a Document,
    catalog: &'a Catalog<'a>,
    /// Of every assignment that was tried: nothing if it found its place in some combination, else why it did not.
    applied: HashMap<Origin, Option<Diagnostic>>,
    /// The conditions that hold in some combination.
    matched: HashSet<Origin>,
}

impl Expansion<'_> {
    /// What all slots hold at a point.
    fn setup(&mut self, point: &Point, complaints: &mut Complaints) -> Setup {
        let document = self.document;
        let mut setup = document.setup.clone();
        // `--set` has the last word about what it names, also in a component that an axis put there.
        let inner: Vec<&Assignment> = document.overrides.iter().filter(|set| !set.path.is_whole()).collect();
        self.apply(&mut setup, point.assignments.iter().chain(inner.iter().copied()).collect(), complaints);
        self.clashes(point, &setup, complaints);
        for when in &document.when {
            if holds(&when.at, &setup, point.case.as_ref(), self.catalog) {
                self.matched.insert(when.at.piece.origin());
                let free: Vec<&Assignment> = when.set.iter().filter(|set| !document.pins(&set.path)).collect();
                let within = |set: &&&Assignment| free.iter().any(|free| free.path.rest(&set.path).is_some());
                let again: Vec<&Assignment> = inner.iter().filter(within).copied().collect();
                self.apply(&mut setup, free, complaints);
                self.apply(&mut setup, again, complaints);
            }
        }
        setup
    }

    /// Puts values in place: what holds others first.
    fn apply(&mut self, setup: &mut Setup, mut list: Vec<&Assignment>, complaints: &mut Complaints) {
        list.sort_by_key(|assignment| assignment.path.steps.len());
        for assignment in list {
            let origin = assignment.path.piece.origin();
            match complaints.take(setup.set(assignment, self.catalog)) {
                Some(Reached::Nothing(why)) => {
                    self.applied.entry(origin).or_insert(why);
                }
                // What is wrong has been said.
                Some(Reached::There(())) | None => drop(self.applied.insert(origin, None)),
            }
        }
    }

    /// Two axes whose paths, written otherwise, lead to one place: the first would be without effect, and without a word.
    fn clashes(&self, point: &Point, setup: &Setup, complaints: &mut Complaints) {
        for axis in &point.assignments {
            let Some(Written::Value(found)) = at(&axis.path, setup, self.catalog) else { continue };
            let same = |other: &&Assignment| {
                other.value.origin() == found.origin() && other.path.piece.origin() != axis.path.piece.origin()
            };
            if let Some(other) = point.assignments.iter().find(same) {
                let (first, second) = (&axis.path.piece, &other.path.piece);
                let message = format!("`{}` and `{}` name the same field", first.text(), second.text());
                complaints.push(Diagnostic::error(message).at(second, "").also(first, "here first"));
            }
        }
    }

    /// Whether no exclusion holds.
    fn keeps(&mut self, case: Option<&Piece>, setup: &Setup) -> bool {
        let mut keeps = true;
        for condition in &self.document.exclude {
            if holds(condition, setup, case, self.catalog) {
                self.matched.insert(condition.piece.origin());
                keeps = false;
            }
        }
        keeps
    }

    fn nothing_left(&self) -> Diagnostic {
        let all = self.document.exclude.iter().filter(|condition| self.matched.contains(&condition.piece.origin()));
        all.fold(Diagnostic::error("`exclude` leaves nothing to run"), |error, condition| match error.at {
            None => error.at(&condition.piece, ""),
            Some(_) => error.also(&condition.piece, ""),
        })
    }

    /// Complains of conditions that hold nowhere.
    fn unmatched(&self, setups: &[(Option<Piece>, Setup)], complaints: &mut Complaints) {
        let whens = self.document.when.iter().map(|when| &when.at);
        let all = self.document.exclude.iter().chain(whens);
        for condition in all.filter(|condition| !self.matched.contains(&condition.piece.origin())) {
            let about_nothing = condition.at.iter().find_map(|(subject, _)| unknown(subject, setups, self.catalog));
            complaints.push(about_nothing.unwrap_or_else(|| {
                Diagnostic::warning("no combination has these values").at(&condition.piece, "this changes nothing")
            }));
        }
    }

    /// Complains of values that found their place in no combination.
    fn unapplied(&self, points: &[Point], complaints: &mut Complaints) {
        let tried = points.iter().flat_map(|point| &point.assignments).chain(&self.document.overrides);
        for assignment in tried {
            complaints.extend(self.applied.get(&assignment.path.piece.origin()).cloned().flatten());
        }
    }
}

//! What the report is to judge, in the words that trials show.

use crate::experiment::condition::Subject;
use crate::experiment::diagnostic::{Complaints, Diagnostic, suggestion};
use crate::experiment::document::Document;
use crate::experiment::source::Piece;
use crate::experiment::sweep::Block;
use crate::experiment::{Path, Slot};
use crate::plan::Comparison;
use crate::plan::axes::ShownAxis;
use std::collections::BTreeMap;

/// The measure in the foreground if an experiment names none.
const HEADLINE: &str = "psnr";
/// The same, if nothing varies that reconstructions depend on.
const HEADLINE_OF_SAMPLES: &str = "sample_frechet";

/// The measure in the foreground.
pub(super) fn headline(document: &Document) -> String {
    let usual = if varies_samples_alone(document) { HEADLINE_OF_SAMPLES } else { HEADLINE };
    document.headline.as_ref().map_or(usual, Piece::text).to_owned()
}

/// What is judged beside the headline if the file does not say what: of tokenizers and priors that both vary, the samples, too.
pub(super) fn judged_also(document: &Document) -> Vec<String> {
    let mut varied = document.blocks.iter().flat_map(Block::paths);
    let priors = varied.any(|path| matches!(path.slot, Slot::Prior | Slot::PriorTraining));
    let asked = document.headline.is_some() || !document.compare.is_empty();
    if asked || !priors || headline(document) == HEADLINE_OF_SAMPLES {
        return Vec::new();
    }
    vec![HEADLINE_OF_SAMPLES.to_owned()]
}

/// Whether there are priors and something varies, all of which concerns them and how they are drawn from.
fn varies_samples_alone(document: &Document) -> bool {
    let varied: Vec<&Path> = document.blocks.iter().flat_map(Block::paths).collect();
    let written = document.setup.get(Slot::Prior).is_some_and(|priors| !priors.items().is_empty());
    let priors = written || varied.iter().any(|path| path.slot == Slot::Prior);
    priors && !varied.is_empty() && varied.iter().all(|path| path.concerns_samples_alone())
}

/// Checks what the report is to judge, and gives its values the form that trials show.
pub(super) fn check(document: &Document, axes: &[ShownAxis], complaints: &mut Complaints) -> Vec<Comparison> {
    let headline = headline(document);
    let named = document.compare.iter().filter_map(|compare| compare.metric.as_ref());
    document.headline.iter().chain(named).for_each(|piece| metric(piece, complaints));
    let mut list = Vec::new();
    for compare in &document.compare {
        let mut shown = |subject: &Subject, wanted: &Piece| shown(subject, wanted, axes, document, complaints);
        let (from, to) = (shown(&compare.along, &compare.from), shown(&compare.along, &compare.to));
        let mut at = BTreeMap::new();
        for (subject, wanted) in &compare.at.at {
            at.extend(shown(subject, wanted).map(|text| (subject.text().to_owned(), text)));
        }
        if let (Some(from), Some(to)) = (from, to) {
            let metric = compare.metric.as_ref().map_or(&*headline, Piece::text).to_owned();
            list.push(Comparison { metric, along: compare.along.text().to_owned(), from, to, at });
        }
    }
    list
}

fn shown(
    subject: &Subject,
    wanted: &Piece,
    axes: &[ShownAxis],
    document: &Document,
    complaints: &mut Complaints,
) -> Option<String> {
    let Some(shown) = axes.iter().find(|shown| shown.axis.path == subject.text()) else {
        let mut error = Diagnostic::error(format!("`{}` is no axis of this experiment", subject.text()));
        error = error.at(subject.piece(), "");
        error.help = suggestion(subject.text(), "axes", axes.iter().map(|shown| shown.axis.path.as_str()));
        complaints.push(error);
        return None;
    };
    let (axis, text) = (&shown.axis, shown.label(wanted));
    let named = |value: &&String| value.split('(').next() == Some(&text);
    let found = axis.values.iter().find(|value| **value == text).or_else(|| axis.values.iter().find(named));
    // A value that `--set` pinned away, or that an exclusion removed, leaves the comparison without trials.
    if found.is_none() {
        let pinned = document.overrides.iter().any(|set| match subject {
            Subject::Path(path) => set.path.rest(path).is_some() || path.rest(&set.path).is_some(),
            Subject::Case(_) => false,
        });
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

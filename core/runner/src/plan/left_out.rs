//! What trials will not have of what is asked for: measures that need weights, codes, labels, or more images than there are.

use super::jobs::of_codes;
use super::models::Modelled;
use crate::experiment::document::Document;
use crate::experiment::{Diagnostic, Piece};
use crate::needs;
use crate::settings::Evaluation;
use std::collections::{BTreeMap, BTreeSet};

/// Warnings of what some combinations lack; an error for what the report is asked to look at, and no combination has.
pub(super) fn find(document: &Document, modelled: &[Modelled]) -> Vec<Diagnostic> {
    let warnings = [without_weights(modelled), of_codes_alone(modelled)].into_iter().flatten();
    let asked = document.headline.iter().chain(document.compare.iter().filter_map(|compare| compare.metric.as_ref()));
    warnings.chain(asked.filter_map(|metric| in_vain(metric, modelled))).collect()
}

/// The classes of a combination's data, the test images that it is measured on, and its samples, if it has a prior.
fn measured_on(one: &Modelled) -> (usize, usize, Option<usize>) {
    let (evaluation, model) = (&one.resolved.evaluation.all, &one.measured.model);
    let info = &model.data.info;
    (info.classes.len(), evaluation.images.min(info.test), model.prior.map(|_| evaluation.samples))
}

/// The measures that classes, images or samples are too few for, a sentence for each reason.
pub(super) fn too_few(modelled: &[Modelled]) -> Vec<String> {
    let mut reasons: BTreeMap<String, (Vec<String>, usize)> = BTreeMap::new();
    for one in modelled {
        let (classes, images, samples) = measured_on(one);
        let mut of_one: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let model = &one.measured.model;
        let unobeyed = (model.text.is_some() && model.attributes == 0).then(needs::unobeyed);
        for (label, reason) in needs::left_out(classes, images, samples).into_iter().chain(unobeyed) {
            of_one.entry(reason).or_default().push(label);
        }
        for (reason, labels) in of_one {
            reasons.entry(reason).or_insert((labels, 0)).1 += 1;
        }
    }
    let sentence = |(reason, (labels, count)): (String, (Vec<String>, usize))| {
        let whose = if count == modelled.len() {
            String::new()
        } else {
            format!(" in {count} of {} combinations", modelled.len())
        };
        format!("Left out{whose}: {}; {reason}.", labels.join(", "))
    };
    reasons.into_iter().map(sentence).collect()
}

/// An error if no combination can have a measure.
fn in_vain(metric: &Piece, modelled: &[Modelled]) -> Option<Diagnostic> {
    let quantity = rqlab_reports::quantity(metric.text()).ok()?;
    let lacks = |one: &Modelled| {
        let (classes, images, samples) = measured_on(one);
        needs::lacking(&quantity, classes, images, samples.unwrap_or(usize::MAX))
    };
    let reasons: Vec<String> = modelled.iter().map(lacks).collect::<Option<_>>()?;
    let reason = reasons.first()?;
    Some(
        Diagnostic::error(format!("no trial can have `{}`: {reason}", metric.text()))
            .at(metric, "")
            .help("compare another measure, such as `psnr`, or change the data set or `evaluation`"),
    )
}

/// What is asked for of a tokenizer that has it not, as a warning for the whole experiment.
fn of_codes_alone(modelled: &[Modelled]) -> Option<Diagnostic> {
    let asks = |one: &&Modelled| {
        let evaluation = &one.resolved.evaluation.all;
        !evaluation.perturbation.is_empty() || evaluation.probe_steps > 0
    };
    let without = modelled.iter().filter(asks).filter(|one| !of_codes(&one.measured.model)).count();
    (without > 0).then(|| {
        Diagnostic::warning(format!(
            "`perturbation` and `probe_steps` are left out of {without} of {} combinations, whose tokens are vectors",
            modelled.len()
        ))
        .help("they are measures of codes")
    })
}

/// A warning where distances are left out for want of weights.
fn without_weights(modelled: &[Modelled]) -> Option<Diagnostic> {
    let mut names = BTreeSet::new();
    for Modelled { resolved, .. } in modelled {
        for protocol in resolved.evaluation.all.published_protocols() {
            let setting = Evaluation::extractor_setting(protocol);
            if resolved.evaluation.all.weights(setting, &resolved.base).is_none() {
                names.insert(protocol.name());
            }
        }
    }
    (!names.is_empty()).then(|| {
        let names: Vec<&str> = names.into_iter().collect();
        Diagnostic::warning(format!(
            "distances are left out of the protocols {}: their weights are not given",
            names.join(", ")
        ))
        .help("set `inception` (of `dgm`, `dinov2`) in `evaluation`; docs/weights.md tells where the weights are")
    })
}

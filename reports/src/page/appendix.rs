//! Sections 11 and 12: failures and definitions.

use std::collections::BTreeSet;

use maud::{Markup, html};

use super::parts::nothing;
use super::protocols::protocols;
use crate::measure::{Better, Comparable, Measure, measure};
use crate::results::{Status, Trial};
use crate::study::Study;

/// Section 11.
pub(super) fn failures(study: &Study<'_>) -> Markup {
    let with = |status: Status| study.results.trials.iter().filter(move |trial| trial.status == status);
    let missing: Vec<&Trial> = with(Status::Missing).collect();
    if with(Status::Failed).next().is_none() && missing.is_empty() {
        return nothing("No trial failed, and none is missing.");
    }
    html! {
        @for trial in with(Status::Failed) {
            article.failure id={ "f-" (trial.id) } {
                h3 { (named(trial)) " " a href={ "#t-" (trial.id) } { code { (trial.id) } } }
                p.error { (trial.error.as_deref().unwrap_or("The trial failed and left no message.")) }
                @if !trial.log_tail.is_empty() {
                    details open[trial.log_tail.len() < 2000] { summary { "End of the log" } pre { (trial.log_tail) } }
                }
                @if !trial.command.is_empty() { p.command { span.what { "repeat it with" } code { (trial.command) } } }
            }
        }
        @if !missing.is_empty() {
            p {
                (missing.len()) " missing (not run yet, or interrupted): "
                @for (place, trial) in missing.iter().enumerate() {
                    @if place > 0 { ", " }
                    a href={ "#t-" (trial.id) } { (named(trial)) }
                }
                "."
            }
        }
    }
}

/// A trial with its seed.
fn named(trial: &Trial) -> String {
    match trial.seed {
        Some(seed) if trial.name.is_empty() => format!("seed {seed}"),
        Some(seed) => format!("{}, seed {seed}", trial.name),
        None => trial.name.clone(),
    }
}

/// Section 12.
pub(super) fn definitions(study: &Study<'_>) -> Markup {
    let mut measures: Vec<Measure> = study.columns().into_iter().map(|column| column.measure).collect();
    measures.dedup_by(|a, b| a.name == b.name);
    let curves: BTreeSet<&str> =
        study.results.trials.iter().flat_map(|trial| &trial.curves).map(|curve| curve.measure.as_str()).collect();
    let mut drawn: Vec<Measure> =
        curves.into_iter().map(measure).filter(|curve| !curve.definition.is_empty()).collect();
    drawn.sort_by(Measure::order);
    let defined = study.results.definitions.iter().map(|definition| measure(&definition.name));
    for more in drawn.into_iter().chain(defined) {
        if !measures.iter().any(|known| known.name == more.name) {
            measures.push(more);
        }
    }
    if measures.is_empty() {
        return nothing("No measure was reported.");
    }
    html! {
        (protocols(study))
        p { "What is taken on images compares between trials of one data set; some measures ask for more, and say so." }
        dl.definitions {
            @for measure in &measures {
                dt id={ "d-" (measure.name) } {
                    (measure.label) " " code { (measure.name) }
                    span.unit {
                        @match measure.better {
                            Better::Higher => { "higher is better" }
                            Better::Lower => { "lower is better" }
                            Better::Neither => {}
                        }
                    }
                }
                @let own = study.results.definitions.iter().find(|definition| definition.name == measure.name);
                dd {
                    @match own {
                        Some(definition) => { (definition.text) }
                        None if measure.definition.is_empty() => { "Reported by a plugin, without a definition." }
                        None => { (measure.definition) }
                    }
                    @if own.is_none() && !measure.caution.is_empty() { p.caution { (measure.caution) } }
                    @if !matches!(measure.comparable, Comparable::Anywhere | Comparable::Dataset) {
                        @if let Some(words) = measure.comparable.words() { p.caution { "Compare it within " (words) "." } }
                    }
                }
            }
        }
    }
}

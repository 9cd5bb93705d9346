//! The head of the page and the verdicts.

use maud::{Markup, html};

use super::parts::nothing;
use crate::format;
use crate::judge::{self, Finding, Method, Verdict};
use crate::results::Status;
use crate::study::Study;

/// Name, question, completeness, description, command.
pub(super) fn header(study: &Study<'_>) -> Markup {
    let results = study.results;
    let paragraphs = results.description.split("\n\n").map(str::trim).filter(|text| !text.is_empty());
    html! {
        header {
            p.name { "rqlab experiment " strong { (results.name) } @if let Some(created) = &results.created { " · " (created) } }
            h1 { @if results.question.is_empty() { (results.name) } @else { (results.question) } }
            (badge(study))
            @for paragraph in paragraphs { p.description { (paragraph) } }
            @if !results.command.is_empty() { p.command { span.what { "repeat it with" } code { (results.command) } } }
        }
    }
}

/// How many of the trials are done: what is missing is never hidden.
fn badge(study: &Study<'_>) -> Markup {
    let results = study.results;
    let (all, done) = (results.trials.len(), results.count(Status::Done));
    let (failed, missing) = (results.count(Status::Failed), results.count(Status::Missing));
    let state = if failed > 0 {
        "bad"
    } else if missing > 0 || all == 0 {
        "partial"
    } else {
        "good"
    };
    html! {
        p.badges {
            span.badge.(state) {
                (done) "/" (all) " trials done"
                @if failed > 0 { ", " a href="#failures" { (failed) " failed" } }
                @if missing > 0 { ", " (missing) " missing" }
            }
            span.badge.plain { (study.configurations.len()) " configurations" }
            span.badge.plain { (seeds(study)) }
            span.badge.plain { a href="#origins" { (computed(study)) } }
        }
    }
}

fn seeds(study: &Study<'_>) -> String {
    let counts = study.configurations.iter().map(|configuration| configuration.done().count());
    match (counts.clone().min().unwrap_or(0), counts.max().unwrap_or(0)) {
        (0, 0) => "no seed done".to_owned(),
        (1, 1) => "1 seed each: no intervals".to_owned(),
        (low, high) if low == high => format!("{high} seeds each"),
        (low, high) => format!("{low} to {high} seeds each"),
    }
}

/// Where the trials were computed, in short.
fn computed(study: &Study<'_>) -> String {
    let unrecorded = study.results.done().filter(|trial| trial.origins.is_empty()).count();
    match &study.sites[..] {
        [] => "where computed: not recorded".to_owned(),
        [site] if unrecorded == 0 && site.environment.device == "cpu" => {
            format!("computed on {}", site.environment.processor)
        }
        [site] if unrecorded == 0 => format!("computed on {}", site.environment.device),
        [_] => format!("computed on 1 machine, {unrecorded} not recorded"),
        sites if unrecorded == 0 => format!("computed on {} machines or programs", sites.len()),
        sites => format!("computed on {} machines or programs, {unrecorded} not recorded", sites.len()),
    }
}

/// Section 1.
pub(super) fn verdicts(study: &Study<'_>) -> Markup {
    let verdicts = judge::verdicts(study);
    if verdicts.is_empty() {
        return nothing("Nothing was compared: the experiment varies no axis and asks for no comparison.");
    }
    html! {
        ul.verdicts {
            @for verdict in &verdicts { (one(verdict)) }
        }
        p.note {
            "Effects are differences of means, the later value minus the earlier one. Intervals are 95% Student t intervals \
             over seeds: within a seed, differences are first averaged over whatever else varies, so that the cells of a \
             grid do not count as repetitions. Intervals are not corrected for the number of verdicts."
        }
    }
}

fn one(verdict: &Verdict) -> Markup {
    let (class, sign) = match verdict.finding {
        Finding::Better => ("better", "▲"),
        Finding::Worse => ("worse", "▼"),
        Finding::Differs => ("unclear", "◆"),
        Finding::Unclear => ("unclear", "○"),
        Finding::OneSeed => ("unclear", "◇"),
        Finding::Incomparable => ("unclear", "≠"),
        Finding::NotMeasured => ("absent", "–"),
    };
    html! {
        li.(class) {
            span.sign aria-hidden="true" { (sign) }
            div {
                p.sentence {
                    (verdict.subject) ": " (verdict.column.label()) " "
                    @match &verdict.estimate {
                        Some(estimate) => {
                            strong { (format::difference(&verdict.column.measure, estimate)) }
                            (verdict.basis())
                        }
                        None => { (verdict.effect()) }
                    }
                    "."
                }
                p.reading {
                    (verdict.finding_text())
                    @if let Some((before, after)) = verdict.sides {
                        " · " (format::value(&verdict.column.measure, before)) " → " (format::value(&verdict.column.measure, after))
                        @if let Some(ratio) = ratio(verdict, before, after) { " · " (ratio) }
                    }
                    @if let Some(rates) = verdict.rates_text() { " · " (rates) }
                    @if verdict.method == Method::Unpaired { " · no seed is finished on both sides" }
                }
                @for caveat in &verdict.caveats { p.caveat { (caveat) } }
            }
        }
    }
}

/// Large changes of positive quantities read better as a factor.
fn ratio(verdict: &Verdict, before: f64, after: f64) -> Option<String> {
    // Decibels and shares are not ratios of anything a reader would divide.
    let divisible = matches!(verdict.column.measure.unit, "" | "bits" | "images/s" | "codes" | "MiB");
    if !divisible || before <= 0.0 || after <= 0.0 {
        return None;
    }
    let factor = (after / before).max(before / after);
    (factor >= 1.5).then(|| {
        format!("{} times {}", format::significant(factor, 2), if after > before { "higher" } else { "lower" })
    })
}

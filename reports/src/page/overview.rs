//! The head of the page with its warnings, and the verdicts.

use maud::{Markup, html};

use super::parts::nothing;
use crate::format;
use crate::judge::{self, Finding, Method, Verdict};
use crate::results::{Results, Status};
use crate::study::Study;
use crate::warnings;

/// Name, question, completeness, what was changed, the command.
pub(super) fn header(study: &Study<'_>) -> Markup {
    let results = study.results;
    html! {
        header {
            p.name { "rqlab experiment " strong { (results.name) } @if let Some(created) = &results.created { " · " (created) } }
            h1 { @if asks(results) { (results.question) } @else { (results.name) } }
            (badge(study))
            @if !results.changed.is_empty() {
                p.changed {
                    "Set otherwise than in the file: "
                    @for (place, change) in results.changed.iter().enumerate() {
                        @if place > 0 { ", " }
                        code { (change) }
                    }
                    "."
                }
            }
            @if !results.command.is_empty() {
                p.command {
                    span.what {
                        "repeat it" @if let Some(folder) = &results.folder { ", in " code { (folder) } "," } " with"
                    }
                    code { (results.command) }
                }
            }
        }
    }
}

/// Whether the file's question is that of these trials: with other settings, one that names numbers need not be.
fn asks(results: &Results) -> bool {
    let names_settings = results.question.contains(|c: char| c.is_ascii_digit());
    !results.question.is_empty() && (results.changed.is_empty() || !names_settings)
}

/// What the experiment's file says of itself, apart from what these trials showed.
pub(super) fn from_the_file(study: &Study<'_>) -> Markup {
    let (results, note) = (study.results, &study.results.file);
    let paragraphs = || note.about.split("\n\n").map(str::trim).filter(|text| !text.is_empty());
    // What was found with other settings is no finding of these.
    let finding = note.finding.as_ref().filter(|_| results.changed.is_empty());
    let question = Some(&results.question).filter(|question| !question.is_empty() && !asks(results));
    html! {
        @if paragraphs().next().is_some() || finding.is_some() || question.is_some() {
            details.file open[results.changed.is_empty()] {
                summary {
                    "From the file" @if !note.path.is_empty() { " " code { (note.path) } }
                    @if results.changed.is_empty() { ", not from these results" } @else { ", whose settings were others" }
                }
                @if let Some(question) = question { p { "It asks: " (question) } }
                @for paragraph in paragraphs() { p { (paragraph) } }
                @if let Some(finding) = finding {
                    p {
                        strong { "What it tells of an earlier run" }
                        @if let Some(date) = &note.date { " (" (date) ")" }
                        ": " (finding)
                    }
                }
            }
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
    let warnings: usize = warnings::all(study).iter().map(|heading| heading.warnings.len()).sum();
    html! {
        p.badges {
            span.badge.(state) {
                (done) "/" (all) " trials done"
                @if failed > 0 { ", " a href="#failures" { (failed) " failed" } }
                @if missing > 0 { ", " (missing) " missing" }
            }
            @if warnings > 0 {
                span.badge.partial { a href="#warnings" { (warnings) @if warnings == 1 { " warning" } @else { " warnings" } } }
            }
            span.badge.plain {
                (study.configurations.len()) @if study.configurations.len() == 1 { " configuration" } @else { " configurations" }
            }
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

/// What should be known before a moral is drawn: at the head, before all that these trials seem to say.
pub(super) fn warned(study: &Study<'_>) -> Markup {
    let headings = warnings::all(study);
    html! {
        @if !headings.is_empty() {
            section.warned aria-labelledby="warnings" {
                h2 #warnings { "Before you draw a moral" }
                dl.warnings {
                    @for heading in &headings {
                        dt { (heading.title) }
                        @for warning in &heading.warnings {
                            dd {
                                @if !warning.who.is_empty() { span.who { (warning.who) } ": " }
                                (warning.text) "."
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Section 1: the verdicts.
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
            "Effects are differences of means, the later value minus the earlier one, in the order of their size in standard deviations; \
             the first one is at equal bits, if there is one. Intervals are 95% Student t intervals over seeds, from three seeds on: within a \
             seed, differences are first averaged over whatever else varies, so that the cells of a grid do not count as repetitions. Where \
             images are named, the interval holds for other test images, too (both are random and crossed). What is called better, worse or \
             different stands Holm's correction for all verdicts of this page at 5%; two one-sided tests at 5% show what is called equivalent. No verdict \
             is drawn from what a warning spoils, nor between what does not compare. "
            @if study.differ_in_seed_alone() {
                "The trials of a configuration differ in the seed alone, by their resolved settings."
            } @else {
                "Whether the trials of a configuration differ in the seed alone is not known of all: their resolved settings were not recorded."
            }
        }
    }
}

fn one(verdict: &Verdict) -> Markup {
    let (class, sign) = match verdict.finding {
        Finding::Better => ("better", "▲"),
        Finding::Worse => ("worse", "▼"),
        Finding::Differs => ("unclear", "◆"),
        Finding::Unclear | Finding::Uncorrected => ("unclear", "○"),
        Finding::Equivalent => ("unclear", "≈"),
        Finding::FewSeeds => ("unclear", "◇"),
        Finding::Incomparable => ("unclear", "≠"),
        Finding::Unsound => ("unsound", "⚠\u{fe0e}"),
        Finding::NotMeasured => ("absent", "–"),
    };
    html! {
        li.(class) {
            span.sign aria-hidden="true" { (sign) }
            div {
                p.sentence {
                    (verdict.subject) ": " (verdict.column.label()) " "
                    @match &verdict.estimate {
                        // What no verdict is drawn from does not stand out.
                        Some(estimate) if !verdict.is_withheld() => {
                            strong { (format::difference(&verdict.column.measure, estimate)) }
                            (verdict.basis())
                        }
                        Some(_) => { (verdict.effect()) }
                        None => { (verdict.effect()) }
                    }
                    "."
                }
                p.reading {
                    (verdict.finding_text())
                    @if let Some((before, after)) = verdict.sides {
                        " · " (format::value(&verdict.column.measure, before)) " → " (format::value(&verdict.column.measure, after))
                        @if let Some(ratio) = ratio(verdict, before, after).filter(|_| !verdict.is_withheld()) { " · " (ratio) }
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

//! Section 13: where trials were computed, where the page was rendered, and how to repeat each trial.

use std::collections::{BTreeMap, BTreeSet};

use maud::{Markup, html};

use super::parts::nothing;
use crate::format;
use crate::origin::Environment;
use crate::results::{Status, Trial};
use crate::site::Site;
use crate::study::Study;

/// Section 13.
pub(super) fn provenance(study: &Study<'_>) -> Markup {
    let results = study.results;
    html! {
        h3 id="origins" { "Where it was computed" }
        (computed(study))
        h3 { "Where this page was rendered, and from what" }
        (rendered(study))
        h3 { "Each trial" }
        p { "The command that repeats it, where its stages were computed, and its configuration with every default filled in." }
        @for trial in &results.trials {
            details.trial id={ "c-" (trial.id) } {
                summary { code { (trial.id) } " " (trial.name) @if trial.status != Status::Done { " · " (trial.status.as_str()) } }
                @if !trial.command.is_empty() { pre { (trial.command) } }
                p.note { (stages(study, trial)) }
                @if !trial.config.is_empty() { pre { (trial.config) } }
                p { a href={ "#t-" (trial.id) } { "its row among all trials" } }
            }
        }
    }
}

/// What computed the trials, each program on a machine once.
fn computed(study: &Study<'_>) -> Markup {
    if study.sites.is_empty() {
        return nothing("Not recorded: the results come from a version that did not record it.");
    }
    let unrecorded: Vec<&Trial> = study.results.done().filter(|trial| trial.origins.is_empty()).collect();
    html! {
        p { "The programs and machines that computed the stages, each with the threads that its stages had." }
        ul.sites { @for site in &study.sites { (one(site)) } }
        (plugins(study))
        @if !unrecorded.is_empty() {
            p {
                "Where " (unrecorded.len()) @if unrecorded.len() == 1 { " trial was" } @else { " trials were" }
                " computed is not recorded, since an older version computed it: "
                @for (place, trial) in unrecorded.iter().enumerate() {
                    @if place > 0 { ", " }
                    a href={ "#t-" (trial.id) } { code { (trial.id) } }
                }
                "."
            }
        }
    }
}

fn one(site: &Site<'_>) -> Markup {
    let environment = site.environment;
    let listed = |numbers: &BTreeSet<usize>| numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    // Trials by the stages that were computed here.
    let mut groups: Vec<(&[&str], Vec<&Trial>)> = Vec::new();
    for (trial, stages) in &site.trials {
        match groups.iter_mut().find(|(known, _)| known == stages) {
            Some((_, trials)) => trials.push(trial),
            None => groups.push((stages, vec![trial])),
        }
    }
    html! {
        li id={ "o-" (site.letter) } {
            p {
                strong { (site.letter) } " " (environment.processor)
                span.what {
                    " · " (environment.device) ", " (environment.instructions) ", products in " (environment.precision)
                    " · threads: " (listed(&site.threads))
                    @if !site.ranks.is_empty() { " · ranks: " (listed(&site.ranks)) }
                    @if !site.earlier.is_empty() {
                        " · some stages were begun by: " (site.earlier.iter().copied().collect::<Vec<_>>().join("; "))
                    }
                    " · " (environment.versioned()) " · " (environment.compiler) " · " (environment.target)
                }
            }
            @for (stages, trials) in &groups {
                details.trial {
                    summary { (stages.join(", ")) " of " (trials.len()) @if trials.len() == 1 { " trial" } @else { " trials" } }
                    @for trial in trials { a href={ "#t-" (trial.id) } { code { (trial.id) } } " " }
                }
            }
        }
    }
}

/// The plugins and where they took part; two digests of one plugin are two rows.
fn plugins(study: &Study<'_>) -> Markup {
    let mut found: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for site in &study.sites {
        for plugin in &site.plugins {
            found.entry(*plugin).or_default().push(&site.letter);
        }
    }
    html! {
        @if !found.is_empty() {
            div.scroll {
                table.provenance {
                    caption { "Plugins that took part" }
                    thead { tr { th scope="col" { "plugin" } th scope="col" { "digest" } th scope="col" { "at" } } }
                    tbody {
                        @for ((name, digest), letters) in &found {
                            tr { th scope="row" { (name) } td { code title=(digest) { (format::digest(digest)) } } td { (letters.join(", ")) } }
                        }
                    }
                }
            }
        }
    }
}

/// The program that made the page, and what concerns the whole experiment.
fn rendered(study: &Study<'_>) -> Markup {
    let results = study.results;
    if results.rendered.is_none() && results.provenance.is_empty() {
        return nothing("Nothing was recorded.");
    }
    let facts = |environment: &Environment| {
        [
            ("program", environment.versioned()),
            ("compiler", environment.compiler.clone()),
            ("target", environment.target.clone()),
            ("processor", environment.processor.clone()),
        ]
    };
    html! {
        div.scroll {
            table.provenance {
                tbody {
                    @for (key, value) in results.rendered.iter().flat_map(facts) {
                        @if !value.is_empty() { tr { th scope="row" { (key) } td { (value) } } }
                    }
                    @for entry in &results.provenance {
                        tr {
                            th scope="row" { (entry.key) }
                            td { @for value in &entry.values { div { (value) } } }
                        }
                    }
                }
            }
        }
    }
}

/// `tokenizer, reconstruction computed at A; prior at B`.
fn stages(study: &Study<'_>, trial: &Trial) -> Markup {
    let here: Vec<(&Site<'_>, &Vec<&str>)> = study
        .sites
        .iter()
        .filter_map(|site| Some((site, &site.trials.iter().find(|(other, _)| std::ptr::eq(*other, trial))?.1)))
        .collect();
    html! {
        @if here.is_empty() {
            @if trial.status == Status::Done { "Where it was computed is not recorded." } @else { "No stage was computed." }
        } @else {
            "Computed: "
            @for (place, (site, stages)) in here.iter().enumerate() {
                @if place > 0 { "; " }
                (stages.join(", ")) " at " a href={ "#o-" (site.letter) } { (site.letter) }
            }
            "."
        }
    }
}

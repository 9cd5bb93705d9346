//! Section 9: what it took.

use maud::{Markup, html};

use super::parts::{Drawn, configuration_key, figure, having, identifier, machines, measures_table, nothing, scatter};
use crate::chart::{Chart, Scale};
use crate::error::Result;
use crate::format;
use crate::measure::Group;
use crate::study::{Column, Study};

/// Section 9.
pub(super) fn cost(study: &Study<'_>) -> Result<Markup> {
    let costs = study.group(Group::Cost);
    if costs.is_empty() {
        return Ok(nothing("No trial reports what it cost."));
    }
    let mut figures = Vec::new();
    // What a tokenizer's measure is paid with is the tokenizer's time, not that of a prior on top of it.
    let time = match study.headline.measure.group {
        Group::Reconstruction | Group::Rate | Group::Codebook => "tokenizer_seconds",
        _ => "train_seconds",
    };
    let time = if study.has(&Column::plain(time).quantity) { time } else { "train_seconds" };
    for cost in [time, "parameters"].map(Column::plain) {
        if study.has(&cost.quantity) && study.has(&study.headline.quantity) {
            figures.push(against_headline(study, &cost)?);
        }
    }
    Ok(html! {
        (machines(study))
        (measures_table(study, &costs, "Cost of each configuration, means over seeds"))
        @if !figures.is_empty() { (configuration_key(study, &having(study, &study.headline.quantity), Drawn::Marks)) }
        div.figures { @for figure in figures { (figure) } }
    })
}

fn against_headline(study: &Study<'_>, cost: &Column) -> Result<Markup> {
    let headline = &study.headline;
    let series = scatter(study, cost, headline);
    let chart = Chart {
        id: format!("fig-cost-{}", identifier(&cost.measure.name)),
        title: format!("{} against {}", headline.label(), cost.label()),
        description: format!("Each point is a configuration: {} up, {} across.", headline.label(), cost.label()),
        x: Scale::linear(cost.axis_label()),
        y: Scale { factor: format::scale(&headline.measure), ..Scale::linear(headline.axis_label()) },
        series,
        wide: false,
    };
    let caption = html! { (format::capitalized(&headline.label())) " against " (cost.label()) "." };
    figure(&chart, caption, html! {})
}

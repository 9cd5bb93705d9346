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
    let of_tokenizers = matches!(study.headline.measure.group, Group::Reconstruction | Group::Rate | Group::Codebook);
    let time = if of_tokenizers { "tokenizer_seconds" } else { "train_seconds" };
    let time = if study.has(&Column::plain(time).quantity) { time } else { "train_seconds" };
    let tokenizers = study.of_tokenizers();
    let merged = of_tokenizers && tokenizers.configurations.len() < study.configurations.len();
    let (drawn, parameters) = if merged { (&tokenizers, "tokenizer_parameters") } else { (study, "parameters") };
    for cost in [time, parameters].map(Column::plain) {
        if study.has(&cost.quantity) && study.has(&study.headline.quantity) {
            figures.extend(against_headline(drawn, &cost)?);
        }
    }
    Ok(html! {
        (machines(study))
        (measures_table(study, &costs, "Cost of each configuration, means over seeds"))
        @if !figures.is_empty() { (configuration_key(drawn, &having(drawn, &drawn.headline.quantity), Drawn::Marks)) }
        div.figures { @for figure in figures { (figure) } }
    })
}

/// The chart; nothing where several points stand above one another, of configurations that cost the same.
fn against_headline(study: &Study<'_>, cost: &Column) -> Result<Option<Markup>> {
    let headline = &study.headline;
    let series = scatter(study, cost, headline);
    let costs: Vec<f64> = series.iter().flat_map(|one| &one.points).map(|point| point.x).collect();
    if costs.len() > 1 && costs.iter().all(|cost| *cost == costs[0]) {
        return Ok(None);
    }
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
    figure(&chart, caption, html! {}).map(Some)
}

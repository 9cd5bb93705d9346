//! Section 6: how well priors fit, what they draw, and how fast.

use std::collections::BTreeSet;

use maud::{Markup, html};

use super::captions;
use super::guidance;
use super::levels::Depths;
use super::parts::{
    Drawn, configuration_key, figure, having, lines_over, machines, measures_table, nothing, scatter, unsound,
};
use super::variance::variance;
use crate::chart::{Chart, Scale};
use crate::error::Result;
use crate::format::Precision;
use crate::measure::{Group, Index, Quantity, measure};
use crate::stats::Estimate;
use crate::study::{Column, Configuration, Study};

/// Section 6.
pub(super) fn priors(study: &Study<'_>) -> Result<Markup> {
    let fit = study.group(Group::Prior);
    let speed = study.group(Group::Speed);
    if fit.is_empty() && speed.is_empty() {
        return Ok(nothing("No prior was trained in this experiment."));
    }
    let quality: Vec<Column> = fit
        .into_iter()
        .filter(|column| {
            let at = &column.quantity;
            at.depths().next().is_none()
                && at.protocol().is_none()
                && at.guidance().is_none()
                && at.attribute().is_none()
        })
        .collect();
    let mut figures = Vec::new();
    figures.extend(frechets(study)?);
    figures.extend(bits_by_depth(study)?);
    figures.extend(guidance::tuning(study)?);
    figures.extend(captions::by_attribute(study)?);
    figures.extend(speeds(study, &speed)?);
    Ok(html! {
        @if !quality.is_empty() { (measures_table(study, &quality, "Fit and samples of the priors, means over seeds")) }
        (guidance::scales(study))
        (variance(study))
        div.figures { @for figure in figures { (figure) } }
        @if !speed.is_empty() { (machines(study)) (speed_table(study, &speed)) }
    })
}

/// What the tokenizer loses against what the prior loses.
fn frechets(study: &Study<'_>) -> Result<Option<Markup>> {
    let (recon, sample) = (Column::plain("recon_frechet"), Column::plain("sample_frechet"));
    if !(study.has(&recon.quantity) && study.has(&sample.quantity)) {
        return Ok(None);
    }
    let series = scatter(study, &recon, &sample);
    let tokenizers: Vec<f64> = series.iter().flat_map(|one| &one.points).map(|point| point.x).collect();
    // Points above one another say no more than the table.
    if tokenizers.windows(2).all(|pair| pair[0] == pair[1]) {
        return Ok(None);
    }
    let chart = Chart {
        id: "fig-recon-sample".to_owned(),
        title: "Sample Fréchet distance against reconstruction Fréchet distance".to_owned(),
        description: "Left is a better tokenizer, down are better samples.".to_owned(),
        x: Scale::linear(recon.label()),
        y: Scale { zero: true, ..Scale::linear(sample.label()) },
        series,
        wide: false,
    };
    let caption = html! {
        "What the prior draws against what the tokenizer can at best show: a better tokenizer does not by itself make \
         better samples. Both are distances on the lab's own features, not FID."
    };
    figure(&chart, caption, configuration_key(study, &having(study, &sample.quantity), Drawn::Marks)).map(Some)
}

fn bits_by_depth(study: &Study<'_>) -> Result<Option<Markup>> {
    let Some(depths) = Depths::of(study, "prior_bits").filter(|depths| depths.count() > 1) else { return Ok(None) };
    let series = depths.series(study, |found| found.interval);
    let words = depths.words();
    let chart = Chart {
        id: "fig-prior-bits".to_owned(),
        title: format!("Bits of the prior by {words}"),
        description: format!(
            "Bits per image that each {words} takes under the prior, one line for each configuration."
        ),
        x: depths.scale(),
        y: Scale { zero: true, ..Scale::linear("bits per image") },
        series,
        wide: false,
    };
    let caption = html! { "Bits per image under the prior that each " (words) " takes." };
    let shown: Vec<&Configuration<'_>> = study.configurations.iter().filter(|c| depths.any(c)).collect();
    figure(&chart, caption, configuration_key(study, &shown, Drawn::Both)).map(Some)
}

/// Settings of the cache: in words, and its dash.
const CACHES: [(Option<bool>, &str, usize); 3] =
    [(Some(true), ", with cache", 0), (Some(false), ", without cache", 1), (None, "", 0)];

const SAMPLING: &str = "images_per_second";
const DECODING: &str = "decode_images_per_second";

/// The batch sizes that speeds were taken at, ascending.
fn batches<'a>(speeds: impl Iterator<Item = &'a Column>) -> Vec<usize> {
    let batches: BTreeSet<usize> = speeds.filter_map(|speed| speed.quantity.batch()).collect();
    batches.into_iter().collect()
}

/// A speed at a batch size and a setting of the cache.
fn at(measure: &str, batch: usize, cache: Option<bool>) -> Quantity {
    Quantity::new(measure, [Index::Batch(batch)].into_iter().chain(cache.map(Index::Cache)))
}

fn speeds(study: &Study<'_>, speeds: &[Column]) -> Result<Option<Markup>> {
    let batches = batches(speeds.iter().filter(|speed| speed.measure.name == SAMPLING));
    let (series, shown) = lines_over(study, &CACHES, &batches, |cache, batch| at(SAMPLING, *batch, *cache));
    if series.is_empty() {
        return Ok(None);
    }
    let chart = Chart {
        id: "fig-speed".to_owned(),
        title: "Sampling speed by batch size".to_owned(),
        description: "Images per second against batch size, with and without a key-value cache.".to_owned(),
        x: Scale::names("batch size", batches.iter().map(ToString::to_string).collect()),
        y: Scale::log("images per second"),
        series,
        wide: false,
    };
    let doubted = doubted(study, &shown);
    let caption = html! {
        "Sampling speed, decoding left out. Full lines: with cache. Dashed lines: without."
        @if !doubted.is_empty() { " " (doubted) }
    };
    figure(&chart, caption, configuration_key(study, &shown, Drawn::Marks)).map(Some)
}

/// Whose speeds compare with nothing, and why; empty if nobody's.
fn doubted(study: &Study<'_>, shown: &[&Configuration<'_>]) -> String {
    let speed = measure(SAMPLING);
    let mut found: Vec<(&str, Vec<&str>)> = Vec::new();
    let mut all = 0;
    for (place, configuration) in shown.iter().enumerate() {
        if shown[..place].iter().any(|earlier| std::ptr::eq(*earlier, *configuration)) {
            continue;
        }
        all += 1;
        let Some(title) = study.unsound(configuration, &speed) else { continue };
        match found.iter_mut().find(|(known, _)| *known == title) {
            Some((_, who)) => who.push(&configuration.label),
            None => found.push((title, vec![&configuration.label])),
        }
    }
    let words = found.iter().map(|(title, who)| {
        let who = if who.len() == all { "all of them".to_owned() } else { who.join("; ") };
        format!("⚠\u{fe0e} {title}: {who}; these speeds compare with nothing.")
    });
    words.collect::<Vec<_>>().join(" ")
}

/// A row for each configuration and kind of work, a column for each batch size.
fn speed_table(study: &Study<'_>, speeds: &[Column]) -> Markup {
    let batches = batches(speeds.iter());
    let kinds = [
        (SAMPLING, Some(true), "sampling, with cache"),
        (SAMPLING, Some(false), "sampling, without cache"),
        (SAMPLING, None, "sampling"),
        (DECODING, None, "decoding"),
    ];
    let mut rows: Vec<(&Configuration<'_>, &str, Vec<Option<f64>>)> = Vec::new();
    for configuration in &study.configurations {
        for (measure, cache, words) in kinds {
            let mean = |batch: &usize| configuration.mean(&at(measure, *batch, cache)).map(|found| found.mean);
            let cells: Vec<Option<f64>> = batches.iter().map(mean).collect();
            if cells.iter().any(Option::is_some) {
                rows.push((configuration, words, cells));
            }
        }
    }
    let speed = measure(SAMPLING);
    let doubted = doubted(study, &rows.iter().map(|row| row.0).collect::<Vec<_>>());
    let all = rows.iter().flat_map(|(_, _, cells)| cells).flatten().map(|value| Estimate::bare(*value, 1));
    let precision = Precision::of(&speed, all);
    html! {
        div.scroll {
            table.measures {
                caption { "Images per second by batch size, means over seeds; sampling does not include decoding" }
                thead {
                    tr {
                        th scope="col" { "configuration" }
                        th.left scope="col" { "work" }
                        @for batch in &batches { th scope="col" { "batch " (batch) } }
                    }
                }
                @for group in rows.chunk_by(|a, b| std::ptr::eq(a.0, b.0)) {
                    tbody {
                        @for (place, (configuration, words, cells)) in group.iter().enumerate() {
                            tr {
                                @if place == 0 {
                                    th scope="rowgroup" rowspan=(group.len()) {
                                        a href={ "#t-" (configuration.id()) } { (configuration.label) }
                                    }
                                }
                                td { (words) }
                                @for cell in cells {
                                td.n {
                                    @if let Some(value) = cell { (unsound(study, configuration, &speed)) (precision.bare(&speed, *value)) }
                                } }
                            }
                        }
                    }
                }
            }
        }
        @if !doubted.is_empty() { p.note { (doubted) } }
    }
}

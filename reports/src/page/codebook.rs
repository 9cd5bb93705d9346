//! Section 5: how the codes of each level and depth are used, at the end and over training.

use maud::{Markup, PreEscaped, html};

use super::curves::{HEALTH, is_health, over_seeds, vertical};
use super::levels::Depths;
use super::parts::{Drawn, configuration_key, figure, identifier, measures_table, nothing, series_key};
use crate::chart::{Chart, Heat, Scale, Series, heat};
use crate::error::Result;
use crate::format;
use crate::measure::{Index, Measure, Quantity, measure};
use crate::study::{Configuration, Study};

/// Heat maps of code overlap, at most.
const HEATS: usize = 6;

/// Section 5.
pub(super) fn codebook(study: &Study<'_>) -> Result<Markup> {
    let tokenizers = &study.of_tokenizers();
    let (mut figures, mut single, mut training) = (Vec::new(), Vec::new(), Vec::new());
    for measure in HEALTH {
        let Some(depths) = Depths::of(study, measure) else { continue };
        match depths.only() {
            Some(column) => single.push(column),
            None => figures.push(at_the_end(tokenizers, measure, &depths)?),
        }
    }
    for configuration in [deepest(tokenizers, false), deepest(tokenizers, true)].into_iter().flatten() {
        let mut charts = Vec::new();
        for measure in HEALTH {
            charts.extend(over_training(configuration, measure)?);
        }
        training.push((configuration, charts));
    }
    let (overlaps, more) = overlaps(tokenizers)?;
    let finished: Vec<&Configuration<'_>> =
        tokenizers.configurations.iter().filter(|c| c.done().next().is_some()).collect();
    if figures.is_empty() && single.is_empty() && training.is_empty() && overlaps.is_empty() {
        return Ok(nothing("No trial reports the use of its codes."));
    }
    Ok(html! {
        @if !single.is_empty() {
            (measures_table(tokenizers, &single, "At the end of training, on test images, means over seeds"))
        }
        @if !figures.is_empty() {
            p {
                "At the end of training, on test images: one point for each depth."
                @if tokenizers.is_shared() { " All configurations share one tokenizer of each seed." }
            }
            (configuration_key(tokenizers, &finished, Drawn::Both))
            div.figures { @for figure in figures { (figure) } }
        }
        @for (configuration, charts) in &training {
            h3 { "Over training" @if tokenizers.configurations.len() > 1 { ": " (configuration.label) } }
            @if tokenizers.configurations.len() > 1 {
                p { "The tokenizer " @if levels(configuration) > 1 { "of several levels " }
                    "with the most depths and the best " (tokenizers.headline.label())
                    "; the others' curves are in " code { "curves.csv" } "." }
            }
            div.figures { @for figure in charts { (figure) } }
        }
        @if !overlaps.is_empty() {
            h3 { "Overlap of codes between depths" }
            p { "How much two depths use the same codes: 1 if with equal frequencies, 0 if they share none. It has a \
                 meaning for shared codebooks only." }
            div.heats { @for overlap in overlaps { (overlap) } }
            @if more > 0 { p.note { (more) " more are in " code { "results.csv" } "." } }
        }
    })
}

/// A vertical scale: shares from zero on, the rest as their range asks.
fn scale(series: &[Series], meta: &Measure) -> Scale {
    let label = if meta.unit.is_empty() { meta.label.clone() } else { format!("{} ({})", meta.label, meta.unit) };
    let mut scale = vertical(series, label, format::scale(meta));
    scale.zero = meta.unit == "%";
    scale.log &= meta.unit != "%";
    scale
}

fn at_the_end(study: &Study<'_>, name: &str, depths: &Depths) -> Result<Markup> {
    let (meta, words) = (measure(name), depths.words());
    // The intervals are in the table: bars of every configuration at every depth would hide the points.
    let mut series = depths.series(study, |_| None);
    let ceilings = if name == "usage" { depths.ceilings(study) } else { Vec::new() };
    let bounded = !ceilings.is_empty();
    series.extend(ceilings);
    let chart = Chart {
        id: format!("fig-depth-{}", identifier(name)),
        title: format!("{} by {words}", meta.label),
        description: format!("{} at each {words}, one line for each configuration, the mean of its seeds.", meta.label),
        x: depths.scale(),
        y: scale(&series, &meta),
        series,
        wide: false,
    };
    let counted = if name == "usage" { " A code counts at the depth that uses it." } else { "" };
    let caption = html! {
        (format::capitalized(&meta.label)) " by " (words) "." (counted)
        @if bounded { " Thin lines without marks: the most that so few measured tokens can show of so many codes." }
    };
    figure(&chart, caption, html! {})
}

/// Where the health of a configuration's codebooks was recorded over training: stage and quantity, each once.
fn recorded(configuration: &Configuration<'_>) -> Vec<(String, Quantity)> {
    let curves = configuration.trials.iter().flat_map(|trial| &trial.curves);
    let mut found: Vec<(String, Quantity)> = curves
        .map(|curve| (curve.stage.clone(), curve.quantity()))
        .filter(|(_, quantity)| is_health(quantity))
        .collect();
    found.sort();
    found.dedup();
    found
}

/// How many levels a configuration recorded; one, where levels have no number.
fn levels(configuration: &Configuration<'_>) -> usize {
    recorded(configuration).iter().filter_map(|(_, quantity)| quantity.level()).max().unwrap_or(1)
}

/// Of the configurations with one level, or with several, that with the most depths of curves, and among those the best of
/// the headline.
fn deepest<'a, 'b>(study: &'a Study<'b>, several: bool) -> Option<&'a Configuration<'b>> {
    // A configuration without a finished trial is shown if no other has curves.
    let rank = |c: &Configuration<'_>| (recorded(c).len(), study.rank(c));
    let mut best: Option<&Configuration<'b>> = None;
    let fitting = |c: &&Configuration<'_>| !recorded(c).is_empty() && (levels(c) > 1) == several;
    for configuration in study.configurations.iter().filter(fitting) {
        if best.is_none_or(|other| rank(configuration) > rank(other)) {
            best = Some(configuration);
        }
    }
    best
}

/// A chart for each level with a line for each depth; levels of one depth each are lines of one chart.
fn over_training(configuration: &Configuration<'_>, name: &str) -> Result<Vec<Markup>> {
    let mut found = recorded(configuration);
    found.retain(|(_, quantity)| quantity.measure == name);
    let deep = found.iter().any(|(_, quantity)| quantity.depths().any(|depth| depth > 1));
    let same = |a: &(String, Quantity), b: &(String, Quantity)| a.0 == b.0 && (!deep || a.1.level() == b.1.level());
    found.chunk_by(same).map(|lines| level_over_training(configuration, &measure(name), lines, deep)).collect()
}

fn level_over_training(
    configuration: &Configuration<'_>,
    meta: &Measure,
    lines: &[(String, Quantity)],
    deep: bool,
) -> Result<Markup> {
    let level = lines.first().and_then(|(_, quantity)| quantity.level()).filter(|_| deep);
    let mut series = Vec::new();
    for (line, (stage, quantity)) in lines.iter().enumerate() {
        let name = match (level, quantity.depths().next()) {
            (Some(_), Some(depth)) => format!("depth {depth}"),
            _ => quantity.indices(),
        };
        series.push(Series {
            name,
            colour: Some(line),
            dash: line,
            line: true,
            band: true,
            points: over_seeds(configuration, stage, quantity),
            ..Series::default()
        });
    }
    let several = lines.iter().any(|(_, quantity)| quantity.level().is_some());
    let (of_level, suffix) = match level {
        Some(level) => (format!(", level {level}"), format!("-{level}")),
        None => (String::new(), if several { "-levels".to_owned() } else { String::new() }),
    };
    let key = series_key(&series);
    let chart = Chart {
        id: format!("fig-training-{}{suffix}", identifier(&meta.name)),
        title: format!("{} over training{of_level}", meta.label),
        description: format!("{} against training steps, one line each, for {}.", meta.label, configuration.label),
        x: Scale::linear("step"),
        y: scale(&series, meta),
        series,
        wide: false,
    };
    let caption = html! { (format::capitalized(&meta.label)) " over training" (of_level) "." };
    figure(&chart, caption, key)
}

/// The first heat maps, and how many more there would be.
fn overlaps(study: &Study<'_>) -> Result<(Vec<Markup>, usize)> {
    let taken = study.taken("code_overlap");
    let (mut maps, mut more) = (Vec::new(), 0);
    for configuration in &study.configurations {
        for pairs in taken.chunk_by(|a, b| a.quantity.level() == b.quantity.level()) {
            let level = pairs.first().and_then(|column| column.quantity.level());
            let found = pairs.iter().filter(|column| configuration.mean(&column.quantity).is_some());
            let depths = found.flat_map(|column| column.quantity.depths()).max().unwrap_or(0);
            if depths >= 2 && maps.len() < HEATS {
                maps.push(overlap(configuration, level, depths)?);
            } else if depths >= 2 {
                more += 1;
            }
        }
    }
    Ok((maps, more))
}

fn overlap(configuration: &Configuration<'_>, level: Option<usize>, depths: usize) -> Result<Markup> {
    let value = |a: usize, b: usize| {
        let at = [Index::Depth(a), Index::Depth(b)].into_iter().chain(level.map(Index::Level));
        let found = configuration.mean(&Quantity::new("code_overlap", at));
        if a == b { 1.0 } else { found.map_or(f64::NAN, |found| found.mean) }
    };
    let (label, suffix) = match level {
        Some(level) => (format!("{}, level {level}", configuration.label), format!("-{level}")),
        None => (configuration.label.clone(), String::new()),
    };
    let drawing = heat(&Heat {
        id: format!("fig-overlap-{}{suffix}", identifier(configuration.id())),
        title: format!("Code overlap between depths: {label}"),
        description: "Rows and columns are depths; a cell is the overlap of their code frequencies.".to_owned(),
        label: "depth".to_owned(),
        rows: (1..=depths).map(|a| (1..=depths).map(|b| value(a, b)).collect()).collect(),
    })?;
    let rows: Vec<(usize, usize)> = (1..=depths).flat_map(|a| (a + 1..=depths).map(move |b| (a, b))).collect();
    Ok(html! {
        figure {
            (PreEscaped(drawing))
            figcaption { (label) }
            details.data {
                summary { "Data" }
                table {
                    thead { tr { th { "depths" } th { "overlap" } } }
                    tbody { @for (a, b) in rows { tr { td { (a) " and " (b) } td.n { (format::number(value(a, b))) } } } }
                }
            }
        }
    })
}

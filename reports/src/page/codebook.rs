//! Section 5: how the codes of each depth are used, at the end and over training.

use maud::{Markup, PreEscaped, html};

use super::curves::{PER_DEPTH, over_seeds, vertical};
use super::parts::{Drawn, configuration_key, configuration_series, figure, identifier, nothing, series_key};
use crate::chart::{Chart, Heat, Point, Scale, Series, heat};
use crate::error::Result;
use crate::format;
use crate::measure::{Better, measure};
use crate::study::{Configuration, Study};

/// Heat maps of code overlap, at most.
const HEATS: usize = 6;

/// Section 5.
pub(super) fn codebook(study: &Study<'_>) -> Result<Markup> {
    let mut figures = Vec::new();
    for family in PER_DEPTH {
        figures.extend(by_depth(study, family)?);
    }
    let mut training = Vec::new();
    let shown = deepest(study);
    for family in PER_DEPTH {
        if let Some(configuration) = shown {
            training.extend(over_training(configuration, family)?);
        }
    }
    let overlaps = overlaps(study)?;
    let finished: Vec<&Configuration<'_>> = study.configurations.iter().filter(|c| c.done().next().is_some()).collect();
    if figures.is_empty() && training.is_empty() && overlaps.is_empty() {
        return Ok(nothing("No trial reports the use of its codes."));
    }
    Ok(html! {
        @if !figures.is_empty() {
            p { "At the end of training, on test images: one point for each depth." }
            (configuration_key(study, &finished, Drawn::Both))
            div.figures { @for figure in figures { (figure) } }
        }
        @if let (Some(configuration), false) = (shown, training.is_empty()) {
            h3 { "Over training: " (configuration.label) }
            p { "The configuration with the most depths and the best " (study.headline.label)
                "; the other configurations' curves are in " code { "curves.csv" } "." }
            div.figures { @for figure in training { (figure) } }
        }
        @if !overlaps.is_empty() {
            h3 { "Overlap of codes between depths" }
            p { "How much two depths use the same codes: 1 if with equal frequencies, 0 if they share none. It has a \
                 meaning for shared codebooks only." }
            div.heats { @for overlap in overlaps { (overlap) } }
        }
    })
}

fn by_depth(study: &Study<'_>, family: &str) -> Result<Option<Markup>> {
    let depths = study.depths(family);
    if depths.is_empty() {
        return Ok(None);
    }
    let meta = measure(family);
    let mut series = Vec::new();
    for configuration in &study.configurations {
        let points: Vec<Point> = depths
            .iter()
            .enumerate()
            .filter_map(|(column, depth)| {
                let found = configuration.mean(&format!("{family}_{depth}"))?;
                let note = format!("{}, depth {depth}: {}", configuration.label, format::estimate(&meta, &found));
                let link = Some(format!("t-{}", configuration.id()));
                // The intervals are in the table: bars of every configuration at every depth would hide the points.
                Some(Point { x: column as f64, y: found.mean, range: None, note, link })
            })
            .collect();
        if !points.is_empty() {
            series.push(Series { line: true, marks: true, ..configuration_series(study, configuration, points) });
        }
    }
    let mut y = vertical(&series, meta.axis_label(), format::scale(&meta));
    y.zero = meta.unit == "%";
    y.log &= meta.unit != "%";
    let chart = Chart {
        id: format!("fig-depth-{}", identifier(family)),
        title: format!("{} by depth", meta.label),
        description: format!("{} at each depth, one line for each configuration, the mean of its seeds.", meta.label),
        x: Scale::names("depth", depths.iter().map(ToString::to_string).collect()),
        y,
        series,
        wide: false,
    };
    let counted = if meta.name.starts_with("usage") { " A code counts at the depth that uses it." } else { "" };
    let caption = html! { (format::capitalized(&meta.label)) " by depth." (counted) };
    figure(&chart, caption, html! {}).map(Some)
}

/// The finished configuration with the most depths, and among those the best of the headline.
fn deepest<'a, 'b>(study: &'a Study<'b>) -> Option<&'a Configuration<'b>> {
    let depths = |c: &Configuration<'_>| {
        c.done()
            .flat_map(|trial| &trial.curves)
            .filter(|curve| PER_DEPTH.iter().any(|family| crate::study::suffix(&curve.name, family).is_some()))
            .filter_map(|curve| curve.name.rsplit('_').next()?.parse::<u32>().ok())
            .max()
    };
    let sign = if study.headline.better == Better::Lower { -1.0 } else { 1.0 };
    let score =
        |c: &Configuration<'_>| c.mean(&study.headline.name).map_or(f64::NEG_INFINITY, |found| sign * found.mean);
    let mut best: Option<&Configuration<'b>> = None;
    for configuration in study.configurations.iter().filter(|c| depths(c).is_some()) {
        let better =
            best.is_none_or(|other| (depths(configuration), score(configuration)) > (depths(other), score(other)));
        if better {
            best = Some(configuration);
        }
    }
    best
}

fn over_training(configuration: &Configuration<'_>, family: &str) -> Result<Option<Markup>> {
    let meta = measure(family);
    let stage = configuration
        .trials
        .iter()
        .flat_map(|trial| &trial.curves)
        .find(|curve| curve.name.strip_prefix(family).is_some_and(|rest| rest.starts_with('_')))
        .map(|curve| curve.stage.clone());
    let Some(stage) = stage else { return Ok(None) };
    let mut series = Vec::new();
    for depth in 1_usize.. {
        let points = over_seeds(configuration, &stage, &format!("{family}_{depth}"));
        if points.is_empty() {
            break;
        }
        series.push(Series {
            name: format!("depth {depth}"),
            colour: Some(depth - 1),
            dash: depth - 1,
            line: true,
            band: true,
            points,
            ..Series::default()
        });
    }
    if series.is_empty() {
        return Ok(None);
    }
    let mut y = vertical(&series, meta.axis_label(), format::scale(&meta));
    y.zero = meta.unit == "%";
    y.log &= meta.unit != "%";
    let key = series_key(&series);
    let chart = Chart {
        id: format!("fig-training-{}", identifier(family)),
        title: format!("{} over training", meta.label),
        description: format!(
            "{} against training steps, one line for each depth, for {}.",
            meta.label, configuration.label
        ),
        x: Scale::linear("step"),
        y,
        series,
        wide: false,
    };
    let caption = html! { (format::capitalized(&meta.label)) " over training, by depth." };
    figure(&chart, caption, key).map(Some)
}

fn overlaps(study: &Study<'_>) -> Result<Vec<Markup>> {
    let mut maps = Vec::new();
    for configuration in &study.configurations {
        let pair = |a: usize, b: usize| configuration.mean(&format!("code_overlap_{a}_{b}")).map(|found| found.mean);
        let depths = (2..=64).take_while(|&depth| pair(1, depth).is_some()).last().unwrap_or(1);
        if depths < 2 || maps.len() == HEATS {
            continue;
        }
        let value = |a: usize, b: usize| if a == b { 1.0 } else { pair(a.min(b), a.max(b)).unwrap_or(f64::NAN) };
        let drawing = heat(&Heat {
            id: format!("fig-overlap-{}", identifier(configuration.id())),
            title: format!("Code overlap between depths: {}", configuration.label),
            description: "Rows and columns are depths; a cell is the overlap of their code frequencies.".to_owned(),
            label: "depth".to_owned(),
            rows: (1..=depths).map(|a| (1..=depths).map(|b| value(a, b)).collect()).collect(),
        })?;
        let rows: Vec<(usize, usize)> = (1..=depths).flat_map(|a| (a + 1..=depths).map(move |b| (a, b))).collect();
        maps.push(html! {
            figure {
                (PreEscaped(drawing))
                figcaption { (configuration.label) }
                details.data {
                    summary { "Data" }
                    table {
                        thead { tr { th { "depths" } th { "overlap" } } }
                        tbody { @for (a, b) in rows { tr { td { (a) " and " (b) } td.n { (format::number(value(a, b))) } } } }
                    }
                }
            }
        });
    }
    Ok(maps)
}

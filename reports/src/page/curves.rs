//! Section 8, and what other sections need of curves: means over seeds.

use maud::{Markup, html};

use super::parts::{Drawn, configuration_key, configuration_series, figure, identifier, nothing};
use crate::chart::{Chart, Point, Scale, Series};
use crate::error::Result;
use crate::format;
use crate::measure::Quantity;
use crate::results::{Curve, Trial};
use crate::study::{Column, Configuration, Study};

/// What section 5 draws by depth: the health of codebooks.
pub(super) const HEALTH: [&str; 7] =
    ["usage", "perplexity", "entropy", "unused_codes", "dead_codes", "restarted_codes", "residual_energy"];

/// Points of one line; more would not be seen.
const POINTS: usize = 80;

/// Charts in this section; `curves.csv` has the rest.
const CHARTS: usize = 12;

/// From this ratio of largest to smallest on, a positive quantity is drawn on a log scale.
const LOG_RATIO: f64 = 8.0;

/// Section 8.
pub(super) fn curves(study: &Study<'_>) -> Result<Markup> {
    let mut kinds: Vec<(&str, Quantity)> = Vec::new();
    for curve in study.results.trials.iter().flat_map(|trial| &trial.curves) {
        let kind = (curve.stage.as_str(), curve.quantity());
        if !is_health(&kind.1) && !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    if kinds.is_empty() {
        return Ok(nothing("No trial recorded a curve."));
    }
    // A schedule is no result: what was set is in the setup.
    let all = kinds.len();
    kinds.retain(|(_, quantity)| quantity.measure != "learning_rate");
    let schedules = all - kinds.len();
    let more = kinds.len().saturating_sub(CHARTS);
    let mut figures = Vec::new();
    for (stage, quantity) in kinds.into_iter().take(CHARTS) {
        figures.push(chart(study, stage, &Column::of(quantity))?);
    }
    Ok(html! {
        p { "Lines are means over seeds, bands run from the lowest seed to the highest." }
        (configuration_key(study, &study.configurations.iter().collect::<Vec<_>>(), Drawn::Lines))
        div.figures { @for figure in figures { (figure) } }
        @if more + schedules > 0 {
            p.note {
                (more + schedules) " more curves are in " code { "curves.csv" }
                @if schedules > 0 { ", those of learning rates among them" } "."
            }
        }
    })
}

/// Whether a curve belongs to section 5.
pub(super) fn is_health(quantity: &Quantity) -> bool {
    HEALTH.contains(&quantity.measure.as_str()) && quantity.depths().next().is_some()
}

fn chart(study: &Study<'_>, stage: &str, column: &Column) -> Result<Markup> {
    let label = column.label();
    let mut series = Vec::new();
    for configuration in &study.configurations {
        let points = over_seeds(configuration, stage, &column.quantity);
        // Configurations that share a stage have one curve of it.
        match series.iter_mut().find(|known: &&mut Series| known.points == points) {
            Some(known) => known.name.push_str(&format!("; {}", configuration.label)),
            None if points.is_empty() => {}
            None => {
                series.push(Series { line: true, band: true, ..configuration_series(study, configuration, points) })
            }
        }
    }
    let y = vertical(&series, column.axis_label(), format::scale(&column.measure));
    let log = y.log;
    let chart = Chart {
        id: format!("fig-curve-{}-{}", identifier(stage), identifier(&column.quantity.to_string())),
        title: format!("{label} of the {stage} over training"),
        description: format!("{label} against training steps, one line for each configuration."),
        x: Scale::linear("step"),
        y,
        series,
        wide: false,
    };
    let caption = html! { (format::capitalized(stage)) ": " (label) " over training" @if log { ", log scale" } "." };
    figure(&chart, caption, html! {})
}

/// A log scale if the values are positive and far apart.
pub(super) fn vertical(series: &[Series], label: String, factor: f64) -> Scale {
    let values = || series.iter().flat_map(|series| &series.points).map(|point| point.y);
    let (low, high) = values().fold((f64::INFINITY, 0.0_f64), |(low, high), value| (low.min(value), high.max(value)));
    let scale = if low > 0.0 && high > LOG_RATIO * low { Scale::log(label) } else { Scale::linear(label) };
    Scale { factor, ..scale }
}

/// The mean of a curve over the seeds that have it, at the steps that all of them have; the range is lowest to
/// highest. Trials that failed show how far they came if no other did.
pub(super) fn over_seeds(configuration: &Configuration<'_>, stage: &str, of: &Quantity) -> Vec<Point> {
    let find = |trial: &Trial| -> Option<Curve> {
        trial.curves.iter().find(|curve| curve.stage == stage && of.is(&curve.measure, &curve.at)).cloned()
    };
    let mut found: Vec<Curve> = configuration.done().filter_map(find).collect();
    if found.is_empty() {
        found = configuration.trials.iter().filter_map(|trial| find(trial)).collect();
    }
    let Some((first, others)) = found.split_first() else { return Vec::new() };
    let mut points = Vec::new();
    for (step, value) in first.steps.iter().zip(&first.values) {
        let at =
            |curve: &Curve| curve.steps.binary_search(step).ok().and_then(|place| curve.values.get(place).copied());
        let Some(mut values) = others.iter().map(at).collect::<Option<Vec<f64>>>() else { continue };
        values.push(*value);
        let (low, high) = values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(*v), h.max(*v)));
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        points.push(Point {
            x: *step as f64,
            y: mean,
            range: (values.len() > 1).then_some((low, high)),
            ..Point::default()
        });
    }
    thin(points)
}

/// Every n-th point, and the last one.
fn thin(points: Vec<Point>) -> Vec<Point> {
    let every = points.len().div_ceil(POINTS).max(1);
    let last = points.len().saturating_sub(1);
    points.into_iter().enumerate().filter(|(place, _)| place % every == 0 || *place == last).map(|(_, p)| p).collect()
}

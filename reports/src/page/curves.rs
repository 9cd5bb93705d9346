//! Section 8, and what other sections need of curves: means over seeds.

use maud::{Markup, html};

use super::parts::{Drawn, configuration_key, configuration_series, figure, identifier, nothing};
use crate::chart::{Chart, Point, Scale, Series};
use crate::error::Result;
use crate::format;
use crate::measure::Quantity;
use crate::results::{Curve, Trial};
use crate::study::{ALL, Column, Configuration, Study};

/// What section 5 draws by depth: the health of codebooks.
pub(super) const HEALTH: [&str; 7] =
    ["usage", "perplexity", "entropy", "unused_codes", "dead_codes", "restarted_codes", "residual_energy"];

/// What training minimises: of unlike models, unlike quantities.
const LOSSES: [&str; 2] = ["loss", "validation_loss"];

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
    let (mut figures, mut unlike, mut keyed) = (Vec::new(), false, false);
    for (stage, quantity) in kinds.into_iter().take(CHARTS) {
        let groups = alike(study, stage, &quantity);
        unlike |= groups.len() > 1;
        for (what, configurations) in &groups {
            let (figure, several) = chart(study, stage, &Column::of(quantity.clone()), what.as_ref(), configurations)?;
            figures.push(figure);
            keyed |= several;
        }
    }
    Ok(html! {
        p { "Lines are means over seeds, bands run from the lowest seed to the highest." }
        @if unlike {
            p.note {
                "What priors of codes minimise, a cross entropy, and what priors of vectors do, such as the loss of a diffusion, are \
                 different quantities: they have charts of their own, and their numbers do not compare."
            }
        }
        @if keyed { (configuration_key(study, &study.configurations.iter().collect::<Vec<_>>(), Drawn::Lines)) }
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

/// What is trained, for losses that are not those of all.
struct Kind {
    words: &'static str,
    id: &'static str,
}

/// The configurations of a chart: all, but for losses of priors, of which those of codes and those of vectors are unlike.
fn alike<'a, 'b>(study: &'a Study<'b>, stage: &str, of: &Quantity) -> Vec<(Option<Kind>, Vec<&'a Configuration<'b>>)> {
    let has = |configuration: &&Configuration<'_>| !over_seeds(configuration, stage, of).is_empty();
    let of_codes =
        |configuration: &&Configuration<'_>| configuration.trials.iter().any(|trial| !trial.sizes.levels.is_empty());
    let (codes, vectors): (Vec<_>, Vec<_>) = study.configurations.iter().filter(has).partition(of_codes);
    let of_priors = stage.starts_with("prior") && LOSSES.contains(&of.measure.as_str());
    if !of_priors || codes.is_empty() || vectors.is_empty() {
        return vec![(None, study.configurations.iter().collect())];
    }
    vec![
        (Some(Kind { words: "priors of codes", id: "-codes" }), codes),
        (Some(Kind { words: "priors of vectors", id: "-vectors" }), vectors),
    ]
}

/// The chart, and whether configurations are told apart in it.
fn chart(
    study: &Study<'_>,
    stage: &str,
    column: &Column,
    kind: Option<&Kind>,
    configurations: &[&Configuration<'_>],
) -> Result<(Markup, bool)> {
    let label = column.label();
    let mut series: Vec<Series> = Vec::new();
    for configuration in configurations {
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
    let shared = series.len() == 1 && configurations.len() > 1 && {
        let all: Vec<&str> = study.configurations.iter().map(|configuration| configuration.label.as_str()).collect();
        series[0].name == all.join("; ")
    };
    if let Some(one) = series.first_mut().filter(|_| shared) {
        (one.name, one.colour, one.dash) = (ALL.to_owned(), None, 0);
    }
    let several = series.len() > 1;
    let y = vertical(&series, column.axis_label(), format::scale(&column.measure));
    let log = y.log;
    let of = kind.map_or(String::new(), |kind| format!(", {}", kind.words));
    let chart = Chart {
        id: format!(
            "fig-curve-{}-{}{}",
            identifier(stage),
            identifier(&column.quantity.to_string()),
            kind.map_or("", |kind| kind.id)
        ),
        title: format!("{label} of the {stage} over training{of}"),
        description: format!("{label} against training steps, one line for each configuration."),
        x: Scale::linear("step"),
        y,
        series,
        wide: false,
    };
    let added = several && stage == "tokenizer" && LOSSES.contains(&column.measure.name.as_str());
    let caption = html! {
        (format::capitalized(stage)) ": " (label) " over training" (of) @if log { ", log scale" } "."
        @if shared { " All configurations share it." }
        @if added { " It holds what quantizers and objectives add: it compares where these are the same." }
    };
    let told = several || (!shared && study.configurations.len() > 1);
    Ok((figure(&chart, caption, html! {})?, told))
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::results::{Axis, Results, Status};
    use crate::setup::{CodeSizes, Sizes};

    fn results(levels: [Vec<CodeSizes>; 2], ends: [f64; 2]) -> Results {
        let trial = |(prior, (levels, end)): (&str, (Vec<CodeSizes>, f64))| Trial {
            id: prior.to_owned(),
            axes: [("prior".to_owned(), prior.into())].into(),
            seed: Some(0),
            status: Status::Done,
            sizes: Sizes { levels, ..Sizes::default() },
            curves: vec![Curve {
                stage: "prior".to_owned(),
                measure: "loss".to_owned(),
                steps: vec![1, 2],
                values: vec![5.0, end],
                ..Curve::default()
            }],
            ..Trial::default()
        };
        Results {
            axes: vec![Axis {
                path: "prior".to_owned(),
                label: String::new(),
                values: vec!["ar".into(), "mar".into()],
            }],
            trials: ["ar", "mar"].into_iter().zip(levels.into_iter().zip(ends)).map(trial).collect(),
            ..Results::default()
        }
    }

    #[test]
    fn losses_of_codes_and_of_vectors_have_charts_of_their_own() {
        let drawn = |levels| curves(&Study::new(&results(levels, [4.2, 0.3]))).unwrap().into_string();
        let both = drawn([vec![CodeSizes::default()], vec![]]);
        for part in ["fig-curve-prior-loss-codes", "fig-curve-prior-loss-vectors", "do not compare"] {
            assert!(both.contains(part), "no {part} in {both}");
        }
        let one = drawn([vec![CodeSizes::default()], vec![CodeSizes::default()]]);
        assert!(one.contains("\"fig-curve-prior-loss\"") && !one.contains("do not compare"), "{one}");
    }

    #[test]
    fn a_curve_of_all_configurations_is_nobodys() {
        let results = results([vec![], vec![]], [4.0, 4.0]);
        let drawn = curves(&Study::new(&results)).unwrap().into_string();
        assert!(drawn.contains("All configurations share it.") && drawn.contains(ALL), "{drawn}");
        assert!(!drawn.contains("class=\"legend\""), "{drawn}");
    }
}

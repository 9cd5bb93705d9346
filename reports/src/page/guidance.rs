//! How strongly samples were guided, and how that was chosen.

use maud::{Markup, html};

use super::parts::{Drawn, configuration_key, configuration_series, figure};
use crate::chart::{self, Chart, Point, Series};
use crate::error::Result;
use crate::format;
use crate::measure::{Index, Quantity, Scale, measure};
use crate::study::{Configuration, Study};

/// The scales of guidance that samples were drawn with, in both conventions.
pub(super) fn scales(study: &Study<'_>) -> Markup {
    let mut scales: Vec<f64> = study
        .taken("guidance")
        .iter()
        .flat_map(|column| study.configurations.iter().flat_map(|configuration| configuration.values(&column.quantity)))
        .filter(|scale| *scale != 1.0)
        .collect();
    scales.sort_by(f64::total_cmp);
    scales.dedup();
    let both = |scale: &f64| format!("s = {}, that is w = {}", format::chosen(*scale), format::chosen(scale - 1.0));
    let words: Vec<String> = scales.iter().map(both).collect();
    html! {
        @if !words.is_empty() {
            p.note {
                "Samples were drawn with classifier-free guidance, u + s (c \u{2212} u), also written (1 + w) c \u{2212} w u: "
                (words.join("; ")) ". Where a trial's settings name a " code { "guidance_schedule" } " other than constant, this is the scale \
                at its strongest."
            }
        }
    }
}

/// The distance at each scale that was tried, and which of them was chosen.
pub(super) fn tuning(study: &Study<'_>) -> Result<Option<Markup>> {
    let tried = study.taken("tuning_frechet");
    let mut scales: Vec<_> = tried.iter().filter_map(|column| column.quantity.guidance()).collect();
    scales.sort_unstable();
    scales.dedup();
    let frechet = measure("tuning_frechet");
    let (mut series, mut shown): (Vec<Series>, Vec<&Configuration<'_>>) = (Vec::new(), Vec::new());
    let mut choices = Vec::new();
    for configuration in &study.configurations {
        let point = |scale: &Scale| {
            let found = configuration.mean(&Quantity::new(&frechet.name, [Index::Guidance(*scale)]))?;
            let value = format::value(&frechet, found.mean);
            let note = format!("{}, guidance {}: {value}", configuration.label, scale.value());
            Some(Point { x: scale.value(), y: found.mean, note, ..Point::default() })
        };
        let points: Vec<Point> = scales.iter().filter_map(point).collect();
        if points.is_empty() {
            continue;
        }
        let mut one = configuration_series(study, configuration, points);
        (one.line, one.marks) = (true, true);
        series.push(one);
        shown.push(configuration);
        let chosen = configuration.values(&Quantity::plain("tuned_guidance"));
        let chosen: Vec<String> = chosen.iter().map(f64::to_string).collect();
        choices.push((configuration, chosen.join(", ")));
    }
    if series.is_empty() {
        return Ok(None);
    }
    let chart = Chart {
        id: "fig-tuning".to_owned(),
        title: "Guidance tuned by the sample Fréchet distance".to_owned(),
        description: "Fréchet distance from the held half of the test images against the guidance scale.".to_owned(),
        x: chart::Scale::linear("guidance scale"),
        y: chart::Scale { zero: true, ..chart::Scale::linear(frechet.label.clone()) },
        series,
        wide: false,
    };
    let caption = html! {
        "Guidance tuned: the distance of samples at each scale from one half of the measured test images, means over seeds. Each seed \
         takes the scale of its least distance; all other measures of samples are of that scale, against the other half. Chosen, seed \
         by seed: "
        @for (place, (configuration, chosen)) in choices.iter().enumerate() {
            @if place > 0 { "; " }
            @if !configuration.label.is_empty() { (configuration.label) " " }
            (chosen)
        }
        "."
    };
    figure(&chart, caption, configuration_key(study, &shown, Drawn::Both)).map(Some)
}

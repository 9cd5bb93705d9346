//! Section 6: how well priors fit, what they draw, and how fast.

use maud::{Markup, html};

use super::parts::{configuration_key, configuration_point, figure, measures_table, nothing, series_key};
use crate::chart::{Chart, Point, Scale, Series};
use crate::error::Result;
use crate::format;
use crate::measure::{Group, Measure, measure};
use crate::study::Study;

/// Section 6.
pub(super) fn priors(study: &Study<'_>) -> Result<Markup> {
    let fit = study.group(Group::Prior);
    let speed = study.group(Group::Speed);
    if fit.is_empty() && speed.is_empty() {
        return Ok(nothing("No prior was trained in this experiment."));
    }
    let (depths, quality): (Vec<Measure>, Vec<Measure>) =
        fit.into_iter().partition(|measure| measure.family() == "prior_bits");
    let mut figures = Vec::new();
    figures.extend(frechets(study)?);
    figures.extend(bits_by_depth(study, &depths)?);
    figures.extend(speeds(study, &speed)?);
    Ok(html! {
        @if !quality.is_empty() { (measures_table(study, &quality, "Fit and samples of the priors, means over seeds")) }
        div.figures { @for figure in figures { (figure) } }
        @if !speed.is_empty() { (measures_table(study, &speed, "Sampling and decoding speed; decoding is not part of sampling")) }
    })
}

/// What the tokenizer loses against what the prior loses.
fn frechets(study: &Study<'_>) -> Result<Option<Markup>> {
    let (recon, sample) = (measure("recon_frechet"), measure("sample_frechet"));
    if !(study.has(&recon.name) && study.has(&sample.name)) {
        return Ok(None);
    }
    let mut series = Vec::new();
    for configuration in &study.configurations {
        let (colour, shape) = study.style(configuration);
        if let Some(point) = configuration_point(configuration, &recon, &sample) {
            series.push(Series {
                name: configuration.label.clone(),
                colour: Some(colour),
                shape,
                marks: true,
                points: vec![point],
                ..Series::default()
            });
        }
    }
    if series.is_empty() {
        return Ok(None);
    }
    let chart = Chart {
        id: "fig-recon-sample".to_owned(),
        title: "Sample Fréchet distance against reconstruction Fréchet distance".to_owned(),
        description: "Left is a better tokenizer, down are better samples.".to_owned(),
        x: Scale::linear(recon.label),
        y: Scale { zero: true, ..Scale::linear(sample.label) },
        series,
        wide: false,
    };
    let caption = html! {
        "What the prior draws against what the tokenizer can at best show: a better tokenizer does not by itself make \
         better samples. Both are distances on the lab's own features, not FID."
    };
    figure(&chart, caption, configuration_key(study, false)).map(Some)
}

fn bits_by_depth(study: &Study<'_>, depths: &[Measure]) -> Result<Option<Markup>> {
    if depths.len() < 2 {
        return Ok(None);
    }
    let mut series = Vec::new();
    for configuration in &study.configurations {
        let (colour, shape) = study.style(configuration);
        let points: Vec<Point> = depths
            .iter()
            .enumerate()
            .filter_map(|(place, depth)| {
                let found = configuration.mean(&depth.name)?;
                let note = format!("{}, {}: {}", configuration.label, depth.label, format::value(depth, found.mean));
                Some(Point { x: place as f64, y: found.mean, range: found.interval, note, link: None })
            })
            .collect();
        if !points.is_empty() {
            series.push(Series {
                name: configuration.label.clone(),
                colour: Some(colour),
                shape,
                line: true,
                marks: true,
                points,
                ..Series::default()
            });
        }
    }
    let names = depths.iter().map(|depth| depth.name.rsplit('_').next().unwrap_or("").to_owned()).collect();
    let chart = Chart {
        id: "fig-prior-bits".to_owned(),
        title: "Bits of the prior by depth".to_owned(),
        description: "Bits per image that each depth takes under the prior, one line for each configuration."
            .to_owned(),
        x: Scale::names("depth", names),
        y: Scale { zero: true, ..Scale::linear("bits per image") },
        series,
        wide: false,
    };
    let caption = html! { "Bits per image under the prior that each depth takes." };
    figure(&chart, caption, configuration_key(study, true)).map(Some)
}

/// The batch size and the cache setting of `images_per_second_b64_cache`.
fn setting(name: &str) -> Option<(f64, &str)> {
    let rest = name.strip_prefix("images_per_second_b")?;
    let (batch, cache) = rest.split_once('_').unwrap_or((rest, ""));
    Some((batch.parse().ok()?, cache))
}

fn speeds(study: &Study<'_>, speeds: &[Measure]) -> Result<Option<Markup>> {
    let mut series: Vec<Series> = Vec::new();
    for configuration in &study.configurations {
        let colour = study.style(configuration).0;
        for (shape, (cache, name)) in
            [("cache", ", with cache"), ("nocache", ", without cache"), ("", "")].iter().enumerate()
        {
            let points: Vec<Point> = speeds
                .iter()
                .filter_map(|speed| {
                    let (batch, setting) = setting(&speed.name)?;
                    let found = configuration.mean(&speed.name).filter(|_| setting == *cache)?;
                    let note =
                        format!("{}, {}: {}", configuration.label, speed.label, format::value(speed, found.mean));
                    Some(Point { x: batch, y: found.mean, note, ..Point::default() })
                })
                .collect();
            if !points.is_empty() {
                series.push(Series {
                    name: format!("{}{name}", configuration.label),
                    colour: Some(colour),
                    shape,
                    line: true,
                    marks: true,
                    points,
                    ..Series::default()
                });
            }
        }
    }
    if series.is_empty() {
        return Ok(None);
    }
    // Batch sizes are few and told by name: a log scale would give them ticks of its own.
    let mut batches: Vec<f64> = series.iter().flat_map(|series| &series.points).map(|point| point.x).collect();
    batches.sort_by(f64::total_cmp);
    batches.dedup();
    for point in series.iter_mut().flat_map(|series| &mut series.points) {
        point.x = batches.iter().position(|batch| *batch == point.x).unwrap_or(0) as f64;
    }
    let key = if series.len() > 8 { configuration_key(study, false) } else { series_key(&series) };
    let chart = Chart {
        id: "fig-speed".to_owned(),
        title: "Sampling speed by batch size".to_owned(),
        description: "Images per second against batch size, with and without a key-value cache.".to_owned(),
        x: Scale::names("batch size", batches.iter().map(ToString::to_string).collect()),
        y: Scale::log("images per second"),
        series,
        wide: false,
    };
    let caption =
        html! { "Sampling speed, decoding left out: circles and full lines with cache, squares and dashes without." };
    figure(&chart, caption, key).map(Some)
}

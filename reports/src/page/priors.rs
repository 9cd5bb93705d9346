//! Section 6: how well priors fit, what they draw, and how fast.

use maud::{Markup, html};

use super::parts::{Drawn, configuration_key, configuration_series, figure, having, measures_table, nothing, scatter};
use crate::chart::{Chart, Point, Scale, Series};
use crate::error::Result;
use crate::format;
use crate::measure::{Group, Measure, measure};
use crate::study::{Configuration, Study};

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
        @if !speed.is_empty() { (speed_table(study, &speed)) }
    })
}

/// What the tokenizer loses against what the prior loses.
fn frechets(study: &Study<'_>) -> Result<Option<Markup>> {
    let (recon, sample) = (measure("recon_frechet"), measure("sample_frechet"));
    if !(study.has(&recon.name) && study.has(&sample.name)) {
        return Ok(None);
    }
    let series = scatter(study, &recon, &sample);
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
    figure(&chart, caption, configuration_key(study, &having(study, &sample.name), Drawn::Marks)).map(Some)
}

fn bits_by_depth(study: &Study<'_>, depths: &[Measure]) -> Result<Option<Markup>> {
    if depths.len() < 2 {
        return Ok(None);
    }
    let mut series = Vec::new();
    for configuration in &study.configurations {
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
            series.push(Series { line: true, marks: true, ..configuration_series(study, configuration, points) });
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
    figure(&chart, caption, configuration_key(study, &having(study, &depths[0].name), Drawn::Both)).map(Some)
}

/// The batch size and the cache setting of `images_per_second_b64_cache`.
fn setting(name: &str) -> Option<(u64, &str)> {
    let rest = name.strip_prefix("images_per_second_b")?;
    let (batch, cache) = rest.split_once('_').unwrap_or((rest, ""));
    Some((batch.parse().ok()?, cache))
}

/// Settings of the cache: the end of the name, in words, and its dash.
const CACHES: [(&str, &str, usize); 3] = [("cache", "with cache", 0), ("nocache", "without cache", 1), ("", "", 0)];

fn speeds(study: &Study<'_>, speeds: &[Measure]) -> Result<Option<Markup>> {
    let mut batches: Vec<u64> = speeds.iter().filter_map(|speed| Some(setting(&speed.name)?.0)).collect();
    batches.sort_unstable();
    batches.dedup();
    let (mut series, mut shown): (Vec<Series>, Vec<&Configuration<'_>>) = (Vec::new(), Vec::new());
    for configuration in &study.configurations {
        for (cache, words, dash) in CACHES {
            let points: Vec<Point> = speeds
                .iter()
                .filter_map(|speed| {
                    let (batch, setting) = setting(&speed.name)?;
                    let found = configuration.mean(&speed.name).filter(|_| setting == cache)?;
                    let x = batches.iter().position(|other| *other == batch)? as f64;
                    let note =
                        format!("{}, {}: {}", configuration.label, speed.label, format::value(speed, found.mean));
                    Some(Point { x, y: found.mean, note, ..Point::default() })
                })
                .collect();
            if !points.is_empty() {
                let mut one = configuration_series(study, configuration, points);
                one.name = format!("{}, {words}", one.name).trim_end_matches(", ").to_owned();
                (one.dash, one.line, one.marks) = (dash, true, true);
                series.push(one);
                shown.push(configuration);
            }
        }
    }
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
    let caption = html! { "Sampling speed, decoding left out. Full lines: with cache. Dashed lines: without." };
    figure(&chart, caption, configuration_key(study, &shown, Drawn::Marks)).map(Some)
}

/// A row for each configuration and kind of work, a column for each batch size.
fn speed_table(study: &Study<'_>, speeds: &[Measure]) -> Markup {
    let decoding = |name: &str| name.strip_prefix("decode_images_per_second_b").and_then(|batch| batch.parse().ok());
    let mut batches: Vec<u64> =
        speeds.iter().filter_map(|s| setting(&s.name).map(|found| found.0).or_else(|| decoding(&s.name))).collect();
    batches.sort_unstable();
    batches.dedup();
    let kinds = [
        ("images_per_second_b", "_cache", "sampling, with cache"),
        ("images_per_second_b", "_nocache", "sampling, without cache"),
        ("images_per_second_b", "", "sampling"),
        ("decode_images_per_second_b", "", "decoding"),
    ];
    let mut rows: Vec<(&Configuration<'_>, &str, Vec<Option<f64>>)> = Vec::new();
    for configuration in &study.configurations {
        for (stem, end, words) in kinds {
            let mean = |batch: &u64| configuration.mean(&format!("{stem}{batch}{end}")).map(|found| found.mean);
            let cells: Vec<Option<f64>> = batches.iter().map(mean).collect();
            if cells.iter().any(Option::is_some) {
                rows.push((configuration, words, cells));
            }
        }
    }
    let speed = measure("images_per_second");
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
                                @for cell in cells { td.n { @if let Some(value) = cell { (format::bare(&speed, *value)) } } }
                            }
                        }
                    }
                }
            }
        }
    }
}

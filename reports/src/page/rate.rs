//! Section 3: what the bits buy.

use maud::{Markup, html};

use super::parts::{
    Drawn, configuration_key, configuration_series, figure, having, identifier, measures_table, nothing, scatter,
    series_key, with_unit,
};
use crate::chart::{Chart, Point, Scale, Series};
use crate::error::Result;
use crate::format;
use crate::measure::Better;
use crate::stats::pareto;
use crate::study::{Column, Configuration, Study};

/// Two points make no front.
const FEWEST: usize = 3;
/// Codes whose bits differ by less than this share cost the same.
const SAME_BITS: f64 = 0.01;

/// Section 3.
pub(super) fn rate_distortion(study: &Study<'_>) -> Result<Markup> {
    let (every, study) = (study, &study.of_tokenizers());
    let [nominal, entropy, kl] = ["bits_per_image", "entropy_bits_per_image", "kl_bits_per_image"].map(Column::plain);
    let (codes, vectors) = (study.has(&nominal.quantity), study.has(&kl.quantity));
    if !codes && !vectors {
        return Ok(nothing("No trial reports its bits per image."));
    }
    let mut distortions: Vec<Column> = ["psnr", "mse", "recon_frechet"].map(Column::plain).into();
    distortions.retain(|distortion| study.has(&distortion.quantity));
    if study.configurations.len() == 1 && every.configurations.len() > 1 {
        let rates = [nominal, entropy, kl].into_iter().filter(|rate| study.has(&rate.quantity));
        let columns: Vec<Column> = rates.chain(distortions).collect();
        return Ok(measures_table(
            study,
            &columns,
            "All configurations share one tokenizer of each seed: means over seeds",
        ));
    }
    let free: Vec<&Configuration<'_>> = (study.configurations.iter())
        .filter(|one| [&nominal, &entropy, &kl].iter().all(|rate| one.values(&rate.quantity).is_empty()))
        .collect();
    let (mut figures, mut idle) = (Vec::new(), Vec::new());
    for (rate, distortions) in
        [(&nominal, &distortions[..]), (&entropy, &distortions[..distortions.len().min(1)]), (&kl, &distortions[..])]
    {
        for distortion in distortions.iter().filter(|_| study.has(&rate.quantity)) {
            match chart(study, rate, distortion, &free)? {
                Some(figure) => figures.push(figure),
                None => idle.push(format!("{} against {}", distortion.label(), rate.label())),
            }
        }
    }
    let mut shown = having(study, &nominal.quantity);
    shown.extend(having(study, &kl.quantity));
    Ok(html! {
        @if codes && vectors {
            p.note {
                "Codes and continuous tokens have different rates, and charts of their own: nominal bits are what codes take \
                 when they are stored; the KL bits of continuous tokens are an expected length under bits-back coding. Equal \
                 numbers of the two are not equal rates."
            }
        }
        @if !figures.is_empty() { (configuration_key(study, &shown, Drawn::Marks)) }
        div.figures { @for figure in figures { (figure) } }
        @if !idle.is_empty() {
            p.note { "Not drawn, of fewer than three points or of one rate or one value: " (idle.join("; ")) "." }
        }
        @if codes { (same_bits(study, &nominal, &distortions)) }
    })
}

/// The chart; nothing of two points, or where all stand above each other or in a row. What the configurations `free` of a rate
/// reach, those without a bottleneck, is a line across.
fn chart(study: &Study<'_>, rate: &Column, distortion: &Column, free: &[&Configuration<'_>]) -> Result<Option<Markup>> {
    let marks = scatter(study, rate, distortion);
    let points: Vec<(f64, f64)> = marks.iter().flat_map(|one| &one.points).map(|point| (point.x, point.y)).collect();
    let differ = |value: fn(&(f64, f64)) -> f64| points.windows(2).any(|pair| value(&pair[0]) != value(&pair[1]));
    if points.len() < FEWEST || !(differ(|point| point.0) && differ(|point| point.1)) {
        return Ok(None);
    }
    // What is not sound is drawn, and is on no front.
    let unsound = |one: &Series| {
        let of = |c: &&Configuration<'_>| c.label == one.name && study.unsound(c, &distortion.measure).is_some();
        study.configurations.iter().any(|configuration| of(&configuration))
    };
    let sound: Vec<(f64, f64)> = marks
        .iter()
        .map(|one| (one, one.points.first().map_or(f64::NAN, |point| point.x)))
        .zip(&points)
        .map(|((one, x), point)| (if unsound(one) { f64::NAN } else { x }, point.1))
        .collect();
    let front = pareto(&sound, distortion.measure.better == Better::Higher);
    let mut series = vec![Series {
        name: "Pareto front".to_owned(),
        line: true,
        points: front.iter().map(|&at| Point { x: points[at].0, y: points[at].1, ..Point::default() }).collect(),
        ..Series::default()
    }];
    series.extend(marks);
    let (left, right) =
        (points.iter()).fold((f64::MAX, f64::MIN), |ends, point| (ends.0.min(point.0), ends.1.max(point.0)));
    let across: Vec<Series> = free.iter().filter_map(|one| line(study, one, distortion, [left, right])).collect();
    series.extend(across.iter().cloned());
    let better = if distortion.measure.better == Better::Higher { "higher" } else { "lower" };
    let positive = points.iter().all(|point| point.1 > 0.0);
    let log = distortion.measure.unit != "dB" && positive;
    let chart = Chart {
        id: format!("fig-{}-{}", identifier(&rate.measure.name), identifier(&distortion.measure.name)),
        title: format!("{} against {}", distortion.label(), rate.label()),
        description: format!(
            "Each point is a configuration, the mean of its seeds; the line joins the {} configurations that no other \
             beats with as few bits; {better} is better.",
            front.len()
        ),
        x: Scale::log(rate.axis_label()),
        y: if log { Scale::log(distortion.axis_label()) } else { Scale::linear(distortion.axis_label()) },
        series,
        wide: false,
    };
    let several = study.configurations.iter().any(|configuration| configuration.done().count() > 1);
    let caption = html! {
        (format::capitalized(&distortion.label())) " against " (rate.label()) "; " (better)
        " is better, and the line is the Pareto front." @if several { " Dots: the seeds. Bars, where there are: 95% intervals over seeds." }
        @if !across.is_empty() { " Lines across: what was trained without a bottleneck, and has no rate." }
    };
    let key = if across.is_empty() {
        html! {}
    } else {
        series_key(&across)
    };
    figure(&chart, caption, key).map(Some)
}

/// What a configuration that has no rate reaches, from end to end: its mean, and the interval over seeds as a band.
fn line(study: &Study<'_>, of: &Configuration<'_>, distortion: &Column, ends: [f64; 2]) -> Option<Series> {
    let reached = of.mean(&distortion.quantity)?;
    let note = format!("{}: {} {}", of.label, distortion.label(), with_unit(&distortion.measure, &reached));
    let link = Some(format!("t-{}", of.id()));
    let point = |x| Point {
        x,
        y: reached.mean,
        range: reached.interval,
        note: note.clone(),
        link: link.clone(),
        ..Point::default()
    };
    Some(Series { line: true, band: true, ..configuration_series(study, of, ends.map(point).into()) })
}

/// Configurations of equal bits beside each other: what the same rate buys when it is spent otherwise.
fn same_bits(study: &Study<'_>, rate: &Column, distortions: &[Column]) -> Markup {
    let mut by_rate: Vec<(f64, &Configuration<'_>)> = study
        .configurations
        .iter()
        .filter_map(|configuration| Some((configuration.mean(&rate.quantity)?.mean, configuration)))
        .collect();
    by_rate.sort_by(|a, b| a.0.total_cmp(&b.0));
    let groups: Vec<&[(f64, &Configuration<'_>)]> =
        by_rate.chunk_by(|a, b| b.0 - a.0 <= SAME_BITS * a.0).filter(|group| group.len() > 1).collect();
    if groups.is_empty() {
        return html! { p.note { "No two configurations take the same number of bits per image." } };
    }
    html! {
        div.scroll {
            table.measures {
                caption { "Configurations of equal nominal bits" }
                thead {
                    tr {
                        th scope="col" { "bits" }
                        th.left scope="col" { "configuration" }
                        @for distortion in distortions { th scope="col" { (distortion.label()) } }
                    }
                }
                @for group in groups {
                    tbody {
                        @for (place, (bits, configuration)) in group.iter().enumerate() {
                            tr {
                                @if place == 0 { th scope="rowgroup" rowspan=(group.len()) { (format::number(*bits)) } }
                                td { a href={ "#t-" (configuration.id()) } { (configuration.label) } }
                                @for distortion in distortions {
                                    td.n {
                                        @if let Some(found) = configuration.mean(&distortion.quantity) {
                                            (with_unit(&distortion.measure, &found))
                                        }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

//! Section 10: every trial with all its numbers, and lines through them.

use maud::{Markup, html};

use super::parts::{Drawn, column_head, configuration_key, configuration_series, figure, long, nothing};
use crate::chart::{Chart, Point, Scale, Series};
use crate::error::Result;
use crate::format::{self, Precision};
use crate::measure::Better;
use crate::results::{Status, Trial};
use crate::stats::Estimate;
use crate::study::{Column, Configuration, Study};

/// What the parallel coordinates run through, where it was measured.
const COORDINATES: [&str; 9] = [
    "bits_per_image",
    "usage",
    "psnr",
    "ssim",
    "recon_frechet",
    "prior_bits_per_image",
    "sample_frechet",
    "parameters",
    "train_seconds",
];

/// Section 10.
pub(super) fn trials(study: &Study<'_>) -> Result<Markup> {
    let results = study.results;
    if results.trials.is_empty() {
        return Ok(nothing("The experiment has no trials."));
    }
    let columns = study.columns();
    let same = |values: Vec<Option<String>>| values.windows(2).all(|pair| pair[0] == pair[1]);
    let constant_axis: Vec<bool> = results
        .axes
        .iter()
        .map(|axis| {
            same(results.trials.iter().map(|trial| trial.axes.get(&axis.path).map(ToString::to_string)).collect())
        })
        .collect();
    let constant_column: Vec<bool> = columns
        .iter()
        .map(|column| {
            same(results.done().map(|trial| trial.value(&column.quantity).map(|value| value.to_string())).collect())
        })
        .collect();
    let precisions: Vec<Precision> = columns
        .iter()
        .map(|column| {
            let values = results.trials.iter().filter_map(|trial| trial.value(&column.quantity));
            Precision::of(&column.measure, values.map(|value| Estimate::bare(value, 1)))
        })
        .collect();
    Ok(html! {
        (parallel(study)?)
        input #differences type="checkbox";
        label.toggle for="differences" { "Differences only" }
        p.paper { "The table of all trials is too wide for paper: it is in " code { "results.csv" } "." }
        div.scroll.tall {
            table.sortable {
                caption { "Every trial. Press a column's head to sort." }
                thead {
                    tr {
                        th scope="col" { "trial" }
                        th.left scope="col" { "status" }
                        @for (axis, same) in results.axes.iter().zip(&constant_axis) {
                            th.same[*same] scope="col" title=(axis.path) { (axis.title()) }
                        }
                        th scope="col" { "seed" }
                        @if study.sites.len() > 1 { th.left scope="col" { "computed" } }
                        @for (column, same) in columns.iter().zip(&constant_column) {
                            th.same[*same].x[detail(column)].long[long(column) > 24].longer[long(column) > 40] scope="col" title=(column.quantity) { (column_head(column)) }
                        }
                    }
                }
                tbody {
                    @for trial in &results.trials {
                        (row(study, trial, &columns, &constant_axis, &constant_column, &precisions))
                    }
                }
            }
        }
    })
}

/// Whether paper has no room for a column: numbers for one depth or batch size.
fn detail(column: &Column) -> bool {
    !column.quantity.at.is_empty()
}

fn row(
    study: &Study<'_>,
    trial: &Trial,
    columns: &[Column],
    axes_same: &[bool],
    columns_same: &[bool],
    precisions: &[Precision],
) -> Markup {
    html! {
        tr id={ "t-" (trial.id) } .gone[trial.status != Status::Done] {
            th scope="row" { a href={ "#c-" (trial.id) } { code { (trial.id) } } }
            td { @if trial.status == Status::Failed { a href={ "#f-" (trial.id) } { "failed" } } @else { (trial.status.as_str()) } }
            @for (axis, same) in study.results.axes.iter().zip(axes_same) {
                @let value = trial.axes.get(&axis.path);
                td.n.same[*same] { @if let Some(value) = value { (value) } }
            }
            td.n { @if let Some(seed) = trial.seed { (seed) } }
            @if study.sites.len() > 1 {
                td {
                    @for site in study.sites.iter().filter(|site| site.trials.iter().any(|(t, _)| std::ptr::eq(*t, trial))) {
                        a href={ "#o-" (site.letter) } { (site.letter) } " "
                    }
                    @if trial.origins.is_empty() && trial.status == Status::Done { "not recorded" }
                }
            }
            @for ((column, same), precision) in columns.iter().zip(columns_same).zip(precisions) {
                @match trial.value(&column.quantity) {
                    Some(value) => { td.n.same[*same].x[detail(column)] data-v=(value) { (precision.bare(&column.measure, value)) } }
                    None => { td.same[*same].x[detail(column)] data-v="" {} }
                }
            }
        }
    }
}

/// One line per configuration through its measures, each scaled to its own range.
fn parallel(study: &Study<'_>) -> Result<Markup> {
    let finished: Vec<&Configuration<'_>> = study.configurations.iter().filter(|c| c.done().next().is_some()).collect();
    // A line with gaps misleads: only what every finished configuration measured has a place.
    let everywhere = |column: &Column| finished.iter().all(|c| c.mean(&column.quantity).is_some());
    let coordinates: Vec<Column> = COORDINATES.into_iter().map(Column::plain).filter(everywhere).collect();
    let ranges: Vec<(f64, f64)> = coordinates
        .iter()
        .map(|column| {
            let means = study.configurations.iter().filter_map(|c| c.mean(&column.quantity)).map(|found| found.mean);
            means.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), mean| (low.min(mean), high.max(mean)))
        })
        .collect();
    let kept: Vec<usize> = (0..coordinates.len()).filter(|&place| ranges[place].1 > ranges[place].0).collect();
    if kept.len() < 3 {
        return Ok(html! {});
    }
    let mut series = Vec::new();
    for configuration in &study.configurations {
        let points: Vec<Point> = kept
            .iter()
            .enumerate()
            .filter_map(|(column, &place)| {
                let found = configuration.mean(&coordinates[place].quantity)?;
                let (low, high) = ranges[place];
                let note = format!(
                    "{}: {} {}",
                    configuration.label,
                    coordinates[place].label(),
                    format::value(&coordinates[place].measure, found.mean)
                );
                let link = Some(format!("t-{}", configuration.id()));
                let share = (found.mean - low) / (high - low);
                let y = if coordinates[place].measure.better == Better::Lower { 1.0 - share } else { share };
                Some(Point { x: column as f64, y, note, link, ..Point::default() })
            })
            .collect();
        if points.len() > 1 {
            series.push(Series { line: true, marks: true, ..configuration_series(study, configuration, points) });
        }
    }
    let short = |column: &Column| match column.measure.name.as_str() {
        "bits_per_image" => "bits".to_owned(),
        "recon_frechet" => "recon. F.".to_owned(),
        "sample_frechet" => "sample F.".to_owned(),
        "prior_bits_per_image" => "prior bits".to_owned(),
        "train_seconds" => "time".to_owned(),
        _ => column.label().replace("codebook ", ""),
    };
    let chart = Chart {
        id: "fig-parallel".to_owned(),
        title: "Parallel coordinates of all configurations".to_owned(),
        description: "Each line is a configuration; each measure runs from its worst value, 0, to its best, 1."
            .to_owned(),
        x: Scale::names("", kept.iter().map(|&place| short(&coordinates[place])).collect()),
        y: Scale::linear("from worst (0) to best (1)"),
        series,
        wide: true,
    };
    let list: Vec<String> = kept
        .iter()
        .map(|&place| {
            let (column, (low, high)) = (&coordinates[place], ranges[place]);
            let value = |end| format::value(&column.measure, end);
            let (worst, best) = if column.measure.better == Better::Lower { (high, low) } else { (low, high) };
            format!("{} {} to {}", column.label(), value(worst), value(best))
        })
        .collect();
    let caption = html! { "Every configuration through its measures, each from its worst value at the bottom to its best at the top: " (list.join("; ")) "." };
    figure(&chart, caption, configuration_key(study, &finished, Drawn::Both))
}

//! What several sections are made of: figures, keys, data tables, notes.

use maud::{Markup, PreEscaped, html};

use crate::chart::{Chart, Point, Series, draw, key};
use crate::error::Result;
use crate::format::{self, Precision};
use crate::main_table::{BOLD, is_best, precision};
use crate::measure::{Measure, Quantity};
use crate::stats::Estimate;
use crate::study::{Column, Configuration, Study, label, short};

/// Points of curves and rows of data tables; the files beside the page have all of them.
pub(super) const MOST_ROWS: usize = 60;

/// A drawn chart with its caption, its key and the data behind it.
pub(super) fn figure(chart: &Chart, caption: Markup, key: Markup) -> Result<Markup> {
    let drawing = draw(chart)?;
    Ok(html! {
        figure.wide[chart.wide] {
            @if chart.wide { div.scroll { (PreEscaped(drawing)) } } @else { (PreEscaped(drawing)) }
            (key)
            figcaption { (caption) }
            (data(chart))
        }
    })
}

/// The numbers of a chart, behind a fold.
fn data(chart: &Chart) -> Markup {
    let rows: Vec<(&Series, &Point)> =
        chart.series.iter().flat_map(|series| series.points.iter().map(move |point| (series, point))).collect();
    let every = rows.len().div_ceil(MOST_ROWS).max(1);
    let ranged = rows.iter().any(|(_, point)| point.range.is_some());
    let across = |x: f64| {
        // Series that share a name's place stand beside each other, a fraction off it.
        let name = chart.x.names.get(x.round().max(0.0) as usize);
        name.cloned().unwrap_or_else(|| format::number(x * chart.x.factor))
    };
    html! {
        details.data {
            summary { "Data" }
            div.scroll {
                table {
                    thead {
                        tr {
                            th { "series" }
                            th { (chart.x.label) }
                            th { (chart.y.label) }
                            @if ranged { th { "from" } th { "to" } }
                        }
                    }
                    tbody {
                        @for (series, point) in rows.iter().step_by(every) {
                            tr {
                                td { (series.name) }
                                td.n { (across(point.x)) }
                                td.n { (format::number(point.y * chart.y.factor)) }
                                @if ranged {
                                    @match point.range {
                                        Some((low, high)) => {
                                            td.n { (format::number(low * chart.y.factor)) }
                                            td.n { (format::number(high * chart.y.factor)) }
                                        }
                                        None => { td {} td {} }
                                    }
                                }
                            }
                        }
                    }
                }
            }
            @if every > 1 {
                p.note { "Every " (every) "th of " (rows.len()) " points; all of them are in " code { "curves.csv" } "." }
            }
        }
    }
}

/// What a chart draws of its series.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Drawn {
    /// Markers alone.
    Marks,
    /// Lines alone.
    Lines,
    /// Markers joined by lines.
    Both,
}

/// The key of a chart whose series are these configurations: colours for the first axis, shapes for the others, as far
/// as they differ.
pub(super) fn configuration_key(study: &Study<'_>, shown: &[&Configuration<'_>], drawn: Drawn) -> Markup {
    let axes = &study.results.axes;
    let (Some(&axis), Some(first)) = (study.varied.first(), study.varied_axis(0)) else { return html! {} };
    if shown.iter().any(|configuration| configuration.others > 0) {
        return by_label(study, shown, drawn);
    }
    let single = study.varied.len() < 2;
    let mark = |shape: usize| (drawn != Drawn::Lines).then_some(shape);
    let dash = |shape: usize| (drawn != Drawn::Marks).then_some(shape);
    let mut colours: Vec<(usize, String)> = Vec::new();
    let mut shapes: Vec<(usize, String)> = Vec::new();
    for configuration in shown {
        let (colour, shape) = study.style(configuration);
        if !colours.iter().any(|(other, _)| *other == colour) {
            colours.push((colour, configuration.key[axis].map_or("none".to_owned(), |value| short(first, value))));
        }
        if !single && !shapes.iter().any(|(other, _)| *other == shape) {
            shapes.push((shape, label(axes, &study.varied[1..], &configuration.key)));
        }
    }
    colours.sort_unstable();
    shapes.sort_unstable();
    html! {
        div.keys {
            ul.legend {
                li.what { (first.title()) }
                @for (colour, name) in &colours {
                    @let (shape, line) = if single { (mark(*colour), dash(*colour)) } else { (None, None) };
                    li { (PreEscaped(key(Some(*colour), shape, line))) (name) }
                }
            }
            @if shapes.len() > 1 {
                ul.legend {
                    @for (shape, name) in &shapes {
                        li { (PreEscaped(key(None, mark(*shape), dash(*shape)))) (name) }
                    }
                }
            }
        }
    }
}

/// The key where a configuration stands for others that differ from it in an axis: an entry for each.
fn by_label(study: &Study<'_>, shown: &[&Configuration<'_>], drawn: Drawn) -> Markup {
    html! {
        ul.legend {
            @for configuration in shown {
                @let (colour, shape) = study.style(configuration);
                @let (mark, dash) = ((drawn != Drawn::Lines).then_some(shape), (drawn != Drawn::Marks).then_some(shape));
                li { (PreEscaped(key(Some(colour), mark, dash))) (configuration.label) }
            }
        }
    }
}

/// The configurations that have a value of a quantity.
pub(super) fn having<'a, 'b>(study: &'a Study<'b>, of: &Quantity) -> Vec<&'a Configuration<'b>> {
    study.configurations.iter().filter(|configuration| !configuration.values(of).is_empty()).collect()
}

/// The key of a chart with a name for each series.
pub(super) fn series_key(series: &[Series]) -> Markup {
    html! {
        ul.legend {
            @for one in series {
                li { (PreEscaped(key(one.colour, one.marks.then_some(one.shape), one.line.then_some(one.dash)))) (one.name) }
            }
        }
    }
}

/// A series of a configuration, in its colour, marker and dash.
pub(super) fn configuration_series(study: &Study<'_>, configuration: &Configuration<'_>, points: Vec<Point>) -> Series {
    let (colour, shape) = study.style(configuration);
    Series { name: configuration.label.clone(), colour: Some(colour), shape, dash: shape, points, ..Series::default() }
}

/// A point for each configuration that has both quantities, a series each.
pub(super) fn scatter(study: &Study<'_>, x: &Column, y: &Column) -> Vec<Series> {
    study
        .configurations
        .iter()
        .filter_map(|configuration| {
            let point = configuration_point(configuration, x, y)?;
            Some(Series { marks: true, ..configuration_series(study, configuration, vec![point]) })
        })
        .collect()
}

/// Lines over the places of a chart, such as batch sizes or attributes: for each configuration those of `lines`, each with what
/// it is called beside the configuration and its dash. `quantity` says what a line shows at a place. With the configurations that
/// have any.
pub(super) fn lines_over<'a, 'b, L, P>(
    study: &'a Study<'b>,
    lines: &[(L, &str, usize)],
    places: &[P],
    quantity: impl Fn(&L, &P) -> Quantity,
) -> (Vec<Series>, Vec<&'a Configuration<'b>>) {
    let (mut series, mut shown): (Vec<Series>, Vec<&Configuration<'_>>) = (Vec::new(), Vec::new());
    for configuration in &study.configurations {
        for (line, words, dash) in lines {
            let point = |(x, place): (usize, &P)| {
                let column = Column::of(quantity(line, place));
                let found = configuration.mean(&column.quantity)?;
                let value = format::value(&column.measure, found.mean);
                let note = format!("{}, {}: {value}", configuration.label, column.label());
                Some(Point { x: x as f64, y: found.mean, note, ..Point::default() })
            };
            let points: Vec<Point> = places.iter().enumerate().filter_map(point).collect();
            if !points.is_empty() {
                let mut one = configuration_series(study, configuration, points);
                one.name.push_str(words);
                (one.dash, one.line, one.marks) = (*dash, true, true);
                series.push(one);
                shown.push(configuration);
            }
        }
    }
    (series, shown)
}

/// A point of a configuration: the means of two quantities, the interval of the second one, and a link to its trial.
fn configuration_point(configuration: &Configuration<'_>, x: &Column, y: &Column) -> Option<Point> {
    let (across, up) = (configuration.mean(&x.quantity)?, configuration.mean(&y.quantity)?);
    Some(Point {
        x: across.mean,
        y: up.mean,
        range: up.interval,
        seeds: Some(configuration.values(&y.quantity)).filter(|values| values.len() > 1).unwrap_or_default(),
        note: format!(
            "{}: {} {}, {} {}",
            configuration.label,
            x.label(),
            format::value(&x.measure, across.mean),
            y.label(),
            with_unit(&y.measure, &up)
        ),
        link: Some(format!("t-{}", configuration.id())),
    })
}

/// An estimate with its unit.
pub(super) fn with_unit(measure: &Measure, estimate: &Estimate) -> String {
    let text = format::estimate(measure, estimate);
    match measure.unit {
        "" | "s" | "codes" => text,
        "%" => format!("{text}%"),
        unit => format!("{text} {unit}"),
    }
}

/// A table of configurations against measures, means with intervals over seeds.
pub(super) fn measures_table(study: &Study<'_>, columns: &[Column], caption: &str) -> Markup {
    let rows: Vec<&Configuration<'_>> = study
        .configurations
        .iter()
        .filter(|c| columns.iter().any(|column| !c.values(&column.quantity).is_empty()))
        .collect();
    let precisions: Vec<Precision> = columns.iter().map(|column| precision(study, column)).collect();
    let bold = rows.iter().any(|row| columns.iter().any(|column| is_best(study, column, row)));
    html! {
        div.scroll {
            table.measures {
                caption { (caption) }
                thead {
                    tr {
                        th scope="col" { "configuration" }
                        @for column in columns {
                            th.long[long(column) > 24].longer[long(column) > 40] scope="col" title=(column.quantity) { (column_head(column)) }
                        }
                        th scope="col" { "seeds" }
                    }
                }
                tbody {
                    @for configuration in rows {
                        tr {
                            th scope="row" { a href={ "#t-" (configuration.id()) } { (configuration.label) } }
                            @for (column, precision) in columns.iter().zip(&precisions) {
                                @let found = configuration.mean(&column.quantity);
                                td.n.best[is_best(study, column, configuration)] {
                                    @if let Some(found) = found {
                                        (unsound(study, configuration, &column.measure)) (plus_minus(&column.measure, &found, *precision))
                                    }
                                }
                            }
                            td.n { (configuration.done().count()) }
                        }
                    }
                }
            }
        }
        @if bold { p.note { (BOLD) } }
    }
}

/// A mark with its reason beside a value that no verdict may be drawn from.
pub(super) fn unsound(study: &Study<'_>, configuration: &Configuration<'_>, measure: &Measure) -> Markup {
    html! {
        @if let Some(title) = study.unsound(configuration, measure) {
            a.fault href="#warnings" title=(title) aria-label=(title) { "⚠\u{fe0e}" } "\u{a0}"
        }
    }
}

/// A mean with its interval set small.
pub(super) fn plus_minus(measure: &Measure, found: &Estimate, precision: Precision) -> Markup {
    // Times vary with the machine's other work: an interval over two seeds would promise too much.
    if measure.is_timing() {
        return html! { (precision.bare(measure, found.mean)) };
    }
    let text = precision.estimate(measure, found);
    html! {
        @match text.split_once(" ± ") {
            Some((mean, half)) => { (mean) span.pm { " ± " (half) } }
            None => { (text) }
        }
    }
}

/// How long a head is: of a long one the column is wider, so that the head is not higher than the others.
pub(super) fn long(column: &Column) -> usize {
    column.label().chars().count()
}

/// A column's head: label, and the unit below it.
pub(super) fn column_head(column: &Column) -> Markup {
    html! {
        (column.label())
        @match column.measure.unit {
            "" | "codes" => {}
            // Each time says whether it is seconds or minutes and seconds.
            "s" => {}
            unit => { span.unit { (unit) } }
        }
    }
}

/// What is to be said of times, speeds and memory where several machines took them.
pub(super) fn machines(study: &Study<'_>) -> Markup {
    html! {
        @if study.sites.len() > 1 {
            p.note {
                "The trials were computed on different machines or by different programs (" a href="#origins" { "section 13" }
                "): times, speeds and memory compare only between trials of one."
            }
        }
    }
}

/// A line in which `words between backticks` are code, as they are in plain text. A backtick without its second one stays.
pub(super) fn with_code(line: &str) -> Markup {
    let pieces: Vec<&str> = line.split('`').collect();
    if pieces.len().is_multiple_of(2) {
        return html! { (line) };
    }
    html! { @for (n, piece) in pieces.iter().enumerate() { @if n % 2 == 1 { code { (piece) } } @else { (piece) } } }
}

/// A sentence in place of a section's figures.
pub(super) fn nothing(text: &str) -> Markup {
    html! { p.nothing { (text) } }
}

/// A text as part of an identifier.
pub(super) fn identifier(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect()
}

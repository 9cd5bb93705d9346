//! Section 2: two axes against each other, the headline measure in each cell.

use maud::{Markup, html};

use super::parts::{nothing, plus_minus, unsound};
use crate::format;
use crate::main_table::{MainTable, precision};
use crate::measure::Better;
use crate::results::{Status, Value};
use crate::study::{Configuration, Study, label, short};
use crate::viridis;

/// Section 2.
pub(super) fn matrix(study: &Study<'_>) -> Markup {
    if study.configurations.is_empty() {
        return nothing("The experiment has no trials.");
    }
    let (rows, columns) = (study.varied.first().copied(), study.varied.get(1).copied());
    let others: Vec<usize> = study.varied.iter().skip(2).copied().collect();
    let mut panels: Vec<(Vec<Option<&Value>>, Vec<&Configuration<'_>>)> = Vec::new();
    for configuration in &study.configurations {
        let rest: Vec<Option<&Value>> = others.iter().map(|&axis| configuration.key[axis]).collect();
        match panels.iter_mut().find(|panel| panel.0 == rest) {
            Some(panel) => panel.1.push(configuration),
            None => panels.push((rest, vec![configuration])),
        }
    }
    let means = study.configurations.iter().filter_map(|c| c.mean(&study.headline.quantity)).map(|found| found.mean);
    let range = means.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), mean| (low.min(mean), high.max(mean)));
    let found = || study.configurations.iter().filter_map(|c| c.mean(&study.headline.quantity));
    let intervals = found().any(|found| found.interval.is_some()) && !study.headline.measure.is_timing();
    let marked = study.configurations.iter().any(|c| study.unsound(c, &study.headline.measure).is_some());
    let direction = match study.headline.measure.better {
        Better::Higher => "higher is better",
        Better::Lower => "lower is better",
        Better::Neither => "neither way is better",
    };
    html! {
        p {
            (format::capitalized(&study.headline.axis_label())) ", " (direction)
            ": mean over seeds" @if intervals { ", ± half of the 95% interval" } ". Each cell leads to its trials. The colour bar runs \
             from the lowest value to the highest."
            @if marked { " No verdict may be drawn from a value beside ⚠\u{fe0e}, by a " a href="#warnings" { "warning" } "." }
        }
        div.panels {
            @for (_, configurations) in &panels {
                (panel(study, configurations, rows, columns, &others, range))
            }
        }
        @if let Some(table) = MainTable::of(study) { (main_table(&table)) }
    }
}

/// Each configuration against the baseline.
fn main_table(table: &MainTable) -> Markup {
    html! {
        div.scroll {
            table.measures {
                caption { (table.caption) " For papers: " code { "tables/main.tex" } " and " code { "tables/main.md" } "." }
                thead {
                    tr {
                        th scope="col" { "configuration" }
                        @for (label, unit) in &table.columns { th scope="col" { (label) @if !unit.is_empty() { span.unit { (unit) } } } }
                    }
                }
                tbody {
                    @for row in &table.rows {
                        tr {
                            th scope="row" {
                                a href={ "#t-" (row.id) } { (row.label) }
                                @if row.is_baseline { span.unit { "baseline" } }
                            }
                            @for cell in &row.cells {
                                td.n {
                                    @if let Some(cell) = cell {
                                        @if let Some(fault) = cell.fault {
                                            a.fault href="#warnings" title=(fault) aria-label=(fault) { "⚠\u{fe0e}" } "\u{a0}"
                                        }
                                        span.best[cell.is_best] { (cell.value) }
                                        @if let Some(difference) = &cell.difference { span.unit { (difference) } }
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

fn panel(
    study: &Study<'_>,
    configurations: &[&Configuration<'_>],
    rows: Option<usize>,
    columns: Option<usize>,
    others: &[usize],
    range: (f64, f64),
) -> Markup {
    let axes = &study.results.axes;
    let values = |axis: Option<usize>| -> Vec<Option<&Value>> {
        let Some(axis) = axis else { return vec![None] };
        let mut values: Vec<Option<&Value>> = axes[axis]
            .values
            .iter()
            .map(Some)
            .filter(|value| configurations.iter().any(|c| c.key[axis] == *value))
            .collect();
        // A component without this axis has no value of it.
        if configurations.iter().any(|c| c.key[axis].is_none()) {
            values.push(None);
        }
        values
    };
    let at = |axis: Option<usize>, c: &Configuration<'_>, value: Option<&Value>| {
        axis.is_none_or(|axis| c.key[axis] == value)
    };
    let name = |axis: Option<usize>, value: Option<&Value>| match (axis, value) {
        (Some(axis), Some(value)) => short(&axes[axis], value),
        _ => "–".to_owned(),
    };
    let title = |axis: Option<usize>| axis.map_or(String::new(), |axis| axes[axis].title().to_owned());
    let (down, across) = (values(rows), values(columns));
    html! {
        div.scroll {
            table.matrix {
                @if !others.is_empty() {
                    caption { @if let Some(first) = configurations.first() { (label(axes, others, &first.key)) } }
                }
                thead {
                    @if columns.is_some() {
                        tr { td {} th scope="colgroup" colspan=(across.len()) { (title(columns)) } }
                    }
                    tr {
                        th scope="col" { (title(rows)) }
                        @for value in &across { th scope="col" { @if columns.is_some() { (name(columns, *value)) } @else { (study.headline.label()) } } }
                    }
                }
                tbody {
                    @for row in &down {
                        tr {
                            th scope="row" { (name(rows, *row)) }
                            @for column in &across {
                                @match configurations.iter().find(|c| at(rows, c, *row) && at(columns, c, *column)) {
                                    Some(configuration) => { (cell(study, configuration, range)) }
                                    None => { td.out title="not part of the experiment" { "·" } }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn cell(study: &Study<'_>, configuration: &Configuration<'_>, (low, high): (f64, f64)) -> Markup {
    let headline = &study.headline;
    let found = configuration.mean(&headline.quantity);
    let share = found.map(|found| if high > low { (found.mean - low) / (high - low) } else { 0.5 });
    let unfinished: Vec<_> = configuration.trials.iter().filter(|trial| trial.status != Status::Done).collect();
    html! {
        td {
            @if let Some(share) = share {
                span.bar aria-hidden="true" style={ "background:" (viridis::css(share)) } {}
            }
            (unsound(study, configuration, &headline.measure))
            a href={ "#t-" (configuration.id()) } {
                @match &found {
                    Some(found) => { (plus_minus(&headline.measure, found, precision(study, headline))) }
                    None => { span.gone { "no value" } }
                }
            }
            @for trial in unfinished {
                " " a.gone href={ "#t-" (trial.id) } {
                    (trial.status.as_str()) @if let Some(seed) = trial.seed { ": seed " (seed) }
                }
            }
        }
    }
}

//! Section 4: what each axis does by itself, and what two do together.

use maud::{Markup, html};

use super::parts::{figure, identifier, nothing, series_key};
use crate::chart::{Chart, Point, Scale, Series};
use crate::error::Result;
use crate::format;
use crate::judge::{Effect, Interaction, effect, interaction};
use crate::study::{Column, Study, short};

/// Section 4.
pub(super) fn effects(study: &Study<'_>) -> Result<Markup> {
    if study.varied.is_empty() {
        return Ok(nothing("The experiment varies no axis."));
    }
    let mut figures = Vec::new();
    let (mut without, mut idle) = (Vec::new(), Vec::new());
    let found: Vec<(usize, Option<Effect<'_>>)> =
        study.varied.iter().map(|&place| (place, effect(study, place))).collect();
    for (place, found) in &found {
        match found {
            // Of an axis that cannot change the headline, such as a prior's and PSNR.
            Some(found) if found.levels.windows(2).all(|pair| pair[0].mean == pair[1].mean) => {
                idle.push(found.axis.title())
            }
            // Two points of the only axis are its verdict.
            Some(found) if study.varied.len() == 1 && found.levels.len() < 3 => {}
            Some(found) => figures.push(main_effect(study, found)?),
            None => without.push(study.results.axes[*place].title()),
        }
    }
    if let [lines, across, ..] = study.varied[..] {
        figures.push(together(study, &interaction(study, across, lines))?);
    }
    if figures.is_empty() && without.is_empty() && idle.is_empty() {
        return Ok(nothing("One axis of two values was varied: its effect is the verdict on it."));
    }
    Ok(html! {
        div.figures { @for figure in figures { (figure) } }
        @if !idle.is_empty() {
            p.note { (format::capitalized(&study.headline.label())) " is the same at every value of " (idle.join(" and of ")) ": not drawn." }
        }
        @if !without.is_empty() {
            p.note {
                "No main effect of " (without.join(" or ")) ": no combination of the other axes finished with every value, \
                 so that a mean would compare unlike trials."
            }
        }
    })
}

fn seeds_in_words(seeds: usize) -> String {
    if seeds == 1 { "one seed".to_owned() } else { format!("{seeds} seeds") }
}

fn scale(headline: &Column) -> Scale {
    Scale { factor: format::scale(&headline.measure), ..Scale::linear(headline.axis_label()) }
}

fn names(axis: &crate::results::Axis) -> Scale {
    Scale::names(axis.title(), axis.values.iter().map(|value| short(axis, value)).collect())
}

fn main_effect(study: &Study<'_>, effect: &Effect<'_>) -> Result<Markup> {
    let headline = &study.headline;
    let points = effect.levels.iter().enumerate().map(|(place, level)| Point {
        x: place as f64,
        y: level.mean,
        range: level.interval,
        seeds: Vec::new(),
        note: format!(
            "{} {}: {} {}",
            effect.axis.title(),
            short(effect.axis, &effect.axis.values[place]),
            headline.label(),
            format::estimate(&headline.measure, level)
        ),
        link: None,
    });
    let series = Series {
        name: effect.axis.title().to_owned(),
        line: true,
        marks: true,
        points: points.collect(),
        ..Series::default()
    };
    let seeds = effect.levels.first().map_or(0, |level| level.n);
    let bars = effect.levels.iter().any(|level| level.interval.is_some());
    let chart = Chart {
        id: format!("fig-effect-{}", identifier(&effect.axis.path)),
        title: format!("Main effect of {} on {}", effect.axis.title(), headline.label()),
        description: format!(
            "Mean {} at each value, over {} combinations of the other axes.",
            headline.label(),
            effect.blocks
        ),
        x: names(effect.axis),
        y: scale(headline),
        series: vec![series],
        wide: false,
    };
    let caption = html! {
        "Main effect of " (effect.axis.title())
        @if effect.blocks > 1 { ", averaged over " (effect.blocks) " complete combinations of the other axes" }
        ". "
        @if bars { "Bars: 95% intervals of the deviation from the mean of a seed, " (seeds) " seeds." }
        @else { (format::capitalized(&seeds_in_words(seeds))) ": no interval." }
    };
    figure(&chart, caption, html! {})
}

fn together(study: &Study<'_>, found: &Interaction<'_>) -> Result<Markup> {
    let headline = &study.headline;
    let count = found.lines.values.len() as f64;
    let series: Vec<Series> = found
        .cells
        .iter()
        .enumerate()
        .map(|(line, cells)| {
            // Lines stand a little beside each other, or their bars would cover one another.
            let shift = (line as f64 - (count - 1.0) / 2.0) * (0.36 / count);
            let points = cells.iter().enumerate().filter_map(|(place, cell)| {
                let cell = cell.as_ref()?;
                let note = format!(
                    "{} {}, {} {}: {}",
                    found.across.title(),
                    short(found.across, &found.across.values[place]),
                    found.lines.title(),
                    short(found.lines, &found.lines.values[line]),
                    format::estimate(&headline.measure, cell)
                );
                Some(Point {
                    x: place as f64 + shift,
                    y: cell.mean,
                    range: cell.interval,
                    seeds: Vec::new(),
                    note,
                    link: None,
                })
            });
            Series {
                name: format!("{} {}", found.lines.title(), short(found.lines, &found.lines.values[line])),
                colour: Some(line),
                shape: line,
                dash: line,
                line: true,
                marks: true,
                points: points.collect(),
                ..Series::default()
            }
        })
        .collect();
    let key = series_key(&series);
    let chart = Chart {
        id: "fig-interaction".to_owned(),
        title: format!("Interaction of {} and {}", found.across.title(), found.lines.title()),
        description: format!(
            "{} against {}, one line for each value of {}; parallel lines mean no interaction.",
            headline.label(),
            found.across.title(),
            found.lines.title()
        ),
        x: names(found.across),
        y: scale(headline),
        series,
        wide: false,
    };
    let caption = html! {
        (format::capitalized(found.across.title())) " × " (found.lines.title()) ": parallel lines would mean that the effects add up. "
        @if let (Some(contrast), [first, .., last]) = (&found.contrast, &found.lines.values[..]) {
            "The effect of " (found.across.title()) " at " (found.lines.title()) " " (short(found.lines, last)) " differs from that at " (short(found.lines, first))
            " by " (format::difference(&headline.measure, contrast))
            @if contrast.interval.is_some() {
                ", 95% CI " (format::interval(&headline.measure, contrast)) ", " (contrast.n) " seeds."
            } @else { "; no interval: " (seeds_in_words(contrast.n)) "." }
        }
    };
    figure(&chart, caption, key)
}

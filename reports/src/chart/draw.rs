//! Draws a chart.

use std::fmt::Display;

use plotters::coord::Shift;
use plotters::prelude::{Circle, DrawingArea, IntoDrawingArea, PathElement, Polygon, SVGBackend, Text};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, IntoFont, RGBAColor, ShapeStyle, TextStyle};

use super::marker::outline;
use super::sentinel::{Role, resolve};
use super::{COLOURS, Chart, Scale, Series};
use crate::error::{Error, Result};

/// plotters rounds to whole pixels, so it draws on a finer grid than the page shows.
pub(super) const FINE: f64 = 4.0;
const HEIGHT: f64 = 300.0;
/// Radius of the dot of one seed.
const SEED: f64 = 2.2;
const TOP: f64 = 30.0;
const RIGHT: f64 = 14.0;
const BOTTOM: f64 = 44.0;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// The chart as an `svg` element with its title and description.
///
/// # Errors
/// If plotters cannot draw it.
pub(crate) fn draw(chart: &Chart) -> Result<String> {
    let width = if chart.wide { 860.0 } else { 440.0 };
    let mut svg = String::new();
    {
        let area =
            SVGBackend::with_string(&mut svg, ((width * FINE) as u32, (HEIGHT * FINE) as u32)).into_drawing_area();
        let pen = Pen { area, figure: &chart.id };
        let frame = Frame::new(chart, width);
        pen.scales(chart, &frame)?;
        for series in &chart.series {
            pen.ranges(series, chart, &frame)?;
        }
        for series in &chart.series {
            pen.series(series, chart, &frame)?;
        }
        pen.done(pen.area.present())?;
    }
    let body = svg.split_once('>').map_or("", |(_, body)| body);
    let body = resolve(body);
    let body = body.trim_end().trim_end_matches("</svg>");
    let targets = targets(chart, width);
    Ok(format!("{}{body}{targets}</svg>", opening(&chart.id, &chart.title, &chart.description, width, HEIGHT)))
}

/// The opening tag of a figure's drawing, with its title and description.
pub(super) fn opening(id: &str, title: &str, description: &str, width: f64, height: f64) -> String {
    let (title, description) = (escape(title), escape(description));
    format!(
        "<svg id=\"{id}\" class=\"chart\" viewBox=\"0 0 {} {}\" role=\"img\" aria-labelledby=\"{id}-t {id}-d\">\
         <title id=\"{id}-t\">{title}</title><desc id=\"{id}-d\">{description}</desc>",
        width * FINE,
        height * FINE,
    )
}

/// Text in an element or in a quoted attribute.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Where the scales lie on the drawing.
struct Frame {
    x: (f64, f64),
    y: (f64, f64),
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
}

impl Frame {
    fn new(chart: &Chart, width: f64) -> Self {
        let points = || chart.series.iter().flat_map(|series| &series.points);
        let x = chart.x.range(points().map(|point| point.x));
        let ends = points().flat_map(|point| {
            let (low, high) = point.range.unwrap_or((point.y, point.y));
            [point.y, low, high].into_iter().chain(point.seeds.iter().copied())
        });
        let y = chart.y.range(ends);
        let longest = chart.y.ticks(y).iter().map(|(_, text)| text.chars().count()).max().unwrap_or(1);
        let left = (18.0 + 7.0 * longest as f64).min(120.0);
        // Names of columns may speak for themselves.
        let bottom = HEIGHT - if chart.x.label.is_empty() { BOTTOM - 18.0 } else { BOTTOM };
        Self { x, y, left, right: width - RIGHT, top: TOP, bottom }
    }

    fn across(&self, place: f64) -> f64 {
        self.left + (place - self.x.0) / (self.x.1 - self.x.0) * (self.right - self.left)
    }

    fn down(&self, place: f64) -> f64 {
        self.bottom - (place - self.y.0) / (self.y.1 - self.y.0) * (self.bottom - self.top)
    }

    fn spot(&self, chart: &Chart, x: f64, y: f64) -> Option<(f64, f64)> {
        Some((self.across(chart.x.place(x)?), self.down(chart.y.place(y)?)))
    }

    /// As [`Frame::spot`], but what has no place on a log scale, zero and less, lies at the bottom.
    fn spot_or_bottom(&self, chart: &Chart, x: f64, y: f64) -> Option<(f64, f64)> {
        let (across, down) = (self.across(chart.x.place(x)?), chart.y.place(y).map(|place| self.down(place)));
        Some((across, down.map_or(self.bottom, |down| down.min(self.bottom))))
    }
}

fn fine((x, y): (f64, f64)) -> (i32, i32) {
    ((x * FINE).round() as i32, (y * FINE).round() as i32)
}

fn role(series: &Series) -> Role {
    let dash = series.dash % COLOURS;
    series.colour.map_or(Role::Ink(dash), |colour| Role::Series(colour % COLOURS, dash))
}

fn stroke(colour: RGBAColor, width: f64) -> ShapeStyle {
    ShapeStyle { color: colour, filled: false, stroke_width: (width * FINE).round() as u32 }
}

struct Pen<'a> {
    area: Area<'a>,
    figure: &'a str,
}

impl Pen<'_> {
    fn done<T, E: Display>(&self, drawn: std::result::Result<T, E>) -> Result<T> {
        drawn.map_err(|error| Error::Figure { figure: self.figure.to_owned(), message: error.to_string() })
    }

    fn line(&self, points: Vec<(f64, f64)>, style: ShapeStyle) -> Result<()> {
        let points: Vec<(i32, i32)> = points.into_iter().map(fine).collect();
        self.done(self.area.draw(&PathElement::new(points, style)))
    }

    fn text(&self, text: &str, at: (f64, f64), role: Role, across: HPos, down: VPos) -> Result<()> {
        // plotters divides the size by 1.24 on its way to the file.
        let font = ("sans-serif", 12.0 * FINE * 1.24).into_font().color(&role.colour());
        let style: TextStyle<'_> = font.pos(Pos::new(across, down));
        self.done(self.area.draw(&Text::new(text.to_owned(), fine(at), style)))
    }

    fn scales(&self, chart: &Chart, frame: &Frame) -> Result<()> {
        let grid = stroke(Role::Grid.colour().to_rgba(), 1.0);
        for (place, text) in chart.y.ticks(frame.y) {
            let y = frame.down(place);
            self.line(vec![(frame.left, y), (frame.right, y)], grid)?;
            self.text(&text, (frame.left - 7.0, y), Role::Text, HPos::Right, VPos::Center)?;
        }
        let ticks = chart.x.ticks(frame.x);
        let shown = readable(&ticks, &chart.x, (frame.right - frame.left) / 7.0);
        for (place, text) in &ticks {
            let x = frame.across(*place);
            self.line(vec![(x, frame.bottom), (x, frame.bottom + 4.0)], stroke(Role::Frame.colour().to_rgba(), 1.0))?;
            if shown.contains(text) {
                let text = &shortened(text, &chart.x, (frame.right - frame.left) / 7.0);
                self.text(text, (x, frame.bottom + 8.0), Role::Text, HPos::Center, VPos::Top)?;
            }
        }
        let frame_line = stroke(Role::Frame.colour().to_rgba(), 1.0);
        self.line(vec![(frame.left, frame.bottom), (frame.right, frame.bottom)], frame_line)?;
        self.text(&chart.y.label, (4.0, 4.0), Role::Title, HPos::Left, VPos::Top)?;
        let middle = 0.5 * (frame.left + frame.right);
        self.text(&chart.x.label, (middle, HEIGHT - 18.0), Role::Title, HPos::Center, VPos::Top)
    }

    fn ranges(&self, series: &Series, chart: &Chart, frame: &Frame) -> Result<()> {
        let colour = role(series).colour();
        if series.band {
            let (mut above, mut below) = (Vec::new(), Vec::new());
            for point in &series.points {
                let Some((low, high)) = point.range else { continue };
                let spots = (frame.spot(chart, point.x, high), frame.spot_or_bottom(chart, point.x, low));
                if let (Some(high), Some(low)) = spots {
                    above.push(fine(high));
                    below.push(fine(low));
                }
            }
            if above.len() > 1 {
                above.extend(below.into_iter().rev());
                self.done(self.area.draw(&Polygon::new(above, colour.mix(0.16).filled())))?;
            }
            return Ok(());
        }
        for point in &series.points {
            for seed in &point.seeds {
                if let Some(spot) = frame.spot(chart, point.x, *seed) {
                    let dot = Circle::new(fine(spot), (SEED * FINE) as i32, colour.mix(0.6).filled());
                    self.done(self.area.draw(&dot))?;
                }
            }
            let Some((low, high)) = point.range else { continue };
            let ends = (frame.spot_or_bottom(chart, point.x, low), frame.spot(chart, point.x, high));
            let (Some((x, low)), Some((_, high))) = ends else { continue };
            let thin = stroke(Role::colour(undashed(role(series))).to_rgba(), 1.25);
            self.line(vec![(x, low), (x, high)], thin)?;
            // An end without a cap goes on beyond the frame.
            let cut = chart.y.place(point.range.map_or(0.0, |(low, _)| low)).is_none();
            for y in [low, high].into_iter().skip(usize::from(cut)) {
                self.line(vec![(x - 3.5, y), (x + 3.5, y)], thin)?;
            }
        }
        Ok(())
    }

    fn series(&self, series: &Series, chart: &Chart, frame: &Frame) -> Result<()> {
        let colour = role(series).colour();
        let spots: Vec<(f64, f64)> =
            series.points.iter().filter_map(|point| frame.spot(chart, point.x, point.y)).collect();
        if series.line && spots.len() > 1 {
            self.line(spots.clone(), stroke(colour.to_rgba(), 1.75))?;
        }
        // A line of one point would not be seen.
        if series.marks || spots.len() == 1 {
            for spot in spots {
                match outline(series.shape, 4.4) {
                    None => {
                        self.done(self.area.draw(&Circle::new(fine(spot), (4.4 * FINE) as i32, colour.filled())))?
                    }
                    Some(points) => {
                        let points = points.iter().map(|(x, y)| fine((spot.0 + x, spot.1 + y))).collect::<Vec<_>>();
                        self.done(self.area.draw(&Polygon::new(points, colour.filled())))?;
                    }
                }
            }
        }
        Ok(())
    }
}

fn undashed(role: Role) -> Role {
    match role {
        Role::Ink(_) => Role::Ink(0),
        Role::Series(colour, _) => Role::Series(colour, 0),
        other => other,
    }
}

/// The ticks' names that fit in a row of so many letters: all, or each second, third, ….
fn readable(ticks: &[(f64, String)], scale: &Scale, letters: f64) -> Vec<String> {
    let longest = ticks.iter().map(|(_, text)| text.chars().count()).max().unwrap_or(0) as f64 + 1.5;
    let every = ((ticks.len() as f64 * longest / letters).ceil() as usize).max(1);
    // A name left out is a point without a name: names overlap sooner than they vanish.
    let every = if scale.names.is_empty() { every } else { 1 };
    ticks.iter().step_by(every).map(|(_, text)| text.clone()).collect()
}

/// A name cut to its share of a row of so many letters; the data table has it whole.
fn shortened(text: &str, scale: &Scale, letters: f64) -> String {
    let room = (letters / scale.names.len().max(1) as f64).max(4.0) as usize;
    if scale.names.is_empty() || text.chars().count() <= room {
        return text.to_owned();
    }
    text.chars().take(room - 1).chain(['…']).collect()
}

/// Invisible discs over the points, which tell their notes and lead to their trials.
fn targets(chart: &Chart, width: f64) -> String {
    let frame = Frame::new(chart, width);
    let mut out = String::new();
    for point in chart.series.iter().flat_map(|series| &series.points).filter(|point| !point.note.is_empty()) {
        let Some(spot) = frame.spot(chart, point.x, point.y) else { continue };
        let (x, y) = fine(spot);
        let disc = format!(
            "<circle cx=\"{x}\" cy=\"{y}\" r=\"{}\" fill=\"transparent\"><title>{}</title></circle>",
            (9.0 * FINE) as i32,
            escape(&point.note)
        );
        match &point.link {
            Some(link) => out.push_str(&format!("<a href=\"#{}\">{disc}</a>", escape(link))),
            None => out.push_str(&disc),
        }
    }
    out
}
